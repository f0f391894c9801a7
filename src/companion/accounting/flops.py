"""FLOPs of training from shapes: per component, forward and backward, under any convention.

A matrix product (m × k)(k × n) is 2·m·k·n FLOPs. All functions take scalars or arrays that broadcast together; the
same expressions are evaluated on symbols for the formulas in the book (`companion.accounting.symbolic`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from companion.accounting.breakdown import Breakdown
from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.params import count_params, qkv_width
from companion.architectures.base import XLSTM, Architecture
from companion.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainingFlops:
    """FLOPs of one training step on one sequence.

    `forward` and `backward` are FLOPs per sequence of `context_length` tokens. They are sums of whole and half
    numbers, so their parts add up exactly in float64 as long as the total stays below 2^52.
    """

    architecture: Architecture
    context_length: Any
    convention: Convention
    forward: Breakdown
    backward: Breakdown

    @property
    def components(self) -> Breakdown:
        """Forward plus backward, FLOPs per sequence."""
        backward = self.backward.as_dict()
        return Breakdown(**{name: value + backward[name] for name, value in self.forward.items()})

    @property
    def train_flops_per_token(self) -> Any:
        """Forward plus backward, FLOPs per token."""
        return (self.forward.total + self.backward.total) / self.context_length

    def train_flops(self, num_tokens: Any) -> Any:
        """C: FLOPs of training on `num_tokens` tokens in sequences of `context_length`."""
        return self.train_flops_per_token * num_tokens

    def share(self, component: str) -> Any:
        """Share of one component in the FLOPs of training, between 0 and 1."""
        return getattr(self.components, component) / self.components.total


def count_flops(architecture: Architecture, context_length: Any, convention: str | Convention = PAPER) -> TrainingFlops:
    """Training FLOPs of every component, summed over the layers.

    Parameters
    ----------
    architecture
        shapes, as integers or as arrays that broadcast together.
    context_length
        T, tokens per sequence; an integer or an array. For an xLSTM at least one chunk.
    convention
        a `Convention` or the name of one: `paper`, `tfla`, `chinchilla`, `6ND`.

    Returns
    -------
    TrainingFlops
        forward and backward breakdowns per sequence, and totals per token.

    Raises
    ------
    InputError
        if the context is not a positive whole number, or shorter than a chunk.

    Examples
    --------
    >>> from companion.architectures import preset
    >>> counted = count_flops(preset("xlstm", "7b"), context_length=8192)
    >>> print(f"{counted.train_flops_per_token:.3g} FLOP per token")
    4.04e+10 FLOP per token
    """
    convention = get_convention(convention)
    length = check_context_length(architecture.name, context_length, convention)
    # float64 from here on: T² · H · d of a long context leaves int64
    T = length.astype(np.float64) if length.ndim else float(length)
    forward = forward_flops(architecture, T, convention)
    return TrainingFlops(
        architecture=architecture,
        context_length=T,
        convention=convention,
        forward=forward,
        backward=forward * convention.backward_factor,
    )


def check_context_length(architecture: str, context_length: Any, convention: Convention) -> np.ndarray:
    """The context as an array; an InputError if it is no positive whole number, or below one chunk for an xLSTM."""
    length = np.asarray(context_length)
    if not np.issubdtype(length.dtype, np.number) or not np.all(
        np.isfinite(length) & (length > 0) & (length == np.floor(length))
    ):
        raise InputError(f"context_length: {context_length} is not a positive whole number")
    if architecture == XLSTM.name and convention.rule == "layers" and np.any(length < convention.chunk_size):
        raise InputError(f"context_length {length.min()} is shorter than one chunk of {convention.chunk_size} tokens")
    return length


def forward_flops(architecture: Architecture, context_length: Any, convention: Convention) -> Breakdown:
    """FLOPs of the forward pass over one sequence, by component; no checks (see `count_flops`).

    Source: arXiv 2510.02228, appendix on FLOP accounting, for `paper` and `tfla`.
    """
    a: Any = architecture
    T = context_length
    if convention.rule == "6ND":
        weights = count_params(a).as_dict()
        return Breakdown(**{name: 2.0 * T * weights[name] for name in convention.counted_weights})

    d, hidden = a.d_model, a.n_heads * a.d_hv
    projections = 2 * d * qkv_width(a) + 2 * d * hidden
    output_gate, normed = 0.0, 2 * d
    if a.name == XLSTM.name:
        normed = normed + hidden  # the head norm
        projections = projections + 4 * d * a.n_heads  # input and forget gate, one scalar per head each
        output_gate = 2 * d * hidden + convention.output_gate_elementwise_flops * hidden
        core = mlstm_core_flops(a.n_heads, a.d_qk, a.d_hv, T, convention)
    else:
        normed = normed + a.qk_norm * (a.n_heads + a.n_kv_heads) * a.d_qk
        core = attention_core_flops(a.n_heads, a.d_qk, a.d_hv, T, convention)
    logits = 2.0 * T * d * a.vocab_size
    return Breakdown(
        embedding=logits if convention.count_embedding else 0.0 * T * d,
        mixer_projections=a.n_layers * T * projections,
        mixer_core=a.n_layers * core,
        output_gate=a.n_layers * T * output_gate,
        ffn=a.n_layers * T * (6 * d * a.d_ff + convention.ffn_elementwise_flops * a.d_ff),
        norms=convention.norm_flops * T * (a.n_layers * normed + d),
        unembedding=logits,
    )


def attention_core_flops(n_heads: Any, d_qk: Any, d_hv: Any, context_length: Any, convention: Convention) -> Any:
    """Scores, softmax and weighted sum of causal attention: FLOPs per layer and sequence, forward.

    The T × T scores cost `2·d_qk` each, the softmax `attention_softmax_flops`, the weighted sum `2·d_hv`; the causal
    factor scales all three. Under `paper` this is `T²·H·(d_qk + d_hv + 2.5)`.
    """
    per_score = 2 * d_qk + 2 * d_hv + convention.attention_softmax_flops
    return convention.attention_causal_factor * context_length**2 * n_heads * per_score


def mlstm_core_flops(n_heads: Any, d_qk: Any, d_hv: Any, context_length: Any, convention: Convention) -> Any:
    """Chunkwise mLSTM cell: FLOPs per layer and sequence, forward.

    A sequence that is not a multiple of the chunk has one shorter chunk at its end.
    """

    def one_chunk(size: Any) -> Any:
        return sum(convention.mlstm_chunk(size, d_qk, d_hv, convention.mlstm_causal_factor).values())

    full_chunks = context_length // convention.chunk_size
    tail = context_length % convention.chunk_size
    # the count of an empty chunk is not zero (it holds the state's own decay), hence the mask
    return n_heads * (full_chunks * one_chunk(convention.chunk_size) + 1 * (tail != 0) * one_chunk(tail))


def train_flops(
    architecture: Architecture, context_length: Any, num_tokens: Any, convention: str | Convention = PAPER
) -> Any:
    """C: FLOPs of training on `num_tokens` tokens in sequences of `context_length` (see `count_flops`)."""
    return count_flops(architecture, context_length, convention).train_flops(num_tokens)
