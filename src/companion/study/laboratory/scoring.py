"""What a prediction and a choice are worth: an interval score, a distance, and the compute that the choice wasted.

Interval score of a central interval [l, u] at level 1 − alpha for an outcome x (Gneiting and Raftery 2007, equation 43,
doi 10.1198/016214506000001437; Winkler 1972)::

    S = (u − l) + (2/alpha)·(l − x) if x < l,  + (2/alpha)·(x − u) if x > u,

here with logarithms of losses. It is proper: in expectation, the quantiles of what one really believes score least. A
short interval pays only as long as it holds the outcome.

The total of 0 to 100 adds three parts, each linear and cut off at 0::

    interval   50 · (1 − S / 0.15)
    accuracy   10 · (1 − |ln predicted − ln observed| / 0.05)
    choice     40 · C′/C, the share of the compute with which the best run would have had the chosen run's expected loss

A linear function of a proper score is proper; the cut is not, and matters only for predictions that earn nothing. A
backend that does not know the best run has no part `choice`; the other two then make up the 100.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from companion.errors import InputError
from companion.study.laboratory.backend import Outcome, Regret

#: Points of the parts, and where two of them reach 0.
INTERVAL_POINTS, ACCURACY_POINTS, CHOICE_POINTS = 50.0, 10.0, 40.0
WORST_INTERVAL_SCORE, WORST_ERROR = 0.15, 0.05
#: Factor of the points for interval and accuracy where there are none for the choice.
WITHOUT_CHOICE = (INTERVAL_POINTS + ACCURACY_POINTS + CHOICE_POINTS) / (INTERVAL_POINTS + ACCURACY_POINTS)


def interval_score(low: float, high: float, outcome: float, level: float) -> float:
    """S of an interval, in the unit of its ends: its width, and 2/alpha times what the outcome lies outside.

    Raises
    ------
    InputError
        if low is above high, or the level is not between 0 and 1.

    Examples
    --------
    >>> interval_score(1.0, 2.0, 1.5, 0.9), round(interval_score(1.0, 2.0, 2.1, 0.9), 9)
    (1.0, 3.0)
    """
    if not low <= high:
        raise InputError(f"interval from {low:g} to {high:g}: low must not be above high")
    if not 0 < level < 1:
        raise InputError(f"level {level:g} is not between 0 and 1")
    return (high - low) + 2 / (1 - level) * (max(0.0, low - outcome) + max(0.0, outcome - high))


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score and its parts.

    `total` is from 0 to 100, `interval_points`, `accuracy_points` and `choice_points` (NaN where the best run is not
    known) add up to it. `interval_score` is S in log loss, `log_error` is ln predicted − ln observed; both infinite for
    a run that diverged. `covered`: the interval held the outcome. `regret_nats` and `compute_share` as in `Regret`.
    """

    total: float
    interval_points: float
    accuracy_points: float
    choice_points: float
    interval_score: float
    log_error: float
    covered: bool
    regret_nats: float
    compute_share: float

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def score(loss: float, low: float, high: float, level: float, outcome: Outcome, regret: Regret | None) -> Score:
    """The score of a predicted loss with an interval, all in nats per token, after the target has run.

    Raises
    ------
    InputError
        if low is above high, a loss is not positive, or the level is not between 0 and 1.

    Examples
    --------
    >>> outcome = Outcome(val_loss=2.7, train_flops=1e20, gpu_hours=10.0)
    >>> perfect = score(2.7, 2.7, 2.7, 0.9, outcome, Regret(nats=0.0, compute_share=1.0))
    >>> perfect.total, perfect.covered
    (100.0, True)
    """
    if not min(loss, low, high) > 0:
        raise InputError("a loss and both ends of its interval must be positive")
    interval, error = math.inf, math.inf
    if outcome.val_loss is not None:
        observed = math.log(outcome.val_loss)
        interval = interval_score(math.log(low), math.log(high), observed, level)
        error = math.log(loss) - observed
    interval_points = INTERVAL_POINTS * max(0.0, 1 - interval / WORST_INTERVAL_SCORE)
    accuracy_points = ACCURACY_POINTS * max(0.0, 1 - abs(error) / WORST_ERROR)
    choice_points = CHOICE_POINTS * regret.compute_share if regret else math.nan
    if regret is None:
        interval_points, accuracy_points = WITHOUT_CHOICE * interval_points, WITHOUT_CHOICE * accuracy_points
    return Score(
        total=interval_points + accuracy_points + (choice_points if regret else 0.0),
        interval_points=interval_points,
        accuracy_points=accuracy_points,
        choice_points=choice_points,
        interval_score=interval,
        log_error=error,
        covered=outcome.val_loss is not None and low <= outcome.val_loss <= high,
        regret_nats=regret.nats if regret else math.nan,
        compute_share=regret.compute_share if regret else math.nan,
    )
