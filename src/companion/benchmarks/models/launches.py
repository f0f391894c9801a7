"""Models with random weights, what is timed of them, and how it is launched: eagerly, compiled, as a CUDA graph.

Blocks are compiled one by one, all by the same compiled function and for any batch and any number of tokens: a model
compiles once for a batch of one and once for more, not once a cell.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental import _config as shape_config
from torch.nn.attention import SDPBackend, sdpa_kernel

from companion.architectures import Architecture, Attention
from companion.benchmarks.kernels.timing import graph_of
from companion.benchmarks.models.timed import peak_bytes, reset_peak, timing_of
from companion.kernels import MLSTMState
from companion.models import LanguageModel, Memory, build
from companion.models.memory import mixers
from companion.models.model import Block

#: Spread of the weights of norms and of biases: as published they start as constants, behind which a wrong kernel
#: could hide. Gates of the mLSTM get weights that spread them by 1: wider ones multiply the rounding of bfloat16 until
#: nothing else is left.
SPREAD = 0.1
#: Attention of torch that is tried for whole prompts, by the names of its backends.
ATTENTIONS = ("cudnn", "flash")
#: Tokens of the prompt that decides between them, and a number that both must take.
PROBE, ODD = 4096, 300
#: Slots that a memory has beyond the tokens of a cell, for the steps that are timed.
SPARE = 64
#: Backend of torch.compile; tests take one that generates no code.
COMPILER = "inductor"


def random_model(
    architecture: Architecture, device: str, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> LanguageModel:
    """A model with random weights, made on the device; weights that start as constants are spread by `SPREAD`."""
    torch.manual_seed(seed)
    model = build(architecture, dtype=dtype, device=device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gates.weight"):
                parameter.normal_(0.0, int(architecture.d_model) ** -0.5)
            elif parameter.ndim == 1:
                parameter.add_(SPREAD * torch.randn_like(parameter))
    return model.requires_grad_(False)


def random_tokens(architecture: Architecture, batch_size: int, length: int, device: str) -> Tensor:
    """Tokens (B, T), each as likely as any other."""
    return torch.randint(0, int(architecture.vocab_size), (batch_size, length), device=device)


class Prefill:
    """Reads a prompt into an empty memory and takes the likeliest next token, as a server does for its first token."""

    def __init__(self, model: LanguageModel, batch_size: int, length: int, device: str) -> None:
        self.model = model
        self.tokens = random_tokens(model.architecture, batch_size, length, device)
        dtype = model.unembedding.weight.dtype
        self.memory = Memory.empty(model.architecture, batch_size, length + SPARE, dtype=dtype, device=device)
        keep_widths(self.memory)

    @torch.no_grad()
    def __call__(self) -> None:
        self.memory.position.zero_()
        self.memory.length = 0
        self.logits = self.model(self.tokens, self.memory, last=True)
        self.next = self.logits[:, -1].argmax(-1, keepdim=True)


class Step:
    """Adds one token to every sequence and takes the likeliest next one.

    The memory is filled with random numbers instead of reading a prompt: the time does not depend on them. Every call
    moves the position on by one token.
    """

    def __init__(self, model: LanguageModel, batch_size: int, context: int, device: str) -> None:
        self.model, self.context = model, context
        self.tokens = random_tokens(model.architecture, batch_size, 1, device)
        dtype = model.unembedding.weight.dtype
        self.memory = Memory.empty(model.architecture, batch_size, context + SPARE, dtype=dtype, device=device)
        keep_widths(self.memory)
        if context:
            fill(self.memory)
        self.reset()

    def reset(self) -> None:
        """Back to the context."""
        self.memory.position.fill_(self.context)

    @torch.no_grad()
    def __call__(self) -> None:
        self.memory.length = self.context
        self.logits = self.model(self.tokens, self.memory)
        self.next = self.logits[:, -1].argmax(-1, keepdim=True)


@torch.no_grad()
def fill(memory: Memory) -> None:
    """Random keys, values and states; exponents of states are 0."""
    for layer in memory.layers:
        if isinstance(layer, MLSTMState):
            layer.C.normal_()
            layer.n.normal_()
            layer.m.zero_()
        else:
            layer.keys.normal_()
            layer.values.normal_()


def keep_widths(memory: Memory) -> None:
    """Have the compiler take heads and their widths as they are: only batch and length differ from cell to cell."""
    for tensor in memory.tensors:
        axes = (1, 3) if tensor.ndim == 4 and tensor.shape[2] == memory.max_length else range(1, tensor.ndim)
        for axis in axes:
            torch._dynamo.mark_static(tensor, axis)


def launches_of(
    action: Any, part: str, device: str, wanted: tuple[str, ...], done: Callable[[str, dict[str, Any]], None]
) -> None:
    """Time an action launched in every wanted way; `done` gets the name of each and its times.

    Parameters
    ----------
    action
        a `Prefill` or a `Step`.
    part
        `forward` or `step`: the method of a block that is compiled.
    wanted
        of `eager`, `graph`, `compiled` and `compiled graph`; graphs need a CUDA device.
    """
    for name in wanted:
        compiled, graph = name.startswith("compiled"), name.endswith("graph")
        with compiled_blocks(action.model, part, compiled):
            if isinstance(action, Step):
                action.reset()
            action()  # compiles, and finds the fastest of some kernels
            reset_peak(device)
            captured = graph_of([action]) if graph else None
            times = timing_of(action if captured is None else captured.replay, device)
            done(name, {**times, "peak_memory_bytes": peak_bytes(device)})
            del captured


@contextmanager
def compiled_blocks(model: LanguageModel, part: str, enabled: bool = True, dynamic: bool = True) -> Iterator[None]:
    """Within, `forward` or `step` (`part`) of every block is compiled.

    For any batch and any number of tokens; if not `dynamic`, for each pair that occurs.
    """
    if not enabled:
        yield
        return
    function = _compiled(part, COMPILER, dynamic)
    # sizes that happen to be equal are not taken for the same size
    shapes: Any = shape_config
    with shapes.patch(use_duck_shape=False), torch._dynamo.config.patch(recompile_limit=32):
        for block in model.blocks:
            setattr(block, part, partial(function, block))
        if part == "step":  # its first input is a part of another tensor, for which the compiler makes code of its own
            setattr(model.blocks[0], part, lambda x, *rest: function(model.blocks[0], x.clone(), *rest))
        try:
            yield
        finally:
            for block in model.blocks:
                delattr(block, part)


def _forward(block: Block, *arguments: Any) -> Tensor:
    return Block.forward(block, *arguments)


def _step(block: Block, *arguments: Any) -> Tensor:
    return Block.step(block, *arguments)


@cache
def _compiled(part: str, backend: str, dynamic: bool) -> Callable[..., Tensor]:
    function: Callable[..., Tensor] = {"forward": _forward, "step": _step}[part]
    compiled: Callable[..., Tensor] = torch.compile(function, dynamic=dynamic, fullgraph=True, backend=backend)
    return compiled


def choose_attention(architecture: Architecture, device: str) -> str:
    """The fastest attention of torch for a prompt of 4,096 tokens with the heads of an architecture.

    Returns
    -------
    str
        of `ATTENTIONS`; `default` where torch refuses these, or on a CPU; `none` without attention.
    """
    mixer = next((mixer for mixer in mixers(architecture) if isinstance(mixer, Attention)), None)
    if mixer is None:
        return "none"
    if device != "cuda":
        return "default"
    shapes = [(mixer.n_heads, mixer.d_qk), (mixer.n_kv_heads, mixer.d_qk), (mixer.n_kv_heads, mixer.d_hv)]
    q, k, v = (torch.randn(1, int(heads), PROBE, int(d), device=device, dtype=torch.bfloat16) for heads, d in shapes)
    grouped = mixer.n_heads != mixer.n_kv_heads
    attend: Callable[..., Tensor] = partial(F.scaled_dot_product_attention, is_causal=True, enable_gqa=grouped)
    found = {}
    for name in ATTENTIONS:
        with attention(name):
            try:
                attend(*(x[:, :, :ODD] for x in (q, k, v)))
                attend(q, k, v)
            except RuntimeError:  # refused; torch says why in warnings
                continue
            found[name] = timing_of(partial(attend, q, k, v), device)["seconds_median"]
    return min(found, key=lambda name: found[name]) if found else "default"


@contextmanager
def attention(name: str) -> Iterator[None]:
    """Within, torch computes attention by one of `ATTENTIONS`, or `math`; any other name changes nothing."""
    backends = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}
    if name not in backends:
        yield
        return
    with sdpa_kernel(backends[name]):
        yield
