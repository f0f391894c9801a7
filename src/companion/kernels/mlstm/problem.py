"""Sizes of one call of the kernels, where its chunks lie, and how its products are computed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import triton.language as tl

from companion.kernels.common.device import Config
from companion.kernels.common.host import INTERPRETED, cdiv
from companion.kernels.common.replay import Launch, launch_now
from companion.kernels.mlstm import configs

Tensor = torch.Tensor


def exponent_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which exponents of the gates are kept for q, k, v of a dtype; see `triton_exponents.weight`."""
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
    launch
        launches a kernel: called with it, its grid and its arguments.
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
    launch: Launch = launch_now

    @classmethod
    def of(
        cls,
        q: Tensor,
        v: Tensor,
        cu_seqlens: Tensor | None,
        chunk_size: int,
        sigmoid: bool,
        launch: Launch = launch_now,
    ) -> "Problem":
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
        return cls(*sizes, num_tokens, num_seqs, num_chunks, table, sigmoid, launch)

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

    def result(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """`empty` for a result of an operator; zero where packed sequences leave tokens out or need fewer chunks."""
        return self.empty(*shape, dtype=dtype).zero_() if self.table else self.empty(*shape, dtype=dtype)

    def rows(self, config: Config) -> int:
        """Blocks of BLOCK_M tokens in all chunks."""
        return self.num_chunks * (self.chunk_size // config["BLOCK_M"])


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
