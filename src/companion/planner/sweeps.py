"""Plans over a range of something: traffic, context, budget; and over the choices that no interval holds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.formatting import percent
from companion.planner.planning import COST_OPTIMAL, LOSS_OPTIMAL, Knowledge, Plan, Request, learn, plan
from companion.planner.utilization import measured_utilization

#: Training utilizations between which real runs lie (arXiv 2204.02311, table 3, lists 21 % to 46 % of peak).
UTILIZATIONS = (0.25, 0.5)
#: Query heads per head of keys and values in the choice of grouped heads (arXiv 2305.13245 uses 8).
KV_GROUPS = 8


def sweep(
    request: Request, known: Mapping[str, Knowledge], name: str, values: Sequence[Any], *, level: float = 0.95
) -> pd.DataFrame:
    """Plans for every value of one field of a request, or of all served tokens at once.

    Parameters
    ----------
    request
        the plan that is varied.
    known
        from `companion.planner.learn`.
    name
        a field of `Request`; `served_tokens` scales prefill and generated tokens together.
    values
        of that field.

    Returns
    -------
    DataFrame
        with the columns of `Plan.table` and one named as the field. A value for which an architecture has no plan has
        no row for it.

    Raises
    ------
    InputError
        if no value has any plan.
    """
    tables, errors = [], []
    for value in values:
        changed = with_served_tokens(request, value) if name == "served_tokens" else replace(request, **{name: value})
        try:
            tables.append(plan(changed, known, level=level).table().assign(**{name: value}))
        except InputError as error:
            errors.append(str(error))
    if not tables:
        raise InputError(f"no {name} has a plan: {errors[0]}")
    return pd.concat(tables, ignore_index=True)


def with_served_tokens(request: Request, total: float) -> Request:
    """The request with this many tokens served in total: the same share of prompts, and prompts of the same length."""
    served = request.prefill_tokens + request.generated_tokens
    if not served > 0:
        raise InputError("served tokens cannot be scaled: the request serves none")
    factor = total / served
    return replace(
        request,
        prefill_tokens=request.prefill_tokens * factor,
        generated_tokens=request.generated_tokens * factor,
        prompt_length=request.prompt,
    )


def cost_ratio(table: pd.DataFrame, first: str, second: str, by: str, objective: str = COST_OPTIMAL) -> pd.DataFrame:
    """Total device time of the first architecture over that of the second, and both losses, per value of a sweep.

    Where a sweep has no cost-optimal plan (nothing is served), the loss-optimal one stands in.
    """
    rows = []
    for value, group in table.groupby(by):
        chosen = group[group["objective"] == objective]
        chosen = chosen if len(chosen) else group[group["objective"] == LOSS_OPTIMAL]
        pair = [chosen[chosen["architecture"] == name] for name in (first, second)]
        if all(len(one) for one in pair):
            one, two = (part.iloc[0] for part in pair)
            rows.append(
                {
                    by: value,
                    "ratio": one["total_gpu_hours"] / two["total_gpu_hours"],
                    "step_time_ratio": one["step_time_s"] / two["step_time_s"],
                    "ttft_ratio": one["ttft_s"] / two["ttft_s"],
                    "loss_difference": one["loss"] - two["loss"],
                }
            )
    return pd.DataFrame(rows, columns=[by, "ratio", "step_time_ratio", "ttft_ratio", "loss_difference"])


def choices(
    request: Request, runs: pd.DataFrame, known: Mapping[str, Knowledge], *, num_resamples: int = 50
) -> pd.DataFrame:
    """The plan under choices that its intervals leave out: which runs, which timing, which utilization.

    Parameters
    ----------
    runs
        the run table behind `known`; its experiments, if it has several, are tried one by one.

    Returns
    -------
    DataFrame: `choice` (first, the plan itself: `as planned`, and whether its utilization is measured) and the columns
    of `Plan.table`; a choice without any plan is left out.
    """
    measured = any(measured_utilization(request, one) for one in known.values())
    plans: dict[str, Plan] = {f"as planned{' (measured utilization)' * measured}": plan(request, known)}
    experiments = sorted(runs["experiment"].dropna().unique()) if "experiment" in runs else []
    if len(experiments) > 1:
        for experiment in experiments:
            label = f"law of {experiment} runs only"
            try:
                # another law at the same context, the same times and utilization
                same = {
                    name: replace(
                        one,
                        ttft=known[name].ttft,
                        step_time=known[name].step_time,
                        untimed=known[name].untimed,
                        utilization=known[name].utilization,
                        unlogged=known[name].unlogged,
                    )
                    for name in known
                    for one in learn(
                        runs,
                        None,
                        [name],
                        context_length=known[name].law_context,
                        experiment=experiment,
                        timing="roofline",
                        num_resamples=num_resamples,
                    ).values()
                }
                plans[label] = plan(request, same)
            except InputError:
                continue  # too few runs of that kind for a law, or none of its optima in reach
    others = {"roofline times": replace(request, timing="roofline")}
    others["roofline times, grouped heads"] = replace(request, timing="roofline", kv_groups=KV_GROUPS)
    others |= {f"utilization {percent(share)}": replace(request, utilization=share) for share in UTILIZATIONS}
    for label, changed in others.items():
        try:
            plans[label] = plan(changed, known)
        except InputError:
            continue
    return pd.concat([made.table().assign(choice=label) for label, made in plans.items()], ignore_index=True)


def interval_shares(planned: Plan) -> pd.DataFrame:
    """Relative half width of every interval: which of a plan's numbers are known well."""
    rows = []
    for model in planned.models:
        row: dict[str, Any] = {"architecture": model.architecture, "objective": model.objective}
        for name, (low, high) in model.intervals.items():
            row[name] = (high - low) / 2 / model.numbers[name] if model.numbers[name] else np.nan
        rows.append(row)
    return pd.DataFrame(rows)
