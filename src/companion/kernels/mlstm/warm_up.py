"""Compiles the Triton kernels of the mLSTM ahead of time, for the GPU of this machine; nothing runs on it.

The first call of new sizes waits seconds for the compiler. A job that starts many processes, or that must answer its
first request at once, does this beforehand: what is compiled stays in Triton's cache (`triton.knobs.cache.dir`), where
every later process finds it.

A kernel is compiled for head sizes, dtype and chunk size, whether strides are multiples of 16, and its configuration,
which depends on the batch size and on how long sequences are. Only sizes are needed for this: tensors have no memory.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from companion.errors import InputError
from companion.kernels.common import replay
from companion.kernels.common.host import INTERPRETED
from companion.kernels.common.replay import Launch
from companion.kernels.mlstm import launch, launch_backward, launch_fused
from companion.kernels.mlstm.checks import CAPABILITY, CHUNK_SIZES, HEAD_SIZES, TRITON_DTYPES
from companion.kernels.mlstm.ops import default_chunk_size
from companion.kernels.mlstm.problem import Problem

Tensor = torch.Tensor
#: What can be compiled: a forward pass, a backward pass, a step of one token.
PASSES = ("forward", "backward", "step")
#: Batch sizes and context lengths for which kernels choose their configurations unless others are given.
BATCH_SIZES = (1, 4, 16, 64)
CONTEXT_LENGTHS = (2048, 8192, 16384)
Call = Callable[[Launch], None]
#: Called with the number of kernels that are done, and of all.
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Heads:
    """What kernels are compiled for.

    Attributes
    ----------
    n_heads, d_qk, d_hv
        number of heads, widths of queries and keys and of values.
    dtype
        of q, k and v.
    chunk_size
        tokens per chunk; the operator's own choice if None.

    Raises
    ------
    InputError
        for sizes, a dtype or a chunk size that the Triton kernels do not take.

    Examples
    --------
    >>> str(Heads(8, 256, 512))
    '8x256x512 bfloat16, chunks of 128'
    """

    n_heads: int
    d_qk: int
    d_hv: int
    dtype: torch.dtype = torch.bfloat16
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        least, most = HEAD_SIZES
        if self.n_heads < 1:
            raise InputError(f"n_heads: {self.n_heads} is not a positive whole number")
        for name in ("d_qk", "d_hv"):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name}: {getattr(self, name)} is not from {least} to {most}")
        if self.dtype not in TRITON_DTYPES:
            raise InputError(f"dtype: {self.dtype} is not one of {', '.join(map(str, TRITON_DTYPES))}")
        if self.chunk_size is not None and self.chunk_size not in CHUNK_SIZES:
            raise InputError(f"chunk_size: {self.chunk_size} is not one of {', '.join(map(str, CHUNK_SIZES))}")

    @property
    def tokens_per_chunk(self) -> int:
        """`chunk_size`, or what the operator takes without."""
        return self.chunk_size or default_chunk_size(self.d_qk, self.dtype)

    def __str__(self) -> str:
        sizes = f"{self.n_heads}x{self.d_qk}x{self.d_hv}"
        return f"{sizes} {str(self.dtype).removeprefix('torch.')}, chunks of {self.tokens_per_chunk}"


def warm_up(
    shapes: Iterable[Heads],
    *,
    passes: Iterable[str] = PASSES,
    batch_sizes: Iterable[int] = BATCH_SIZES,
    context_lengths: Iterable[int] = CONTEXT_LENGTHS,
    gate: str = "exponential",
    initial_state: bool = False,
    device: torch.device | None = None,
    report: Report | None = None,
    compile_first: Callable[[Iterable[Call], torch.device, Report | None], list[str]] | None = None,
) -> list[str]:
    """Compile the kernels of calls with such heads; return their names, each as often as it was compiled.

    Calls are those of `mlstm` and `mlstm_step` on tensors with contiguous heads: forward with and without the state
    after the last token, backward with the full gradient and with the cheaper one, gates in float32 and in the dtype of
    q, each in memory of its own or both in one. Packed sequences, and gradients of states, are compiled when they come.

    Parameters
    ----------
    passes
        of `PASSES`.
    batch_sizes, context_lengths
        B and T of the calls to come: a few that are like them suffice.
    gate
        of the input: `exponential` or `sigmoid`.
    initial_state
        also for calls that go on from a state.
    device
        GPU; the current one if None.
    report
        called after each kernel with the number of those that are done, and of all.
    compile_first
        compiles what calls would launch; `companion.kernels.common.replay.compile_first` if None.

    Raises
    ------
    InputError
        if there is no such pass, no GPU for the kernels, or no configuration of a kernel fits the GPU.
    """
    passes = tuple(passes)
    if unknown := set(passes) - set(PASSES):
        raise InputError(f"passes: {', '.join(sorted(unknown))}: there are {', '.join(PASSES)}")
    if device is None:
        device = usable_gpu()
    sizes = list(product(batch_sizes, context_lengths))
    calls = [
        partial(_without_memory, call)
        for heads in shapes
        for call in _calls(heads, device, passes, sizes, gate == "sigmoid", initial_state)
    ]
    return (compile_first or replay.compile_first)(calls, device, report)


def usable_gpu() -> torch.device:
    """The current GPU.

    Raises
    ------
    InputError
        if there is none that the kernels run on, or they are interpreted.
    """
    least = ".".join(map(str, CAPABILITY))
    needs = f"kernels are compiled for the GPU of this machine, one by CUDA of compute capability {least} or later"
    if INTERPRETED:
        raise InputError(f"{needs}; with TRITON_INTERPRET=1 nothing is compiled")
    if not torch.cuda.is_available():
        raise InputError(f"{needs}; here torch finds none")
    device = torch.device("cuda", torch.cuda.current_device())
    if (found := torch.cuda.get_device_capability(device)) < CAPABILITY:
        raise InputError(f"{needs}; {torch.cuda.get_device_name(device)} has {found[0]}.{found[1]}")
    return device


def _without_memory(call: Call, launcher: Launch) -> None:
    """Make a call with tensors that have sizes, strides and a device, and nothing else."""
    with warnings.catch_warnings(), FakeTensorMode():
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")  # it is 0, and aligned
        call(launcher)


def _calls(
    heads: Heads,
    device: torch.device,
    passes: tuple[str, ...],
    sizes: list[tuple[int, int]],
    sigmoid: bool,
    initial_state: bool,
) -> Iterator[Call]:
    """Launches of every call; how gates lie in memory concerns kernels whose configuration does not depend on sizes."""
    starts = (False, True) if initial_state else (False,)
    layouts = list(dict.fromkeys(product((torch.float32, heads.dtype), (False, True))))
    for number, (batch_size, context_length) in enumerate(sizes):
        for gate_dtype, together in layouts if number == 0 else layouts[:1]:
            call = _Call(heads, device, batch_size, context_length, gate_dtype, together, sigmoid)
            for start, flag in product(starts, (False, True)):
                if "forward" in passes:
                    yield partial(call.forward, start, flag, False)
                if "forward" in passes and "backward" in passes and call.keeps:
                    yield partial(call.forward, start, flag, True)
                if "backward" in passes:
                    yield partial(call.backward, start, flag)
    if "step" in passes:
        dtypes = dict.fromkeys((torch.float32, heads.dtype)) if heads.dtype == torch.bfloat16 else (torch.float32,)
        for batch_size, layout, dtype in product(dict.fromkeys(b for b, _ in sizes), layouts, dtypes):
            gate_dtype, together = layout
            yield partial(_Call(heads, device, batch_size, 1, gate_dtype, together, sigmoid).step, dtype)


@dataclass(frozen=True)
class _Call:
    """Tensors of one call; made anew whenever it is noted."""

    heads: Heads
    device: torch.device
    batch_size: int
    context_length: int
    gate_dtype: torch.dtype
    together: bool
    sigmoid: bool

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def inputs(self) -> tuple[Tensor, ...]:
        """q, k, v (B, T, H, d) and ĩ, f̃ (B, T, H), these two from one projection or from two."""
        heads, tokens = self.heads, (self.batch_size, self.context_length)
        qkv = [self.empty(*tokens, heads.n_heads, d, dtype=heads.dtype) for d in (heads.d_qk, heads.d_qk, heads.d_hv)]
        if self.together:
            return (*qkv, *self.empty(*tokens, 2 * heads.n_heads, dtype=self.gate_dtype).chunk(2, dim=-1))
        return (*qkv, *(self.empty(*tokens, heads.n_heads, dtype=self.gate_dtype) for _ in range(2)))

    def state(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        """C (B, H, d_qk, d_hv), n (B, H, d_qk), m (B, H)."""
        each = (self.batch_size, self.heads.n_heads)
        d_qk, d_hv = self.heads.d_qk, self.heads.d_hv
        return self.empty(*each, d_qk, d_hv, dtype=dtype), self.empty(*each, d_qk), self.empty(*each)

    def problem(self, q: Tensor, v: Tensor, launcher: Launch) -> tuple[Problem, launch.Saved]:
        """Sizes of the call, and memory for what is kept for the backward pass."""
        p = Problem.of(q, v, None, self.heads.tokens_per_chunk, self.sigmoid, launcher)
        kept = launch.saved_bytes(p.num_tokens, p.num_chunks, p.n_heads, p.d_qk, q.dtype)
        return p, launch.saved_views(p, self.empty(kept, dtype=torch.uint8))

    @property
    def keeps(self) -> bool:
        """Whether a forward pass with a gradient keeps states for the backward pass."""
        heads, size = self.heads, self.heads.tokens_per_chunk
        q, v = (torch.empty(1, 1, 1, d, dtype=heads.dtype, device="meta") for d in (heads.d_qk, heads.d_hv))
        pays = launch_fused.pays_to_keep(heads.d_qk, heads.d_hv, self.context_length, size)
        return pays and launch_fused.can_be_one(q, v, size)

    def states(self, p: Problem, keep: bool) -> Tensor | None:
        """Memory for these states, (all chunks, H, d_hv, d_qk)."""
        return self.empty(p.num_chunks, p.n_heads, p.d_hv, p.d_qk, dtype=torch.bfloat16) if keep else None

    def forward(self, start: bool, final: bool, keep: bool, launcher: Launch) -> None:
        """A forward pass, from a state and with the one after the last token or without."""
        inputs = self.inputs()
        p, saved = self.problem(inputs[0], inputs[2], launcher)
        state, last = self.state() if start else None, self.state() if final else None
        launch.forward(p, inputs, state, torch.empty_like(inputs[2]), last, saved, self.states(p, keep))

    def backward(self, start: bool, normalizer: bool, launcher: Launch) -> None:
        """A backward pass, with gradients through nᵀq or without."""
        inputs = self.inputs()
        p, saved = self.problem(inputs[0], inputs[2], launcher)
        C_0, of_state = (self.state()[0], self.state()[:2]) if start else (None, None)
        gradients, dh = tuple(torch.empty_like(x) for x in inputs), torch.empty_like(inputs[2])
        kept = self.states(p, self.keeps)
        launch_backward.backward(p, dh, None, inputs, C_0, saved, kept, normalizer, gradients, of_state, None)

    def step(self, state_dtype: torch.dtype, launcher: Launch) -> None:
        """A step of one token, with C in a dtype."""
        q, k, v, i, f = (x[:, 0] for x in self.inputs())
        launch.step(q, k, v, i, f, *self.state(state_dtype), torch.empty_like(v), self.sigmoid, launcher)
