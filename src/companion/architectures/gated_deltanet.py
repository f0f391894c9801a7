"""Gated DeltaNet: a matrix as state that decays, and from which a key's old value is taken before the new one is added.

    S_t = α_t·S_{t−1}·(1 − β_t·k_t·k_tᵀ) + β_t·v_t·k_tᵀ,    o_t = S_t·q_t

with one decay α_t and one rate β_t per head and token; queries, keys and values pass a short convolution, queries and
keys are normalized. Source: arXiv 2412.06464 (sections 3.3 and 3.4). Shapes and parameters are those of the authors'
layer in flash-linear-attention (`fla/layers/gated_deltanet.py`), whose documentation states 6·d² weights per layer:
0.75·d² for queries and for keys, 1.5·d² for values, output gate and output projection each.

The FLOPs of a chunk are counted here from the equations of section 3.3 as products of matrices, and one FLOP for every
elementwise operation; no paper publishes them. Nobody has timed it with the authors of the xLSTM paper, so it names no
runtime terms.
"""

from typing import ClassVar

import numpy as np

from companion.architectures.base import Architecture
from companion.architectures.mixer import Counting, Mixer, ceil_div, over_chunks
from companion.architectures.shapes import Shape, check_divides
from companion.errors import InputError
from companion.numeric import Numeric

#: Tokens that the short convolutions see.
CONV_SIZE = 4
#: FLOPs of the gates of one head and token: softplus with its bias, times exp(A_log), exp; sigmoid.
GATE_FLOPS = 5


class GatedDelta(Mixer):
    """Chunkwise gated delta rule with short convolutions, an output gate, and a norm shared by the heads."""

    name = "gated_delta"
    keeps = "state"
    kept_as = "state"

    def qkv_width(self) -> Numeric:
        return 2 * self.n_heads * self.d_qk + self.n_heads * self.d_hv

    def projection_params(self, d_model: Numeric) -> Numeric:
        # queries, keys, values, output; decay and rate, a number per head each, without bias
        return d_model * self.qkv_width() + d_model * self.hidden_width + 2 * d_model * self.n_heads

    def core_params(self, d_model: Numeric) -> Numeric:
        return CONV_SIZE * self.qkv_width() + 2 * self.n_heads  # convolutions; A_log and the bias of the decay

    def output_gate_params(self, d_model: Numeric) -> Numeric:
        return d_model * self.hidden_width

    def norm_params(self) -> Numeric:
        return self.d_hv

    def projection_flops(self, d_model: Numeric) -> Numeric:
        return 2 * d_model * self.qkv_width() + 2 * d_model * self.hidden_width + 4 * d_model * self.n_heads

    def output_gate_flops(self, d_model: Numeric, convention: Counting) -> Numeric:
        return 2 * d_model * self.hidden_width + convention.output_gate_elementwise_flops * self.hidden_width

    def norm_width(self) -> Numeric:
        return self.hidden_width + 2 * self.n_heads * self.d_qk  # head norm; lengths of queries and keys

    def core_flops(self, context_length: Numeric, convention: Counting) -> Numeric:
        chunks = over_chunks(self._chunk_flops, context_length, convention.chunk_size)
        return self.n_heads * chunks + context_length * self._convolution_flops()

    def step_core_flops(self, context_length: Numeric, convention: Counting) -> Numeric:
        # decay, state times key, outer product and its sum, state times query; the value's difference and rate
        state = self.d_qk * self.d_hv * (1 + 2 + 2 + 2)
        return self.n_heads * (state + 2 * self.d_hv + GATE_FLOPS) + self._convolution_flops()

    def core_flops_per_token(self, context_length: Numeric, convention: Counting) -> Numeric:
        return self.core_flops(convention.chunk_size, convention) / convention.chunk_size

    def growth(self, convention: Counting) -> Numeric:
        return 0.0

    def least_context(self, convention: Counting) -> int:
        return convention.chunk_size

    def cache_numbers(self, context_length: Numeric) -> Numeric:
        # the state, and the last inputs of the convolutions
        kept = self.n_heads * self.d_qk * self.d_hv + (CONV_SIZE - 1) * self.qkv_width()
        return kept + 0.0 * context_length

    def prefill_cache_traffic(self, context_length: Numeric, convention: Counting) -> Numeric:
        # the state of every chunk is written by one kernel and read by the next
        return 2 * self.cache_numbers(context_length) * ceil_div(context_length, convention.chunk_size)

    def step_cache_traffic(self, context_length: Numeric) -> Numeric:
        return 2 * self.cache_numbers(context_length)  # read and written

    def activations_per_token(self, d_model: Numeric) -> Numeric:
        # the core and the products around it; convolutions, lengths of queries and keys; gates as in an mLSTM
        core = 2 * self.qkv_width() + 2 * self.hidden_width
        before = 2 * self.qkv_width() + 4 * self.n_heads * self.d_qk
        return core + before + d_model + 6 * self.hidden_width + 4 * self.n_heads

    def step_features(
        self, context_length: Numeric, batch_size: Numeric, num_multiprocessors: int
    ) -> dict[str, Numeric]:
        return {}

    def _convolution_flops(self) -> Numeric:
        """Short convolutions of queries, keys and values, and their SiLU, per token and layer."""
        return (2 * CONV_SIZE + 1) * self.qkv_width()

    def _chunk_flops(self, tokens: Numeric) -> Numeric:
        """FLOPs of one head over one chunk, L × L products in full, as those of the mLSTM."""
        L, qk, hv = tokens, self.d_qk, self.d_hv
        gates = GATE_FLOPS * L + L * (L + 1) / 2 + L**2  # cumulative decay, and the decay between any two tokens
        # keys times keys, decayed and scaled; the inverse of a unit triangle; its products with keys and with values
        delta = L**2 * (2 * qk + 2) + L * (L - 1) * (L - 2) / 3 + 2 * L**2 * (qk + hv) + L * (qk + hv)
        state = (
            2 * L * qk * hv + L * hv + L * qk + 2 * L * qk * hv + 2 * qk * hv
        )  # values left, state decayed and added
        output = L**2 * (2 * qk + 2) + 2 * L**2 * hv + L * qk + 2 * L * qk * hv + L * hv
        return gates + delta + state + output


