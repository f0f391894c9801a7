"""Which runs to train next, what each adds, what other designs give, and what if the law is wrong."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting.fit import Fit, fit
from companion.laws import LossSurface, ProductLaw
from companion.laws.base import Array, Law
from companion.study.next_runs.candidates import Pricing
from companion.study.next_runs.choose import MAX_RUNS, Criterion, Method, choose, make_task, standard_errors
from companion.study.next_runs.designs import isoflop_grid, largest_affordable, random_design, ratio_grid
from companion.study.next_runs.information import LinearLaw, Noise, linearize
from companion.study.next_runs.quantities import Quantity

#: Random designs whose median is shown.
RANDOM_DESIGNS = 20
#: Starts of fits to losses without scatter.
_NUM_STARTS = 8
#: Laws that may be true instead: class and what is held.
ALTERNATIVES: Mapping[str, tuple[type[Law], dict[str, Any]]] = {
    "gamma = 1": (LossSurface, {"gamma": 1.0}),
    "gamma free": (LossSurface, {}),
    "product": (ProductLaw, {}),
}


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to train next.

    Attributes
    ----------
    quantity, linear, level
        the target quantity, the law, and the level of the intervals.
    value, standard_error, interval
        as the table at hand has them; the standard error is that of ln(value) for positive quantities.
    runs
        the chosen runs in the order of their gain, as `Pricing.priced` has them, with standard_error, low and high once
        each has been trained: expected at today's fit.
    compared
        designs of the same budget by `design`: num_runs, spent, standard_error, low, high.
    alternatives
        laws that may be true instead, by `law`: status, value today, low and high after the chosen runs (expected);
        `shift`, how far the assumed law would then miss its value (of ln(value) for positive quantities), and
        `shift_in_half_widths`, the same in half widths of the interval that the assumed law would give.
    """

    quantity: Quantity
    linear: LinearLaw
    level: float
    value: float
    standard_error: float
    interval: tuple[float, float]
    runs: pd.DataFrame
    compared: pd.DataFrame
    alternatives: pd.DataFrame


