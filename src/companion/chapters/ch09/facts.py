"""Chapter 9: what its sentences say about a plan."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.labels import by_label, label_of
from companion.formatting import count, listed, percent, power_of_ten, share_in_words
from companion.hardware import get_hardware
from companion.ledger import REPRODUCED
from companion.planner import COST_OPTIMAL, LOSS_OPTIMAL, Knowledge, Plan, Request
from companion.planner.sweeps import KV_GROUPS

#: Numbers by architecture.
Numbers = Mapping[str, Mapping[str, float]]


def numbers_of(planned: Plan, objective: str) -> dict[str, dict[str, float]]:
    """Numbers of the models with one objective (`loss-optimal`, `cost-optimal`), by architecture."""
    return {model.architecture: model.numbers for model in planned.models if model.objective == objective}


def plan_facts(planned: Plan, known: Mapping[str, Knowledge]) -> dict[str, str]:
    """How much smaller the cost-optimal models are and what they save, the laws behind the plan, and its contexts."""
    request = planned.request
    best, cheap = numbers_of(planned, LOSS_OPTIMAL), numbers_of(planned, COST_OPTIMAL)
    return {
        "c9_first": laws_words(known, planned.first),
        "c9_prompt": f"{request.prompt:,}",
        "c9_mean": f"{request.mean_context:,}",
        "c9_answer_size": size_verdict(best, cheap),
        "c9_owning": owning_verdict(best, cheap),
        "c9_take_owning": saving_verdict(best, cheap),
    }


def laws_words(known: Mapping[str, Knowledge], first: Sequence[str] = ()) -> str:
    """At which context the runs behind the laws were trained, then other things to know before any number."""
    contexts = {f"T\u00a0=\u00a0{one.law_context}" if one.law_context else "every context" for one in known.values()}
    return "; ".join([f"The laws come from the runs at {listed(sorted(contexts))}", *first])


def request_words(request: Request) -> str:
    """Budget, context, traffic and device of a request."""
    if request.train_flops is not None:
        budget = f"{power_of_ten(request.train_flops)} FLOP of training"
    elif request.gpu_hours is not None:
        budget = f"{round_count(request.gpu_hours)} GPU-hours of training"
    else:
        budget = f"a loss of {request.target_loss:g} nats per token"
    read, written = round_count(request.prefill_tokens), round_count(request.generated_tokens)
    return (
        f"{budget}, T = {request.context}, {read} prompt and {written} generated tokens, batches of "
        f"{request.batch_size} on {get_hardware(request.hardware).label}"
    )


def round_count(value: float) -> str:
    """`count` without zeros at the end of its digits: 1T, 1.5B."""
    text = count(value)
    digits = text.rstrip("kMBT")
    return f"{float(digits):g}{text.removeprefix(digits)}"


def size_verdict(best: Numbers, cheap: Numbers) -> str:
    """Size of the cost-optimal models over that of the loss-optimal ones: the answer's first sentence."""
    if not cheap:
        return "Nothing is served here, so the best model to train is also the cheapest to own"
    shares = [values["num_params"] / best[name]["num_params"] for name, values in cheap.items()]
    most = "" if len(shares) == 1 else "at most "
    return (
        f"Among all models of equal loss, the cheapest to train and serve has {most}{max(shares):.2f} times the "
        "parameters of the best model to train"
    )


def owning_verdict(best: Numbers, cheap: Numbers) -> str:
    """The cost-optimal model beside the loss-optimal one: size, training and total cost."""
    if not cheap:
        return "Nothing is served here, so both models are the same"
    keys = ("num_params", "train_gpu_hours", "total_gpu_hours")
    ratios = {name: [values[key] / best[name][key] for key in keys] for name, values in cheap.items()}
    sizes, training, totals = (
        by_label({name: style.format(values[i]) for name, values in ratios.items()})
        for i, style in enumerate(("{:.2f}", "{:.1f}", "{:.2f}"))
    )
    return (
        f"The cost-optimal model has {sizes} times the parameters of the loss-optimal one. It costs {training} times "
        f"as much to train, but {totals} times as much in total"
    )


def saving_verdict(best: Numbers, cheap: Numbers) -> str:
    """What share of the total cost the cost-optimal model saves."""
    saved = {
        name: percent(1 - values["total_gpu_hours"] / best[name]["total_gpu_hours"], decimals=0)
        for name, values in cheap.items()
    }
    if not saved:
        return "Nothing is served in this plan, so there is nothing to save"
    return f"In this plan this saves {by_label(saved)} of the device time"


def traffic_verdict(by_traffic: pd.DataFrame | None, planned: Plan, known: Mapping[str, Knowledge]) -> str:
    """At how many served tokens the cost-optimal size is half of the loss-optimal one, and how far the runs reach."""
    if by_traffic is None:
        return "Without traffic both models are the same"
    cheap = by_traffic[by_traffic["objective"] == COST_OPTIMAL]
    halved, never, none = {}, [], []
    for name, best in numbers_of(planned, LOSS_OPTIMAL).items():
        rows = cheap[cheap["architecture"] == name]
        ratio = rows["num_params"].to_numpy() / best["num_params"]
        if not len(ratio):
            none.append(label_of(name))
        elif ratio.min() < 0.5 < ratio.max():
            half = np.interp(-0.5, -ratio, np.log10(rows["served_tokens"]))
            halved[name] = count(10**half, 2)
        else:
            never.append(label_of(name))
    found = [f"The cost-optimal size is half of the loss-optimal one at {by_label(halved)} served tokens"] * bool(
        halved
    )
    found += [f"The cost-optimal size never falls to half of the loss-optimal one for {listed(never)}"] * bool(never)
    found += [f"No traffic has a cost-optimal model for {listed(none)}"] * bool(none)
    if cheap.empty:
        return ". ".join(found)
    seen = max(one.ranges.limits["tokens_per_param"][1] for one in known.values())
    reached = count(cheap["tokens_per_param"].max(), 2)
    found.append(f"Tokens per parameter reach {reached} in the figure and {count(seen, 2)} in the runs")
    return ". ".join(found)


