"""Chapter 9: where the utilization of a plan comes from, and the GPU-hours to a loss that follow from it."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from companion.chapters.ch09.facts import numbers_of
from companion.chapters.labels import by_label, label_of, the
from companion.errors import InputError
from companion.formatting import count, listed, percent, significant
from companion.hardware import get_hardware
from companion.planner import LOSS_OPTIMAL, HoursRatio, Knowledge, Plan, PlannedModel, Request, plan
from companion.planner.utilization import ASSUMED_UTILIZATION
from companion.plotting import Html, show_table


def utilization_facts(planned: Plan, known: Mapping[str, Knowledge]) -> dict[str, str]:
    """The utilization of the loss-optimal models, and where it comes from."""
    shares = {name: percent(values["utilization"]) for name, values in numbers_of(planned, LOSS_OPTIMAL).items()}
    return {"c9_utilization": by_label(shares), "c9_utilization_source": source_words(planned.request, known)}


def source_words(request: Request, known: Mapping[str, Knowledge]) -> str:
    """Which logs give the utilization of which architectures at which contexts, and for which it is assumed."""
    if request.utilization is not None:
        return f"It is {percent(request.utilization)} for every model of this plan, as given"
    measured = {name: one.utilization for name, one in known.items() if one.utilization is not None}
    found = []
    if measured:
        one = next(iter(measured.values()))
        whose, kept = ("the", "their kernels and GPU counts")
        if one.of_authors:
            whose, kept = ("the authors'", "their kernels, GPU counts and full recomputation of activations")
        lengths = {name: f"T\u00a0=\u00a0{listed(logs.context_lengths(name))}" for name, logs in measured.items()}
        device = get_hardware(one.hardware).label
        found.append(f"It comes from {whose} training logs: {by_label(lengths)}, on {device}, with {kept}")
    if missing := [label_of(name) for name in known if name not in measured]:
        found.append(f"The logs lack {listed(missing)}, so {percent(ASSUMED_UTILIZATION)} is assumed there")
    return ". ".join(found)


def loss_hours_facts(measured: Plan, assumed: Plan) -> dict[str, str]:
    """GPU-hours to a loss by architecture, and how many times those of another, by two plans for a target loss.

    Parameters
    ----------
    measured, assumed
        with the utilization of the logs, and with one utilization for all.
    """
    best = numbers_of(measured, LOSS_OPTIMAL)
    hours = {name: count(values["train_gpu_hours"]) for name, values in best.items()}
    words = [f"A loss of {measured.request.target_loss:.3f} takes {by_label(hours)} GPU-hours of training"]
    for ratio in measured.gpu_hours_ratios:
        words.append(
            f"So {the(ratio.second)} needs {ratio_words(ratio)} times those of {the(ratio.first)}; with one "
            f"utilization for both it would be {ratio_words(ratio_between(assumed, ratio.first, ratio.second))} times"
        )
    return {"c9_loss_hours": ". ".join(words)}


def loss_hours_table(measured: Plan, assumed: Plan) -> Html:
    """The hours and ratios of `loss_hours_facts` with their intervals."""
    share = f"GPU-hours at u = {percent(assumed.request.utilization or ASSUMED_UTILIZATION)}"
    rows = []
    others = {model.architecture: model for model in assumed.models if model.objective == LOSS_OPTIMAL}
    for model in measured.models:
        if model.objective == LOSS_OPTIMAL:
            hours = [_with_interval(one, "train_gpu_hours") for one in (model, others[model.architecture])]
            size, name = count(model.numbers["num_params"]), label_of(model.architecture)
            row = {"": name, "N": size, "u": percent(model.numbers["utilization"])}
            rows.append(row | {"GPU-hours": hours[0], share: hours[1]})
    for ratio in measured.gpu_hours_ratios:
        same = ratio_between(assumed, ratio.first, ratio.second)
        row = {"": f"{label_of(ratio.second)} / {label_of(ratio.first)}", "N": "", "u": ""}
        rows.append(row | {"GPU-hours": ratio_words(ratio), share: ratio_words(same)})
    return show_table(
        pd.DataFrame(rows),
        name="planning-loss-hours",
        caption=f"GPU-hours of training to a loss of {measured.request.target_loss:.3f} nats per token, with 95 % "
        "intervals: the loss-optimal models, with the utilization u of the logs and with one for all.",
    )


def ratios_elsewhere(measured: Plan, known: Mapping[str, Knowledge]) -> pd.DataFrame:
    """The ratio of a plan's GPU-hours at easier losses, and at the contexts that all logs share.

    Returns
    -------
    DataFrame
        with `loss` (nats per token; that of the plan, and those that the first architecture reaches with a tenth and a
        hundredth of its compute), `context_length`, `ratio` and `interval`; what cannot be planned is left out.
    """
    chosen = measured.gpu_hours_ratios[0]
    pair = (chosen.first, chosen.second)
    request = replace(measured.request, prefill_tokens=0.0, generated_tokens=0.0, prompt_length=None)
    spent = numbers_of(measured, LOSS_OPTIMAL)[chosen.first]["train_flops"]
    losses = [request.target_loss]
    for share in (10, 100):
        try:
            cheaper = plan(replace(request, target_loss=None, train_flops=spent / share), known)
        except InputError:
            continue  # no width of any architecture is that cheap
        losses += [values["loss"] for name, values in numbers_of(cheaper, LOSS_OPTIMAL).items() if name == chosen.first]
    logs = [set(one.context_lengths(name)) for name in pair if (one := known[name].utilization) is not None]
    rows = []
    for length in sorted({request.context} | (logs[0] & logs[1] if len(logs) == 2 else set())):
        for loss in losses:
            try:
                again = plan(replace(request, target_loss=loss, context_length=length), known)
                ratio = ratio_between(again, *pair)
            except (InputError, KeyError):
                continue
            rows.append({"loss": loss, "context_length": length, "ratio": ratio.ratio, "interval": ratio.interval})
    return pd.DataFrame(rows)


def elsewhere_table(ratios: pd.DataFrame, measured: Plan) -> Html:
    """`ratios_elsewhere`: a row for each context, a column for each loss."""
    cells = {
        (length, loss): _bracketed(significant(ratio), *map(significant, interval))
        for loss, length, ratio, interval in ratios.itertuples(index=False)
    }
    losses = sorted(ratios["loss"].unique(), reverse=True)
    rows = [
        {"": f"T\u00a0=\u00a0{length}"} | {f"loss {loss:.3f}": cells.get((length, loss), "–") for loss in losses}
        for length in sorted(ratios["context_length"].unique())
    ]
    ratio = measured.gpu_hours_ratios[0]
    return show_table(
        pd.DataFrame(rows),
        name="planning-ratios",
        caption=f"GPU-hours of training to a loss (nats per token), {label_of(ratio.second)} over "
        f"{label_of(ratio.first)}, with 95 % intervals.",
    )


def elsewhere_facts(ratios: pd.DataFrame) -> dict[str, str]:
    """Between what the ratio lies, and where its ends are."""
    ends = ratios.sort_values("ratio").iloc[[0, -1]].to_dict("records")
    words = [
        f"{significant(end['ratio'])} (loss {end['loss']:.3f}, T\u00a0=\u00a0{end['context_length']})" for end in ends
    ]
    return {"c9_ratio_moves": f"from {words[0]} to {words[1]}"}


def ratio_between(planned: Plan, first: str, second: str) -> HoursRatio:
    """GPU-hours of the second over those of the first, whichever needs fewer in this plan."""
    for ratio in planned.gpu_hours_ratios:
        if (ratio.first, ratio.second) == (first, second):
            return ratio
        if (ratio.first, ratio.second) == (second, first):
            low, high = ratio.interval
            return HoursRatio(first=first, second=second, ratio=1 / ratio.ratio, interval=(1 / high, 1 / low))
    raise KeyError(f"{second} / {first}")


def ratio_words(ratio: HoursRatio) -> str:
    """A ratio with its interval, if it has one."""
    return _bracketed(significant(ratio.ratio), *map(significant, ratio.interval))


def _with_interval(model: PlannedModel, name: str) -> str:
    return _bracketed(count(model.numbers[name]), *map(count, model.intervals[name]))


def _bracketed(value: str, low: str, high: str) -> str:
    return value if "undefined" in (low, high) else f"{value} [{low}, {high}]"
