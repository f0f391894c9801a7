"""Launches the Triton kernels of a forward or backward pass: allocates what they write, picks configurations."""

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from companion.kernels import configs, triton_backward, triton_forward, triton_gates, triton_step
from companion.kernels.configs import Config
from companion.kernels.state import LEAST_LOG_F

Tensor = torch.Tensor
#: The interpreter multiplies bfloat16 as if its bits were integers: there every product runs in float32.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


class Saved(NamedTuple):
    """What the forward pass keeps for the backward pass beside its inputs and h: one number per token and head,
    (H, all tokens), or per chunk and head, (H, all chunks)."""

    vec_b: Tensor
    vec_c: Tensor
    vec_peak: Tensor
    vec_w: Tensor
    vec_scale: Tensor
    vec_signed: Tensor
    sca_decay: Tensor
    sca_m_in: Tensor
    sca_m_out: Tensor


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
            num_seqs, num_chunks = batch_size, batch_size * triton.cdiv(context_length, chunk_size)
        else:
            num_seqs = bounds.numel() - 1
            num_chunks = num_tokens // chunk_size + num_seqs
            table = _table(bounds, chunk_size, num_chunks)
        sizes = (context_length, n_heads, d_qk, v.shape[-1], chunk_size, q.dtype, q.device)
        return cls(*sizes, num_tokens, num_seqs, num_chunks, table, sigmoid)

    @property
    def places(self) -> dict[str, Any]:
        """Arguments by which every kernel finds its chunk."""
        cu_seqlens, chunk_seq, chunk_start, _ = self.table or (None,) * 4
        return {
            "T": self.context_length,
            "chunks_per_seq": triton.cdiv(self.context_length, self.chunk_size),
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

    @property
    def seq_chunk(self) -> Tensor | None:
        """First chunk of every packed sequence."""
        return self.table[3] if self.table else None

    @property
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

    def run(self, kernel: str, attempt: Any, *flags: bool) -> Any:
        """`configs.run` for this problem; `flags` are constants of the kernel that change what it needs."""
        sizes = {"d_qk": self.d_qk, "d_hv": self.d_hv, "chunk_size": self.chunk_size}
        variant = (bool(self.table), self.sigmoid, *flags)
        return configs.run(kernel, attempt, dtype=self.dtype, device=self.device, variant=variant, **sizes)

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
    gates, m_T = _gates(p, i, f, None if state is None else state[2])
    mat_C, vec_n, C_T, n_T = _states(p, k, v, state, gates)
    h = p.like(v)
    vec_scale, vec_signed = p.result(p.n_heads, p.num_tokens), p.result(p.n_heads, p.num_tokens)

    vec_nq = _normalisers(p, q, vec_n)

    def attempt(config: Config) -> None:
        grid = (triton.cdiv(p.d_hv, config["BLOCK_V"]) * p.rows(config), p.n_heads)
        triton_forward.outputs[grid](
            q, k, v, h, *_strides(q, k, v, h), gates.b, gates.c, gates.peak, gates.m_in, mat_C, vec_nq,
            vec_scale, vec_signed, p.d_qk**-0.5, SIGMOID=p.sigmoid, **p.places, **p.products, **config.constants,
        )  # fmt: skip

    p.run("outputs", attempt)
    saved = Saved(gates.b, gates.c, gates.peak, gates.w, vec_scale, vec_signed, gates.decay, gates.m_in, gates.m_out)
    return h, (C_T, n_T, m_T), saved


def backward(
    p: Problem,
    dh: Tensor,
    state_gradient: tuple[Tensor, Tensor] | None,
    inputs: tuple[Tensor, ...],
    state: tuple[Tensor, Tensor, Tensor] | None,
    saved: Saved,
    normaliser: bool,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
    """dq, dk, dv, dĩ, df̃ (as the inputs q, k, v, ĩ, f̃), and dC, dn of the initial state.

    `state_gradient` is that of C and n of the final state; `normaliser` says whether gradients flow through nᵀq. States
    are computed again rather than kept from the forward pass: they are the largest tensors by far.
    """
    q, k, v, i, f = inputs
    s, scale = saved, p.d_qk**-0.5
    dq, dk, dv, di, df = (p.like(x) for x in inputs)
    normaliser = normaliser and not p.sigmoid
    gates = _Gates(s.vec_b, s.vec_c, s.vec_peak, s.vec_w, s.sca_decay, s.sca_m_in, s.sca_m_out)
    mat_C, vec_n, *_ = _states(p, k, v, state, gates)
    vec_read, vec_self = p.empty(p.n_heads, p.num_tokens), p.empty(p.n_heads, p.num_tokens)
    vec_delta = p.empty(p.n_heads, p.num_tokens) if normaliser else None

    def of_queries(config: Config) -> tuple[Tensor, int]:
        vec_pair = p.empty(p.chunk_size // config["BLOCK_M"], p.n_heads, p.num_tokens)
        triton_backward.query_gradients[(p.rows(config), p.n_heads)](
            q, k, v, dh, dq, *_strides(q, k, v, dh, dq), s.vec_c, s.vec_peak, s.vec_scale, s.vec_signed, vec_delta,
            s.sca_m_in, mat_C, vec_n, vec_read, vec_self, vec_pair, scale,
            NORMALISER=normaliser, **p.places, **p.products, **config.constants,
        )  # fmt: skip
        return vec_pair, config["BLOCK_M"]

    def of_keys(config: Config) -> Tensor:
        blocks = triton.cdiv(p.d_qk, config["BLOCK_K"])
        vec_write = p.empty(blocks, p.n_heads, p.num_tokens)
        triton_backward.key_gradients[(blocks * p.rows(config), p.n_heads)](
            q, k, v, dh, dk, *_strides(q, k, v, dh, dk), s.vec_c, s.vec_peak, s.vec_w, s.vec_scale, vec_delta,
            s.sca_m_in, s.sca_m_out, mat_dC, vec_dn, vec_write, scale,
            NORMALISER=normaliser, WITH_N=normaliser or state_gradient is not None,
            **p.places, **p.products, **config.constants,
        )  # fmt: skip
        return vec_write

    def of_values(config: Config) -> None:
        triton_backward.value_gradients[(triton.cdiv(p.d_hv, config["BLOCK_V"]) * p.rows(config), p.n_heads)](
            q, k, dh, dv, *_strides(q, k, dh, dv), s.vec_c, s.vec_peak, s.vec_w, s.vec_scale, s.sca_m_in,
            s.sca_m_out, mat_dC, scale, **p.places, **p.products, **config.constants,
        )  # fmt: skip

    vec_pair, rows = p.run("query_gradients", of_queries, normaliser)  # first: δ of every token, which the others need
    mat_dC, vec_dn, sca_pass, dC_0, dn_0 = _state_gradients(
        p, q, dh, state_gradient, mat_C, vec_n, s, vec_delta, normaliser
    )
    vec_write = p.run("key_gradients", of_keys, normaliser, state_gradient is not None)
    p.run("value_gradients", of_values)
    places = {name: value for name, value in p.places.items() if name not in ("D_QK", "D_HV")}
    triton_gates.gate_gradients[(p.num_chunks, p.n_heads)](
        i, f, *_strides(i, f), di, df, *_strides(di, df), vec_read, vec_self, vec_pair, vec_write, sca_pass,
        BLOCK_M=rows, WRITES=vec_write.shape[0], PASSES=sca_pass.shape[0], SIGMOID=p.sigmoid, **places,
    )  # fmt: skip
    return (dq, dk, dv, di, df), (dC_0, dn_0)


def step(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, C: Tensor, n: Tensor, m: Tensor, sigmoid: bool
) -> Tensor:
    """h (B, H, d_hv) of one token; C (B, H, d_qk, d_hv), n (B, H, d_qk), m (B, H), contiguous, updated in place."""
    batch_size, n_heads, d_qk = q.shape
    d_hv = v.shape[-1]
    h = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    keep, write, scale = torch.empty(3, batch_size * n_heads, dtype=torch.float32, device=q.device)
    heads = batch_size * n_heads
    triton_step.step_scalars[(heads,)](
        q, k, i, f, *_strides(q, k, i, f), n, m, keep, write, scale, d_qk**-0.5, n_heads,
        D_QK=d_qk, BLOCK=triton.next_power_of_2(d_qk), SIGMOID=sigmoid,
    )  # fmt: skip

    def attempt(config: Config) -> None:
        triton_step.step_matrix[(triton.cdiv(d_hv, config["BLOCK_V"]) * heads,)](
            q, k, v, h, *_strides(q, k, v), C, keep, write, scale, n_heads, D_QK=d_qk, D_HV=d_hv, **config.constants
        )

    configs.run("step", attempt, d_qk=d_qk, d_hv=d_hv, chunk_size=1, dtype=q.dtype, device=q.device)
    return h


class _Gates(NamedTuple):
    b: Tensor
    c: Tensor
    peak: Tensor
    w: Tensor
    decay: Tensor
    m_in: Tensor
    m_out: Tensor


def _gates(p: Problem, i: Tensor, f: Tensor, m_0: Tensor | None) -> tuple[_Gates, Tensor]:
    b, c, most_c, w = (p.result(p.n_heads, p.num_tokens, dtype=p.exponent_dtype) for _ in range(4))
    decay, peak, m_in, m_out = (p.result(p.n_heads, p.num_chunks, dtype=p.exponent_dtype) for _ in range(4))
    m_T = p.empty(p.num_seqs, p.n_heads)
    places = {name: value for name, value in p.places.items() if name not in ("D_QK", "D_HV", "n_heads")}
    triton_gates.gate_vectors[(p.num_chunks, p.n_heads)](
        i, f, *_strides(i, f), b, c, most_c, w, decay, peak, LEAST_LOG_F=LEAST_LOG_F, SIGMOID=p.sigmoid, **places
    )  # fmt: skip
    most = triton.cdiv(p.context_length, p.chunk_size)
    triton_gates.state_exponents[(p.num_seqs * p.n_heads,)](
        m_0, decay, peak, m_in, m_out, m_T, most, p.num_chunks, p.seq_chunk, p.n_heads,
        HAS_STATE=m_0 is not None, BLOCK=min(1024, max(16, triton.next_power_of_2(most))), PACKED=bool(p.table),
    )  # fmt: skip
    return _Gates(b, c, most_c, w, decay, m_in, m_out), m_T


def _states(
    p: Problem, k: Tensor, v: Tensor, state: tuple[Tensor, Tensor, Tensor] | None, gates: _Gates
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mat_C = p.empty(p.num_chunks, p.n_heads, p.d_qk, p.d_hv, dtype=p.state_dtype)
    vec_n = p.empty(p.num_chunks, p.n_heads, p.d_qk)
    C_T, n_T = p.empty(p.num_seqs, p.n_heads, p.d_qk, p.d_hv), p.empty(p.num_seqs, p.n_heads, p.d_qk)
    C_0, n_0, _ = state or (None, None, None)

    def attempt(config: Config) -> None:
        blocks = triton.cdiv(p.d_qk, config["BLOCK_K"]) * triton.cdiv(p.d_hv, config["BLOCK_V"])
        triton_forward.states[(blocks * p.num_seqs * p.n_heads,)](
            k, v, *_strides(k, v), C_0, n_0, gates.w, gates.decay, gates.m_in, gates.m_out, mat_C, vec_n, C_T, n_T,
            seq_chunk=p.seq_chunk, HAS_STATE=state is not None, **p.places, **p.products, **config.constants,
        )  # fmt: skip

    p.run("states", attempt, state is not None)
    return mat_C, vec_n, C_T, n_T


def _normalisers(p: Problem, q: Tensor, vec_n: Tensor) -> Tensor:
    vec_nq = p.empty(p.n_heads, p.num_tokens)
    places = {name: value for name, value in p.places.items() if name not in ("D_HV", "num_chunks")}

    def attempt(config: Config) -> None:
        triton_forward.normalisers[(p.rows(config), p.n_heads)](
            q, *_strides(q), vec_n, vec_nq, **places, **config.constants
        )

    p.run("normalisers", attempt)
    return vec_nq


def _state_gradients(
    p: Problem,
    q: Tensor,
    dh: Tensor,
    gradient: tuple[Tensor, Tensor] | None,
    mat_C: Tensor,
    vec_n: Tensor,
    s: Saved,
    vec_delta: Tensor | None,
    normaliser: bool,
) -> tuple[Tensor, ...]:
    mat_dC = p.empty(p.num_chunks, p.n_heads, p.d_qk, p.d_hv, dtype=p.state_dtype)
    vec_dn = p.empty(p.num_chunks, p.n_heads, p.d_qk)
    dC_0, dn_0 = p.empty(p.num_seqs, p.n_heads, p.d_qk, p.d_hv), p.empty(p.num_seqs, p.n_heads, p.d_qk)
    dC_T, dn_T = gradient or (None, None)

    def attempt(config: Config) -> Tensor:
        k_blocks, v_blocks = triton.cdiv(p.d_qk, config["BLOCK_K"]), triton.cdiv(p.d_hv, config["BLOCK_V"])
        sca_pass = p.empty(k_blocks * v_blocks, p.n_heads, p.num_chunks)
        triton_backward.state_gradients[(k_blocks * v_blocks * p.num_seqs * p.n_heads,)](
            q, dh, *_strides(q, dh), dC_T, dn_T, s.vec_peak, s.vec_scale, vec_delta, s.sca_decay, s.sca_m_in,
            s.sca_m_out, mat_C, vec_n, mat_dC, vec_dn, sca_pass, dC_0, dn_0, p.d_qk**-0.5, seq_chunk=p.seq_chunk,
            HAS_GRADIENT=gradient is not None, NORMALISER=normaliser, **p.places, **p.products, **config.constants,
        )  # fmt: skip
        return sca_pass

    sca_pass = p.run("state_gradients", attempt, gradient is not None, normaliser)
    return mat_dC, vec_dn, sca_pass, dC_0, dn_0


def _strides(*tensors: Tensor) -> tuple[tuple[int, ...], ...]:
    """Strides of batch, token and head (batch and head for a single token) of each tensor."""
    return tuple(x.stride()[:3] for x in tensors)


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
