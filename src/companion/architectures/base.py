"""Shapes of the two architectures, and the sizes the paper uses.

Only shapes live here: no weights, no torch. A field may hold one integer or a NumPy array of integers; arrays are
broadcast together, so one object can stand for a million configurations.

Sources: arXiv 2510.02228 (sizes), arXiv 2503.13427 (the xLSTM block), arXiv 2302.13971 (the Transformer block).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from companion.errors import InputError

#: Vocabulary of the GPT-NeoX tokenizer, padded to a multiple of 64 (arXiv 2510.02228, model configurations).
VOCAB_SIZE = 50304

#: An integer, or an array of integers that broadcasts with the other shapes.
Shape = Any


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """Shapes of a residual language model with one sequence mixer and one SwiGLU feed-forward network per block.

    Parameters
    ----------
    d_model
        width of the residual stream.
    n_layers
        number of blocks.
    n_heads
        heads of the sequence mixer; must divide `d_model` unless `d_hv` is given.
    d_ff
        inner width of the feed-forward network; `None` takes the architecture's rule.
    d_qk
        width of queries and keys per head; `None` takes the architecture's default.
    d_hv
        width of values and hidden states per head; `None` takes `d_model / n_heads`.
    vocab_size
        rows of the embedding and of the unembedding.
    tied_embeddings
        True if embedding and unembedding share one matrix; the paper's models do not.

    Raises
    ------
    InputError
        if a shape is not a positive whole number, or `n_heads` does not divide `d_model` and `d_hv` is not given.
    """

    name: ClassVar[str]

    d_model: Shape
    n_layers: Shape
    n_heads: Shape
    d_ff: Shape = None
    d_qk: Shape = None
    d_hv: Shape = None
    vocab_size: Shape = VOCAB_SIZE
    tied_embeddings: Shape = False

    def __post_init__(self) -> None:
        for field in ("d_model", "n_layers", "n_heads"):
            self._set(field, _positive_whole(getattr(self, field), field))
        if self.d_hv is None:
            self._set("d_hv", self._default_d_hv())
        if self.d_qk is None:
            self._set("d_qk", self._default_d_qk())
        if self.d_ff is None:
            self._set("d_ff", self._default_d_ff())
        for field in ("d_ff", "d_qk", "d_hv", "vocab_size"):
            self._set(field, _positive_whole(getattr(self, field), field))
        self._set("tied_embeddings", _flag(self.tied_embeddings, "tied_embeddings"))

    def _default_d_hv(self) -> Shape:
        remainder = np.asarray(self.d_model % self.n_heads)
        if np.any(remainder):
            d_model, n_heads = (np.broadcast_to(v, remainder.shape).flat[np.argmax(remainder != 0)]
                                for v in (self.d_model, self.n_heads))  # fmt: skip
            raise InputError(f"d_model {d_model} is not divisible by n_heads {n_heads}: give d_qk and d_hv")
        return self.d_model // self.n_heads

    @abstractmethod
    def _default_d_qk(self) -> Shape:
        """Width of queries and keys when the caller gives none."""

    @abstractmethod
    def _default_d_ff(self) -> Shape:
        """About 8/3 of `d_model`: the three matrices of SwiGLU then weigh as much as two of four times the width."""

    def _set(self, field: str, value: Shape) -> None:
        object.__setattr__(self, field, value)  # the dataclass is frozen; only __post_init__ calls this

    def shapes(self) -> dict[str, Shape]:
        """Every shape by its name, in the order of the constructor."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Transformer(Architecture):
    """Llama-2 style Transformer: causal attention with rotary embedding, SwiGLU, RMSNorm, no biases.

    Queries, keys and values all have width `d_model / n_heads` unless given. With fewer `n_kv_heads` than `n_heads`
    several query heads share one head of keys and values (grouped heads, arXiv 2305.13245); with `qk_norm` an RMSNorm
    of width `d_qk`, shared by the heads of a layer, scales queries and keys (Qwen3, arXiv 2505.09388). The paper's
    models have neither.

    Raises
    ------
    InputError
        as `Architecture`, and if `n_kv_heads` does not divide `n_heads`.
    """

    name = "transformer"

    #: heads of keys and values; `None` takes `n_heads`.
    n_kv_heads: Shape = None
    #: whether queries and keys are normalized per head.
    qk_norm: Shape = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("qk_norm", _flag(self.qk_norm, "qk_norm"))
        if self.n_kv_heads is None:
            self._set("n_kv_heads", self.n_heads)
        self._set("n_kv_heads", _positive_whole(self.n_kv_heads, "n_kv_heads"))
        remainder = np.asarray(self.n_heads % self.n_kv_heads)
        if np.any(remainder):
            n_heads, n_kv_heads = (np.broadcast_to(v, remainder.shape).flat[np.argmax(remainder != 0)]
                                   for v in (self.n_heads, self.n_kv_heads))  # fmt: skip
            raise InputError(f"n_kv_heads {n_kv_heads} does not divide n_heads {n_heads}")

    def _default_d_qk(self) -> Shape:
        return self.d_hv

    def _default_d_ff(self) -> Shape:
        return -(-8 * self.d_model // 192) * 64  # 8/3 of the width, up to a multiple of 64


class XLSTM(Architecture):
    """xLSTM-7B style model (arXiv 2503.13427): mLSTM in place of attention, with an output gate and a head norm.

    Queries and keys are half as wide as values unless given.
    """

    name = "xlstm"

    def _default_d_qk(self) -> Shape:
        if np.any(np.asarray(self.d_hv) % 2):
            raise InputError("d_qk defaults to d_hv / 2, and d_hv is odd: give d_qk")
        return self.d_hv // 2

    def _default_d_ff(self) -> Shape:
        # 2.667 and not 8/3: at 768, 1152, 1536, 2304 and 3072 this is one multiple of 64 more, as in the paper's runs.
        return -(-2667 * self.d_model // 64_000) * 64


ARCHITECTURES: dict[str, type[Architecture]] = {cls.name: cls for cls in (Transformer, XLSTM)}

#: d_model, n_layers, heads of the Transformer, heads of the xLSTM.
#: Source: the Token/Param runs of arXiv 2510.02228 (data/runs.csv); d_ff follows from the rule of each architecture.
#: The models timed for inference differ in places (`inference_model_sizes` in data/published.yaml).
_PAPER_SIZES = {
    "160m": (768, 12, 12, 6),
    "400m": (1024, 24, 16, 4),
    "830m": (1536, 24, 16, 4),
    "1.4b": (2048, 24, 16, 4),
    "2.7b": (2560, 32, 32, 5),
    "7b": (4096, 32, 32, 8),
}
PRESET_SIZES = tuple(_PAPER_SIZES)


def make_architecture(name: str, **shapes: Shape) -> Architecture:
    """Architecture by its name, `transformer` or `xlstm`.

    Raises
    ------
    InputError
        if there is no architecture of that name, or a shape is wrong.
    """
    if name not in ARCHITECTURES:
        raise InputError(f"architecture {name!r} is not known; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](**shapes)


def preset(name: str, size: str) -> Architecture:
    """One of the models the paper trained in its Token/Param design, e.g. `preset("xlstm", "7b")`.

    Raises
    ------
    InputError
        if the paper has no such architecture or size.

    Examples
    --------
    >>> preset("xlstm", "7b").d_model
    4096
    """
    if size not in _PAPER_SIZES:
        raise InputError(f"size {size!r} is not one of the paper's: {', '.join(PRESET_SIZES)}")
    d_model, n_layers, attention_heads, mlstm_heads = _PAPER_SIZES[size]
    n_heads = attention_heads if name == Transformer.name else mlstm_heads
    return make_architecture(name, d_model=d_model, n_layers=n_layers, n_heads=n_heads)


def _positive_whole(value: Shape, field: str) -> Shape:
    """The value as int (or int64 array); an error that names the field otherwise."""
    array = np.asarray(value)
    numeric = np.issubdtype(array.dtype, np.number) and not np.issubdtype(array.dtype, np.complexfloating)
    if not numeric or array.dtype == bool:
        raise InputError(f"{field}: {value!r} is not a number")
    wrong = ~(np.isfinite(array) & (array == np.floor(array)) & (array > 0))
    if np.any(wrong):
        raise InputError(f"{field}: {array[wrong].flat[0] if array.ndim else array} is not a positive whole number")
    return array.astype(np.int64) if array.ndim else int(array)


def _flag(value: Shape, field: str) -> Shape:
    """The value as bool (or an array of 0 and 1); an error that names the field otherwise."""
    array = np.asarray(value)
    if array.dtype == object or not np.isin(array, (0, 1)).all():
        raise InputError(f"{field}: {value!r} is neither true nor false")
    return array.astype(np.int64) if array.ndim else bool(array)
