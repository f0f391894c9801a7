"""Whether a run table determines the parameters of a law, and if not, which directions it leaves free.

A fit always ends somewhere. Three questions decide whether the place means anything:

* Do the places of the runs, whatever their losses, hold enough? With two sizes the term in N is seen at two points and
  cannot be separated from the floor. On one line in (log N, log D), as with one ratio of tokens to parameters or one
  compute budget, both terms are functions of the same number.
* Does the design at the optimum, d log L / d theta with columns of unit norm, have full rank in practice?
* Does the scatter of the runs leave the exponents a sign? Where the first-order 99 % interval of an exponent holds
  zero, the runs do not show that the loss falls with N or with D by this law, and refits wander freely.

The third is what `practically identifiable` means in Raue et al. 2009 (Bioinformatics 25, 1923), to first order.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from companion.fitting.derivatives import jacobian
from companion.fitting.solved import Solved
from companion.formatting import level_text
from companion.laws.base import Array, Law, Shift

#: Condition number of the scaled design above which parameters trade off almost freely.
ILL_CONDITIONED = 1e4
#: Values of N or D closer than this (in log) count as one; runs closer than this to a line lie on it.
SAME = 0.02
#: Distinct sizes and numbers of tokens that a term with a floor, a factor and an exponent needs.
NEEDED_VALUES = 3
_VALUES_OF = ("different model sizes", "different numbers of tokens")
#: Level of the first-order intervals that must not hold zero.
LEVEL = 0.99


def free_directions(fit: Solved) -> str:
    """Why the law is not identified, in one clause that names what trades off; empty where it is."""
    return _from_places(fit) or _from_bounds(fit) or _from_rank(fit) or _from_scatter(fit)


def terms_of_one_variable(law: type[Law]) -> tuple[Shift, ...]:
    """The law's terms in N alone or in D alone: a prefactor that no other variable shares, and an exponent."""
    prefactors = [shift.prefactor for shift in law.SHIFTS]
    return tuple(shift for shift in law.SHIFTS if prefactors.count(shift.prefactor) == 1)


def _from_places(fit: Solved) -> str:
    law, used = type(fit.law), fit.rows.weights > 0
    places = np.column_stack([fit.rows.log_n[used], fit.rows.log_d[used]])
    for term in terms_of_one_variable(law):
        number = distinct_values(places[:, term.variable])
        if number < NEEDED_VALUES:
            terms, what = f"E, {term.prefactor} and {term.exponent}", _VALUES_OF[term.variable]
            return f"{terms} trade off freely: {_number(number, what)}, at least {NEEDED_VALUES} are needed"
    variables = sorted({shift.variable for shift in law.SHIFTS})
    number = len(np.unique(places[:, variables], axis=0))
    if number < fit.num_free:
        return f"the parameters trade off freely: {_number(number, 'different runs')} for {fit.num_free} parameters"
    return _on_one_line(places, law) if len(variables) == 2 else ""


def _on_one_line(places: Array, law: type[Law]) -> str:
    """Names the line that log N and log D share, if they do."""
    centered = places - places.mean(axis=0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    if np.abs(centered @ axes[1]).max() > SAME:
        return ""
    slope = axes[0, 1] / axes[0, 0] if axes[0, 0] else np.inf
    if min(np.ptp(places, axis=0)) <= SAME:
        line = "all runs have the same " + ("model size" if np.ptp(places[:, 0]) <= SAME else "number of tokens")
    elif abs(slope - 1) < 0.05:
        line = "all runs have the same ratio of tokens to parameters"
    elif abs(slope + 1) < 0.05:
        line = "all runs have the same compute N times D"
    else:
        line = f"num_tokens follows num_params as a power of {slope:.2g}"
    *names, last = dict.fromkeys([s.prefactor for s in law.SHIFTS] + [s.exponent for s in law.SHIFTS])
    return f"{', '.join(names)} and {last} trade off freely: {line}"


def _from_bounds(fit: Solved) -> str:
    """An exponent at the edge of its box: the interval of a refit would end at the box, not where the runs end it."""
    exponents = fit.law.EXPONENTS
    stuck = [name for name in exponents if name in fit.at_bound]
    return "; ".join(
        f"{name} runs to its bound {getattr(fit.law, name):g}: no power law in {exponents[name]} is seen"
        for name in stuck
    )


def _from_rank(fit: Solved) -> str:
    if fit.conditioning < ILL_CONDITIONED:
        return ""
    involved = [name for name, size in zip(fit.free_names, np.abs(fit.worst_direction), strict=True) if size > 0.2]
    return f"{', '.join(involved)} trade off freely (condition number {fit.conditioning:.2g})"


def _from_scatter(fit: Solved) -> str:
    errors, degrees = standard_errors(fit)
    quantile = stats.t.ppf((1 + LEVEL) / 2, degrees) if degrees > 0 else np.inf
    unknown = []
    for name in fit.law.EXPONENTS:
        value, half = fit.parameters[name], quantile * errors[fit.law.index(name)]
        if not half < value:
            unknown.append(f"{name} {value:.3g} ± {half:.2g}")
    if not unknown:
        return ""
    return f"the scatter of the runs leaves {' and '.join(unknown)} ({level_text(LEVEL)}, first order)"


def standard_errors(fit: Solved) -> tuple[Array, int]:
    """First-order standard errors of theta, shape (p,), and the residual degrees of freedom.

    Weights count copies of one run, so they shift the optimum but add no knowledge: with P the pseudo-inverse of
    W^(1/2)·J the covariance is s²·P·W·Pᵀ. A row that is in the table twice counts as one run, too. The scatter s is
    winsorized at three times the 68 % quantile of the residuals, so that an outlier that the Huber loss ignores is
    ignored here. Zero for a parameter that is fixed.
    """
    weights = fit.rows.weights
    used = weights > 0
    data = fit.data.loc[used, ["num_params", "num_tokens", "val_loss"]]
    degrees = len(data.drop_duplicates()) - fit.num_free
    size = np.abs(fit.residuals[used])
    size = np.minimum(size, 3 * np.quantile(size, 0.683, method="higher"))
    scatter = np.sqrt(np.average(size**2, weights=weights[used]) * used.sum() / max(used.sum() - fit.num_free, 1))
    root = np.sqrt(weights[used])
    design = jacobian(fit.theta_centered[None], fit.rows.part(used))[0][:, fit.free] * root[:, None]
    norms = np.linalg.norm(design, axis=0)
    left, singular, right = np.linalg.svd(design / np.where(norms > 0, norms, 1.0), full_matrices=False)
    singular = np.maximum(singular, 1e-15 * singular[0])
    inverse = (right.T / singular) @ (left * root[:, None]).T
    with np.errstate(divide="ignore"):
        found = np.where(norms > 0, scatter * np.linalg.norm(inverse, axis=1) / norms, np.inf)
    errors = np.zeros(len(fit.theta))
    errors[fit.free] = found
    return errors, degrees


def distinct_values(logs: NDArray[np.float64], most: int = NEEDED_VALUES) -> int:
    """How many values lie further than `SAME` above the lowest of their group, counted up to `most`."""
    number = 0
    while logs.size and number < most:
        logs = logs[logs > logs.min() + SAME]
        number += 1
    return number


def _number(number: int, plural: str) -> str:
    if number != 1:
        return f"{number} {plural}"
    singular = {"different model sizes": "model size", "different numbers of tokens": "number of tokens"}
    return f"1 {singular.get(plural, 'run')}"
