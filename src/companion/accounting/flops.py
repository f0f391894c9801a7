"""FLOPs of training from shapes: per component, forward and backward, under any convention.

A matrix product (m × k)(k × n) is 2·m·k·n FLOPs. All functions take scalars or arrays that broadcast together; the
same expressions are evaluated on symbols for the formulas in the book (`companion.accounting.symbolic`).
"""

from dataclasses import dataclass

import numpy as np

from companion.accounting.breakdown import Breakdown
from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.params import block_branches, count_params, over_layers
from companion.architectures import Architecture
from companion.architectures.attention import attention_core_flops
from companion.architectures.mlstm import mlstm_core_flops
from companion.errors import InputError
from companion.numeric import Numeric

__all__ = [
    "TrainingFlops",
    "attention_core_flops",
    "check_context_length",
    "count_flops",
    "forward_flops",
    "least_context",
    "mlstm_core_flops",
    "train_flops",
]


@dataclass(frozen=True, kw_only=True)
class TrainingFlops:
    """FLOPs of one training step on one sequence.

    `forward` and `backward` are FLOPs per sequence of `context_length` tokens. They are sums of whole and half
    numbers, so their parts add up exactly in float64 as long as the total stays below 2^52.
    """

    architecture: Architecture
    context_length: Numeric
    convention: Convention
    forward: Breakdown
    backward: Breakdown

    @property
    def components(self) -> Breakdown:
        """Forward plus backward, FLOPs per sequence."""
        backward = self.backward.as_dict()
        return Breakdown(**{name: value + backward[name] for name, value in self.forward.items()})

    @property
    def train_flops_per_token(self) -> Numeric:
        """Forward plus backward, FLOPs per token."""
        return (self.forward.total + self.backward.total) / self.context_length

    def train_flops(self, num_tokens: Numeric) -> Numeric:
        """C: FLOPs of training on `num_tokens` tokens in sequences of `context_length`."""
        return self.train_flops_per_token * num_tokens

    def share(self, component: str) -> Numeric:
        """Share of one component in the FLOPs of training, between 0 and 1."""
        return getattr(self.components, component) / self.components.total


def count_flops(
    architecture: Architecture, context_length: Numeric, convention: str | Convention = PAPER
) -> TrainingFlops:
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
    length = check_context_length(context_length, least_context(architecture, convention))
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


def least_context(architecture: Architecture, convention: Convention) -> int:
    """Tokens of the shortest sequence that the forward count takes: one chunk of the longest chunk, or 1."""
    if convention.rule != "layers":
        return 1
    return max(mixer.least_context(convention) for mixer, _ in architecture.layers)


def check_context_length(context_length: Numeric, least: int = 1) -> np.ndarray:
    """The context as an array; an InputError if not a positive whole number, or below one chunk (`least` tokens)."""
    length = np.asarray(context_length)
    if not np.issubdtype(length.dtype, np.number) or not np.all(
        np.isfinite(length) & (length > 0) & (length == np.floor(length))
    ):
        raise InputError(f"context_length: {context_length} is not a positive whole number")
    if least > 1 and np.any(length < least):
        raise InputError(f"context_length {length.min()} is shorter than one chunk of {least} tokens")
    return length


def forward_flops(architecture: Architecture, context_length: Numeric, convention: Convention) -> Breakdown:
    """FLOPs of the forward pass over one sequence, by component; no checks (see `count_flops`).

    Source: arXiv 2510.02228, appendix on FLOP accounting, for `paper` and `tfla`.
    """
    a, d = architecture, architecture.d_model
    T = context_length
    if convention.rule == "6ND":
        weights = count_params(a).as_dict()
        return Breakdown(**{name: 2.0 * T * weights[name] for name in convention.counted_weights})

    branches = block_branches(a)
    logits = 2.0 * T * d * a.vocab_size
    normed = over_layers(a, lambda mixer, number: number * (branches * d + mixer.norm_width())) + d
    return Breakdown(
        embedding=logits if convention.count_embedding else 0.0 * T * d,
        mixer_projections=over_layers(a, lambda mixer, number: number * T * mixer.projection_flops(d)),
        mixer_core=over_layers(a, lambda mixer, number: number * mixer.core_flops(T, convention)),
        output_gate=over_layers(a, lambda mixer, number: number * T * mixer.output_gate_flops(d, convention)),
        ffn=a.n_layers * T * (6 * d * a.d_ff + convention.ffn_elementwise_flops * a.d_ff),
        norms=convention.norm_flops * T * normed,
        unembedding=logits,
    )


def train_flops(
    architecture: Architecture, context_length: Numeric, num_tokens: Numeric, convention: str | Convention = PAPER
) -> Numeric:
    """C: FLOPs of training on `num_tokens` tokens in sequences of `context_length` (see `count_flops`).

    Examples
    --------
    >>> from companion.architectures import preset
    >>> print(f"{train_flops(preset('transformer', '7b'), 8192, 1e12):.3g} FLOP")
    4.64e+22 FLOP
    """
    return count_flops(architecture, context_length, convention).train_flops(num_tokens)
