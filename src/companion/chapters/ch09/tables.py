"""Chapter 9: its tables, and its figures with their captions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from companion.chapters.ch09 import figures
from companion.chapters.ch09.facts import numbers_of, request_words
from companion.chapters.labels import label_of
from companion.formatting import count, listed, percent, power_of_ten, significant
from companion.hardware import get_hardware
from companion.inference.timings import load_inference
from companion.planner import COST_OPTIMAL, LOSS_OPTIMAL, Knowledge, Plan, PlannedModel, Request, plan
from companion.planner.costs import cost_curve
from companion.planner.request import LAW_CONTEXT
from companion.planner.utilization import measured_utilization
from companion.plotting import Html, show, show_table
from companion.runs import load_paper_runs, load_runs
from companion.training import load_training_logs

#: Rows of the table of a plan: heading, and how a number is written.
_ROWS: dict[str, tuple[str, Callable[[float], str]]] = {
    "num_params": ("N", count),
    "num_tokens": ("D", count),
    "tokens_per_param": ("D/N", significant),
    "loss": ("loss (nats/token)", "{:.3f}".format),
    "ttft_s": ("time to first token (ms)", lambda v: significant(1000 * v)),
    "step_time_s": ("step time (ms)", lambda v: significant(1000 * v)),
    "memory_bytes": ("memory (GiB)", lambda v: significant(v / 2**30)),
    "utilization": ("utilization in training", percent),
    "train_gpu_hours": ("training (GPU-hours)", count),
    "total_gpu_hours": ("total (GPU-hours)", count),
}
#: Experiments of the run table, as the page calls their runs.
_EXPERIMENTS = {"isoflop": "IsoFLOP", "tokenparam": "Token/Param"}
#: Kinds of choices that `companion.planner.sweeps.choices` tries: how their labels start, and the heading of a column.
_KINDS = {"law of": "other runs", "utilization": "utilization", "roofline times": "roofline"}


def answer_table(planned: Plan) -> Html:
    """The planned models in short: size, tokens, loss and total device time."""
    rows = [
        {"architecture": label_of(model.architecture), "model": model.objective}
        | {name: model.numbers[name] for name in ("num_params", "num_tokens", "loss", "total_gpu_hours")}
        for model in planned.models
    ]
    return show_table(
        pd.DataFrame(rows),
        name="planning-answer",
        caption=f"The plan for {request_words(planned.request)}. Loss-optimal: best to train. Cost-optimal: cheapest "
        "to train and serve at the same loss.",
        formats={"num_params": count, "num_tokens": count, "loss": "{:.3f}", "total_gpu_hours": count},
        labels={
            "num_params": "N",
            "num_tokens": "D",
            "loss": "loss (nats/token)",
            "total_gpu_hours": "total (GPU-hours)",
        },
    )


def parts_table(known: Mapping[str, Knowledge], request: Request) -> Html:
    """What a plan rests on: fits of loss law, runtime models and measured utilization, with their residual scatter."""
    rows = []
    for name, one in known.items():
        law = {"part": "loss law", "fitted to": f"{one.fit.num_rows} runs"}
        rows.append({"architecture": label_of(name)} | law | {"rms": float(np.sqrt(np.mean(one.fit.residuals**2)))})
        for part, model in zip(("time to first token", "step time"), one.times, strict=True):
            row = {"architecture": label_of(name), "part": part, "fitted to": f"{len(model.rows)} timings"}
            rows.append(row | {"rms": model.rms_log_error})
        if (measured := measured_utilization(request, one)) is not None:
            runs, rms = measured.residuals(name)
            row = {"architecture": label_of(name), "part": "utilization in training", "fitted to": f"{runs} logs"}
            rows.append(row | {"rms": rms})
    return show_table(
        pd.DataFrame(rows),
        name="planning-parts",
        caption="What a plan rests on: for every fit its data, and the root mean square of its residuals in the "
        "logarithm (0.01 is about 1 %).",
        formats={"rms": "{:.4f}"},
        labels={"rms": "rms residual"},
    )


def plan_table(planned: Plan) -> Html:
    """The planned models, a column each, with intervals."""
    columns = {
        f"{label_of(model.architecture)}, {model.objective}": [_with_interval(model, name) for name in _ROWS]
        for model in planned.models
    }
    return show_table(
        pd.DataFrame({"": [heading for heading, _ in _ROWS.values()], **columns}),
        name="planning-plan",
        caption=f"Planned models with 95 % intervals, on {get_hardware(planned.request.hardware).label}.",
    )


def warnings_table(planned: Plan) -> Html:
    """Each warning (beyond the data, does not fit in memory) once, with all its models."""
    places: dict[str, list[str]] = {}
    for model in planned.models:
        for text in [*model.warnings, *([model.fit_message] if model.fit_message else [])]:
            places.setdefault(text, []).append(f"{label_of(model.architecture)} {model.objective}")
    rows = [{"models": "; ".join(where), "warning": text} for text, where in places.items()]
    rows += [{"models": "plan", "warning": note} for note in planned.notes]
    return show_table(
        pd.DataFrame(rows or [{"models": "all", "warning": "none: inside the range of runs and timings"}]),
        name="planning-warnings",
        caption="Where the plan extrapolates beyond the data, or does not fit in memory.",
    )


def load_tables(
    runs_file: str | Path | None, timings_file: str | Path | None, logs_file: str | Path | None
) -> tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame | None]:
    """Run table, inference timings and training logs of the chapter; without a file the paper's runs, and twice None.

    Raises
    ------
    InputError
        if a file cannot be read or is not such a table.
    """
    runs = load_paper_runs() if runs_file is None else load_runs(runs_file)
    timings = None if timings_file is None else load_inference(timings_file)
    return runs, timings, None if logs_file is None else load_training_logs(logs_file)


def cost_figure(planned: Plan, known: Mapping[str, Knowledge]) -> Html:
    """Device time over size at the loss of the loss-optimal models."""
    curves = {
        name: cost_curve(planned.request, known[name], values["loss"])
        for name, values in numbers_of(planned, LOSS_OPTIMAL).items()
    }
    return show(
        figures.cost_curves(curves, planned),
        name="planning-cost-curves",
        alt="Device time over model size for one loss: training falls and then rises with size, serving rises, "
        "their sum has a minimum at a smaller size than training alone.",
        caption="Device time of every size that reaches the loss of the loss-optimal model. A smaller model needs more "
        "tokens, and below a certain size no number of tokens is enough. With serving included, the minimum moves to a "
        "smaller model. Jumps of the Transformer: one more wave of attention heads (chapter 8). Faint: does not fit in "
        "memory.",
    )


def traffic_figure(by_traffic: pd.DataFrame | None) -> Html:
    """Cost-optimal models over the tokens served; a note if nothing is served (None).

    Parameters
    ----------
    by_traffic
        from `companion.planner.sweeps.sweep` over `served_tokens`.
    """
    if by_traffic is None:
        return Html("<p>Nothing is served: give prefill_tokens or generated_tokens.</p>")
    return show(
        figures.traffic(by_traffic, list(by_traffic["architecture"].unique())),
        name="planning-traffic",
        alt="With more served tokens the cost-optimal size falls and its tokens per parameter rise, starting from the "
        "loss-optimal values.",
        caption="The more tokens a model serves, the smaller it should be, and the longer it should be trained. "
        "Prompts and answers keep their proportion. Bands: 95 % intervals of the cost-optimal model. Dotted: "
        "loss-optimal.",
    )


def ratio_figure(ratios: Mapping[str, pd.DataFrame], pair: Sequence[str], level: float, batch_size: int) -> Html:
    """Cost and times of one architecture over another's, over the context.

    Parameters
    ----------
    ratios
        by kind of timing, from `companion.planner.sweeps.cost_ratio`.
    pair
        the two architectures.
    level
        loss that both reach, nats per token.
    """
    if not all(len(table) for table in ratios.values()):
        return Html("<p>A ratio needs contexts at which both fit.</p>")
    first, second = map(label_of, pair)
    return show(
        figures.cost_ratios(ratios, f"{first} over {second}"),
        name="planning-context",
        alt="Ratios of total device time, time to first token and step time between the architectures over the "
        "context, all rising.",
        caption=f"{first} over {second} at an equal loss of {level:.3f}, each with its cost-optimal model, in batches "
        f"of {batch_size}: above 1 the {second} is cheaper or faster. Missing points: a model does not fit in memory. "
        "Beyond the timed contexts of up to 16k tokens all lines are extrapolations.",
    )


def ratio_table(ratios: Mapping[str, pd.DataFrame], pair: Sequence[str]) -> Html:
    """Ratio of total device time by kind of timing and context; arguments as in `ratio_figure`."""
    lines = {words: table.set_index("context_length")["ratio"] for words, table in ratios.items() if len(table)}
    if not lines:
        return Html("<p>There is no context at which models of both architectures fit.</p>")
    wide = pd.DataFrame(lines).sort_index().T
    wide.columns = [f"T = {int(length)}" for length in wide.columns]
    return show_table(
        wide.rename_axis("times").reset_index(),
        name="planning-ratios",
        caption=f"Total device time, {' over '.join(map(label_of, pair))}, at equal loss. A dash: one of them does "
        "not fit in memory.",
        formats=dict.fromkeys(wide.columns, significant),
    )


def published_sizes(rows: Sequence[Mapping[str, float]], known: Mapping[str, Knowledge]) -> pd.DataFrame:
    """The optimal size at every published compute, planned and published.

    Parameters
    ----------
    rows
        of `compute_optimal_table_8192` in the published numbers.

    Returns
    -------
    DataFrame with `architecture` (its label), `C`, `published N`, `ours`, `interval` (text), `ratio`, `holds` (whether
    our interval holds the published size) and `data`: `inside` or `outside` of what the runs cover.
    """
    found = []
    for entry in rows:
        for name, knowledge in known.items():
            if f"{name}_train_flops" not in entry:
                continue
            flops, published = float(entry[f"{name}_train_flops"]), entry["num_params"]
            model = plan(Request(train_flops=flops, context_length=LAW_CONTEXT), {name: knowledge}).models[0]
            # what its training time rests on has no part in its size
            beyond = [warning for warning in model.warnings if not warning.startswith("utilization: ")]
            low, high = model.intervals["num_params"]
            row = {"architecture": label_of(name), "C": flops, "published N": published}
            row |= {"ours": model.numbers["num_params"], "interval": f"{count(low)}, {count(high)}"}
            row |= {"ratio": model.numbers["num_params"] / published, "holds": low <= published <= high}
            found.append(row | {"data": "outside" if beyond else "inside"})
    return pd.DataFrame(found)


def published_table(sizes: pd.DataFrame) -> Html:
    """The table of `published_sizes`."""
    shown = sizes.sort_values(["architecture", "C"])
    shown = shown.assign(ours=shown["ours"].map(count) + " [" + shown["interval"] + "]")
    return show_table(
        shown[["architecture", "C", "published N", "ours", "ratio", "data"]],
        name="planning-published",
        caption="Optimal size at the published compute: published, and planned with its 95 % interval. Ratio: ours "
        "over published. Data: whether compute, size, tokens and loss are inside the range of the runs.",
        formats={"C": power_of_ten, "published N": count, "ratio": "{:.2f}"},
        labels={"C": "C (FLOP)", "ours": "our N"},
    )


def choices_table(other: pd.DataFrame) -> Html:
    """The plan under other choices (`companion.planner.sweeps.choices`)."""
    rows = []
    for (choice, name), part in other.groupby(["choice", "architecture"], sort=False):
        sizes, last = part.set_index("objective")["num_params"], part.iloc[-1]
        row = {"choice": _choice_words(str(choice)), "architecture": label_of(str(name))}
        row |= {f"N, {objective}": sizes.get(objective, np.nan) for objective in (LOSS_OPTIMAL, COST_OPTIMAL)}
        rows.append(row | {"loss": last["loss"], "total": last["total_gpu_hours"]})
    return show_table(
        pd.DataFrame(rows),
        name="planning-choices",
        caption="The plan under other choices. Both models of a row have the same loss; the total is that of the "
        "cheaper one.",
        formats={"N, loss-optimal": count, "N, cost-optimal": count, "loss": "{:.3f}", "total": count},
        labels={"loss": "loss (nats/token)", "total": "total (GPU-hours)"},
    )


def ranges_table(other: pd.DataFrame) -> Html:
    """Over all choices of `choices_table`: the range of both sizes, and of the total cost by kind of choice."""
    rows = []
    for name, part in other.groupby("architecture", sort=False):
        row = {"architecture": label_of(str(name))}
        for objective in (LOSS_OPTIMAL, COST_OPTIMAL):
            sizes = part.loc[part["objective"] == objective, "num_params"]
            row[f"N, {objective}"] = _span(sizes)
        hours = part[part["objective"] == part["objective"].iloc[-1]].set_index("choice")["total_gpu_hours"]
        for start, heading in _KINDS.items():
            row[f"total: {heading}"] = _span(hours[[choice.startswith(start) for choice in hours.index]], 2)
        rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="planning-ranges",
        caption="Ranges over these choices: both sizes over all of them, and the total in GPU-hours by kind of choice. "
        "The roofline includes heads with and without groups.",
    )


def _choice_words(choice: str) -> str:
    """A label of `choices` with the names of experiments as the page writes them."""
    for name, words in _EXPERIMENTS.items():
        choice = choice.replace(f"law of {name} runs only", f"law of the {words} runs")
    return choice


def _span(values: pd.Series, digits: int = 3) -> str:
    ends = dict.fromkeys(count(end, digits) for end in (values.min(), values.max())) if len(values) else ["–"]
    return " to ".join(ends)


def shares_table(shares: pd.DataFrame) -> Html:
    """Relative half widths of a plan's intervals (`companion.planner.sweeps.interval_shares`)."""
    columns = [
        "architecture",
        "objective",
        "loss",
        "num_params",
        "num_tokens",
        "ttft_s",
        "step_time_s",
        "total_gpu_hours",
    ]
    return show_table(
        shares.assign(architecture=shares["architecture"].map(label_of))[columns],
        name="planning-shares",
        caption="Half widths of the 95 % intervals, relative to the number. Most of a loss is irreducible, so one "
        "percent of a loss matters more than one percent of the other numbers.",
        formats=dict.fromkeys(columns[2:], lambda v: percent(v)),
        labels={"objective": "model", "num_params": "N", "num_tokens": "D", "ttft_s": "first token"}
        | {"step_time_s": "step", "total_gpu_hours": "total cost"},
    )


