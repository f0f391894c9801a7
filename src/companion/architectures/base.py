"""What an architecture is: a width, a vocabulary, a feed-forward network or none, and layers of one or two mixers.

Only shapes live here: no weights, no torch. A field may hold one integer or a NumPy array of integers; arrays are
broadcast together, so one object can stand for a million configurations.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from companion.architectures.attention import Attention
from companion.architectures.mixer import Mixer
from companion.architectures.shapes import Shape, check_divides, flag, positive_whole
from companion.errors import InputError
from companion.numeric import Numeric

#: Vocabulary of the GPT-NeoX tokenizer, padded to a multiple of 64 (arXiv 2510.02228, model configurations).
VOCAB_SIZE = 50304
#: Width of a head of attention in a hybrid that names no number of heads.
_ATTENTION_WIDTH = 128
#: Shapes that only layers with attention have.
ATTENTION_SHAPES = ("n_kv_heads", "qk_norm", "window", "attention_heads")


class Layers(NamedTuple):
    """Equal layers of an architecture: their mixer, and how many there are."""

    mixer: Mixer
    number: Numeric


@dataclass(frozen=True, kw_only=True, repr=False)
class Architecture(ABC):
    """Shapes of a residual language model: in every block a sequence mixer and a SwiGLU feed-forward network.

    Parameters
    ----------
    d_model
        width of the residual stream.
    n_layers
        number of blocks.
    n_heads
        heads of the sequence mixer; must divide `d_model` unless `d_hv` is given.
    d_ff
        inner width of the feed-forward network; `None` takes the architecture's rule, 0 leaves it out.
    d_qk
        width of queries and keys per head; `None` takes the architecture's default.
    d_hv
        width of values and hidden states per head; `None` takes the architecture's default.
    vocab_size
        rows of the embedding and of the unembedding.
    tied_embeddings
        True if embedding and unembedding share one matrix; the paper's models do not.
    attention_every
        k: every k-th layer is attention (of `n_layers`, rounded down); `None` or 0: no layer but the architecture's
        own. In a Transformer with a window every k-th layer has none.
    attention_heads
        heads of the attention layers among others; `None` takes heads of width 128, or `n_heads` if 128 does not divide
        `d_model`.
    n_kv_heads
        heads of keys and values of attention; `None` takes as many as it has heads.
    qk_norm
        whether attention normalizes queries and keys per head.
    window
        tokens that attention sees; `None` or 0: all.

    Raises
    ------
    InputError
        if a shape is not a positive whole number, heads do not divide what they share, or shapes of attention are
        given and no layer has attention.
    """

    name: ClassVar[str]
    #: mixer of its own layers, and what is true of a family of its models (`companion.runs.shape_family`).
    mixer_class: ClassVar[type[Mixer]]
    #: d_qk over d_hv, and n_heads·d_hv over d_model.
    qk_ratio: ClassVar[float] = 1.0
    hidden_ratio: ClassVar[float] = 1.0
    #: sizes that have a name: d_model, n_layers, n_heads; the rest follows from the architecture's rules.
    sizes: ClassVar[dict[str, tuple[int, int, int]]] = {}
    #: `attention_every` of models that name none.
    usual_attention_every: ClassVar[int | None] = None

    d_model: Shape
    n_layers: Shape
    n_heads: Shape
    d_ff: Shape = None  # type: ignore[assignment]  # never None once made: nor are the next two
    d_qk: Shape = None  # type: ignore[assignment]
    d_hv: Shape = None  # type: ignore[assignment]
    vocab_size: Shape = VOCAB_SIZE
    tied_embeddings: Shape = False
    n_kv_heads: Shape | None = None
    qk_norm: Shape = False
    window: Shape | None = None
    attention_every: Shape | None = None
    attention_heads: Shape | None = None

    def __post_init__(self) -> None:
        for field in ("d_model", "n_layers", "n_heads"):
            self._set(field, positive_whole(getattr(self, field), field))
        if self.d_hv is None:
            self._set("d_hv", self._default_d_hv())
        if self.d_qk is None:
            self._set("d_qk", self._default_d_qk())
        if self.d_ff is None:
            self._set("d_ff", self._default_d_ff())
        self._set("d_ff", positive_whole(self.d_ff, "d_ff", zero=True))
        for field in ("d_qk", "d_hv", "vocab_size"):
            self._set(field, positive_whole(getattr(self, field), field))
        for field in ("tied_embeddings", "qk_norm"):
            self._set(field, flag(getattr(self, field), field))
        self._check_attention()

    def _check_attention(self) -> None:
        """Shapes of attention, where a layer has any."""
        if self.attention_every is None:
            self._set("attention_every", self.usual_attention_every)
        for field in ("window", "attention_every"):
            if (value := getattr(self, field)) is not None:
                value = positive_whole(value, field, zero=True)
                self._set(field, value if np.any(np.asarray(value) > 0) else None)
        if self.attention_every is not None and np.any(np.asarray(self.attention_every) == 1):
            raise InputError("attention_every: 1 leaves no other layer; a transformer has attention in every layer")
        own = issubclass(self.mixer_class, Attention)
        if not own and self.attention_every is None:
            return self._refuse_attention()
        if own and self.attention_heads is not None:
            raise InputError("attention_heads: all layers of a transformer have n_heads heads")
        if own and self.attention_every is not None and self.window is None:
            raise InputError("attention_every: without a window all layers of a transformer are alike")
        heads, field = self.n_heads, "n_heads"
        if not own:
            given, field = self.attention_heads, "attention_heads"
            heads = positive_whole(usual_attention_heads(self.d_model, heads) if given is None else given, field)
            self._set(field, heads)
            words = "d_model {number} is not divisible by the {divisor} heads of attention: give attention_heads"
            check_divides(heads, self.d_model, words)
        shared = positive_whole(heads if self.n_kv_heads is None else self.n_kv_heads, "n_kv_heads")
        self._set("n_kv_heads", shared)
        check_divides(shared, heads, f"n_kv_heads {{divisor}} does not divide {field} {{number}}")
        return None

    def _refuse_attention(self) -> None:
        """An InputError if shapes of attention say anything; those that say "none" are forgotten."""
        says = {
            "n_kv_heads": self.n_kv_heads is not None and np.any(np.asarray(self.n_kv_heads != self.n_heads)),
            "qk_norm": np.any(np.asarray(self.qk_norm)),
            "window": self.window is not None,
            "attention_heads": self.attention_heads is not None,
        }
        if wrong := [field for field in ATTENTION_SHAPES if says[field]]:
            raise InputError(
                f"{', '.join(wrong)}: this {self.name} has no attention; leave empty, or set attention_every"
            )
        self._set("n_kv_heads", None)
        self._set("qk_norm", False)

    def _default_d_hv(self) -> Shape:
        check_divides(
            self.n_heads, self.d_model, "d_model {number} is not divisible by n_heads {divisor}: give d_qk and d_hv"
        )
        return self.d_model // self.n_heads

    @abstractmethod
    def _default_d_qk(self) -> Shape:
        """Width of queries and keys when the caller gives none."""

    @abstractmethod
    def _default_d_ff(self) -> Shape:
        """About 8/3 of `d_model`: the three matrices of SwiGLU then weigh as much as two of four times the width."""

    def _set(self, field: str, value: Shape | None) -> None:
        object.__setattr__(self, field, value)  # the dataclass is frozen; only checks call this

    @classmethod
    def unchecked(cls, **shapes: Numeric | None) -> Self:
        """The architecture with shapes as they are: real numbers of a family, or symbols of a formula.

        Shapes that are not given have the value of the class, not the architecture's rule.
        """
        made = object.__new__(cls)
        for field in fields(cls):
            default: Any = field.default
            made._set(field.name, shapes.get(field.name, default))
        if made.attention_every is None:
            made._set("attention_every", cls.usual_attention_every)
        return made

    def all_shapes(self) -> dict[str, Numeric | None]:
        """Every shape by its name, set or not."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def shapes(self) -> dict[str, Shape | None]:
        """Every shape by its name, in the order of the constructor; without those of attention where none has any."""
        found = self.all_shapes()
        attention = issubclass(self.mixer_class, Attention) or self.attention_every is not None
        unset = {name for name in ("window", "attention_every", "attention_heads") if found[name] is None}
        return {
            name: value
            for name, value in found.items()
            if name not in unset and (attention or name not in ("n_kv_heads", "qk_norm"))
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.shapes().items())})"

    # ---- layers ---------------------------------------------------------------------------------

    @abstractmethod
    def mixer(self) -> Mixer:
        """The mixer of its own layers."""

    def attention_mixer(self) -> Mixer:
        """The mixer of every k-th layer, where `attention_every` is k."""
        heads = self.attention_heads
        if heads is None:
            heads = usual_attention_heads(self.d_model, self.n_heads)
        width = self.d_model // heads if _is_whole(self.d_model) else self.d_model / heads
        return self._attention(heads, width, width, self.window)

    def _attention(self, heads: Shape, d_qk: Shape, d_hv: Shape, window: Shape | None) -> Attention:
        shared = heads if self.n_kv_heads is None else self.n_kv_heads
        return Attention(n_heads=heads, d_qk=d_qk, d_hv=d_hv, n_kv_heads=shared, qk_norm=self.qk_norm, window=window)

    @cached_property
    def layers(self) -> tuple[Layers, ...]:
        """Its layers by kind: the mixer, and how many there are of it."""
        if self.attention_every is None:
            return (Layers(self.mixer(), self.n_layers),)
        every = self.attention_every
        if isinstance(every, int):
            attention = self.n_layers // every if _is_whole(self.n_layers) else self.n_layers / every
        else:  # 0: no such layer
            attention = np.where(every > 0, self.n_layers // np.maximum(np.asarray(every), 1), 0)
        return (Layers(self.mixer(), self.n_layers - attention), Layers(self.attention_mixer(), attention))

    @property
    def keeps(self) -> str:
        """What one sequence keeps between steps, in words: `keys and values`, `state`, or both."""
        return ", ".join(dict.fromkeys(mixer.keeps for mixer, _ in self.layers))


def usual_attention_heads(d_model: Shape, n_heads: Shape) -> Shape:
    """Heads of attention of a hybrid that names none: of width 128, or `n_heads` if 128 does not divide `d_model`."""
    if not _is_whole(d_model):
        return d_model / _ATTENTION_WIDTH
    found = np.where(d_model % _ATTENTION_WIDTH == 0, d_model // _ATTENTION_WIDTH, np.asarray(n_heads))
    return found if found.ndim else int(found)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or np.asarray(value).dtype.kind in "iu"
