"""The mLSTM: a matrix as state, gates that are one number per head; and the xLSTM made of it.

Sources: arXiv 2405.04517 (the cell), arXiv 2503.13427 (the block), arXiv 2510.02228 (its FLOPs).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from companion.architectures.base import Architecture
from companion.architectures.mixer import (
    ACTIVATIONS,
    BATCHED,
    FLOPS,
    LAYERS,
    PASSES,
    STATE,
    TOKEN_LAYERS,
    WEIGHTS,
    Counting,
    Mixer,
    Term,
    ceil_div,
    over_chunks,
)
from companion.architectures.shapes import Shape
from companion.errors import InputError
from companion.numeric import Numeric

#: FLOPs of the gates of one mLSTM head and step: log-sigmoid, maximum, two exponentials with their differences, the
#: lower bound of the denominator.
RECURRENT_GATE_FLOPS = 12


@dataclass(frozen=True, kw_only=True)
class MLSTM(Mixer):
    """The chunkwise mLSTM with input and forget gate per head, an output gate, and a norm of all hidden states."""

    name = "mlstm"
    keeps = "state"
    kept_as = "state"
    runtime_terms: ClassVar[dict[str, tuple[Term, ...]]] = {
        "ttft": (FLOPS, TOKEN_LAYERS, LAYERS, PASSES),
        "step_time": (WEIGHTS, STATE, ACTIVATIONS, LAYERS, BATCHED),
    }

    def qkv_width(self) -> Numeric:
        return self.n_heads * self.d_qk + self.n_heads * (self.d_qk + self.d_hv)

    def projection_params(self, d_model: Numeric) -> Numeric:
        products = d_model * self.qkv_width() + d_model * self.hidden_width
        return products + 2 * d_model * self.n_heads + 2 * self.n_heads  # both gates with bias

    def core_params(self, d_model: Numeric) -> Numeric:
        return 0 * d_model

    def output_gate_params(self, d_model: Numeric) -> Numeric:
        return d_model * self.hidden_width

    def norm_params(self) -> Numeric:
        return self.hidden_width

    def projection_flops(self, d_model: Numeric) -> Numeric:
        products = 2 * d_model * self.qkv_width() + 2 * d_model * self.hidden_width
        return products + 4 * d_model * self.n_heads  # input and forget gate

    def output_gate_flops(self, d_model: Numeric, convention: Counting) -> Numeric:
        return 2 * d_model * self.hidden_width + convention.output_gate_elementwise_flops * self.hidden_width

    def norm_width(self) -> Numeric:
        return self.hidden_width

    def core_flops(self, context_length: Numeric, convention: Counting) -> Numeric:
        return mlstm_core_flops(self.n_heads, self.d_qk, self.d_hv, context_length, convention)

    def step_core_flops(self, context_length: Numeric, convention: Counting) -> Numeric:
        return self.n_heads * mlstm_recurrent_flops(self.d_qk, self.d_hv)

    def core_flops_per_token(self, context_length: Numeric, convention: Counting) -> Numeric:
        return self.core_flops(convention.chunk_size, convention) / convention.chunk_size

    def growth(self, convention: Counting) -> Numeric:
        return 0.0

    def least_context(self, convention: Counting) -> int:
        return convention.chunk_size

    def cache_numbers(self, context_length: Numeric) -> Numeric:
        state = self.n_heads * (self.d_qk * self.d_hv + self.d_qk + 1)  # C, n and m
        return state + 0.0 * context_length

    def prefill_cache_traffic(self, context_length: Numeric, convention: Counting) -> Numeric:
        # the state of every chunk is written by one kernel and read by the next
        return 2 * self.cache_numbers(context_length) * ceil_div(context_length, convention.chunk_size)

    def step_cache_traffic(self, context_length: Numeric) -> Numeric:
        return 2 * self.cache_numbers(context_length)  # read and written

    def activations_per_token(self, d_model: Numeric) -> Numeric:
        # gates: 4·H; output gate, its product with the hidden states, head norm: d + 6·h
        core = 2 * self.qkv_width() + 2 * self.hidden_width
        return core + d_model + 6 * self.hidden_width + 4 * self.n_heads

    def step_features(
        self, context_length: Numeric, batch_size: Numeric, num_multiprocessors: int
    ) -> dict[str, Numeric]:
        return {}  # its term is the traffic of the state, which every mixer has


def mlstm_core_flops(
    n_heads: Numeric, d_qk: Numeric, d_hv: Numeric, context_length: Numeric, convention: Counting
) -> Numeric:
    """Chunkwise mLSTM cell: FLOPs per layer and sequence, forward.

    A sequence that is not a multiple of the chunk has one shorter chunk at its end.
    """

    def one_chunk(size: Numeric) -> Numeric:
        return sum(convention.mlstm_chunk(size, d_qk, d_hv, convention.mlstm_causal_factor).values())

    return n_heads * over_chunks(one_chunk, context_length, convention.chunk_size)


def mlstm_recurrent_flops(d_qk: Numeric, d_hv: Numeric) -> Numeric:
    """FLOPs of one mLSTM head and step: 6·d_qk·d_hv + 7·d_qk + d_hv, and the gates (arXiv 2510.02228, appendix).

    State: decay, outer product, its scale, sum, and 2 for the product with the query.
    """
    return 6 * d_qk * d_hv + 7 * d_qk + d_hv + RECURRENT_GATE_FLOPS


class XLSTM(Architecture):
    """xLSTM-7B style model (arXiv 2503.13427): mLSTM in place of attention, with an output gate and a head norm.

    Queries and keys are half as wide as values unless given.
    """

    name = "xlstm"
    mixer_class = MLSTM
    qk_ratio = 0.5
    #: the Token/Param runs of arXiv 2510.02228 (data/runs.csv)
    sizes: ClassVar[dict[str, tuple[int, int, int]]] = {
        "160m": (768, 12, 6),
        "400m": (1024, 24, 4),
        "830m": (1536, 24, 4),
        "1.4b": (2048, 24, 4),
        "2.7b": (2560, 32, 5),
        "7b": (4096, 32, 8),
    }

    def mixer(self) -> Mixer:
        return MLSTM(n_heads=self.n_heads, d_qk=self.d_qk, d_hv=self.d_hv)

    def _default_d_qk(self) -> Shape:
        if np.any(np.asarray(self.d_hv) % 2):
            raise InputError("d_qk defaults to d_hv / 2, and d_hv is odd: give d_qk")
        return self.d_hv // 2

    def _default_d_ff(self) -> Shape:
        # 2.667 and not 8/3: at 768, 1152, 1536, 2304 and 3072 this is one multiple of 64 more, as in the paper's runs.
        return -(-2667 * self.d_model // 64_000) * 64