def advise(
    found: Fit,
    quantity: Quantity,
    candidates: pd.DataFrame,
    pricing: Pricing,
    budget: float,
    *,
    criterion: Criterion = "V",
    method: Method = "exchange",
    max_runs: int = MAX_RUNS,
    copies: int = 1,
    noise: Noise | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Advice:
    """The runs that shrink the interval of a quantity most, or all parameters' (criterion D), within a budget.

    Parameters
    ----------
    found
        the law of the runs at hand.
    candidates, pricing
        see `companion.study.next_runs.candidates`; the budget is in the unit of the pricing.
    max_runs, copies
        runs in all, and of one (N, D), with other seeds.
    noise
        of the log loss; by default the scatter of the fit's residuals.
    seed
        of the random designs.

    Raises
    ------
    InputError
        if the law is not identified, has no such quantity, or nothing is affordable.

    Examples
    --------
    >>> from companion import LossSurface, fit
    >>> from companion.runs import load_paper_runs, subset
    >>> from companion.study.next_runs import default_candidates, parse_quantity, pricing_of
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop")
    >>> pricing = pricing_of(runs)
    >>> grid = default_candidates(runs, pricing, 1e21)
    >>> wanted = parse_quantity("loss@7e9,2e12")
    >>> advice = advise(fit(LossSurface, runs, gamma=1), wanted, grid, pricing, 1e21, max_runs=3)
    >>> bool(advice.runs["standard_error"].iloc[-1] < advice.standard_error)
    True
    """
    linear = linearize(found, noise)
    data = found.data[found.data["weight"] > 0]
    value = quantity.value(linear.law)
    if not linear.slope(quantity).any():
        raise InputError(f"{quantity.label} is held at {value:g}: no run changes it")
    start = linear.information(data["num_params"], data["num_tokens"])
    error = linear.standard_error(start, quantity)
    task = make_task(linear, start, candidates, budget, quantity if criterion == "V" else None, max_runs, copies)
    chosen = candidates.iloc[choose(task, method)].reset_index(drop=True)
    if chosen.empty:
        raise InputError(f"{quantity.label}: no affordable run adds to what is known of it")
    interval = partial(_interval, quantity, value, linear, level)
    errors = standard_errors(linear, start, chosen, quantity)[1:]
    low, high = np.array([interval(one) for one in errors]).T
    final = float(errors[-1])
    return Advice(
        quantity=quantity,
        linear=linear,
        level=level,
        value=value,
        standard_error=error,
        interval=interval(error),
        runs=chosen.assign(standard_error=errors, low=low, high=high),
        compared=_compared(linear, start, quantity, chosen, candidates, pricing, budget, max_runs, seed, interval),
        alternatives=_alternatives(found, linear, quantity, data, chosen, final, level),
    )


def _interval(quantity: Quantity, value: float, linear: LinearLaw, level: float, error: float) -> tuple[float, float]:
    return quantity.interval(value, linear.noise.quantile(level) * error)


def _compared(
    linear: LinearLaw,
    start: Array,
    quantity: Quantity,
    chosen: pd.DataFrame,
    candidates: pd.DataFrame,
    pricing: Pricing,
    budget: float,
    max_runs: int,
    seed: int,
    interval: Callable[[float], tuple[float, float]],
) -> pd.DataFrame:
    """The chosen design beside others of the same budget; of random ones the median."""
    largest, smallest = candidates["num_params"].max(), candidates["num_params"].min()
    sizes = max(1, min(5, max_runs // 3))
    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "chosen": lambda: chosen,
        "IsoFLOP grid": partial(isoflop_grid, linear.law, pricing, budget, num_sizes=sizes, sizes=(smallest, largest)),
        "token/param grid": partial(ratio_grid, pricing, (smallest, largest), budget, num_sizes=sizes),
        "largest affordable": partial(largest_affordable, candidates, budget, max_runs),
    }
    rows = []
    for name, make in makers.items():
        try:
            rows.append(_judged(name, make(), linear, start, quantity))
        except InputError as error:  # e.g. a law without an optimum has no profiles about it
            rows.append({"design": name, "num_runs": 0, "spent": 0.0, "standard_error": math.nan, "note": str(error)})
    random = [
        _judged("random", random_design(candidates, budget, seed + number, max_runs), linear, start, quantity)
        for number in range(RANDOM_DESIGNS)
    ]
    rows.append(sorted(random, key=lambda row: row["standard_error"])[RANDOM_DESIGNS // 2])
    table = pd.DataFrame(rows).assign(note=lambda all_rows: all_rows.get("note", pd.Series(dtype=object)))
    low, high = np.array([interval(one) for one in table["standard_error"]]).T
    return table.assign(low=low, high=high, note=table["note"].fillna(""))


def _judged(name: str, runs: pd.DataFrame, linear: LinearLaw, start: Array, quantity: Quantity) -> dict[str, Any]:
    error = standard_errors(linear, start, runs, quantity)[-1]
    return {"design": name, "num_runs": len(runs), "spent": float(runs["cost"].sum()), "standard_error": float(error)}


def _alternatives(
    found: Fit,
    linear: LinearLaw,
    quantity: Quantity,
    data: pd.DataFrame,
    chosen: pd.DataFrame,
    error: float,
    level: float,
) -> pd.DataFrame:
    half_width = linear.noise.quantile(level) * error
    held: dict[str, Any] = {name: float(value) for name, value in found.fixed.items()}
    rows = []
    for name, (law, fixed) in ALTERNATIVES.items():
        if law is type(found.law) and fixed == held:
            continue
        row: dict[str, Any] = {"law": name, "status": "", "note": ""}
        row |= dict.fromkeys(("value", "low", "high", "shift", "shift_in_half_widths"), math.nan)
        try:
            other = fit(law, data, huber_delta=found.huber_delta, weights="weight", **fixed)
            row |= {"status": other.status, "note": other.status_detail}
            if other.identified:
                row |= _other(found, other, quantity, data, chosen, half_width, level)
        except InputError as problem:
            row["note"] = str(problem)
        rows.append(row)
    return pd.DataFrame(rows)


def _other(
    found: Fit,
    other: Fit,
    quantity: Quantity,
    data: pd.DataFrame,
    chosen: pd.DataFrame,
    half_width: float,
    level: float,
) -> dict[str, Any]:
    """What the chosen runs say under another law, and where the assumed law ends on that law's losses, no scatter."""
    linear = linearize(other)
    value = quantity.value(other.law)
    columns = ["num_params", "num_tokens"]
    places = pd.concat([data[columns], chosen[columns]], ignore_index=True)
    error = linear.standard_error(linear.information(places["num_params"], places["num_tokens"]), quantity)
    low, high = quantity.interval(value, linear.noise.quantile(level) * error)
    loss = other.law.predict(places["num_params"].to_numpy(), places["num_tokens"].to_numpy())
    held: dict[str, Any] = dict(found.fixed)
    refit = fit(
        type(found.law),
        places.assign(val_loss=loss),
        huber_delta=found.huber_delta,
        num_starts=_NUM_STARTS,
        **held,
    )
    shift = quantity.error_of(refit.law, value)
    return {"value": value, "low": low, "high": high, "shift": shift, "shift_in_half_widths": shift / half_width}
