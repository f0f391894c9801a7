"""Causal softmax attention: full, with grouped heads, or in a sliding window.

Sources: arXiv 1706.03762, arXiv 2305.13245 (grouped heads), arXiv 2004.05150 (sliding window),
arXiv 2505.09388 (norm of queries and keys).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from companion.architectures.mixer import (
    ACTIVATIONS,
    BATCHED,
    LAYERS,
    PASSES,
    PRODUCTS,
    TOKEN_LAYERS,
    WEIGHTS,
    Counting,
    Mixer,
    Term,
)
from companion.architectures.shapes import Shape
from companion.numeric import Numeric

CORE = Term("attention_flops", "compute", "FLOP", "FLOPs of attention's core")
_WAVES = Term("cache_waves", "latency", "token·layer·wave", "cached tokens per layer, times waves of heads")


@dataclass(frozen=True, kw_only=True)
class Attention(Mixer):
    """Causal attention; queries of several heads may share keys and values, and see only the last tokens.

    With `n_kv_heads` below `n_heads` several query heads share one head of keys and values. With `qk_norm` an RMSNorm
    of width `d_qk`, shared by the heads of a layer, scales queries and keys. With `window` w a token sees the last w
    tokens, itself included, and older keys and values are dropped; None or 0: all tokens.
    """

    name = "attention"
    keeps = "keys and values"
    kept_as = "cache"
    runtime_terms: ClassVar[dict[str, tuple[Term, ...]]] = {
        "ttft": (PRODUCTS, CORE, TOKEN_LAYERS, LAYERS, PASSES),
        "step_time": (WEIGHTS, _WAVES, ACTIVATIONS, LAYERS, BATCHED),
    }

    n_kv_heads: Shape
    qk_norm: Shape = False
    window: Shape | None = None

    def qkv_width(self) -> Numeric:
        return self.n_heads * self.d_qk + self.n_kv_heads * (self.d_qk + self.d_hv)

    def projection_params(self, d_model: Numeric) -> Numeric:
        return d_model * self.qkv_width() + d_model * self.hidden_width

    def core_params(self, d_model: Numeric) -> Numeric:
        return 0 * d_model

    def output_gate_params(self, d_model: Numeric) -> Numeric:
        return 0 * d_model

    def norm_params(self) -> Numeric:
        return self.qk_norm * 2 * self.d_qk

    def projection_flops(self, d_model: Numeric) -> Numeric:
        return 2 * d_model * self.qkv_width() + 2 * d_model * self.hidden_width

    def output_gate_flops(self, d_model: Numeric, convention: Counting) -> Numeric:
        return 0.0

    def norm_width(self) -> Numeric:
        return self.qk_norm * (self.n_heads + self.n_kv_heads) * self.d_qk

    def core_flops(self, context_length: Numeric, convention: Counting) -> Numeric:
        return attention_core_flops(self.n_heads, self.d_qk, self.d_hv, context_length, convention, self.window)

    def step_core_flops(self, context_length: Numeric, convention: Counting) -> Numeric:
        per_score = 2 * self.d_qk + 2 * self.d_hv + convention.attention_softmax_flops
        return self.seen(context_length) * self.n_heads * per_score

    def core_flops_per_token(self, context_length: Numeric, convention: Counting) -> Numeric:
        return self.core_flops(context_length, convention) / context_length

    def growth(self, convention: Counting) -> Numeric | None:
        return None if self.has_window else self.core_flops(1.0, convention)

    def least_context(self, convention: Counting) -> int:
        return 1

    def cache_numbers(self, context_length: Numeric) -> Numeric:
        return self.n_kv_heads * (self.d_qk + self.d_hv) * self.seen(context_length)

    def prefill_cache_traffic(self, context_length: Numeric, convention: Counting) -> Numeric:
        return self.cache_numbers(context_length)  # written once

    def step_cache_traffic(self, context_length: Numeric) -> Numeric:
        # all tokens but the new one read, the new one written and read
        return self.n_kv_heads * (self.d_qk + self.d_hv) * (self.seen(context_length) + 1)

    def activations_per_token(self, d_model: Numeric) -> Numeric:
        # queries, keys, values and hidden states written and read; normalized queries and keys once more
        return 2 * self.qkv_width() + 2 * self.hidden_width + 2 * self.norm_width()

    def step_features(
        self, context_length: Numeric, batch_size: Numeric, num_multiprocessors: int
    ) -> dict[str, Numeric]:
        # heads of a family are real numbers: a wave is full when the last head is in
        waves = np.ceil(batch_size * self.n_heads / num_multiprocessors - 1e-9)
        return {"cache_waves": self.seen(context_length) * waves}

    @property
    def has_window(self) -> bool:
        """Whether any of the layers drops old tokens."""
        return self.window is not None and bool(np.any(np.asarray(self.window) > 0))

    def seen(self, context_length: Numeric) -> Numeric:
        """Tokens that the last of T tokens sees: min(T, w)."""
        return seen_tokens(context_length, self.window)


def seen_tokens(context_length: Numeric, window: Numeric | None) -> Numeric:
    """Tokens that the last of T tokens sees: min(T, w), or T without a window (None or 0)."""
    if window is None:
        return context_length
    length = np.asarray(context_length)
    return np.where(np.asarray(window) > 0, np.minimum(length, np.asarray(window)), length)[()]


def attention_core_flops(
    n_heads: Numeric,
    d_qk: Numeric,
    d_hv: Numeric,
    context_length: Numeric,
    convention: Counting,
    window: Numeric | None = None,
) -> Numeric:
    """Scores, softmax and weighted sum of causal attention: FLOPs per layer and sequence, forward.

    The T × T scores cost `2·d_qk` each, the softmax `attention_softmax_flops`, the weighted sum `2·d_hv`; the causal
    factor scales all three. Under `paper` this is `T²·H·(d_qk + d_hv + 2.5)`. With a window w of at most T, the matrix
    is a band of `w·(2·T − w)` scores: w on each side of the diagonal, of which the causal factor takes its share.
    """
    per_score = 2 * d_qk + 2 * d_hv + convention.attention_softmax_flops
    if window is None:
        return convention.attention_causal_factor * context_length**2 * n_heads * per_score
    seen = seen_tokens(context_length, window)
    return convention.attention_causal_factor * (seen * (2 * context_length - seen)) * n_heads * per_score
