"""What a model keeps of the tokens that it has read: keys and values of attention, states of the mLSTM."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from companion.architectures import Architecture, Attention, Mixer
from companion.errors import InputError
from companion.kernels import MLSTMState


class KeysValues(NamedTuple):
    """Keys (B, n_kv_heads, S, d_qk) and values (B, n_kv_heads, S, d_hv) of one layer.

    Position p is in slot p mod S, so that a layer with a window of S tokens drops the oldest ones by itself.
    """

    keys: Tensor
    values: Tensor

    def add(self, k: Tensor, v: Tensor, positions: Tensor) -> None:
        """Keep new tokens at positions (T,); of more than S the last."""
        slots = self.keys.shape[2]
        places = positions[-slots:] % slots
        self.keys.index_copy_(2, places, k[:, :, -slots:])
        self.values.index_copy_(2, places, v[:, :, -slots:])

    def positions(self, length: Tensor) -> Tensor:
        """Positions (S,) in the slots after `length` () tokens; negative where a slot is empty."""
        slots = self.keys.shape[2]
        last = length - 1
        return last - (last - torch.arange(slots, device=self.keys.device)) % slots


@dataclass
class Memory:
    """What a model keeps of B sequences of `length` tokens, of at most `max_length`; one entry a layer.

    `position` () holds the length on the device, where a captured step counts it.
    """

    architecture: Architecture
    layers: list[KeysValues | MLSTMState]
    position: Tensor
    max_length: int
    batch_size: int
    length: int = 0

    @classmethod
    def empty(
        cls,
        architecture: Architecture,
        batch_size: int,
        max_length: int,
        *,
        dtype: torch.dtype = torch.bfloat16,
        state_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> "Memory":
        """Memory of no token. Keys and values are of `dtype`; states of `state_dtype`, by default float32 or finer.

        Examples
        --------
        >>> from companion.architectures import preset
        >>> memory = Memory.empty(preset("xlstm", "160m"), batch_size=1, max_length=1024)
        >>> memory.num_bytes
        4790016
        """
        if batch_size < 1 or max_length < 1:
            raise InputError(f"memory: batch_size {batch_size} and max_length {max_length} must be at least 1")
        state_dtype = state_dtype or torch.promote_types(dtype, torch.float32)

        def layer(mixer: Mixer) -> KeysValues | MLSTMState:
            if isinstance(mixer, Attention):
                slots = min(max_length, mixer.window or max_length)
                shape = (batch_size, int(mixer.n_kv_heads), int(slots))
                widths = (int(mixer.d_qk), int(mixer.d_hv))
                return KeysValues(*(torch.zeros(*shape, width, dtype=dtype, device=device) for width in widths))
            sizes = (int(mixer.n_heads), int(mixer.d_qk), int(mixer.d_hv))
            return MLSTMState.empty(batch_size, *sizes, dtype=state_dtype, device=device)

        layers = [layer(mixer) for mixer in mixers(architecture)]
        return cls(architecture, layers, torch.zeros((), dtype=torch.long, device=device), max_length, batch_size)

    @property
    def tensors(self) -> list[Tensor]:
        """Everything that is kept, layer by layer."""
        return [tensor for layer in self.layers for tensor in layer]

    @property
    def num_bytes(self) -> int:
        """Bytes of keys, values and states, empty slots included."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def copy(self) -> "Memory":
        """A copy that shares nothing: a prefix can be read once and continued many times."""
        layers = [type(layer)(*(tensor.clone() for tensor in layer)) for layer in self.layers]
        return replace(self, layers=layers, position=self.position.clone())

    def check(self, architecture: Architecture, tokens: Tensor, dtype: torch.dtype) -> None:
        """Raise an InputError unless `tokens` (B, T) can follow in a model of this architecture and dtype."""
        if architecture != self.architecture:
            raise InputError(f"memory: it is that of {self.architecture}, the model is {architecture}")
        if tokens.shape[0] != self.batch_size:
            raise InputError(f"memory: {tokens.shape[0]} sequences are given, it holds {self.batch_size}")
        kept = {layer.keys.dtype for layer in self.layers if isinstance(layer, KeysValues)} - {dtype}
        if kept:
            raise InputError(f"memory: its keys and values are {kept.pop()}, the model computes in {dtype}")
        if self.position.device != tokens.device:
            raise InputError(f"memory: it is on {self.position.device}, the tokens are on {tokens.device}")
        if self.length + tokens.shape[1] > self.max_length:
            raise InputError(
                f"memory: {self.length} tokens are kept and {tokens.shape[1]} are given, "
                f"which is beyond max_length {self.max_length}"
            )


def mixers(architecture: Architecture) -> list[Mixer]:
    """The mixer of every layer in order: with `attention_every` k, every k-th is attention (or sees all tokens)."""
    every = architecture.attention_every
    own, attention = architecture.mixer(), architecture.attention_mixer() if every else None
    numbers = range(1, int(architecture.n_layers) + 1)
    return [attention if attention is not None and number % int(every or 1) == 0 else own for number in numbers]
