"""Shapes of the two architectures, and the sizes the paper uses. Only shapes live here: no weights, no torch."""

from companion.architectures.base import (
    ARCHITECTURES,
    PRESET_SIZES,
    VOCAB_SIZE,
    XLSTM,
    Architecture,
    Transformer,
    make_architecture,
    preset,
)

__all__ = [
    "ARCHITECTURES",
    "PRESET_SIZES",
    "VOCAB_SIZE",
    "XLSTM",
    "Architecture",
    "Transformer",
    "make_architecture",
    "preset",
]
