"""Shapes between and beyond the trained models: one smooth family per architecture.

A loss law knows sizes, not shapes; FLOPs, caches and step times need shapes. A family gives every number of parameters
one shape: depth and head width are power laws of `d_model`, fitted to the shapes of a run table, and N follows from the
exact count. Shapes of a family are real numbers, so that optima move smoothly; `rounded` gives a model one could build.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import check_context_length, forward_flops, least_context
from companion.accounting.params import count_params
from companion.architectures import ARCHITECTURES, VOCAB_SIZE, Architecture, Attention, architecture_class
from companion.architectures.base import usual_attention_heads
from companion.errors import InputError
from companion.laws.optimum import Models, increasing_root
from companion.numeric import Array, Values
from companion.runs.load import OPTIONAL_SHAPE_COLUMNS, SHAPE_COLUMNS, load_paper_runs

#: Widths between which sizes are looked for.
SMALLEST_WIDTH, LARGEST_WIDTH = 16.0, 2.0**19
#: Step in ln d_model of the central differences behind `elasticities`.
DIFFERENCE_STEP = 1e-4
#: Head widths that a built model rounds to.
_HEAD_WIDTHS = np.array([32, 64, 96, 128, 192, 256, 384, 512, 768, 1024])


@dataclass(frozen=True, kw_only=True)
class ShapeFamily:
    """One shape per size of an architecture, as functions of `d_model` (real numbers).

    n_layers = depth·d_model^depth_exponent, d_hv = head_width·d_model^head_width_exponent, d_qk = qk_ratio·d_hv,
    d_ff = ff_ratio·d_model, n_heads = d_model / d_hv (times the architecture's `hidden_ratio`), n_kv_heads =
    kv_ratio·n_heads; `vocab_size` and the rest are those that most models have. `smallest` and
    `largest` are the num_params of the models it was fitted to, `largest_deviation` how far their N lies from that of
    the family at the same d_model and n_layers.
    """

    architecture: str
    depth: float
    depth_exponent: float
    head_width: float
    head_width_exponent: float
    qk_ratio: float
    ff_ratio: float
    vocab_size: int
    smallest: float
    largest: float
    largest_deviation: float
    kv_ratio: float = 1.0
    tied_embeddings: int = 0
    qk_norm: int = 0
    window: int | None = None
    attention_every: int | None = None

    @property
    def hybrid(self) -> bool:
        """Whether some layers are attention and others are not."""
        of = architecture_class(self.architecture)
        every = of.usual_attention_every if self.attention_every is None else self.attention_every
        return every is not None and not issubclass(of.mixer_class, Attention)

    def shapes(self, d_model: ArrayLike, kv_groups: int = 1) -> Architecture:
        """The member at a width, any array; `kv_groups` is the number of query heads per key-value head."""
        d, of = np.asarray(d_model, dtype=float), architecture_class(self.architecture)
        d_hv = self.head_width * d**self.head_width_exponent
        heads = of.hidden_ratio * d / d_hv
        sharing = np.asarray(usual_attention_heads(d, heads)) if self.hybrid else heads
        return of.unchecked(
            d_model=d,
            n_layers=self.depth * d**self.depth_exponent,
            n_heads=heads,
            n_kv_heads=self.kv_ratio * sharing
            if kv_groups == 1
            else np.minimum(sharing, np.maximum(1.0, sharing / kv_groups)),
            d_hv=d_hv,
            d_qk=self.qk_ratio * d_hv,
            d_ff=self.ff_ratio * d,
            vocab_size=float(self.vocab_size),
            tied_embeddings=self.tied_embeddings,
            qk_norm=self.qk_norm,
            window=self.window,
            attention_every=self.attention_every,
        )

    def num_params(self, d_model: ArrayLike) -> Array:
        """N at a width, any array."""
        return np.asarray(count_params(self.shapes(d_model)).total)

    def flops_per_token(self, d_model: ArrayLike, context_length: float, convention: str | Convention = PAPER) -> Array:
        """Training FLOP per token at a width and a context, exact accounting (see `count_flops`)."""
        chosen = get_convention(convention)
        forward = forward_flops(self.shapes(d_model), float(context_length), chosen).total
        return np.asarray((1 + chosen.backward_factor) * forward / context_length)

    def width_of(self, num_params: ArrayLike) -> Array:
        """d_model at which the family has this many parameters, any array.

        Raises
        ------
        InputError
            for a size that no width from 16 to 2^19 has.
        """
        size = np.asarray(num_params, dtype=float)
        low, high = self.num_params(SMALLEST_WIDTH), self.num_params(LARGEST_WIDTH)
        wrong = ~((size >= low) & (size <= high))
        if np.any(wrong):
            raise InputError(
                f"num_params {np.atleast_1d(size)[np.atleast_1d(wrong)][0]:g} is outside {low:.3g} to {high:.3g}"
            )
        return np.exp(_log_width_at(lambda x: np.log(self.num_params(np.exp(x))), np.log(size)))

    def at(self, num_params: ArrayLike) -> Architecture:
        """Shapes of the family at N."""
        return self.shapes(self.width_of(num_params))

    def elasticities(
        self, log_width: Values, context_length: float, convention: str | Convention = PAPER
    ) -> tuple[Array, Array]:
        """d ln N / d ln d_model and d ln F / d ln d_model, with F the training FLOP per token."""
        above, below = np.exp(log_width + DIFFERENCE_STEP), np.exp(log_width - DIFFERENCE_STEP)
        sizes = np.log(self.num_params(above) / self.num_params(below)) / (2 * DIFFERENCE_STEP)
        ends = [self.flops_per_token(width, context_length, convention) for width in (above, below)]
        return sizes, np.log(ends[0] / ends[1]) / (2 * DIFFERENCE_STEP)

    def rounded(self, num_params: float, kv_groups: int = 1) -> Architecture:
        """The nearest model that could be built: whole layers and heads, d_model a multiple of the head width.

        With `kv_groups` query heads of attention per head of keys and values, heads are a multiple of that number,
        or one group.
        """
        ideal, of = self.at(num_params), architecture_class(self.architecture)
        d_hv = int(_HEAD_WIDTHS[np.argmin(np.abs(np.log(_HEAD_WIDTHS / ideal.d_hv)))])
        ratio = Fraction(of.hidden_ratio)
        step = ratio.numerator  # this many heads together span a whole number of widths
        heads = step * max(1, round(of.hidden_ratio * float(ideal.d_model) / d_hv / step))
        grouped: dict[str, int] = {}
        d_model = int(heads * d_hv / ratio)
        if kv_groups > 1 and issubclass(of.mixer_class, Attention):
            groups = max(1, round(heads / kv_groups))
            heads = groups * min(kv_groups, heads)
            d_model, grouped = int(heads * d_hv / ratio), {"n_kv_heads": groups}
        elif kv_groups > 1 and self.hybrid:
            shared = int(usual_attention_heads(d_model, heads))
            divisors = [number for number in range(1, shared + 1) if shared % number == 0]
            grouped = {"n_kv_heads": max(number for number in divisors if number == 1 or number * kv_groups <= shared)}
        return of(
            d_model=d_model,
            n_layers=max(1, round(float(ideal.n_layers))),
            n_heads=heads,
            vocab_size=self.vocab_size,
            tied_embeddings=self.tied_embeddings,
            qk_norm=self.qk_norm,
            window=self.window,
            attention_every=self.attention_every,
            **grouped,
        )


@dataclass(frozen=True, kw_only=True)
class FamilyScale:
    """Training FLOP of a family at one context length; takes the place of `ComputeScale` where shapes are known."""

    family: ShapeFamily
    context_length: float
    convention: Convention = PAPER

    def __post_init__(self) -> None:
        check_context_length(self.context_length, self.least_context)

    @property
    def least_context(self) -> int:
        """Tokens of the shortest sequence that the count takes."""
        return least_context(self.family.shapes(SMALLEST_WIDTH), self.convention)

    def train_flops(self, num_params: ArrayLike, ratio: ArrayLike) -> Array:
        """C of training N parameters on M·N tokens; shapes broadcast."""
        size = np.asarray(num_params, dtype=float)
        width = self.family.width_of(size)
        return self.family.flops_per_token(width, self.context_length, self.convention) * np.asarray(ratio) * size

    def num_params(self, train_flops: ArrayLike, ratio: ArrayLike) -> Array:
        """N at which a model trained on M·N tokens costs C; shapes broadcast."""
        target = np.log(np.divide(train_flops, ratio))
        return self.family.num_params(np.exp(_log_width_at(self._log_cost, target)))

    @property
    def label(self) -> str:
        """The family's architecture."""
        return self.family.architecture

    def limits(self) -> tuple[float, float]:
        """Of ln d_model, the coordinate of the line of models (`companion.laws.optimum.Cost`)."""
        return float(np.log(SMALLEST_WIDTH)), float(np.log(LARGEST_WIDTH))

    def reach(self) -> str:
        """The limits in words."""
        return f"d_model from {SMALLEST_WIDTH:g} to {LARGEST_WIDTH:g} at T = {self.context_length:g}"

    def models(self, x: Values) -> Models:
        """Models at x = ln d_model, any array."""
        width = np.exp(x)
        of_size, of_price = self.family.elasticities(x, self.context_length, self.convention)
        price = self.family.flops_per_token(width, self.context_length, self.convention)
        return Models(self.family.num_params(width), price, of_size, of_price, width)

    def _log_cost(self, log_width: Array) -> Array:
        width = np.exp(log_width)
        price = self.family.flops_per_token(width, self.context_length, self.convention)
        return np.log(price * self.family.num_params(width))


def _log_width_at(function: Callable[[Any], Any], value: Any) -> Any:
    """ln d_model at which an increasing function of it has a value, any array; an end of the range beyond it.

    NaN for NaN.
    """
    low, high = np.log(SMALLEST_WIDTH), np.log(LARGEST_WIDTH)
    found = increasing_root(lambda x, target: function(x) - target, low, high, value)
    return np.where(value <= function(low), low, np.where(value >= function(high), high, found))


def fit_shape_family(runs: pd.DataFrame, architecture: str) -> ShapeFamily:
    """The family through the shapes of a run table, every different shape once.

    Parameters
    ----------
    runs
        a run table with shapes; where it has none for this architecture, the paper's shapes are taken.
    architecture
        a name of `companion.architectures.ARCHITECTURES`. One that the paper lacks has the shapes of its `sizes`.

    Raises
    ------
    InputError
        if the architecture has no count, there are fewer than two different widths, or the shapes make no family: N
        or the cost of a token does not rise with the width.
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"no shapes for architecture {architecture!r}, only for {', '.join(ARCHITECTURES)}")
    models = _distinct(runs, architecture)
    if models.empty:
        models = _distinct(load_paper_runs(), architecture)
    if models.empty:
        models = _named_sizes(architecture)
    if models["d_model"].nunique() < 2:
        raise InputError(
            f"shapes of {architecture}: {models['d_model'].nunique()} different d_model; at least 2 needed"
        )
    of = architecture_class(architecture)
    log_d = np.log(models["d_model"].to_numpy(dtype=float))
    depth_exponent, log_depth = np.polyfit(log_d, np.log(models["n_layers"].to_numpy(dtype=float)), 1)
    width_exponent, log_width = np.polyfit(log_d, np.log(models["d_hv"].to_numpy(dtype=float)), 1)
    family = ShapeFamily(
        architecture=architecture,
        depth=float(np.exp(log_depth)),
        depth_exponent=float(depth_exponent),
        head_width=float(np.exp(log_width)),
        head_width_exponent=float(width_exponent),
        qk_ratio=of.qk_ratio,
        ff_ratio=_mean_ratio(models["d_ff"], models["d_model"]),
        vocab_size=int(models["vocab_size"].mode().iloc[0]),
        kv_ratio=_kv_ratio(models),
        tied_embeddings=int(models["tied_embeddings"].mode().iloc[0]),
        qk_norm=int(models["qk_norm"].mode().iloc[0]),
        window=int(models["window"].mode().iloc[0]) or None,
        attention_every=int(models["attention_every"].mode().iloc[0]) or None,
        smallest=float(models["num_params"].min()),
        largest=float(models["num_params"].max()),
        largest_deviation=0.0,
    )
    widths, layers = (models[name].to_numpy(dtype=float) for name in ("d_model", "n_layers"))
    member = family.shapes(widths)
    same_depth = of.unchecked(**{**member.all_shapes(), "n_layers": layers})
    deviation = np.abs(count_params(same_depth).total / models["num_params"].to_numpy(dtype=float) - 1).max()
    _check_family(family)
    return ShapeFamily(**{**vars(family), "largest_deviation": float(deviation)})


def has_shapes(runs: pd.DataFrame, architecture: str) -> bool:
    """Whether a run table gives the shapes of at least one run of an architecture."""
    return not _distinct(runs, architecture).empty


def _check_family(family: ShapeFamily) -> None:
    """Widths far apart must have sizes and costs that rise, or no inverse of them means anything."""
    widths = np.geomspace(SMALLEST_WIDTH, LARGEST_WIDTH, 200)
    with np.errstate(all="ignore"):
        rising = [np.diff(np.log(family.num_params(widths))), np.diff(np.log(family.flops_per_token(widths, 8192.0)))]
    if not all(np.isfinite(steps).all() and (steps > 0).all() for steps in rising):
        raise InputError(f"shapes of {family.architecture}: depth and heads do not grow with d_model in a regular way")


@lru_cache(maxsize=8)
def paper_family(architecture: str) -> ShapeFamily:
    """The family through the shapes of the paper's runs."""
    return fit_shape_family(load_paper_runs(), architecture)


def _kv_ratio(models: pd.DataFrame) -> float:
    """Heads of keys and values per head of attention, the median."""
    hybrid = models["attention_every"] > 0
    heads = models["n_heads"].where(~hybrid, models["attention_heads"].fillna(models["n_heads"]))
    return float((models["n_kv_heads"] / heads).median())


def _mean_ratio(numerator: pd.Series, denominator: pd.Series) -> float:
    """Geometric mean of ratios; 0 where one is 0, as of models without a feed-forward network."""
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(numerator / denominator).mean()))


