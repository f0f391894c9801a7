"""Three solved strategies, which play a laboratory by its public interface: `play(laboratory)` asks, fits and commits.

* `isoflop_profiles`: a learning-rate sweep, IsoFLOP profiles, a power law for the best size, one with a floor for the
  best loss. It assumes no form in N and D; its interval is wide, because four optima say little about a floor.
* `parametric_law`: sweeps at two sizes, runs on a grid from small to large, the law of the rules with a bootstrap.
* `ladder`: sizes that double, 20 tokens per parameter, a learning rate from a rule of thumb, and a straight line in
  logarithms. Cheap to think of and overconfident: it has no floor, and its interval holds the scatter of the runs only.

All of them take what they know from the rules and the answers, never from the hidden world.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting import fit, fit_power_law
from companion.fitting.bootstrap import percentile_interval
from companion.fitting.isoflop import fit_isoflop
from companion.fitting.isoflop.draws import draw_optima, parabola_spread
from companion.laws import LossSurface, optimum
from companion.numeric import Array
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.game import Laboratory
from companion.study.laboratory.predictions import Prediction, tokens_within
from companion.study.laboratory.state import Answer

#: Resamples behind an interval.
NUM_RESAMPLES = 200
#: Tokens per parameter of the rule of thumb (arXiv 2203.15556).
RULE_OF_THUMB = 20.0
#: Exponent of the best learning rate in size that a strategy assumes until it has measured it, and in the batch.
RATE_OVER_SIZE, RATE_OVER_BATCH = -0.25, 0.5
#: Exponents of the best loss over compute that `isoflop_profiles` takes to be possible: reports lie within.
LOSS_EXPONENTS = (0.05, 0.25)
#: Learning rates of the first sweep, at `BATCH`. All rates in this module are stated at this batch, in sequences.
FIRST_RATES, BATCH = (1.5e-4, 4.5e-4, 1.35e-3, 4e-3), 8

Strategy = Callable[[Laboratory], Prediction]


def isoflop_profiles(laboratory: Laboratory) -> Prediction:
    """The committed prediction of IsoFLOP profiles (arXiv 2203.15556, approach 2) at four budgets.

    The best loss over compute is E + K·C^-kappa with kappa within `LOSS_EXPONENTS`; its interval comes from optima
    drawn as `companion.fitting.isoflop.draws` does, and from the scatter of a single run.

    Raises
    ------
    InputError
        if the runs have too few optima for a law, or the budget is too small for the rules.

    Examples
    --------
    >>> from companion.study.laboratory import practice_laboratory
    >>> lab = practice_laboratory("a key")
    >>> prediction = isoflop_profiles(lab)
    >>> prediction.low < prediction.loss < prediction.high and lab.state().left >= 0
    True
    """
    plan = _Plan(laboratory)
    architecture, size, rate = plan.best_architecture()
    asks, budgets = [], []
    for share in (0.0035, 0.0115, 0.038, 0.1):
        budget = share * plan.flops
        center = math.sqrt(budget / (6 * RULE_OF_THUMB))
        for factor in np.geomspace(1 / 3, 3, 6):
            num_params = round(center * factor)
            rate_here = rate * (num_params / size) ** RATE_OVER_SIZE
            asks.append(plan.ask(architecture, num_params, budget / 6 / num_params, rate_here))
            budgets.append(budget)
    table = plan.table(asks)
    table["isoflop_budget"] = table["num_params"].map(dict(zip((ask.num_params for ask in asks), budgets, strict=True)))
    found = fit_isoflop(table, num_resamples=NUM_RESAMPLES)
    if not found.law_defined or len(found.optima) < 3:
        raise InputError(f"{laboratory.name}: fewer than three budgets have an optimum: {found.law_fault or 'no law'}")
    target = laboratory.rules.target_flops
    num_params = float(found.power_law.law.predict(target))
    flops = np.array([profile.mean_train_flops for profile in found.optima])
    losses = np.array([profile.loss_opt for profile in found.optima])
    spreads = [parabola_spread(profile.x, profile.loss) for profile in found.optima]
    _, drawn = draw_optima(spreads, NUM_RESAMPLES, 0)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    exponents = np.random.default_rng(0).uniform(*LOSS_EXPONENTS, len(drawn))
    scatter = float(np.sqrt(np.mean([spread.variance for spread in spreads]))) / losses.mean()
    guess = _with_floor(flops, losses[None], target, np.linspace(*LOSS_EXPONENTS, 41))
    curves = _plausible(flops, drawn, target, exponents, scatter)
    noise = np.exp(scatter * _normal_scores(len(curves)))
    low, high = percentile_interval(curves * noise, laboratory.rules.level)
    loss = float(np.clip(guess, low, high))
    return plan.commit(architecture, num_params, rate * (num_params / size) ** RATE_OVER_SIZE, (loss, low, high))


def parametric_law(laboratory: Laboratory) -> Prediction:
    """The committed prediction of a parametric law, fitted to a grid of sizes and tokens, smallest first.

    Half of the budget goes into sweeps and small runs, the rest into the largest that fit. The outer exponent is 1
    where the rules say so and free otherwise. The interval is the bootstrap's prediction band.

    Raises
    ------
    InputError
        if the law cannot be fitted, or the budget is too small for the rules.

    Examples
    --------
    >>> from companion.study.laboratory import practice_laboratory
    >>> lab = practice_laboratory("a key")
    >>> prediction = parametric_law(lab)
    >>> prediction.low < prediction.loss < prediction.high and lab.state().left >= 0
    True
    """
    plan = _Plan(laboratory)
    architecture, size, rate = plan.best_architecture()
    larger = 7 * size
    guess = rate * 7**RATE_OVER_SIZE
    second, _ = plan.sweep(architecture, larger, RULE_OF_THUMB * larger, [guess / 3, guess, 3 * guess])
    # two noisy optima say more of the level than of the slope, so both set the level
    level = math.sqrt(guess * second)

    def rate_at(num_params: float) -> float:
        return level * (num_params / larger) ** RATE_OVER_SIZE

    asks = []
    for share in (0.05, 0.09, 0.16, 0.28, 0.5):  # of the size that the whole budget trains on 20 tokens per parameter
        each = share * math.sqrt(plan.flops / 6 / RULE_OF_THUMB)
        for ratio in (10, 20, 40, 80, 160):
            asks.append(plan.ask(architecture, each, ratio * each, rate_at(each)))
    table = plan.table(plan.affordable(asks))
    gamma = None if laboratory.rules.law == "paper" else 1.0
    found = fit(LossSurface, table, gamma=gamma, huber_delta=math.inf, num_starts=8 if gamma else 16)
    target = laboratory.rules.target_flops
    num_params = float(optimum(found.law, 6.0, target).num_params[0])
    num_tokens = target / 6 / num_params
    loss = float(found.predict(num_params, num_tokens))
    bands = found.bootstrap(NUM_RESAMPLES).prediction_band(num_params, num_tokens, laboratory.rules.level)
    low, high = (float(end[0]) for end in bands)
    if not low < high:
        raise InputError(f"{laboratory.name}: the law has no interval: {found.status} {found.status_detail}")
    return plan.commit(architecture, num_params, rate_at(num_params), (loss, min(low, loss), max(high, loss)))


def ladder(laboratory: Laboratory) -> Prediction:
    """The committed prediction of five sizes with 20 tokens per parameter and a straight line in logarithms.

    The interval is the line's scatter, times the normal quantile: neither the floor nor the line's own uncertainty is
    in it. It is here to be beaten.

    Raises
    ------
    InputError
        if fewer than three runs ended with a loss, or the budget is too small for the rules.

    Examples
    --------
    >>> from companion.study.laboratory import practice_laboratory
    >>> lab = practice_laboratory("a key")
    >>> prediction = ladder(lab)
    >>> prediction.low < prediction.loss < prediction.high and lab.state().left >= 0
    True
    """
    plan = _Plan(laboratory)
    architecture = laboratory.rules.architectures[0]
    largest = math.sqrt(0.97 * plan.flops / (6 * RULE_OF_THUMB) * (1 - 2.2**-2))
    sizes = [round(largest / 2.2**rung) for rung in range(4, -1, -1)]

    def rate_at(num_params: float) -> float:
        return 5e-4 * (num_params / 1e8) ** RATE_OVER_SIZE

    table = plan.table([plan.ask(architecture, size, RULE_OF_THUMB * size, rate_at(size), 64) for size in sizes])
    if len(table) < 3:
        raise InputError(f"{laboratory.name}: {len(table)} runs of the ladder have a loss, a line needs three")
    line = fit_power_law(table["train_flops"], table["val_loss"])
    target = laboratory.rules.target_flops
    loss = float(line.law.predict(target))
    reach = math.exp(_normal_quantile(laboratory.rules.level) * max(float(line.residuals.std()), 1e-4))
    num_params = math.sqrt(target / (6 * RULE_OF_THUMB))
    return plan.commit(architecture, num_params, rate_at(num_params), (loss, loss / reach, loss * reach))


STRATEGIES: dict[str, Strategy] = {
    "isoflop_profiles": isoflop_profiles,
    "parametric_law": parametric_law,
    "ladder": ladder,
}
"""The strategies by name."""


# ---- what strategies share ---------------------------------------------------------------------------


class _Plan:
    """A laboratory with a budget in FLOP, a batch that suits it, and seeds that never repeat."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.laboratory = laboratory
        self.rules = laboratory.rules
        self.asked = 0
        probe = self.ask(self.rules.architectures[0], 10**7, 10**9, 1e-3)
        # what a FLOP costs, at the size where it costs most
        self.price = laboratory.cost(probe).charged(self.rules) / probe.train_flops
        self.flops = laboratory.state().left / self.price

    def batch_for(self, num_tokens: float) -> int:
        """The smallest power of two that the limits allow: batches near the critical one waste tokens.

        The critical batch is small where the loss is high, as it is for the small runs.
        """
        (low, high), (_, most_steps) = self.rules.limits["batch_size_seqs"], self.rules.limits["train_steps"]
        needed = num_tokens / (0.99 * most_steps * self.rules.context_length)
        return int(min(high, max(low, 2 ** math.ceil(math.log2(max(needed, 1))))))

    def ask(self, architecture: str, num_params: float, num_tokens: float, rate: float, batch: int = 0) -> Ask:
        """A run with a rate stated at `BATCH`, a warm-up of at most 1,000 steps, and a seed of its own.

        The batch is that of `batch_for` where none is given.
        """
        self.asked += 1
        batch = batch or self.batch_for(num_tokens)
        step = batch * self.rules.context_length
        steps = max(1, round(num_tokens / step))
        return Ask(
            architecture=architecture,
            num_params=round(num_params),
            num_tokens=steps * step,
            learning_rate=rate * (batch / BATCH) ** RATE_OVER_BATCH,
            batch_size_seqs=batch,
            warmup_steps=min(1000, max(1, steps // 4)),
            seed=self.asked,
        )

    def affordable(self, asks: Sequence[Ask]) -> list[Ask]:
        """The asks that fit into what is left, cheapest first."""
        left, chosen = self.laboratory.state().left, []
        for ask in sorted(asks, key=lambda each: each.train_flops):
            if (cost := self.laboratory.cost(ask).charged(self.rules)) <= left:
                left -= cost
                chosen.append(ask)
        return chosen

    def table(self, asks: Sequence[Ask]) -> pd.DataFrame:
        """The asks' runs that ended with a loss, as a run table."""
        answers = self.laboratory.ask(asks)
        rows = [_row_of(answer) for answer in answers if not answer.outcome.diverged]
        if not rows:
            raise InputError(f"{self.laboratory.name}: all runs diverged")
        return pd.DataFrame(rows)

    def sweep(
        self, architecture: str, num_params: float, num_tokens: float, rates: Sequence[float]
    ) -> tuple[float, float]:
        """The best learning rate of a size and its loss: the bottom of a parabola in ln rate, within the rates."""
        table = self.table([self.ask(architecture, num_params, num_tokens, rate) for rate in rates])
        scale = (self.batch_for(num_tokens) / BATCH) ** RATE_OVER_BATCH
        x, y = np.log(table["learning_rate"].to_numpy(float) / scale), table["val_loss"].to_numpy(float)
        lowest = int(np.argmin(y))
        if len(x) < 3:
            return float(np.exp(x[lowest])), float(y[lowest])
        curve = np.polynomial.Polynomial.fit(x, y, 2)
        second = float(curve.convert().coef[-1]) if curve.convert().degree() == 2 else 0.0
        if not second > 0:
            return float(np.exp(x[lowest])), float(y[lowest])
        bottom = float(np.clip(curve.deriv().roots().real[0], x.min() - 0.7, x.max() + 0.7))
        return math.exp(bottom), float(curve(bottom))

    def best_architecture(self) -> tuple[str, float, float]:
        """The architecture of the lower loss at a small size, that size, and its best learning rate."""
        size = math.sqrt(0.0015 * self.flops / (6 * RULE_OF_THUMB))
        found = {name: self.sweep(name, size, RULE_OF_THUMB * size, FIRST_RATES) for name in self.rules.architectures}
        best = min(found, key=lambda name: found[name][1])
        return best, size, found[best][0]

    def commit(
        self, architecture: str, num_params: float, rate: float, losses: tuple[float, float, float]
    ) -> Prediction:
        """Commit the target run with all tokens that fit."""
        target = self.rules.target_flops
        batch = self.batch_for(target / 6 / num_params)
        num_tokens = tokens_within(target, round(num_params), batch, self.rules.context_length)
        ask = self.ask(architecture, num_params, num_tokens, rate, batch)
        loss, low, high = losses
        prediction = Prediction(ask=ask, loss=loss, low=low, high=high).checked(self.rules)
        self.laboratory.predict(prediction)
        return prediction


def _row_of(answer: Answer) -> dict[str, Any]:
    ask = answer.ask
    return {
        "num_params": ask.num_params,
        "num_tokens": ask.num_tokens,
        "train_flops": ask.train_flops,
        "val_loss": answer.outcome.val_loss,
        "learning_rate": ask.learning_rate,
    }


def _with_floor(flops: Array, losses: Array, target: float, exponents: Array) -> float:
    """Loss at the target of E + K·C^-kappa, averaged over exponents, for one set of losses (1, n)."""
    return float(np.mean([_line(flops, losses, target, each)[0][0] for each in exponents]))


def _line(flops: Array, losses: Array, target: float, exponent: float) -> tuple[Array, Array]:
    """Least squares of losses (R, n) on C^-kappa: values at the target (R,), and sums of squares (R,)."""
    x = (flops / flops[-1]) ** -exponent
    u = x - x.mean()
    mean = losses.mean(axis=1)
    slopes = losses @ u / (u @ u)
    rest = losses - mean[:, None] - slopes[:, None] * u
    return mean + slopes * ((target / flops[-1]) ** -exponent - x.mean()), np.square(rest).sum(axis=1)


def _plausible(flops: Array, drawn: Array, target: float, exponents: Array, scatter: float) -> Array:
    """Losses at the target of drawn optima (R, n), each with the exponent of its own that fits it best.

    Exponents that the optima cannot tell apart are all taken: with a weight exp(−SSE/2σ²), σ the scatter of an optimum.
    """
    grid = np.linspace(*LOSS_EXPONENTS, 41)
    values, squares = (
        np.stack(part) for part in zip(*(_line(flops, drawn, target, each) for each in grid), strict=True)
    )
    sigma = scatter * drawn.mean() / 2
    weights = np.exp(-(squares - squares.min(axis=0)) / (2 * sigma**2))
    share = np.cumsum(weights, axis=0) / weights.sum(axis=0)
    places = (exponents - LOSS_EXPONENTS[0]) / (LOSS_EXPONENTS[1] - LOSS_EXPONENTS[0])
    chosen = np.minimum((share < places).sum(axis=0), len(grid) - 1)
    return np.asarray(values[chosen, np.arange(len(drawn))])


def _normal_scores(number: int) -> Array:
    """Normal quantiles at even distances, in a fixed mixed order."""
    from scipy.special import ndtri

    return np.asarray(ndtri((np.random.default_rng(1).permutation(number) + 0.5) / number))


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
