"""What generation costs: FLOPs, bytes moved and memory held by a prefill and by one generated token.

Two phases (arXiv 2510.02228, section on inference). A *prefill* reads a prompt of T tokens at once, as the forward
pass of training does. A *step* adds one token to each of B sequences: every weight is read for B tokens, a Transformer
reads its whole cache of keys and values, an xLSTM reads and writes a state of fixed size.

Bytes are a model, and a lower bound for kernels that fuse no further: weights once per pass, every matrix product,
norm, residual and gate reads its inputs and writes its output once, attention and mLSTM cell are one kernel each.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from companion.accounting.breakdown import Breakdown
from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import check_context_length, forward_flops, least_context
from companion.accounting.params import block_branches, count_params, over_layers
from companion.architectures import Architecture, Mixer
from companion.architectures.mlstm import RECURRENT_GATE_FLOPS, mlstm_recurrent_flops
from companion.errors import InputError
from companion.hardware import Hardware, get_hardware
from companion.numeric import Numeric

__all__ = [
    "BF16",
    "RECURRENT_GATE_FLOPS",
    "Bytes",
    "InferencePass",
    "Precision",
    "Roofline",
    "activations_per_token",
    "cache_bytes",
    "cache_numbers",
    "check_batch_size",
    "context_of_equal_cache",
    "count_prefill",
    "count_step",
    "live_per_token",
    "live_widths",
    "mlstm_recurrent_flops",
]


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
    bytes_per_state: float = 4.0  # the state of a recurrent mixer

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < getattr(self, field.name) < float("inf"):
                raise InputError(f"{field.name} {getattr(self, field.name)} is not a positive, finite number")

    def kept(self, mixer: Mixer) -> float:
        """Bytes per number that a mixer keeps: those of its cache, or of its state."""
        return {"cache": self.bytes_per_cache, "state": self.bytes_per_state}[mixer.kept_as]


BF16 = Precision()


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Bytes moved or held, by what they are: `weights`, `cache` (keys and values, or mLSTM state), `activations`."""

    weights: Numeric
    cache: Numeric
    activations: Numeric

    @property
    def total(self) -> Numeric:
        """Sum of the three."""
        return self.weights + self.cache + self.activations


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Least time of a pass on a hardware entry: seconds if compute or memory alone were the limit."""

    compute_seconds: Numeric
    memory_seconds: Numeric

    @property
    def seconds(self) -> Numeric:
        """The larger of the two: both overlap at best (Williams, Waterman, Patterson 2009)."""
        return np.maximum(np.asarray(self.compute_seconds), np.asarray(self.memory_seconds))[()]

    @property
    def compute_bound(self) -> NDArray[np.bool_] | np.bool_:
        """Whether compute is the limit."""
        return np.greater_equal(np.asarray(self.compute_seconds), np.asarray(self.memory_seconds))[()]


@dataclass(frozen=True, kw_only=True)
class InferencePass:
    """One prefill or one step of a batch.

    `flops` in FLOP by component, `traffic` bytes moved, `memory` bytes held; all for the whole batch.
    """

    kind: str
    context_length: Numeric
    batch_size: Numeric
    flops: Breakdown
    traffic: Bytes
    memory: Bytes

    @property
    def arithmetic_intensity(self) -> Numeric:
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
        needed = float(np.max(np.asarray(self.memory.total)))
        if needed <= peaks.memory_bytes:
            return ""
        has = f"{peaks.label} has {peaks.memory_bytes / 2**30:.1f} GiB"
        return f"does not fit, needs {needed / 2**30:.1f} GiB in a {self.kind}; {has}"


def count_prefill(
    architecture: Architecture,
    context_length: Numeric,
    batch_size: Numeric = 1,
    *,
    precision: Precision = BF16,
    convention: str | Convention = PAPER,
) -> InferencePass:
    """A prompt of T tokens for each of B sequences; logits of the last token only.

    Parameters
    ----------
    architecture
        an `Architecture`, checked or a member of a `companion.runs.shape_family.ShapeFamily`.
    context_length
        T, tokens of the prompt: whole, positive, for an mLSTM at least one chunk. Arrays broadcast.
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
    T = check_context_length(context_length, least_context(a, convention)).astype(float)[()]
    B = check_batch_size(batch_size)
    forward = forward_flops(a, T, convention)
    moved = (T * activations_per_token(a) + a.vocab_size) * precision.bytes_per_activation
    cache_traffic = over_layers(
        a, lambda mixer, number: number * mixer.prefill_cache_traffic(T, convention) * precision.kept(mixer)
    )
    weights = count_params(a)
    read = weights.total - weights.embedding  # of the embedding only the rows of the prompt
    return InferencePass(
        kind="prefill",
        context_length=T,
        batch_size=B,
        flops=replace(forward, unembedding=2.0 * a.d_model * a.vocab_size) * B,
        traffic=Bytes(weights=read * precision.bytes_per_weight, cache=B * cache_traffic, activations=B * moved),
        memory=_held(a, T, T, B, weights.total, precision),
    )