def batches_table(batches: pd.DataFrame | None, served_tokens: float) -> Html:
    """Solution of an exercise: plans over the batch; a note if nothing is served (None)."""
    if batches is None:
        return Html("<p>Nothing is served.</p>")
    cost = batches["serve_gpu_hours"] / served_tokens * 1e9
    shown = batches.assign(architecture=batches["architecture"].map(label_of), fits=_yes_no(batches["fits"]), cost=cost)
    return show_table(
        shown[["architecture", "objective", "batch_size", "num_params", "cost", "fits"]],
        caption="Plans for three batches. Cost: GPU-hours of serving per billion tokens. Fits: into the memory of the "
        "device.",
        formats={"num_params": count, "cost": significant},
        labels={"objective": "model", "num_params": "N", "batch_size": "B", "cost": "GPU-hours per 10⁹ tokens"},
    )


def devices_table(devices: pd.DataFrame) -> Html:
    """Solution of an exercise: loss-optimal plans on every device."""
    shown = devices[devices["objective"] == LOSS_OPTIMAL]
    columns = ["hardware", "architecture", "num_params", "ttft_s", "step_time_s", "memory_bytes", "fits"]
    words = {"architecture": shown["architecture"].map(label_of), "fits": _yes_no(shown["fits"])}
    words["hardware"] = shown["hardware"].map(lambda name: get_hardware(name).label)
    return show_table(
        shown.assign(**words)[columns],
        caption="Loss-optimal models on other hardware. Fits: into the memory of the device.",
        formats={
            "num_params": count,
            "ttft_s": significant,
            "step_time_s": lambda v: significant(1000 * v),
            "memory_bytes": lambda v: significant(v / 2**30),
        },
        labels={"num_params": "N", "ttft_s": "first token (s)", "step_time_s": "step (ms)"}
        | {"memory_bytes": "memory (GiB)"},
    )


