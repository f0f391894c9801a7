"""A residual language model from the shapes of its architecture."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from companion.architectures import MLSTM as MLSTMShapes
from companion.architectures import Architecture, Mixer
from companion.architectures import Attention as AttentionShapes
from companion.errors import InputError
from companion.kernels import MLSTMState
from companion.kernels.generation.api import linear_step
from companion.models.layers import MLSTM, Attention, Place, RMSNorm, SwiGLU, rotary_angles, soft_cap
from companion.models.memory import KeysValues, Memory, mixers

#: The layer of every mixer that can be built.
LAYERS: dict[type[Mixer], type[Attention] | type[MLSTM]] = {AttentionShapes: Attention, MLSTMShapes: MLSTM}
#: Biases at the start: input gates closed, forget gates of the heads spread from fast to slow (arXiv 2503.13427).
INPUT_GATE_BIAS, FORGET_GATE_BIASES = -10.0, (3.0, 6.0)


class Block(nn.Module):
    """x + mixer(norm(x)), then the same with the feed-forward network, if there is one."""

    def __init__(self, d_model: int, d_ff: int, mixer: Mixer) -> None:
        super().__init__()
        if type(mixer) not in LAYERS:
            raise InputError(f"models: no layer for the mixer {mixer.name!r}; there are attention and mlstm")
        self.mixer_norm = RMSNorm(d_model)
        self.mixer = LAYERS[type(mixer)](d_model, mixer)  # type: ignore[arg-type]
        self.ffn_norm = RMSNorm(d_model) if d_ff else None
        self.ffn = SwiGLU(d_model, d_ff) if d_ff else None

    def forward(self, x: Tensor, place: Place, memory: Any = None) -> Tensor:
        x = x + self.mixer(self.mixer_norm(x), place, memory)
        return x if self.ffn is None or self.ffn_norm is None else x + self.ffn(self.ffn_norm(x))

    def step(self, x: Tensor, place: Place, memory: Any) -> Tensor:
        """The same for one token a sequence, x (B, d): fewer kernels, since each waits for memory alone."""
        x = self.mixer.step(x, self.mixer_norm, place, memory)
        return x if self.ffn is None or self.ffn_norm is None else self.ffn.step(x, self.ffn_norm)


class LanguageModel(nn.Module):
    """Embedding, blocks, a last norm, and the unembedding.

    Attributes
    ----------
    architecture
        its shapes.
    recompute
        True keeps only the input of every block for the backward pass, which runs the block again (arXiv 1604.06174).
    """

    def __init__(self, architecture: Architecture, logit_cap: float | None = None) -> None:
        super().__init__()
        a = self.architecture = architecture
        width, vocab_size = int(a.d_model), int(a.vocab_size)
        self.logit_cap, self.recompute = logit_cap, False
        self.embedding = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(Block(width, int(a.d_ff), mixer) for mixer in mixers(a))
        self.rotary_width = next((mixer.d_qk for mixer in mixers(a) if isinstance(mixer, AttentionShapes)), 0)
        self.norm = RMSNorm(width)
        self.unembedding = nn.Linear(width, vocab_size, bias=False)
        if a.tied_embeddings:
            self.unembedding.weight = self.embedding.weight

    def forward(self, tokens: Tensor, memory: Memory | None = None, *, last: bool = False) -> Tensor:
        """Logits of the token after each of `tokens`.

        Parameters
        ----------
        tokens
            (B, T), whole numbers below `vocab_size`.
        memory
            of the tokens before; it then has these as well. None: there are none, and nothing is kept.
        last
            only the logits after the last token.

        Returns
        -------
        Tensor
            (B, T, V), or (B, 1, V) with `last`, in the dtype of the weights.

        Raises
        ------
        InputError
            if the tokens are no (B, T) whole numbers, or (looked up on the CPU only) outside of the vocabulary; if the
            memory is that of another model, batch, dtype or device, or is full.
        """
        if not torch.compiler.is_compiling():
            self._check(tokens)
        if memory is None:
            return self.run(tokens, None, None, True, last)
        memory.check(self.architecture, tokens, self.dtype)
        logits = self.run(tokens, memory.layers, memory.position, memory.length == 0, last)
        memory.length += tokens.shape[1]
        return logits

    @property
    def dtype(self) -> torch.dtype:
        """Of what passes through the blocks: that of the weights, or of autocast."""
        weight = self.unembedding.weight
        autocast = not weight.is_meta and torch.is_autocast_enabled(weight.device.type)
        return torch.get_autocast_dtype(weight.device.type) if autocast else weight.dtype

    def _check(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or tokens.dtype.is_floating_point or tokens.dtype == torch.bool:
            raise InputError(f"tokens: {tuple(tokens.shape)} of {tokens.dtype}; they are (B, T) whole numbers")
        if tokens.device.type == "cpu":
            check_tokens(self.architecture, tokens)

    def run(
        self,
        tokens: Tensor,
        kept: Sequence[KeysValues | MLSTMState] | None,
        position: Tensor | None,
        fresh: bool,
        last: bool,
    ) -> Tensor:
        """`forward` without checks: what torch.compile and a CUDA graph see. `position` () is moved on."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        if position is not None:
            positions = positions + position
        place = Place(positions, rotary_angles(positions, self.rotary_width) if self.rotary_width else None, fresh)
        x = self.embedding(tokens)
        x = x.to(self.dtype)  # under autocast the residual stream too: it is most of what a block moves
        if kept is not None and position is not None and tokens.shape[1] == 1 and not torch.is_grad_enabled():
            logits = self._step(x[:, 0], place, kept)[:, None]
        else:
            for number, block in enumerate(self.blocks):
                if kept is not None:
                    x = block(x, place, kept[number])
                elif self.recompute and torch.is_grad_enabled():
                    x = checkpoint(block, x, place, use_reentrant=False, preserve_rng_state=False)  # nothing is random
                else:
                    x = block(x, place)
            logits = self.unembedding(self.norm(x[:, -1:] if last else x))
        if position is not None:
            position += tokens.shape[1]
        return logits if self.logit_cap is None else soft_cap(logits, self.logit_cap)

    def _step(self, x: Tensor, place: Place, kept: Sequence[KeysValues | MLSTMState]) -> Tensor:
        """Logits (B, V) of one token a sequence, from its embedding (B, d)."""
        for block, memory in zip(self.blocks, kept, strict=True):
            assert isinstance(block, Block)
            x = block.step(x, place, memory)
        return linear_step(x, self.unembedding.weight, norm=self.norm.weight)[0]

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy of the next token, nats; of tokens (B, T + 1)."""
        logits = self(tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None = None) -> "LanguageModel":
        """Weights as xLSTM 7B starts (arXiv 2503.13427, its released code): normal, with standard deviations

        sqrt(2 / 5d) for all matrices but the last of each branch, which have 2 / (n_layers·sqrt(d)), so that the
        residual stream grows little with depth. Gates of the mLSTM start without weights: the biases alone decide.
        """
        d, n_layers = self.architecture.d_model, self.architecture.n_layers
        for name, parameter in self.named_parameters():
            if name.endswith("gates.weight"):
                parameter.zero_()
            elif name.endswith("gates.bias"):
                i, f = parameter.chunk(2)
                i.fill_(INPUT_GATE_BIAS)
                f.copy_(torch.linspace(*FORGET_GATE_BIASES, len(f)))
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                branch_end = name.endswith(("out.weight", "down.weight"))
                deviation = 2 / (n_layers * math.sqrt(d)) if branch_end else math.sqrt(2 / (5 * d))
                parameter.normal_(0.0, deviation, generator=generator)
        return self


def check_tokens(architecture: Architecture, tokens: Tensor) -> None:
    """Raise an InputError unless all tokens are in the vocabulary. Reads them from the device."""
    size = architecture.vocab_size
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
        raise InputError(f"tokens: {int(tokens.min())} to {int(tokens.max())}; the vocabulary has 0 to {size - 1}")


def build(
    architecture: Architecture,
    *,
    logit_cap: float | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LanguageModel:
    """A language model of an architecture, with fresh weights.

    Parameters
    ----------
    architecture
        a Transformer, an xLSTM, or a hybrid of both, as in the accounting.
    logit_cap
        a of a·tanh(x/a) for the logits; xLSTM 7B has 30.
    dtype, device
        of the weights; `meta` makes none, for counting.

    Raises
    ------
    InputError
        if a mixer has no layer, or the architecture holds arrays of shapes.

    Examples
    --------
    >>> from companion.architectures import make_architecture
    >>> model = build(make_architecture("xlstm", d_model=64, n_layers=2, n_heads=2, vocab_size=100))
    >>> model(torch.zeros(1, 5, dtype=torch.long)).shape
    torch.Size([1, 5, 100])
    """
    place = torch.device(device or "cpu")
    if np.ndim(architecture.n_layers + architecture.d_model * architecture.vocab_size):
        raise InputError("models: the architecture stands for several sizes at once; a model has one")
    with torch.device("meta"):  # shapes first: weights are drawn once, and where they stay
        model = LanguageModel(architecture, logit_cap).to(dtype or torch.get_default_dtype())
    if place.type == "meta":
        return model
    model.to_empty(device=place)
    if architecture.tied_embeddings:
        model.unembedding.weight = model.embedding.weight
    return model.initialize()
