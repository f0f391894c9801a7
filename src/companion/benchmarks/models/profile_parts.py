"""A pass of a model in parts, with a mark before each, forward and backward. Needs torch.

On a GPU a mark launches a kernel that does nothing, so that every kernel of a profile belongs to the mark before it, in
a CUDA graph too. On a CPU it notes the time. The parts of a block are compiled one by one: what a compiler would fuse
over their borders it does not.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.benchmarks.models import launches
from companion.kernels import MLSTMState, mlstm
from companion.models import LanguageModel, layers, model
from companion.models.layers import MLSTM, Attention, Place, rotary_angles
from companion.models.memory import KeysValues

#: Part of the name of the kernel that a mark launches.
MARK_KERNEL = "spin_kernel"


class Marks:
    """Names of components in the order in which they began, and on a CPU when.

    Attributes
    ----------
    enabled
        False: a mark does nothing.
    """

    def __init__(self, device: str) -> None:
        self.device, self.enabled = device, True
        self.names: list[str] = []
        self.times: list[float] = []

    def __call__(self, name: str) -> None:
        """From here on kernels belong to this component."""
        if not self.enabled:
            return
        self.names.append(name)
        if self.device == "cuda":
            torch.cuda._sleep(1)
        else:
            self.times.append(time.perf_counter())

    def clear(self) -> None:
        """Forget all marks."""
        self.names.clear()
        self.times.clear()


class _Border(torch.autograd.Function):
    """Between two components: tensors pass; a mark of the second on the way there, of the first on the way back."""

    @staticmethod
    def forward(ctx: Any, mark: Marks, before: str, after: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.mark, ctx.before = mark, before
        mark(after)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        ctx.mark(ctx.before)
        return None, None, None, *gradients


class Parts:
    """Blocks, and a whole model's loss, in parts.

    Parameters
    ----------
    mark
        called with the name of every component (`profile_counts.COMPONENTS`) before its kernels.
    """

    def __init__(self, mark: Marks) -> None:
        self.mark, self.last = mark, ""
        compiled: Callable[[Any], Any] = partial(torch.compile, fullgraph=True, backend=launches.COMPILER)
        if mark.device == "cpu":
            compiled = _as_it_is
        self.norm, self.add_norm = compiled(_norm), compiled(_add_norm)
        self.turned, self.gates = compiled(_turned), compiled(_gates)
        self.gated, self.activation = compiled(_gated), compiled(_activation)
        self.enter, self.cross_entropy = compiled(_enter), compiled(_cross_entropy)

    def start(self, name: str) -> None:
        """Kernels from here on are a component's; nothing is on the way back."""
        self.mark(name)
        self.last = name

    def to(self, name: str, *tensors: Tensor) -> Any:
        """The tensors, of which the last component made some and the named one reads all."""
        passed = _Border.apply(self.mark, self.last, name, *tensors)
        self.last = name
        return passed[0] if len(passed) == 1 else passed

    def block(
        self,
        block: Any,
        x: Tensor,
        branch: Tensor | None,
        place: Place,
        memory: KeysValues | MLSTMState | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A block: the residual stream without its last branch, and that branch."""
        x, y = self.normed(block.mixer_norm, x, branch)
        mixer = block.mixer
        h = self.attention(mixer, y, place, memory) if isinstance(mixer, Attention) else self.mlstm(mixer, y, memory)
        branch = mixer.out(self.to("out", h))
        if block.ffn is None or block.ffn_norm is None:
            return x, branch
        x, y = self.normed(block.ffn_norm, x, branch)
        both = block.ffn.gate_up(self.to("ffn_up", y))
        inner = self.activation(self.to("ffn_activation", both))
        return x, block.ffn.down(self.to("ffn_down", inner))

    def normed(self, norm: nn.Module, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """The residual stream with a branch added, if there is one, and its norm."""
        if branch is None:
            x = self.to("norms", x)
            return x, self.norm(norm, x)
        return self.add_norm(norm, x, self.to("norms", branch))

    def attention(self, layer: Attention, y: Tensor, place: Place, memory: Any) -> Tensor:
        """Attention up to its last product."""
        qkv = layer.qkv(self.to("qkv", y))
        q, k, v = self.turned(layer, self.to("heads", qkv), place)
        q, k, v = self.to("attention", q, k, v)
        if memory is not None:
            memory.add(k, v, place.positions)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=layer.grouped)
        return h.transpose(1, 2).flatten(-2)

    def mlstm(self, layer: MLSTM, y: Tensor, memory: Any) -> Tensor:
        """The mLSTM layer up to its last product."""
        y = self.to("qkv", y)
        q, k, v, gate, i, f = self.gates(layer, *self.to("heads", layer.qkvo(y), layer.gates(y)))
        q, k, v, i, f, gate = self.to("mlstm", q, k, v, i, f, gate)
        if memory is None:
            h = mlstm(q, k, v, i, f, normalizer_gradient=False)
        else:
            h, after = mlstm(q, k, v, i, f, return_state=True)
            for kept, new in zip(memory, after, strict=True):
                kept.copy_(new)
        return self.gated(layer, *self.to("output_gate", h, gate))

    def loss(self, whole: LanguageModel, tokens: Tensor) -> Tensor:
        """`LanguageModel.loss`."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:].flatten()
        positions = torch.arange(inputs.shape[1], device=tokens.device)
        self.start("embedding")
        angles = rotary_angles(positions, whole.rotary_width) if whole.rotary_width else None
        x, branch = self.enter(whole.embedding, inputs), None
        for block in whole.blocks:
            x, branch = self.block(block, x, branch, Place(positions, angles, True))
        _, y = self.normed(whole.norm, x, branch)
        logits = whole.unembedding(self.to("unembedding", y))
        return self.cross_entropy(self.to("loss", logits), targets)


def _as_it_is(function: Any) -> Any:
    return function


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x)