class GatedDeltaNet(Architecture):
    """Gated DeltaNet of arXiv 2412.06464: H·d_qk = 0.75·d_model and d_hv = 2·d_qk unless given, SwiGLU.

    With `attention_every` every k-th layer is attention, as in the hybrids that followed it (Qwen3-Next: 4).
    """

    name = "gated_deltanet"
    mixer_class = GatedDelta
    qk_ratio = 0.5
    hidden_ratio = 1.5
    #: Widths of the paper's sizes. A layer with feed-forward has 14·d² weights and not 12·d², so there are 12/14 of the
    #: Transformer's layers (21 of 24), so that both have about the same size. The choice is ours.
    sizes: ClassVar[dict[str, tuple[int, int, int]]] = {
        "160m": (768, 10, 6),
        "400m": (1024, 21, 6),
        "830m": (1536, 21, 6),
        "1.4b": (2048, 21, 6),
        "2.7b": (2560, 27, 10),
        "7b": (4096, 27, 12),
    }

    def mixer(self) -> Mixer:
        return GatedDelta(n_heads=self.n_heads, d_qk=self.d_qk, d_hv=self.d_hv)

    def _default_d_hv(self) -> Shape:
        check_divides(
            2 * self.n_heads, 3 * self.d_model, "1.5 * d_model is not a multiple of n_heads: give d_qk and d_hv"
        )
        return 3 * self.d_model // (2 * self.n_heads)

    def _default_d_qk(self) -> Shape:
        if np.any(np.asarray(self.d_hv) % 2):
            raise InputError("d_qk defaults to d_hv / 2, and d_hv is odd: give d_qk")
        return self.d_hv // 2

    def _default_d_ff(self) -> Shape:
        return -(-8 * self.d_model // 768) * 256  # 8/3 of the width, up to a multiple of 256


class GatedDeltaNet3To1(GatedDeltaNet):
    """Gated DeltaNet in three of four layers, attention in the fourth."""

    name = "gated_deltanet_3to1"
    usual_attention_every = 4


class GatedDeltaNet7To1(GatedDeltaNet):
    """Gated DeltaNet in seven of eight layers, attention in the eighth."""

    name = "gated_deltanet_7to1"
    usual_attention_every = 8