def _distinct(runs: pd.DataFrame, architecture: str) -> pd.DataFrame:
    """Every different shape of an architecture's runs, empty cells filled with what they stand for, and num_params."""
    columns = list(SHAPE_COLUMNS)
    if not set(columns) <= set(runs.columns):
        return pd.DataFrame(columns=[*columns, *OPTIONAL_SHAPE_COLUMNS, "num_params"])
    chosen = runs[(runs["architecture"] == architecture) & runs[columns].notna().all(axis=1)]
    usual: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "n_kv_heads": chosen["n_heads"],
        "attention_every": ARCHITECTURES[architecture].usual_attention_every or 0
        if architecture in ARCHITECTURES
        else 0,
    }
    if len(chosen):
        heads = usual_attention_heads(*(chosen[name].to_numpy(dtype=int) for name in ("d_model", "n_heads")))
        usual["attention_heads"] = pd.Series(heads, index=chosen.index)
    for column in OPTIONAL_SHAPE_COLUMNS:
        value = usual.get(column, 0)
        chosen = chosen.assign(**{column: chosen[column].fillna(value) if column in chosen else value})
        columns.append(column)
    return chosen.drop_duplicates(columns)[[*columns, "num_params"]]


def _named_sizes(architecture: str) -> pd.DataFrame:
    """The named sizes of an architecture as `_distinct` has them."""
    of = ARCHITECTURES[architecture]
    models = [of(d_model=d, n_layers=n, n_heads=h) for d, n, h in of.sizes.values()]
    names = [*SHAPE_COLUMNS, *OPTIONAL_SHAPE_COLUMNS]
    rows = [
        {name: getattr(model, name) for name in names} | {"num_params": count_params(model).total} for model in models
    ]
    table = pd.DataFrame(rows, columns=[*names, "num_params"])
    for column, value in (("n_kv_heads", table["n_heads"]), ("window", 0), ("attention_every", 0)):
        table[column] = table[column].astype(float).fillna(value)
    return table
