"""A count split into the components of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from companion.numeric import Numeric


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Parameters (counts) or FLOPs by component; `total` is their sum and nothing else.

    Every field holds a number, an array of numbers (one entry per configuration), or a sympy expression.
    """

    #: the embedding table; a look-up costs no FLOPs unless a convention says so.
    embedding: Numeric = 0
    #: q, k, v, the gates of the mLSTM, and the output projection.
    mixer_projections: Numeric = 0
    #: attention itself, or the chunkwise mLSTM cell.
    mixer_core: Numeric = 0
    #: the output gate of the xLSTM block; 0 in a Transformer.
    output_gate: Numeric = 0
    #: the SwiGLU feed-forward network.
    ffn: Numeric = 0
    #: weights of all norms; their FLOPs are free unless a convention says so.
    norms: Numeric = 0
    #: the projection to logits.
    unembedding: Numeric = 0

    @property
    def total(self) -> Numeric:
        """Sum over the components."""
        return sum(value for _, value in self.items())

    def items(self) -> Iterator[tuple[str, Numeric]]:
        """Pairs of component name and value, in the order of the forward pass."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def as_dict(self) -> dict[str, Numeric]:
        """The components as a dict, in the order of the forward pass."""
        return dict(self.items())

    def __mul__(self, factor: Numeric) -> Breakdown:
        return Breakdown(**{name: value * factor for name, value in self.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: Numeric) -> Breakdown:
        return Breakdown(**{name: value / divisor for name, value in self.items()})


#: Names of the components, in the order of the forward pass.
COMPONENTS: tuple[str, ...] = tuple(field.name for field in fields(Breakdown))
