"""Runs that determine a law whose parameters the table at hand leaves open.

Without a law there is no optimal design for it, so a guess is needed: the law of another table, or the fit that is not
identified. Criterion D then finds runs that determine all parameters near the guess. A weak prior (a ridge) makes the
first steps possible; what is said of the result is computed without it.
"""

import math

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting.identification import ILL_CONDITIONED
from companion.fitting.solved import Solved
from companion.laws.base import Array
from companion.study.next_runs.choose import MAX_RUNS, Method, Task, choose, make_task
from companion.study.next_runs.information import LinearLaw, Noise, condition_number, linearize, noise_of
from companion.study.next_runs.quantities import Quantity

#: Prior information on every free parameter: a standard error of thirty units of a logarithm, or of an exponent, and
#: this share of what the runs say of it.
RIDGE, RIDGE_SHARE = 1e-3, 1e-6
#: Fewest runs of a design that determines f parameters: f and a few to see the scatter by.
_SPARE = 2


def linear_guess(fit: Solved, noise: Noise | None = None) -> LinearLaw:
    """A fit that is not identified as a guess, E kept off its bound; other parameters inside their inner limits."""
    theta = fit.theta_centered.copy()
    for at, name in enumerate(fit.law.PARAMETERS):
        low, high = fit.law.LIMITS[name].inner
        if name == "E":
            low, high = float(fit.rows.log_loss.min()) - 1.5, float(fit.rows.log_loss.min()) - 0.05
        if name in fit.law.EXPONENTS:
            low, high = 0.1, 1.0
        if name not in fit.fixed:
            theta[at] = np.clip(theta[at], low, high)
    return LinearLaw(
        law=type(fit.law).from_theta(fit.law.shifted(theta, fit.rows.center, +1.0), fit.fixed),
        theta=theta,
        center=fit.rows.center,
        free=fit.free,
        noise=noise_of(fit) if noise is None else noise,
        huber_delta=fit.huber_delta,
    )


def identifying_design(
    guess: LinearLaw,
    runs: pd.DataFrame,
    candidates: pd.DataFrame,
    budget: float,
    max_runs: int = MAX_RUNS,
    method: Method = "exchange",
) -> pd.DataFrame:
    """Candidates that, with the runs there are, determine all free parameters near the guess: D-optimal.

    Parameters
    ----------
    runs
        num_params and num_tokens of the table at hand; may be empty.
    candidates
        of `Pricing.priced`.

    Raises
    ------
    InputError
        if no affordable design determines the law.

    Examples
    --------
    >>> from companion.laws import LossSurface
    >>> from companion.study.next_runs.candidates import Pricing, candidate_runs
    >>> from companion.study.next_runs.information import linear_law
    >>> law = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    >>> nothing = pd.DataFrame({"num_params": [], "num_tokens": []})
    >>> grid = candidate_runs(Pricing(), [1e8, 3e8, 1e9], ratios=[5.0, 20.0, 100.0])
    >>> chosen = identifying_design(linear_law(law, 0.005, ["gamma"]), nothing, grid, 1e21, max_runs=8)
    >>> chosen["num_params"].nunique()
    3
    """
    known = guess.information(runs["num_params"], runs["num_tokens"]) if len(runs) else _nothing(guess)
    task = Task(
        rows=guess.sensitivities(candidates["num_params"], candidates["num_tokens"]),
        costs=candidates["cost"].to_numpy(float),
        start=_with_prior(known),
        budget=budget,
        max_runs=max(max_runs, len(known) + _SPARE),
    )
    chosen = choose(task, method)
    rows = task.rows[chosen]
    if not condition_number(known + rows.T @ rows) < ILL_CONDITIONED:
        raise InputError(
            f"no design within the budget of {budget:.3g} determines {', '.join(guess.names)}: allow more sizes, more "
            "ratios of tokens to parameters, or a larger budget"
        )
    return candidates.iloc[chosen].reset_index(drop=True)


def next_task(
    found: Solved,
    runs: pd.DataFrame,
    candidates: pd.DataFrame,
    budget: float,
    quantity: Quantity | None,
    max_runs: int = MAX_RUNS,
    copies: int = 1,
) -> tuple[LinearLaw, Task]:
    """The choice that follows from a fit: for a quantity, or by criterion D where the law is not identified yet.

    Parameters
    ----------
    runs
        num_params and num_tokens of the runs at hand.
    candidates
        num_params, num_tokens and cost of what could be next.
    quantity
        None: criterion D.
    """
    linear = linearize(found) if found.identified else linear_guess(found)
    known = linear.information(runs["num_params"], runs["num_tokens"])
    if math.isinf(condition_number(known)) or not found.identified:
        known, quantity = _with_prior(known), None
    return linear, make_task(linear, known, candidates, budget, quantity, max_runs, copies)


def _with_prior(known: Array) -> Array:
    return np.asarray(known + np.diag(RIDGE + RIDGE_SHARE * np.diag(known)))


def _nothing(guess: LinearLaw) -> Array:
    number = int(guess.free.sum())
    return np.zeros((number, number))
