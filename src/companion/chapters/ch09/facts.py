"""Chapter 9: what its sentences say about a plan."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.formatting import count, power_of_ten
from companion.planner import COST_OPTIMAL, LOSS_OPTIMAL, Knowledge, Plan, Request
from companion.planner.sweeps import KV_GROUPS
from companion.plotting.style import architecture_label

#: Words for the kinds of choices that `companion.planner.sweeps.choices` tries, by how their labels start.
_CHOICES = {"law of": "by the choice of runs", "utilization": "by utilization", "roofline times": "by the roofline"}
#: Numbers by architecture.
Numbers = Mapping[str, Mapping[str, float]]


def numbers_of(planned: Plan, objective: str) -> dict[str, dict[str, float]]:
    """Numbers of the models with one objective (`loss-optimal`, `cost-optimal`), by architecture."""
    return {model.architecture: model.numbers for model in planned.models if model.objective == objective}


def plan_facts(planned: Plan, known: Mapping[str, Knowledge]) -> dict[str, str]:
    """The request in words, the law behind the plan, both models, and what the cheaper one saves."""
    request = planned.request
    best, cheap = numbers_of(planned, LOSS_OPTIMAL), numbers_of(planned, COST_OPTIMAL)
    contexts = {f"T = {one.law_context}" if one.law_context else "every context" for one in known.values()}
    trained = [f"{_size_words(name, one)}, loss {one['loss']:.3f}" for name, one in best.items()]
    return {
        "c9_request": request_words(request),
        "c9_first": "; ".join([f"The laws are those of the runs at {' and '.join(sorted(contexts))}", *planned.first]),
        "c9_prompt": f"{request.prompt:,}",
        "c9_mean": f"{request.mean_context:,}",
        "c9_trained": "; ".join(trained),
        "c9_answer_serve": cheapest_verdict(cheap),
        "c9_owning": owning_verdict(best, cheap),
        "c9_take_owning": saving_verdict(best, cheap),
    }


def request_words(request: Request) -> str:
    """Budget, context, traffic and device of a request."""
    if request.train_flops is not None:
        budget = f"{power_of_ten(request.train_flops)} FLOP of training"
    elif request.gpu_hours is not None:
        budget = f"{count(request.gpu_hours)} GPU-hours of training"
    else:
        budget = f"a loss of {request.target_loss:g}"
    traffic = f"{count(request.prefill_tokens)} prompt and {count(request.generated_tokens)} generated tokens"
    return f"{budget}, T = {request.context}, {traffic}, batches of {request.batch_size} on {request.hardware}"


def cheapest_verdict(cheap: Numbers) -> str:
    """The cost-optimal model of each architecture, if anything is served."""
    if not cheap:
        return "Nothing is served: the best to train is the best to own"
    models = "; ".join(_size_words(name, one) for name, one in cheap.items())
    return f"Cheapest to own, each at its own loss above: {models}"


def owning_verdict(best: Numbers, cheap: Numbers) -> str:
    """The cost-optimal model beside the loss-optimal one: size, training and total cost."""
    found = []
    for name, values in cheap.items():
        size, training, total = (
            values[key] / best[name][key] for key in ("num_params", "train_gpu_hours", "total_gpu_hours")
        )
        shares = f"{size:.2f} of the size, {training:.1f} times the training, {total:.2f} of the total cost"
        found.append(f"{architecture_label(name)}: {shares}")
    return "; ".join(found) if found else "Nothing is served here, so both are the same"


def saving_verdict(best: Numbers, cheap: Numbers) -> str:
    """What share of the total cost the cost-optimal model saves."""
    saved = [
        f"{1 - values['total_gpu_hours'] / best[name]['total_gpu_hours']:.0%} for the {architecture_label(name)}"
        for name, values in cheap.items()
    ]
    return f"here it saves {' and '.join(saved)}" if saved else "nothing is served in this plan"


def traffic_verdict(by_traffic: pd.DataFrame | None, planned: Plan, known: Mapping[str, Knowledge]) -> str:
    """At how many served tokens the cost-optimal size is half of the loss-optimal one."""
    if by_traffic is None:
        return "No traffic, no difference"
    cheap = by_traffic[by_traffic["objective"] == COST_OPTIMAL]
    found = []
    for name, best in numbers_of(planned, LOSS_OPTIMAL).items():
        rows = cheap[cheap["architecture"] == name]
        ratio = rows["num_params"].to_numpy() / best["num_params"]
        where = "never halves here"
        if ratio.min() < 0.5 < ratio.max():
            half = np.interp(-0.5, -ratio, np.log10(rows["served_tokens"]))
            where = f"is down to half of N* at {count(10**half, 2)} served tokens"
        found.append(f"the cost-optimal {architecture_label(name)} {where}")
    seen = max(one.ranges.limits["tokens_per_param"][1] for one in known.values())
    reached = count(cheap["tokens_per_param"].max(), 2)
    found.append(f"tokens per parameter reach {reached}; no run has more than {count(seen, 2)}")
    text = "; ".join(found)
    return text[:1].upper() + text[1:]


def ratio_facts(
    ratios: Mapping[str, pd.DataFrame], pair: Sequence[str], level: float, context_length: int
) -> dict[str, str]:
    """Verdicts on the choice of an architecture; arguments as in `ratio_figure`, and the planned context in tokens."""
    return {
        "c9_groups": f"{KV_GROUPS}",
        "c9_context": context_words(ratios),
        "c9_answer_ratio": ratio_verdict(ratios, pair, level, context_length),
    }


def context_words(ratios: Mapping[str, pd.DataFrame]) -> str:
    """How the ratio of device times grows with the context, and how far kernels and grouped heads move it."""
    ends = []
    for timing, table in ratios.items():
        if len(table) > 1:
            low, high = table.iloc[0], table.iloc[-1]
            start = f"{low['ratio']:.2f} at T = {low['context_length']:.0f}"
            ends.append(f"{timing}: {start} to {high['ratio']:.2g} at T = {high['context_length']:.0f}")
    found = f"Ratio of total device time by {'; '.join(ends)}" if ends else "No ratio could be formed here"
    lines = [table.set_index("context_length")["ratio"] for table in ratios.values()]
    if len(lines) != 3 or not all(len(line) for line in lines):
        return found
    timed, roofline, grouped = lines
    common = sorted(set(timed.index) & set(roofline.index) & set(grouped.index))
    apart = max(abs(np.log(timed[t] / roofline[t])) for t in common) if common else np.nan
    fewer = min(roofline[t] / grouped[t] for t in common) if common else np.nan
    return (
        f"{found}. At contexts common to all, kernels move the ratio by a factor of {np.exp(apart):.2f} at most, "
        f"grouped heads by {fewer:.1f} at least"
    )


def ratio_verdict(ratios: Mapping[str, pd.DataFrame], pair: Sequence[str], level: float, context_length: int) -> str:
    """Which of two architectures is cheaper to own at the planned context, if the kinds of timing agree."""
    if not all(len(table) for table in ratios.values()):
        return "No context was found at which both architectures fit"
    first, second = map(architecture_label, pair)
    near = {
        timing: table.iloc[int((table["context_length"] - context_length).abs().argmin())]
        for timing, table in ratios.items()
    }
    at = f"{next(iter(near.values()))['context_length']:.0f}"
    values = ", ".join(f"{row['ratio']:.2g} ({timing})" for timing, row in near.items())
    cheaper = {second if row["ratio"] > 1 else first for row in near.values()}
    who = f"the {cheaper.pop()} is cheaper to own" if len(cheaper) == 1 else "which is cheaper depends on the kernels"
    return (
        f"Which architecture? Both at a loss of {level:.3f} and T = {at}, {who}: device time of {first} over "
        f"{second} is {values}"
    )


def published_words(sizes: pd.DataFrame) -> str:
    """In how many rows our interval holds the published size, and how far ours is from it inside of the data."""
    found = []
    for name, part in sizes.groupby("architecture", sort=False):
        inside = part[part["data"] == "inside"]["ratio"]
        found.append(f"{name}: the published size lies in our interval in {part['holds'].sum()} of {len(part)} rows")
        if len(inside):
            found.append(f"inside of the data ours is {inside.min():.2f} to {inside.max():.2f} of it")
    return "; ".join(found)


def choices_facts(other: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """How far other choices move sizes and total cost.

    Parameters
    ----------
    other
        from `companion.planner.sweeps.choices`; its first choice is the plan.
    names
        the planned architectures.
    """
    spans, outside = [], 0
    for name in names:
        for objective in (LOSS_OPTIMAL, COST_OPTIMAL):
            rows = other[(other["architecture"] == name) & (other["objective"] == objective)]
            if len(rows) > 1:
                first = rows.iloc[0]
                outside += (~rows["num_params"].between(first["num_params_low"], first["num_params_high"])).sum()
                span = f"{count(rows['num_params'].min())} to {count(rows['num_params'].max())}"
                spans.append(f"{architecture_label(name)} {objective} {span}")
    hours = [_hours_words(str(name), part) for name, part in other.groupby("architecture", sort=False)]
    return {
        "c9_choice_sizes": "; ".join(spans),
        "c9_choice_outside": f"{outside} of {other['architecture'].isin(names).sum()}",
        "c9_choice_hours": "; ".join(hours),
    }


def loss_width_words(planned: Plan) -> str:
    """Half widths of the intervals of the loss, and the difference between two architectures."""
    half = {
        architecture_label(model.architecture): (model.intervals["loss"][1] - model.intervals["loss"][0]) / 2
        for model in planned.models
    }
    found = f"In nats the half width of the loss is {' and '.join(f'{v:.3f} ({n})' for n, v in half.items())}"
    losses = [values["loss"] for values in numbers_of(planned, LOSS_OPTIMAL).values()]
    if len(losses) == 2:
        found += f"; the two architectures differ by {abs(losses[1] - losses[0]):.3f}"
    return found


def _size_words(name: str, numbers: Mapping[str, float]) -> str:
    return f"{architecture_label(name)} {count(numbers['num_params'])} on {count(numbers['num_tokens'])} tokens"


def _hours_words(name: str, part: pd.DataFrame) -> str:
    """Total GPU-hours of one architecture as planned, and their range under each kind of choice."""
    hours = part[part["objective"] == part["objective"].iloc[-1]].set_index("choice")["total_gpu_hours"]
    found = [f"{architecture_label(name)} {count(hours['as planned'], 2)} as planned"]
    for start, words in _CHOICES.items():
        some = hours[[choice.startswith(start) for choice in hours.index]]
        if len(some):
            ends = dict.fromkeys((count(some.min(), 2), count(some.max(), 2)))
            found.append(f"{' to '.join(ends)} {words}")
    return ", ".join(found)