def count_step(
    architecture: Architecture,
    context_length: Numeric,
    batch_size: Numeric = 1,
    *,
    precision: Precision = BF16,
    convention: str | Convention = PAPER,
) -> InferencePass:
    """One generated token for each of B sequences, the last of T tokens of context.

    Attention costs H·T·(2·d_qk + 2·d_hv + softmax) per layer: summed over T tokens this is the prefill's causal half.
    Arguments and errors as in `count_prefill`, but a context of one token will do.
    """
    convention, a = get_convention(convention), architecture
    T = check_context_length(context_length).astype(float)[()]
    B = check_batch_size(batch_size)
    one = forward_flops(a, 1.0, convention)
    core: Numeric = 0.0
    if convention.rule == "layers":
        core = over_layers(a, lambda mixer, number: number * mixer.step_core_flops(T, convention))
    cache_traffic = over_layers(a, lambda mixer, number: number * mixer.step_cache_traffic(T) * precision.kept(mixer))
    weights = count_params(a)
    moved = (activations_per_token(a) + a.vocab_size) * precision.bytes_per_activation
    return InferencePass(
        kind="step",
        context_length=T,
        batch_size=B,
        flops=replace(one, mixer_core=core) * B,
        traffic=Bytes(
            weights=(weights.total - weights.embedding) * precision.bytes_per_weight,
            cache=B * cache_traffic,
            activations=B * moved,
        ),
        memory=_held(a, T, 1, B, weights.total, precision),
    )


def _held(a: Architecture, T: Numeric, tokens: Numeric, B: Numeric, num_params: Numeric, precision: Precision) -> Bytes:
    """Memory of a pass over `tokens` new tokens that ends at a context of T."""
    held = (tokens * live_per_token(a) + a.vocab_size) * precision.bytes_per_activation
    return Bytes(
        weights=num_params * precision.bytes_per_weight, cache=B * cache_bytes(a, T, precision), activations=B * held
    )


def cache_numbers(architecture: Architecture, context_length: Numeric) -> Numeric:
    """Numbers that one sequence keeps in all layers: keys and values, or the state of a recurrent mixer, or both.

    Keys and values of attention: n_kv_heads·(d_qk + d_hv)·T per layer, or of its window. State of an mLSTM:
    H·(d_qk·d_hv + d_qk + 1), whatever T is.
    """
    return over_layers(architecture, lambda mixer, number: number * mixer.cache_numbers(context_length))


def cache_bytes(architecture: Architecture, context_length: Numeric, precision: Precision = BF16) -> Numeric:
    """Bytes of what one sequence keeps in all layers (see `cache_numbers`)."""
    return over_layers(
        architecture, lambda mixer, number: number * mixer.cache_numbers(context_length) * precision.kept(mixer)
    )


def context_of_equal_cache(transformer: Architecture, xlstm: Architecture, precision: Precision = BF16) -> Numeric:
    """T above which the keys and values of a Transformer take more bytes than the state of an xLSTM; not rounded."""
    return cache_bytes(xlstm, 1, precision) / cache_bytes(transformer, 1, precision)


def activations_per_token(architecture: Architecture) -> Numeric:
    """Numbers read and written per token by norms, products, residuals and gates of all layers, and the final norm.

    Per block with q the width of queries, keys and values together and h = H·d_hv: norms 4·d, residuals 6·d, products
    2·d + q + h, the mixer's core q + h, feed-forward 2·d + 6·d_ff; half of the d without a feed-forward. An xLSTM block
    adds gates, head norm and output gate: d + 6·h + 4·H. Normalized queries and keys are read and written once more.
    """
    a, d = architecture, architecture.d_model
    block = 7 * block_branches(a) * d + 6 * a.d_ff
    return over_layers(a, lambda mixer, number: number * (block + mixer.activations_per_token(d))) + 4 * d


def live_per_token(architecture: Architecture) -> Numeric:
    """Numbers per token that live at once: the residual stream, and the widest product with its input."""
    first, *others = live_widths(architecture)
    for other in others:
        first = np.maximum(np.asarray(first), np.asarray(other))[()]
    return first


def live_widths(architecture: Architecture) -> list[Numeric]:
    """Numbers per token that live at once in every part of a block: its mixers, and the feed-forward network."""
    a = architecture
    mixers = [a.d_model + mixer.qkv_width() + mixer.hidden_width for mixer, _ in a.layers]
    return [a.d_model + width for width in (*mixers, a.d_model + 3 * a.d_ff)]


def check_batch_size(batch_size: Numeric) -> Numeric:
    """The batch as float64; an InputError unless it is a positive whole number."""
    values = np.asarray(batch_size)
    numeric = np.issubdtype(values.dtype, np.number) and values.dtype != bool
    if not numeric or not np.all((values > 0) & (values == np.floor(values)) & np.isfinite(values)):
        raise InputError(f"batch_size: {batch_size} is not a positive whole number")
    return values.astype(float)[()]
