"""What generation costs: FLOPs, bytes moved and memory held by a prefill and by one generated token.

Two phases (arXiv 2510.02228, section on inference). A *prefill* reads a prompt of T tokens at once, as the forward
pass of training does. A *step* adds one token to each of B sequences: every weight is read for B tokens, a Transformer
reads its whole cache of keys and values, an xLSTM reads and writes a state of fixed size.

Bytes are a model, and a lower bound for kernels that fuse no further: weights once per pass, every matrix product,
norm, residual and gate reads its inputs and writes its output once, attention and mLSTM cell are one kernel each.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from companion.accounting.breakdown import Breakdown
from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import check_context_length, forward_flops
from companion.accounting.params import count_params, qkv_width
from companion.architectures.base import XLSTM
from companion.errors import InputError
from companion.hardware import Hardware, get_hardware

#: FLOPs of the gates of one mLSTM head and step: log-sigmoid, maximum, two exponentials with their differences, the
#: lower bound of the denominator.
RECURRENT_GATE_FLOPS = 12


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Bytes per number. The models timed by the authors hold weights in 2 bytes (`data/README.md`).

    Raises
    ------
    InputError
        if one is not positive.
    """

    bytes_per_weight: float = 2.0
    bytes_per_activation: float = 2.0
    bytes_per_cache: float = 2.0  # keys and values
    bytes_per_state: float = 4.0  # C, n and m of the mLSTM

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < getattr(self, field.name) < float("inf"):
                raise InputError(f"{field.name} {getattr(self, field.name)} is not a positive, finite number")


BF16 = Precision()


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Bytes moved or held, by what they are: `weights`, `cache` (keys and values, or mLSTM state), `activations`."""

    weights: Any
    cache: Any
    activations: Any

    @property
    def total(self) -> Any:
        """Sum of the three."""
        return self.weights + self.cache + self.activations


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Least time of a pass on a hardware entry: seconds if compute or memory alone were the limit."""

    compute_seconds: Any
    memory_seconds: Any

    @property
    def seconds(self) -> Any:
        """The larger of the two: both overlap at best (Williams, Waterman, Patterson 2009)."""
        return np.maximum(self.compute_seconds, self.memory_seconds)

    @property
    def compute_bound(self) -> Any:
        """Whether compute is the limit."""
        return np.greater_equal(self.compute_seconds, self.memory_seconds)


@dataclass(frozen=True, kw_only=True)
class InferencePass:
    """One prefill or one step of a batch.

    `flops` in FLOP by component, `traffic` bytes moved, `memory` bytes held; all for the whole batch.
    """

    kind: str
    context_length: Any
    batch_size: Any
    flops: Breakdown
    traffic: Bytes
    memory: Bytes

    @property
    def arithmetic_intensity(self) -> Any:
        """FLOP per byte moved."""
        return self.flops.total / self.traffic.total

    def roofline(self, hardware: str | Hardware) -> Roofline:
        """Least time on a hardware entry (see `Roofline`)."""
        peaks = get_hardware(hardware)
        return Roofline(
            compute_seconds=self.flops.total / peaks.peak_flops_per_s,
            memory_seconds=self.traffic.total / peaks.peak_bytes_per_s,
        )

    def fit_message(self, hardware: str | Hardware) -> str:
        """Empty if the pass fits the memory of the hardware, else what it needs, in words."""
        peaks = get_hardware(hardware)
        needed = float(np.max(self.memory.total))
        if needed <= peaks.memory_bytes:
            return ""
        has = f"{peaks.label} has {peaks.memory_bytes / 2**30:.1f} GiB"
        return f"does not fit, needs {needed / 2**30:.1f} GiB in a {self.kind}; {has}"


def count_prefill(
    architecture: Any,
    context_length: Any,
    batch_size: Any = 1,
    *,
    precision: Precision = BF16,
    convention: str | Convention = PAPER,
) -> InferencePass:
    """A prompt of T tokens for each of B sequences; logits of the last token only.

    Parameters
    ----------
    architecture
        an `Architecture`, or shapes of a `companion.runs.shape_family.ShapeFamily`.
    context_length
        T, tokens of the prompt: whole, positive, for an xLSTM at least one chunk. Arrays broadcast.
    batch_size
        B, sequences at once: whole and positive.
    precision
        bytes per number.
    convention
        what counts as a FLOP, with the causal factors and the chunk size.

    Raises
    ------
    InputError
        for a context or batch that is not a positive whole number, or a context below one chunk.
    """
    convention, a = get_convention(convention), architecture
    T = check_context_length(a.name, context_length, convention).astype(float)[()]
    B = check_batch_size(batch_size)
    forward = forward_flops(a, T, convention)
    per_sequence = replace(forward, unembedding=2.0 * a.d_model * a.vocab_size)
    cache = cache_numbers(a, T) * _cache_bytes(a, precision)
    cache_traffic = cache
    if a.name == XLSTM.name:  # the state of every chunk is written by one kernel and read by the next
        cache_traffic = 2 * cache * np.ceil(T / convention.chunk_size)
    moved = (T * activations_per_token(a) + a.vocab_size) * precision.bytes_per_activation
    held = (T * _live_per_token(a) + a.vocab_size) * precision.bytes_per_activation
    weights = count_params(a)
    read = weights.total - weights.embedding  # of the embedding only the rows of the prompt
    return InferencePass(
        kind="prefill",
        context_length=T,
        batch_size=B,
        flops=per_sequence * B,
        traffic=Bytes(weights=read * precision.bytes_per_weight, cache=B * cache_traffic, activations=B * moved),
        memory=Bytes(weights=weights.total * precision.bytes_per_weight, cache=B * cache, activations=B * held),
    )


