"""Launches the Triton kernels of a forward pass and of a step: allocates what they write, picks configurations."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import triton.language as tl

from companion.kernels import configs, triton_forward, triton_gates, triton_normaliser, triton_step
from companion.kernels.configs import Config, power_of_2
from companion.kernels.state import LEAST_LOG_F

Tensor = torch.Tensor
#: The interpreter multiplies bfloat16 as if its bits were integers: there every product runs in float32.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def cdiv(a: int, b: int) -> int:
    """a/b rounded up. Triton's own, and its next power of two, take as long on the host as a third of a launch."""
    return -(-a // b)


class Saved(NamedTuple):
    """What the forward pass keeps for the backward pass beside its inputs and h.

    One number per token and head, (H, all tokens), or per chunk and head, (H, all chunks), and `vec_n` at the start of
    every chunk, (all chunks, H, d_qk).
    """

    vec_c: Tensor
    vec_r: Tensor
    vec_carried: Tensor
    vec_write: Tensor
    vec_scale: Tensor
    vec_signed: Tensor
    sca_keep: Tensor
    vec_n: Tensor


def exponent_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which exponents of the gates are kept for q, k, v of a dtype; see `triton_common.weight`."""
    return torch.float32 if dtype == torch.bfloat16 else torch.float64


@dataclass(frozen=True)
class Problem:
    """Sizes of one call, and where its chunks lie.

    Attributes
    ----------
    num_tokens
        of all sequences together.
    num_seqs
        B, or the number of packed sequences.
    num_chunks
        of all sequences; if packed an upper bound, so that the host need not read the lengths.
    table
        cu_seqlens, sequence and first token of every chunk, first chunk of every sequence; empty if not packed.
    """

    context_length: int
    n_heads: int
    d_qk: int
    d_hv: int
    chunk_size: int
    dtype: torch.dtype
    device: torch.device
    num_tokens: int
    num_seqs: int
    num_chunks: int
    table: tuple[Tensor, ...]
    sigmoid: bool

    @classmethod
    def of(cls, q: Tensor, v: Tensor, cu_seqlens: Tensor | None, chunk_size: int, sigmoid: bool) -> "Problem":
        """From q (B, T, H, d_qk), v (B, T, H, d_hv) and, for packed sequences, where each begins (N + 1)."""
        batch_size, context_length, n_heads, d_qk = q.shape
        num_tokens = batch_size * context_length
        table: tuple[Tensor, ...] = ()
        bounds = bounds_of(cu_seqlens, num_tokens)
        if bounds is None:
            num_seqs, num_chunks = batch_size, batch_size * cdiv(context_length, chunk_size)
        else:
            num_seqs = bounds.numel() - 1
            num_chunks = num_tokens // chunk_size + num_seqs
            table = _table(bounds, chunk_size, num_chunks)
        sizes = (context_length, n_heads, d_qk, v.shape[-1], chunk_size, q.dtype, q.device)
        return cls(*sizes, num_tokens, num_seqs, num_chunks, table, sigmoid)

    @cached_property
    def places(self) -> dict[str, Any]:
        """Arguments by which every kernel finds its chunk."""
        cu_seqlens, chunk_seq, chunk_start, _ = self.table or (None,) * 4
        return {
            "T": self.context_length,
            "chunks_per_seq": cdiv(self.context_length, self.chunk_size),
            "num_tokens": self.num_tokens,
            "num_chunks": self.num_chunks,
            "cu_seqlens": cu_seqlens,
            "chunk_seq": chunk_seq,
            "chunk_start": chunk_start,
            "n_heads": self.n_heads,
            "D_QK": self.d_qk,
            "D_HV": self.d_hv,
            "L": self.chunk_size,
            "PACKED": bool(self.table),
        }

    def places_of(self, *widths: str) -> dict[str, Any]:
        """`places` with only these of D_QK and D_HV, for kernels that need no others."""
        return {name: value for name, value in self.places.items() if name[:2] != "D_" or name in widths}

    @cached_property
    def places_of_sequences(self) -> dict[str, Any]:
        """The same for kernels that walk through whole sequences."""
        places = {name: value for name, value in self.places.items() if name not in ("chunk_seq", "chunk_start")}
        return places | {"seq_chunk": self.seq_chunk}

    @property
    def seq_chunk(self) -> Tensor | None:
        """First chunk of every packed sequence."""
        return self.table[3] if self.table else None

    @cached_property
    def products(self) -> dict[str, Any]:
        """How tl.dot multiplies: bfloat16 as it is, float16 as tf32 (as many digits), float32 as three of tf32."""
        if self.dtype == torch.bfloat16 and not INTERPRETED:
            return {"DOT": tl.bfloat16, "PRECISION": "tf32"}
        return {"DOT": tl.float32, "PRECISION": "tf32" if self.dtype == torch.float16 else "tf32x3"}

    @property
    def state_dtype(self) -> torch.dtype:
        """Of the states kept between kernels; what they are carried in is float32."""
        return torch.bfloat16 if self.dtype == torch.bfloat16 else torch.float32

    @property
    def exponent_dtype(self) -> torch.dtype:
        """Of sums of log f and what is compared with them."""
        return exponent_dtype(self.dtype)

    def run(self, kernel: str, attempt: Any, *flags: bool, programs: Callable[[Config], int] | None = None) -> Any:
        """`configs.run` for this problem; `flags` are constants of the kernel that change what it needs."""
        return configs.run(
            kernel,
            attempt,
            d_qk=self.d_qk,
            d_hv=self.d_hv,
            chunk_size=self.chunk_size,
            dtype=self.dtype,
            device=self.device,
            variant=(bool(self.table), self.sigmoid, *flags),
            programs=programs,
            size=self.num_seqs * self.n_heads,
        )

    def blocks(self, config: Config) -> int:
        """Blocks of a state."""
        return cdiv(self.d_qk, config["BLOCK_K"]) * cdiv(self.d_hv, config["BLOCK_V"])

    def walkers(self, config: Config) -> int:
        """Programs of a kernel that walks along every sequence with a block of the state of every head."""
        return self.blocks(config) * self.num_seqs * self.n_heads

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory on the device of this problem."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def like(self, x: Tensor) -> Tensor:
        """Memory for a result laid out as `x`; zero where packed sequences may leave tokens out."""
        return torch.zeros_like(x) if self.table else torch.empty_like(x)

    def result(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """`empty` for a result of an operator; zero where packed sequences leave tokens out or need fewer chunks."""
        return self.empty(*shape, dtype=dtype).zero_() if self.table else self.empty(*shape, dtype=dtype)

    def rows(self, config: Config) -> int:
        """Blocks of BLOCK_M tokens in all chunks."""
        return self.num_chunks * (self.chunk_size // config["BLOCK_M"])


def forward(
    p: Problem, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: tuple[Tensor, Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Saved]:
    """h (as v), the final state and what the backward pass needs."""
    gates, m_T = _gates(p, k, i, f, None if state is None else state[2])
    vec_n, n_T, _ = carry_vectors(p, gates.keys[None], None if state is None else state[1], gates.keep)
    mat_C, C_T = states(p, k, v, None if state is None else state[0], gates.write, gates.keep)
    h = p.like(v)
    vec_scale, vec_signed = p.result(p.n_heads, p.num_tokens), p.result(p.n_heads, p.num_tokens)
    mat_S = p.empty(p.n_heads, p.num_tokens, p.chunk_size, dtype=p.state_dtype)

    def of_pairs(config: Config) -> None:
        triton_forward.scores[(p.rows(config), p.n_heads)](
            q, k, *strides(q, k), gates.b, gates.c, gates.r, gates.carried, vec_n, mat_S, vec_scale, vec_signed,
            p.d_qk**-0.5, SIGMOID=p.sigmoid, **p.places_of("D_QK"), **p.products, **config.constants,
        )  # fmt: skip

    def of_values(config: Config) -> None:
        grid = (cdiv(p.d_hv, config["BLOCK_V"]) * p.rows(config), p.n_heads)
        triton_forward.outputs[grid](
            q, v, h, *strides(q, v, h), gates.carried, mat_C, mat_S, vec_scale, p.d_qk**-0.5,
            **p.places, **p.products, **config.constants,
        )  # fmt: skip

    p.run("scores", of_pairs)
    p.run("outputs", of_values)
    saved = Saved(gates.c, gates.r, gates.carried, gates.write, vec_scale, vec_signed, gates.keep, vec_n)
    return h, (C_T, n_T, m_T), saved


def step(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, C: Tensor, n: Tensor, m: Tensor, sigmoid: bool
) -> Tensor:
    """h (B, H, d_hv) of one token; C (B, H, d_qk, d_hv), n (B, H, d_qk), m (B, H), contiguous, updated in place."""
    batch_size, n_heads, d_qk = q.shape
    d_hv = v.shape[-1]
    h = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    heads = batch_size * n_heads
    scalars = torch.empty(heads, 3, dtype=torch.float32, device=q.device)
    overlap = configs.can_overlap(q.device)
    early = {"launch_pdl": True} if overlap else {}
    triton_step.step_scalars[(heads,)](
        q, k, i, f, *strides(q, k, i, f, axes=2), n, m, scalars, d_qk**-0.5, n_heads,
        D_QK=d_qk, BLOCK=power_of_2(d_qk), SIGMOID=sigmoid, OVERLAP=overlap, **early,
    )  # fmt: skip

    def programs(config: Config) -> int:
        # 8 warps pay (3 % at 2,048 programs) where every multiprocessor runs many of them, and cost 5 % at 512
        return cdiv(d_hv, config["BLOCK_V"]) * heads // (1 if config.num_warps < 8 else 16)

    def attempt(config: Config) -> None:
        triton_step.step_matrix[(cdiv(d_hv, config["BLOCK_V"]) * heads,)](
            q, k, v, h, *strides(q, k, v, axes=2), C, scalars, n_heads, D_QK=d_qk, D_HV=d_hv,
            OVERLAP=overlap, **early, **config.constants,
        )  # fmt: skip

    configs.run(
        "step",
        attempt,
        d_qk=d_qk,
        d_hv=d_hv,
        chunk_size=1,
        dtype=q.dtype,
        device=q.device,
        programs=programs,
        size=heads,
    )
    return h


class _Gates(NamedTuple):
    b: Tensor
    c: Tensor
    r: Tensor
    carried: Tensor
    write: Tensor
    keep: Tensor
    keys: Tensor


def _gates(p: Problem, k: Tensor, i: Tensor, f: Tensor, m_0: Tensor | None) -> tuple[_Gates, Tensor]:
    b, c, most_c, w = (p.result(p.n_heads, p.num_tokens, dtype=p.exponent_dtype) for _ in range(4))
    decay, peak, m_in, m_out = (p.result(p.n_heads, p.num_chunks, dtype=p.exponent_dtype) for _ in range(4))
    m_T = p.empty(p.num_seqs, p.n_heads)
    places = {name: value for name, value in p.places_of().items() if name != "n_heads"}
    triton_gates.gate_vectors[(p.num_chunks, p.n_heads)](
        i, f, *strides(i, f), b, c, most_c, w, decay, peak, LEAST_LOG_F=LEAST_LOG_F, SIGMOID=p.sigmoid, **places
    )  # fmt: skip
    most = cdiv(p.context_length, p.chunk_size)
    triton_gates.state_exponents[(p.num_seqs * p.n_heads,)](
        m_0, decay, peak, m_in, m_out, m_T, most, p.num_chunks, p.seq_chunk, p.n_heads,
        HAS_STATE=m_0 is not None, BLOCK=min(1024, power_of_2(most, 16)), PACKED=bool(p.table),
    )  # fmt: skip
    carried, write = p.result(p.n_heads, p.num_tokens), p.result(p.n_heads, p.num_tokens)
    keep = p.result(p.n_heads, p.num_chunks)
    keys = p.empty(p.num_chunks, p.n_heads, p.d_qk)
    triton_gates.gate_weights[(p.num_chunks, p.n_heads)](
        k, *strides(k), most_c, w, decay, m_in, m_out, carried, write, keep, keys, **p.places_of("D_QK"),
        BLOCK_K=min(64, power_of_2(p.d_qk)), BLOCK_T=min(64, p.chunk_size),
    )  # fmt: skip
    return _Gates(b, c, most_c, carried, write, keep, keys), m_T


def states(
    p: Problem, k: Tensor, v: Tensor, C_0: Tensor | None, vec_write: Tensor, sca_keep: Tensor
) -> tuple[Tensor, Tensor]:
    """C at the start of every chunk (all chunks, H, d_qk, d_hv), and after the last of every sequence."""
    mat_C = p.empty(p.num_chunks, p.n_heads, p.d_qk, p.d_hv, dtype=p.state_dtype)
    C_T = p.empty(p.num_seqs, p.n_heads, p.d_qk, p.d_hv)

    def attempt(config: Config) -> None:
        triton_forward.states[(p.walkers(config),)](
            k, v, *strides(k, v), C_0, vec_write, sca_keep, mat_C, C_T,
            HAS_STATE=C_0 is not None, **p.places_of_sequences, **p.products, **config.constants,
        )  # fmt: skip

    p.run("states", attempt, C_0 is not None, programs=p.walkers)
    return mat_C, C_T


def carry_vectors(
    p: Problem, changes: Tensor, start: Tensor | None, sca_keep: Tensor, vec_n: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """n at the start of every chunk (all chunks, H, d_qk), and after the last of every sequence.

    With `vec_n` backwards: dn at the end of every chunk and at the start of all, and partial sums of what passes
    through (blocks of d_qk, H, all chunks), else empty. `changes` (parts, all chunks, H, d_qk) are partial sums.
    """
    backwards, width = vec_n is not None, min(16, power_of_2(p.d_qk))
    blocks = cdiv(p.d_qk, width)
    vec_x, x_T = p.result(p.num_chunks, p.n_heads, p.d_qk), p.empty(p.num_seqs, p.n_heads, p.d_qk)
    sca_pass = p.empty(blocks if backwards else 0, p.n_heads, p.num_chunks)
    places = {name: value for name, value in p.places_of_sequences.items() if name != "D_HV"}
    most = cdiv(p.context_length, p.chunk_size)
    triton_normaliser.carry_vectors[(blocks * p.num_seqs * p.n_heads,)](
        changes, start, sca_keep, vec_x, x_T, vec_n, sca_pass, **places,
        PARTS=changes.shape[0], HAS_START=start is not None, BACKWARDS=backwards,
        BLOCK_K=width, BLOCK=min(64, power_of_2(most, 16)),
    )  # fmt: skip
    return vec_x, x_T, sca_pass


def strides(*tensors: Tensor, axes: int = 3) -> tuple[tuple[int, ...], ...]:
    """Strides of batch, token and head (of a single token batch and head, two axes) of each tensor."""
    return tuple(x.stride()[:axes] for x in tensors)


def bounds_of(cu_seqlens: Tensor | None, num_tokens: int) -> Tensor | None:
    """Bounds of packed sequences that stay within the tokens and never fall, whatever was given; read on the device."""
    return None if cu_seqlens is None else cu_seqlens.to(torch.int64).clamp(0, num_tokens).cummax(0).values


def _table(cu_seqlens: Tensor, chunk_size: int, num_chunks: int) -> tuple[Tensor, ...]:
    """Where the chunks of packed sequences lie, computed on the device; sequence −1 for chunks not needed."""
    counts = (cu_seqlens.diff() + chunk_size - 1) // chunk_size
    seq_chunk = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    chunk = torch.arange(num_chunks, device=cu_seqlens.device)
    chunk_seq = torch.searchsorted(seq_chunk, chunk, right=True) - 1
    used = chunk < seq_chunk[-1]
    known = chunk_seq.clamp(max=counts.numel() - 1)
    chunk_start = torch.where(used, cu_seqlens[known] + (chunk - seq_chunk[known]) * chunk_size, 0)
    return cu_seqlens, torch.where(used, chunk_seq, -1), chunk_start, seq_chunk