def _add_norm(norm: nn.Module, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
    x = x + branch
    return x, norm(x)


def _turned(layer: Attention, qkv: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:
    return layer._heads(qkv, place)


def _gates(layer: MLSTM, qkvo: Tensor, gates: Tensor) -> tuple[Tensor, ...]:
    return (*layer._split(qkvo), *layer._gates(gates))


def _gated(layer: MLSTM, h: Tensor, gate: Tensor) -> Tensor:
    return torch.sigmoid(gate) * layer.norm(h)


def _activation(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, dim=-1)
    return F.silu(gate) * up


def _enter(embedding: nn.Embedding, tokens: Tensor) -> Tensor:
    x = embedding(tokens)
    return x.to(torch.get_autocast_dtype(x.device.type)) if torch.is_autocast_enabled(x.device.type) else x


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1).float(), targets)


@contextmanager
def marked_steps(whole: LanguageModel, mark: Marks) -> Iterator[None]:
    """Within, the operators of a generated token mark the components that they are."""
    ends = {
        "qkv.weight": "qkv",
        "qkvo.weight": "qkv",
        "out.weight": "out",
        "gate_up.weight": "ffn_up",
        "down.weight": "ffn_down",
        "unembedding.weight": "unembedding",
    }
    weights = ((name, weight) for name, weight in whole.named_parameters(remove_duplicate=False))
    names = {id(weight): ends[end] for name, weight in weights for end in ends if name.endswith(end)}

    def product(x: Tensor, weight: Tensor, **more: Any) -> Any:
        mark(names[id(weight)])
        made = linear_step(x, weight, **more)
        if names[id(weight)] == "unembedding":
            mark("sampling")
        return made

    def named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            mark(name)
            return function(*arguments, **more)

        return call

    linear_step = layers.linear_step
    with (
        mock.patch.object(layers, "linear_step", product),
        mock.patch.object(model, "linear_step", product),
        mock.patch.object(layers, "attend_step", named("attention", layers.attend_step)),
        mock.patch.object(layers, "mlstm_step", named("mlstm", layers.mlstm_step)),
        mock.patch.object(layers, "gated_head_norm", named("output_gate", layers.gated_head_norm)),
    ):
        yield
