"""Shapes of architectures, what their mixers cost, and the sizes the paper uses: no weights, no torch."""

from companion.architectures.attention import Attention
from companion.architectures.base import VOCAB_SIZE, Architecture, Layers
from companion.architectures.mixer import Mixer, Term
from companion.architectures.mlstm import MLSTM, XLSTM
from companion.architectures.presets import (
    ARCHITECTURES,
    PAPER_ARCHITECTURES,
    PRESET_SIZES,
    architecture_class,
    make_architecture,
    preset,
)
from companion.architectures.transformer import Transformer

__all__ = [
    "ARCHITECTURES",
    "MLSTM",
    "PAPER_ARCHITECTURES",
    "PRESET_SIZES",
    "VOCAB_SIZE",
    "XLSTM",
    "Architecture",
    "Attention",
    "Layers",
    "Mixer",
    "Term",
    "Transformer",
    "architecture_class",
    "make_architecture",
    "preset",
]