def hours_table(plans: Mapping[float, Plan]) -> Html:
    """Solution of an exercise: plans for the same device hours, by utilization."""
    rows = [
        {"utilization": share, "architecture": label_of(model.architecture)}
        | {name: model.numbers[name] for name in ("train_flops", "num_params", "loss")}
        for share, planned in plans.items()
        for model in planned.models
    ]
    hours = listed(dict.fromkeys(f"{planned.request.gpu_hours:,.0f}" for planned in plans.values()))
    return show_table(
        pd.DataFrame(rows),
        caption=f"The plan for {hours} GPU-hours of training at two utilizations.",
        formats={"utilization": percent, "train_flops": power_of_ten, "num_params": count, "loss": "{:.3f}"},
        labels={"train_flops": "C (FLOP)", "num_params": "N", "loss": "loss (nats/token)"},
    )


def _with_interval(model: PlannedModel, name: str) -> str:
    style, (low, high) = _ROWS[name][1], model.intervals[name]
    value = style(model.numbers[name])
    # what the request fixes, such as the training compute, varies by rounding alone
    return f"{value} [{style(low)}, {style(high)}]" if high - low > 1e-9 * abs(high) else value


def _yes_no(fits: pd.Series) -> pd.Series:
    return fits.map({True: "yes", False: "no"})