def ratio_facts(
    ratios: Mapping[str, pd.DataFrame], pair: Sequence[str], level: float, context_length: int
) -> dict[str, str]:
    """Verdicts on the choice of an architecture; arguments as in `ratio_figure`, and the planned context in tokens."""
    return {
        "c9_groups": f"{KV_GROUPS}",
        "c9_level": f"{level:.3f}",
        "c9_context": context_words(ratios),
        "c9_answer_ratio": ratio_verdict(ratios, pair, context_length),
    }


def context_words(ratios: Mapping[str, pd.DataFrame]) -> str:
    """How far kernels, and how far grouped heads, move the ratio of device times at contexts that all lines share."""
    lines = [table.set_index("context_length")["ratio"] for table in ratios.values()]
    common = sorted(set.intersection(*(set(line.index) for line in lines))) if len(lines) == 3 else []
    if not common:
        return "There is no context at which all three ratios can be formed"
    timed, roofline, grouped = lines
    apart = max(abs(np.log(timed[t] / roofline[t])) for t in common)
    fewer = min(roofline[t] / grouped[t] for t in common)
    return (
        f"At the contexts that all three lines share, the kernels move the ratio by a factor of at most "
        f"{np.exp(apart):.2f}. Grouped heads divide it by at least {fewer:.1f}"
    )


def ratio_verdict(ratios: Mapping[str, pd.DataFrame], pair: Sequence[str], context_length: int) -> str:
    """Which of two architectures is cheaper to own near the planned context, if all kinds of timing agree.

    Parameters
    ----------
    ratios
        device time of the first architecture over that of the second; the first kind of timing and the last are named.
    """
    if not all(len(table) for table in ratios.values()):
        return "There is no context at which models of both architectures fit"
    first, second = map(label_of, pair)
    near = [
        table.iloc[int((table["context_length"] - context_length).abs().argmin())]["ratio"] for table in ratios.values()
    ]
    if min(near) > 1 or max(near) < 1:
        who, other = (second, first) if min(near) > 1 else (first, second)
        timed, ideal = (near[0], near[-1]) if who == second else (1 / near[0], 1 / near[-1])
        return (
            f"At equal loss the {who} is cheaper to own: the {other} takes {timed:.2g} times its device time with the "
            f"timed kernels, and {ideal:.2g} times with grouped heads on ideal kernels"
        )
    return (
        f"Which is cheaper to own at equal loss depends on kernels and heads: the {first} takes {near[0]:.2g} times "
        f"the device time of the {second} with the timed kernels, and {near[-1]:.2g} times with grouped heads on ideal "
        "kernels"
    )


def published_facts(sizes: pd.DataFrame, ledger: pd.DataFrame) -> dict[str, str]:
    """How our intervals hold the published sizes, how far ours are from them, and what the ledger says of these.

    Parameters
    ----------
    sizes
        from `published_sizes`.
    ledger
        rows of the ledger's section `compute_optimal_table_8192`.
    """
    again = ledger["verdict"] == REPRODUCED
    held, inside = {}, {}
    for name, part in sizes.groupby("architecture", sort=False):
        held[str(name)] = f"{share_in_words(int(part['holds'].sum()), len(part))} rows"
        within = part[part["data"] == "inside"]["ratio"]
        if len(within):
            inside[str(name)] = f"{within.min():.2f} to {within.max():.2f}"
    words = f"Our interval holds the published size in {by_label(held)}"
    if inside:
        words += f". Inside the data our sizes are {by_label(inside)} times the published ones"
    return {
        "c9_published": words,
        "c9_published_numbers": f"{len(ledger)}",
        "c9_published_again": f"{int(again.sum())}",
        "c9_published_dependent": f"{int((again & ~ledger['independent'].astype(bool)).sum())}",
    }


def choices_facts(other: pd.DataFrame) -> dict[str, str]:
    """How many sizes under other choices lie outside the interval of the plan.

    Parameters
    ----------
    other
        from `companion.planner.sweeps.choices`; its first choice is the plan.
    """
    outside = 0
    for _, rows in other.groupby(["architecture", "objective"], sort=False):
        first = rows.iloc[0]
        outside += (~rows["num_params"].between(first["num_params_low"], first["num_params_high"])).sum()
    return {"c9_choice_outside": f"{outside} of the {len(other)}"}


def loss_width_words(planned: Plan) -> str:
    """Half widths of the intervals of the loss, and the difference between two architectures."""
    width = {model.architecture: np.ptp(model.intervals["loss"]) / 2 for model in planned.models}
    half = {name: f"{value:.3f}" for name, value in width.items() if np.isfinite(value)}
    without = listed(label_of(name) for name in width if name not in half)
    found = f"The half width of the loss is {by_label(half)} nats per token" if half else "The loss has no interval"
    if half and without:
        found += f"; there is no interval for {without}"
    losses = [values["loss"] for values in numbers_of(planned, LOSS_OPTIMAL).values()]
    if len(losses) == 2:
        found += f"; the losses of the two architectures differ by {abs(losses[1] - losses[0]):.3f}"
    return found