def count_step(
    architecture: Any,
    context_length: Any,
    batch_size: Any = 1,
    *,
    precision: Precision = BF16,
    convention: str | Convention = PAPER,
) -> InferencePass:
    """One generated token for each of B sequences, the last of T tokens of context.

    Attention costs H·T·(2·d_qk + 2·d_hv + softmax) per layer: summed over T tokens this is the prefill's causal half.
    Arguments and errors as in `count_prefill`, but a context of one token will do.
    """
    convention, a = get_convention(convention), architecture
    T = check_context_length("", context_length, convention).astype(float)[()]
    B = check_batch_size(batch_size)
    one = forward_flops(a, 1.0, convention)
    if a.name == XLSTM.name:
        core = a.n_heads * mlstm_recurrent_flops(a.d_qk, a.d_hv)
        cache_traffic = 2 * cache_numbers(a, T) * precision.bytes_per_state  # read and written
    else:
        core = T * a.n_heads * (2 * a.d_qk + 2 * a.d_hv + convention.attention_softmax_flops)
        cache_traffic = cache_numbers(a, T + 1) * precision.bytes_per_cache  # T read, one written
    if convention.rule == "6ND":
        core = 0.0
    weights = count_params(a)
    moved = (activations_per_token(a) + a.vocab_size) * precision.bytes_per_activation
    held = (_live_per_token(a) + a.vocab_size) * precision.bytes_per_activation
    return InferencePass(
        kind="step",
        context_length=T,
        batch_size=B,
        flops=replace(one, mixer_core=a.n_layers * core) * B,
        traffic=Bytes(
            weights=(weights.total - weights.embedding) * precision.bytes_per_weight,
            cache=B * cache_traffic,
            activations=B * moved,
        ),
        memory=Bytes(
            weights=weights.total * precision.bytes_per_weight,
            cache=B * cache_numbers(a, T) * _cache_bytes(a, precision),
            activations=B * held,
        ),
    )


def cache_numbers(architecture: Any, context_length: Any) -> Any:
    """Numbers that one sequence keeps in all layers: keys and values of T tokens, or the state of the mLSTM.

    Keys and values: n_layers·n_kv_heads·(d_qk + d_hv)·T. State: n_layers·H·(d_qk·d_hv + d_qk + 1), whatever T is.
    """
    a = architecture
    if a.name == XLSTM.name:
        return (
            a.n_layers * a.n_heads * (a.d_qk * a.d_hv + a.d_qk + 1) + 0.0 * np.asarray(context_length, dtype=float)[()]
        )
    return a.n_layers * a.n_kv_heads * (a.d_qk + a.d_hv) * context_length


def context_of_equal_cache(transformer: Any, xlstm: Any, precision: Precision = BF16) -> Any:
    """T above which the keys and values of a Transformer take more bytes than the state of an xLSTM; not rounded."""
    state = cache_numbers(xlstm, 1) * precision.bytes_per_state
    return state / (cache_numbers(transformer, 1) * precision.bytes_per_cache)


def mlstm_recurrent_flops(d_qk: Any, d_hv: Any) -> Any:
    """FLOPs of one mLSTM head and step: 6·d_qk·d_hv + 7·d_qk + d_hv, and the gates (arXiv 2510.02228, appendix).

    State: decay, outer product, its scale, sum, and 2 for the product with the query.
    """
    return 6 * d_qk * d_hv + 7 * d_qk + d_hv + RECURRENT_GATE_FLOPS


def activations_per_token(architecture: Any) -> Any:
    """Numbers read and written per token by norms, products, residuals and gates of all layers, and the final norm.

    Per block with q the width of queries, keys and values together and h = H·d_hv: norms 4·d, residuals 6·d, products
    2·d + q + h, the mixer's core q + h, feed-forward 2·d + 6·d_ff. An xLSTM block adds gates, head norm and output
    gate: d + 6·h + 4·H. Normalized queries and keys are read and written once more.
    """
    a = architecture
    hidden = a.n_heads * a.d_hv
    per_block = 14 * a.d_model + 2 * qkv_width(a) + 2 * hidden + 6 * a.d_ff
    if a.name == XLSTM.name:
        per_block = per_block + a.d_model + 6 * hidden + 4 * a.n_heads
    else:
        per_block = per_block + a.qk_norm * 2 * (a.n_heads + a.n_kv_heads) * a.d_qk
    return a.n_layers * per_block + 4 * a.d_model


def check_batch_size(batch_size: Any) -> Any:
    """The batch as float64; an InputError unless it is a positive whole number."""
    values = np.asarray(batch_size)
    numeric = np.issubdtype(values.dtype, np.number) and values.dtype != bool
    if not numeric or not np.all((values > 0) & (values == np.floor(values)) & np.isfinite(values)):
        raise InputError(f"batch_size: {batch_size} is not a positive whole number")
    return values.astype(float)[()]


def _cache_bytes(architecture: Any, precision: Precision) -> float:
    return precision.bytes_per_state if architecture.name == XLSTM.name else precision.bytes_per_cache


def _live_per_token(architecture: Any) -> Any:
    """Numbers per token that live at once: the residual stream, and the widest product with its input."""
    a = architecture
    mixer = a.d_model + qkv_width(a) + a.n_heads * a.d_hv
    return a.d_model + np.maximum(mixer, a.d_model + 3 * a.d_ff)
