"""The least cost of a loss from a law of the loss and prices of a token: a front with intervals.

Training N parameters on D tokens costs D times the price of a token, which depends on the model alone: FLOP, or
GPU-hours. The law says which D reaches a loss, so cost(loss) = min over N of price(N) · D(loss, N). Two sets of models:

* `measured`: the sizes that were trained, each at the price that its log shows. Which shapes run well is then known,
  not luck: step times of one size repeat within 0.3 %, those of neighboring sizes differ by 5 %.
* `smooth`: every size between the smallest and the largest at the price of a parabola of log price over log N through
  these. It says which size is best, whatever the quirks of single shapes.

Why not the front of runs, resampled? It is made of extremes. In 400 tables simulated from laws (gamma free), prices and
scatter like those of the authors' runs at T = 16384 (loss 0.45 % or 0.32 % a run, price 4.5 % a shape), intervals of
95 % with 300 resamples held the true GPU-hours at five losses in this share of the tables, Transformer and xLSTM: the
law at measured prices 94.8 % and 95.6 %, at smooth prices 92.6 % and 94.7 %; runs resampled 70 % and 53 %, resampled
within their budgets 69 % and 52 %, although these intervals are wider. With gamma held at 1 where it is 0.82, the law
held it in 90 % of 60 tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.fitting.bootstrap import interval_with_lost
from companion.fitting.fit import Fit, fit
from companion.laws.surface import LossSurface
from companion.numeric import Array

Shapes = Literal["measured", "smooth"]
#: Costs with a price per token that is not 1.
PRICED = ("train_flops", "gpu_hours")
#: Sizes of the smooth family between the smallest and the largest that were trained.
NUM_SIZES = 201
#: Factor of compute beyond the runs from which on a law counts as extrapolated: well below the step of a budget.
BEYOND = 1.25
#: Sizes that a parabola of the price, or a line, needs to leave residuals.
_FOR_PARABOLA, _FOR_LINE = 6, 4


@dataclass(frozen=True, kw_only=True)
class LawFront:
    """What a loss costs one architecture at least, by a law and by prices of a token.

    Attributes
    ----------
    architecture
        its name.
    fit
        of the law of the loss, gamma free (held at 1 where the runs do not determine it).
    laws
        refits of resampled runs, R of them; None without intervals.
    sizes
        N of the models that were trained, ascending, shape (S,).
    log_prices
        by cost: log of the price of a token of each of these, (S,); geometric mean over the runs of a size.
    curves, curve_samples
        by cost: coefficients of the polynomial of log price over log N − `center`, (k,), and refits, (R, k).
    flops_range
        least and most compute of the runs, FLOP: outside, the law is extrapolated.
    peak_flops_per_s
        of one GPU, FLOP/s: what utilizations are shares of.
    withheld
        why there are no intervals; empty where there are.
    """

    architecture: str
    fit: Fit
    laws: LossSurface | None
    sizes: Array
    log_prices: Mapping[str, Array]
    curves: Mapping[str, Array]
    curve_samples: Mapping[str, Array]
    flops_range: tuple[float, float]
    peak_flops_per_s: float
    withheld: str

    @property
    def center(self) -> float:
        """Mean log N of the sizes, where the polynomials have their origin."""
        return float(np.log(self.sizes).mean())

    def minima(
        self, losses: ArrayLike, cost: str = "gpu_hours", shapes: Shapes = "measured", *, resampled: bool = False
    ) -> dict[str, Array]:
        """The models that reach losses at least cost.

        Parameters
        ----------
        losses
            nats per token, shape (m,).
        cost
            what is made least: `train_flops`, `gpu_hours`, or `num_tokens`, which makes the largest model best.
        shapes
            which models (see the module).
        resampled
            whether for every refit instead of the fit.

        Returns
        -------
        dict
            `num_params`, `num_tokens`, `train_flops` (FLOP), `gpu_hours`, `utilization`, each of shape (m, R), or
            (m, 1) of the fit; NaN where no size reaches the loss.

        Raises
        ------
        InputError
            if the cost or the shapes are not known, or there are no refits.
        """
        if resampled and self.laws is None:
            raise InputError(f"no resamples of {self.architecture}: {self.withheld}")
        size, log_prices = self._models(shapes, resampled)
        if cost not in (*log_prices, "num_tokens"):
            raise InputError(f"cost {cost!r} is not one of {', '.join((*log_prices, 'num_tokens'))}")
        law: Any = self.laws if resampled else self.fit.law
        found: dict[str, list[Array]] = {name: [] for name in ("num_params", "num_tokens", *PRICED)}
        for loss in np.atleast_1d(np.asarray(losses, dtype=float)):
            tokens = np.broadcast_to(law.tokens_for(loss, size[:, None]), (size.size, len(law)))
            prices = {name: np.broadcast_to(np.exp(each), tokens.shape) for name, each in log_prices.items()}
            total = tokens * prices[cost] if cost in prices else tokens
            # without a size that reaches the loss, and with an even loss of tokens, the largest model comes first
            at = (size.size - 1 - np.argmin(total[::-1], axis=0), np.arange(len(law)))
            reached = np.isfinite(total[at])
            best = np.where(reached, tokens[at], np.nan)
            found["num_params"].append(np.where(reached, size[at[0]], np.nan))
            found["num_tokens"].append(best)
            for name in PRICED:
                found[name].append(best * prices[name][at])
        result = {name: np.stack(values) for name, values in found.items()}
        result["utilization"] = result["train_flops"] / (result["gpu_hours"] * 3600 * self.peak_flops_per_s)
        return result

    def over_sizes(self, loss: float, shapes: Shapes = "smooth") -> pd.DataFrame:
        """What a loss costs at every size, not only at the best one.

        Parameters
        ----------
        loss
            nats per token.
        shapes
            which models (see the module).

        Returns
        -------
        DataFrame
            with `num_params`, ascending, and the `num_tokens`, `train_flops` (FLOP) and `gpu_hours` that the size takes
            to the loss; NaN where it does not reach it.

        Raises
        ------
        InputError
            if the shapes are not known.
        """
        size, log_prices = self._models(shapes, resampled=False)
        law: Any = self.fit.law
        tokens = np.broadcast_to(law.tokens_for(loss, size[:, None]), (size.size, len(law)))[:, 0]
        tokens = np.where(np.isfinite(tokens), tokens, np.nan)
        priced = {name: tokens * np.exp(log_prices[name][:, 0]) for name in PRICED}
        return pd.DataFrame({"num_params": size, "num_tokens": tokens, **priced})

    def _models(self, shapes: Shapes, resampled: bool) -> tuple[Array, dict[str, Array]]:
        """Sizes (S,) and log prices by cost, (S, 1) or (S, R)."""
        if shapes == "measured":
            return self.sizes, {name: self.log_prices[name][:, None] for name in PRICED}
        if shapes != "smooth":
            raise InputError(f"shapes {shapes!r} is not one of measured, smooth")
        size = np.geomspace(self.sizes[0], self.sizes[-1], NUM_SIZES)
        chosen = self.curve_samples if resampled else {name: self.curves[name][None] for name in PRICED}
        powers = np.vander(np.log(size) - self.center, chosen[PRICED[0]].shape[1])
        return size, {name: powers @ chosen[name].T for name in PRICED}

    def cheapest(
        self, losses: ArrayLike, cost: str = "gpu_hours", shapes: Shapes = "measured", level: float = 0.95
    ) -> pd.DataFrame:
        """The models that reach losses at least cost, with intervals.

        Parameters
        ----------
        losses, cost, shapes
            see `minima`.
        level
            of the intervals, between 0 and 1.

        Returns
        -------
        DataFrame
            with `loss` and the numbers of `minima`, each also with `_low` and `_high` at its end, NaN where no interval
            is known; `at_end`: whether the best size is the smallest or the largest, so that others may be better; and
            `extrapolated`: whether the compute lies outside that of the runs, by more than a factor `BEYOND`.
        """
        points = self.minima(losses, cost, shapes)
        samples = self.minima(losses, cost, shapes, resampled=True) if self.laws is not None else {}
        table: dict[str, ArrayLike] = {"loss": np.atleast_1d(np.asarray(losses, dtype=float))}
        for name, values in points.items():
            drawn = samples.get(name, np.empty((len(values), 0)))
            ends = np.array([self.ends(each, level) for each in drawn]).reshape(-1, 2)
            table |= {name: values[:, 0], f"{name}_low": ends[:, 0], f"{name}_high": ends[:, 1]}
        sizes = points["num_params"][:, 0]
        table["at_end"] = np.isin(sizes, self.sizes[[0, -1]]) | np.isclose(sizes, self.sizes[-1], rtol=1e-9)
        least, most = self.flops_range
        flops = points["train_flops"][:, 0]
        table["extrapolated"] = (flops < least / BEYOND) | (flops > most * BEYOND)
        return pd.DataFrame(table)

    @staticmethod
    def ends(samples: ArrayLike, level: float) -> tuple[float, float]:
        """Percentile interval over resamples, lost ones outside (`companion.fitting.bootstrap.interval_with_lost`)."""
        return interval_with_lost(samples, level)

    def size_shift(self, losses: ArrayLike, level: float = 0.95) -> pd.DataFrame:
        """How much larger the model is that reaches a loss in the fewest GPU-hours than the one with the fewest FLOPs.

        Returns
        -------
        DataFrame
            with `loss`; `flops_optimal` and `hours_optimal`, the sizes of both (parameters, `smooth` shapes); `ratio`,
            the second over the first, and `saving`, the share of GPU-hours that it saves, each with `_low` and `_high`.
        """
        rows: dict[str, ArrayLike] = {"loss": np.atleast_1d(np.asarray(losses, dtype=float))}
        for resampled in (False, True):
            if resampled and self.laws is None:
                unknown = np.full(len(np.atleast_1d(losses)), np.nan)
                rows |= {name: unknown for name in ("ratio_low", "ratio_high", "saving_low", "saving_high")}
                continue
            flops, hours = (self.minima(losses, each, "smooth", resampled=resampled) for each in PRICED)
            ratio = hours["num_params"] / flops["num_params"]
            saving = 1 - hours["gpu_hours"] / flops["gpu_hours"]
            if not resampled:
                rows |= {"flops_optimal": flops["num_params"][:, 0], "hours_optimal": hours["num_params"][:, 0]}
                rows |= {"ratio": ratio[:, 0], "saving": saving[:, 0]}
                continue
            for name, drawn in (("ratio", ratio), ("saving", saving)):
                ends = np.array([self.ends(each, level) for each in drawn])
                rows |= {f"{name}_low": ends[:, 0], f"{name}_high": ends[:, 1]}
        return pd.DataFrame(rows)


def fit_law_front(runs: pd.DataFrame, *, num_resamples: int = 1000, seed: int = 0) -> LawFront:
    """The law of the loss and the prices of a token from runs of one architecture and context length.

    Runs are resampled for the law; sizes, with their residuals from the parabola, for the smooth prices (Davison and
    Hinkley 1997, section 6.2.3: residuals over the root of one less their leverage). Both are drawn independently:
    a slow shape is not a bad one.

    Parameters
    ----------
    runs
        of `with_throughput`, finished (`companion.training.throughput.finished`).
    num_resamples, seed
        R and the seed of the draws; 0 for no intervals.

    Raises
    ------
    InputError
        if the runs are of several architectures, or too few or too alike for a law.
    """
    kinds = runs[["architecture", "context_length"]].drop_duplicates()
    if len(kinds) != 1:
        there = ", ".join(f"{kind.architecture} at T = {kind.context_length}" for kind in kinds.itertuples())
        raise InputError(f"runs of one architecture and one context length are needed, not of {there}")
    found = fit(LossSurface, runs)
    if not found.identified:
        found = fit(LossSurface, runs, gamma=1)
    laws, withheld = None, found.intervals_withheld or ("" if num_resamples else "no resamples were drawn")
    if not withheld:
        resampled = found.bootstrap(num_resamples, seed=seed)
        withheld = resampled.withheld
        laws = None if withheld else resampled.laws
    sizes, of = np.unique(runs["num_params"].to_numpy(dtype=float), return_inverse=True)
    log_prices = {
        cost: np.bincount(of, np.log(runs[cost] / runs["num_tokens"].astype(float))) / np.bincount(of)
        for cost in PRICED
    }
    number = 0 if laws is None else len(laws)
    drawn = np.random.default_rng(seed).integers(0, sizes.size, (number, sizes.size))
    curves = {cost: _price_curve(sizes, log_prices[cost], drawn) for cost in PRICED}
    peak = runs["train_flops"] / (runs["gpu_hours"] * 3600 * runs["utilization"])
    return LawFront(
        architecture=str(kinds["architecture"].iloc[0]),
        fit=found,
        laws=laws,
        sizes=sizes,
        log_prices=log_prices,
        curves={cost: curve[0] for cost, curve in curves.items()},
        curve_samples={cost: curve[1] for cost, curve in curves.items()},
        flops_range=(float(runs["train_flops"].min()), float(runs["train_flops"].max())),
        peak_flops_per_s=float(peak.iloc[0]),
        withheld=withheld,
    )


def _price_curve(sizes: Array, log_price: Array, drawn: NDArray[np.int64]) -> tuple[Array, Array]:
    """Coefficients of log price over log N less its mean, (k,), and those of refits, (R, k), from residuals drawn."""
    terms = 3 if sizes.size >= _FOR_PARABOLA else 2 if sizes.size >= _FOR_LINE else 1
    x = np.log(sizes)
    powers = np.vander(x - x.mean(), terms)
    solve = np.linalg.pinv(powers)
    coefficients = solve @ log_price
    leverage = np.einsum("sk,ks->s", powers, solve)
    residuals = (log_price - powers @ coefficients) / np.sqrt(np.maximum(1 - leverage, 1e-9))
    residuals -= residuals.mean()
    return coefficients, coefficients + residuals[drawn] @ solve.T
