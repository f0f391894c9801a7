"""Runs that could be trained next, and what each would cost: a grid of sizes and tokens within bounds.

FLOPs are those of the architecture's shapes and context where they are known, else k N D with the k of the run table.
Device hours follow from the utilization that training logs show, or from a given one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from companion.architectures import ARCHITECTURES
from companion.errors import InputError
from companion.hardware import REFERENCE_HARDWARE, get_hardware
from companion.laws.base import Array
from companion.laws.optimum import Cost, FlopsPerParamAndToken
from companion.runs.shape_family import FamilyScale, fit_shape_family
from companion.training.measured import MeasuredUtilization

SECONDS_PER_HOUR = 3600.0
#: Sizes per factor of e, and tokens per parameter, of the default grid.
SIZE_STEP, RATIO_STEP = 1.6, 1.8
#: Sizes and tokens per parameter beyond which no language model is trained.
_SIZES, _RATIOS = (1e3, 1e15), (1e-2, 1e7)
#: Most candidates: more of them say no more about where to train.
MOST_CANDIDATES = 20_000


@dataclass(frozen=True, kw_only=True)
class Hours:
    """Device hours of training from a utilization: a given share, or measured by architecture, size and context."""

    utilization: float | MeasuredUtilization
    hardware: str = REFERENCE_HARDWARE
    architecture: str = ""
    context_length: float = 0.0

    def __post_init__(self) -> None:
        share = self.utilization
        if not isinstance(share, MeasuredUtilization) and not 1e-6 < share <= 1:
            raise InputError(f"utilization {share:g} is not between 0 and 1")
        get_hardware(self.hardware)

    def of(self, train_flops: ArrayLike, num_params: ArrayLike) -> Array:
        """Hours of runs, the shape of both arguments."""
        share: Any = self.utilization
        if isinstance(share, MeasuredUtilization):
            share = share.at(self.architecture, num_params, self.context_length).value
        peak = get_hardware(self.hardware).peak_flops_per_s
        return np.asarray(np.asarray(train_flops, dtype=float) / (share * peak * SECONDS_PER_HOUR))


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """What runs cost: FLOP always, device hours where `hours` is given; a budget is in hours exactly then."""

    cost: Cost = field(default_factory=FlopsPerParamAndToken)
    hours: Hours | None = None

    @property
    def unit(self) -> str:
        """Column of `priced` that a budget is of."""
        return "train_flops" if self.hours is None else "gpu_hours"

    def flops(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Array:
        """Training FLOP of runs, arrays that broadcast.

        Raises
        ------
        InputError
            for a size that the architecture's shapes do not reach.
        """
        size, tokens = np.asarray(num_params, dtype=float), np.asarray(num_tokens, dtype=float)
        if isinstance(self.cost, FamilyScale):
            return np.asarray(self.cost.train_flops(size, tokens / size))
        return np.asarray(self.cost.models(np.log(size)).flops_per_token * tokens)

    def priced(self, num_params: ArrayLike, num_tokens: ArrayLike) -> pd.DataFrame:
        """Runs as a table: num_params, num_tokens, tokens_per_param, train_flops, gpu_hours (NaN if unknown), cost."""
        size, tokens = (np.asarray(each, dtype=float) for each in (num_params, num_tokens))
        flops = self.flops(size, tokens)
        hours = np.full(len(flops), np.nan) if self.hours is None else self.hours.of(flops, size)
        table = pd.DataFrame({"num_params": size, "num_tokens": tokens, "tokens_per_param": tokens / size})
        table = table.assign(train_flops=flops, gpu_hours=hours)
        return table.assign(cost=table[self.unit])


def pricing_of(runs: pd.DataFrame, hours: Hours | None = None) -> Pricing:
    """What further runs of a table cost, by the count of its own train_flops.

    Runs of one known architecture and one context length cost what the shapes of that architecture do; others C = k N D
    with the median k of the table.

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> pricing_of(subset(load_paper_runs(), "xlstm", 8192)).cost.label
    'xlstm'
    """
    names: Any = runs["architecture"].dropna().unique() if "architecture" in runs else []
    lengths: Any = runs["context_length"].dropna().unique() if "context_length" in runs else []
    if len(names) == 1 and len(lengths) == 1 and names[0] in ARCHITECTURES:
        try:
            family = fit_shape_family(runs, str(names[0]))
        except InputError:  # one width, or shapes of no regular kind: they give no cost of other sizes
            return Pricing(cost=FlopsPerParamAndToken(_median_k(runs)), hours=hours)
        scale = FamilyScale(family=family, context_length=float(lengths[0]))
        size, tokens = (runs[name].to_numpy(float) for name in ("num_params", "num_tokens"))
        ratio = scale.train_flops(size, tokens / size) / runs["train_flops"].to_numpy(float)
        if 0.5 < np.median(ratio) < 2:  # else the table counts something else, e.g. active parameters
            return Pricing(cost=scale, hours=hours)
    return Pricing(cost=FlopsPerParamAndToken(_median_k(runs)), hours=hours)


def _median_k(runs: pd.DataFrame) -> float:
    if "train_flops" not in runs:
        return 6.0
    return float((runs["train_flops"].astype(float) / runs["num_params"].astype(float) / runs["num_tokens"]).median())


def candidate_runs(
    pricing: Pricing,
    sizes: Sequence[float] | Array,
    *,
    ratios: Sequence[float] | Array = (),
    budgets: Sequence[float] | Array = (),
    most: float = np.inf,
) -> pd.DataFrame:
    """Every size at every ratio of tokens to parameters, or at every cost: one row per run, see `Pricing.priced`.

    Parameters
    ----------
    sizes
        N.
    ratios
        D/N; or else
    budgets
        what each run costs, in the unit of the pricing.
    most
        runs that cost more are left out.

    Raises
    ------
    InputError
        if nothing is left, naming the cheapest run; if a value is not positive; for more than 20,000 runs.

    Examples
    --------
    >>> candidate_runs(Pricing(), [1e8, 1e9], ratios=[20.0], most=1e20)["num_params"].tolist()
    [100000000.0]
    """
    if (len(ratios) == 0) == (len(budgets) == 0):
        raise InputError("candidates: give either ratios of tokens to parameters or budgets of single runs")
    which = np.asarray(ratios if len(ratios) else budgets, dtype=float)
    size = np.asarray(sizes, dtype=float)
    for name, values in (("sizes", size), ("ratios or budgets", which)):
        if not len(values) or not (np.isfinite(values) & (values > 0)).all():
            raise InputError(f"candidates: {name} must be positive numbers, at least one")
    if len(size) * len(which) > MOST_CANDIDATES:
        raise InputError(f"candidates: {len(size) * len(which)} runs; at most {MOST_CANDIDATES}")
    grid_size, grid = (axis.ravel() for axis in np.meshgrid(size, which, indexing="ij"))
    if len(ratios):
        tokens = grid_size * grid
    else:  # cost is proportional to tokens at every size
        tokens = grid / pricing.priced(grid_size, np.ones_like(grid_size))["cost"].to_numpy()
    table = pricing.priced(grid_size, tokens)
    affordable = table[table["cost"] <= most * (1 + 1e-9)]
    if affordable.empty:
        cheapest = table.iloc[int(table["cost"].to_numpy().argmin())]
        raise InputError(
            f"budget {most:.3g} is below the cheapest candidate, {cheapest['cost']:.3g} for N = "
            f"{cheapest['num_params']:.3g} on {cheapest['num_tokens']:.3g} tokens: raise it, or allow smaller runs"
        )
    return affordable.reset_index(drop=True)


def default_candidates(
    runs: pd.DataFrame,
    pricing: Pricing,
    budget: float,
    sizes: tuple[float | None, float | None] = (None, None),
    ratios: tuple[float | None, float | None] = (None, None),
) -> pd.DataFrame:
    """A geometric grid over the sizes and ratios of a table, up to what the budget can train.

    Parameters
    ----------
    budget
        in the unit of the pricing.
    sizes, ratios
        least and largest N and D/N. By default sizes go from the smallest of the table to three times its largest,
        and ratios from the table's 5 % to its 95 % quantile, at least from 10 to 100.

    Raises
    ------
    InputError
        if a lower bound lies above its upper one, or the budget is below the cheapest candidate.

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> runs = subset(load_paper_runs(), "xlstm", 8192)
    >>> bool(default_candidates(runs, pricing_of(runs), 1e21)["train_flops"].max() <= 1e21)
    True
    """
    params = runs["num_params"].to_numpy(float)
    usual = runs["num_tokens"].to_numpy(float) / params
    low, high = np.quantile(usual, [0.05, 0.95])
    least, largest = _bounds("num_params", sizes, (float(params.min()), 3 * float(params.max())), _SIZES)
    fewest, most = _bounds("tokens per parameter", ratios, (min(float(low), 10.0), max(float(high), 100.0)), _RATIOS)
    return candidate_runs(
        pricing, _ladder(least, largest, SIZE_STEP), ratios=_ladder(fewest, most, RATIO_STEP), most=budget
    )


def _bounds(
    name: str, given: tuple[float | None, float | None], usual: tuple[float, float], possible: tuple[float, float]
) -> tuple[float, float]:
    low, high = usual
    low = low if given[0] is None else given[0]
    high = max(high, low) if given[1] is None else given[1]
    if given[0] is None:
        low = min(low, high)
    if not low <= high:
        raise InputError(f"{name}: {low:g} to {high:g} is no range: the lower bound lies above the upper one")
    if not possible[0] <= low <= high <= possible[1]:
        raise InputError(f"{name}: {low:g} to {high:g} is not within {possible[0]:g} to {possible[1]:g}")
    return low, high


def _ladder(low: float, high: float, step: float) -> Array:
    number = 1 + round(np.log(high / low) / np.log(step))
    return np.geomspace(low, high, max(number, 2)) if high > low else np.array([low])
