"""Chapter 9: its tables, and its figures with their captions."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch09 import figures
from companion.formatting import count, percent, power_of_ten, significant
from companion.planner import COST_OPTIMAL, LOSS_OPTIMAL, Knowledge, Plan, PlannedModel, Request, plan
from companion.planner.request import LAW_CONTEXT
from companion.plotting import Html, show, show_table
from companion.plotting.style import architecture_label

#: Rows of the table of a plan: heading, and how a number is written.
_ROWS: dict[str, tuple[str, Callable[[float], str]]] = {
    "num_params": ("N", count),
    "num_tokens": ("D", count),
    "tokens_per_param": ("D/N", significant),
    "loss": ("loss (nats/token)", "{:.3f}".format),
    "ttft_s": ("first token (ms)", lambda v: significant(1000 * v)),
    "step_time_s": ("step (ms)", lambda v: significant(1000 * v)),
    "memory_bytes": ("memory (GiB)", lambda v: significant(v / 2**30)),
    "train_gpu_hours": ("training (GPU-h)", count),
    "total_gpu_hours": ("total (GPU-h)", count),
}


def parts_table(known: Mapping[str, Knowledge]) -> Html:
    """What a plan rests on: fits of the loss law and of the runtime models, with their residual scatter."""
    rows = [
        {
            "architecture": architecture_label(name),
            "runs": one.fit.num_rows,
            "rms of ln L": float(np.sqrt(np.mean(one.fit.residuals**2))),
            "timings": ", ".join(f"{len(model.rows)}" for model in one.times),
            "rms of ln TTFT": one.times[0].rms_log_error,
            "rms of ln step time": one.times[1].rms_log_error,
        }
        for name, one in known.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        caption="What a plan rests on: runs and residual scatter of the loss law, timings (to first token, of "
        "steps) and residual scatter of the runtime models.",
        formats=dict.fromkeys(["rms of ln L", "rms of ln TTFT", "rms of ln step time"], "{:.4f}"),
    )


def plan_table(planned: Plan) -> Html:
    """The planned models, a column each, with intervals."""
    columns = {
        f"{architecture_label(model.architecture)}, {model.objective}": [_with_interval(model, name) for name in _ROWS]
        for model in planned.models
    }
    return show_table(
        pd.DataFrame({"": [heading for heading, _ in _ROWS.values()], **columns}),
        caption=f"Planned models with 95 % intervals, on {planned.request.hardware}.",
    )


def warnings_table(planned: Plan) -> Html:
    """Each warning (beyond the data, does not fit in memory) once, with all its models."""
    places: dict[str, list[str]] = {}
    for model in planned.models:
        for text in [*model.warnings, *([model.fit_message] if model.fit_message else [])]:
            places.setdefault(text, []).append(f"{architecture_label(model.architecture)} {model.objective}")
    rows = [{"where": "; ".join(where), "what": text} for text, where in places.items()]
    rows += [{"where": "plan", "what": note} for note in planned.notes]
    return show_table(
        pd.DataFrame(rows or [{"where": "all planned models", "what": "inside the range of runs and timings"}]),
        caption="Where the plan extrapolates beyond the data, or does not fit in memory.",
    )


def cost_figure(curves: Mapping[str, pd.DataFrame], planned: Plan) -> Html:
    """Device time over size at the planned loss; `curves` from `companion.planner.costs.cost_curve`."""
    return show(
        figures.cost_curves(curves, planned),
        name="planning-cost-curves",
        alt="Device time over model size for one loss: training falls and then rises with size, serving rises, "
        "their sum has a minimum at a smaller size than training alone.",
        caption="What each size costs that reaches the loss of the loss-optimal model. A smaller model needs more "
        "tokens: training time rises without bound toward the size that never reaches the loss. Steps of the "
        "Transformer: one more wave of attention heads (chapter 8). Faint: does not fit in memory.",
    )


def traffic_figure(by_traffic: pd.DataFrame | None, names: Sequence[str]) -> Html:
    """Cost-optimal models over the tokens served; a note if nothing is served (None).

    Parameters
    ----------
    by_traffic
        from `companion.planner.sweeps.sweep` over `served_tokens`.
    """
    if by_traffic is None:
        return Html("<p>Nothing is served: give prefill_tokens or generated_tokens.</p>")
    return show(
        figures.traffic(by_traffic, names),
        name="planning-traffic",
        alt="The cost-optimal size falls and its tokens per parameter rise with the tokens served, from the "
        "loss-optimal values on.",
        caption="Cost-optimal size and training tokens per parameter over the tokens served, prompts and answers in "
        "the same proportion. Bands: 95 % intervals. Dotted: loss-optimal.",
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
    first, second = map(architecture_label, pair)
    return show(
        figures.cost_ratios(ratios, f"{first} over {second}"),
        name="planning-context",
        alt="Ratios of total device time, time to first token and step time between the architectures over the "
        "context, all rising.",
        caption=f"Both at a loss of {level:.3f}, each with its cost-optimal model, batches of {batch_size}. A "
        "missing point: the model does not fit in memory. Beyond the timed 16k tokens both timings are "
        "extrapolations.",
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
            low, high = model.intervals["num_params"]
            row = {"architecture": architecture_label(name), "C": flops, "published N": published}
            row |= {"ours": model.numbers["num_params"], "interval": f"{count(low)} to {count(high)}"}
            row |= {"ratio": model.numbers["num_params"] / published, "holds": low <= published <= high}
            found.append(row | {"data": "outside" if model.warnings else "inside"})
    return pd.DataFrame(found)


def published_table(sizes: pd.DataFrame) -> Html:
    """The table of `published_sizes`."""
    return show_table(
        sizes.sort_values(["architecture", "C"]).drop(columns="holds"),
        caption="Optimal size at the published compute: published, and planned with 95 % intervals. Last column: "
        "whether compute, size, tokens and loss lie inside of what the runs cover.",
        formats={"C": power_of_ten, "published N": count, "ours": count, "ratio": "{:.2f}"},
    )


def choices_table(other: pd.DataFrame) -> Html:
    """The plan under other choices (`companion.planner.sweeps.choices`)."""
    rows = []
    for (choice, name), part in other.groupby(["choice", "architecture"], sort=False):
        sizes, last = part.set_index("objective")["num_params"], part.iloc[-1]
        row = {"choice": choice, "architecture": architecture_label(str(name))}
        row |= {f"N, {objective}": sizes.get(objective, np.nan) for objective in (LOSS_OPTIMAL, COST_OPTIMAL)}
        rows.append(row | {"loss": last["loss"], "total": last["total_gpu_hours"]})
    return show_table(
        pd.DataFrame(rows),
        caption="The plan under other choices. The loss is that of both models; the total is that of the cheaper one.",
        formats={"N, loss-optimal": count, "N, cost-optimal": count, "loss": "{:.3f}", "total": count},
        labels={"total": "total (GPU-hours)"},
    )


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
        shares.assign(architecture=shares["architecture"].map(architecture_label))[columns],
        caption="Half widths of the 95 % intervals, relative. Most of a loss cannot be reduced, so percents of it "
        "weigh more than the others.",
        formats=dict.fromkeys(columns[2:], lambda v: percent(v)),
        labels={"num_params": "N", "num_tokens": "D", "ttft_s": "to first token", "step_time_s": "step"}
        | {"total_gpu_hours": "total cost"},
    )


def batches_table(batches: pd.DataFrame | None, served_tokens: float) -> Html:
    """Solution of an exercise: plans over the batch; a note if nothing is served (None)."""
    if batches is None:
        return Html("<p>Nothing is served.</p>")
    shown = batches.assign(fits=_yes_no(batches["fits"]), cost=batches["serve_gpu_hours"] / served_tokens * 1e9)
    return show_table(
        shown[["architecture", "objective", "batch_size", "num_params", "cost", "fits"]],
        caption="Plans for three batches. Cost: GPU-hours of serving per billion tokens.",
        formats={"num_params": count, "cost": significant},
        labels={"num_params": "N", "batch_size": "B", "cost": "GPU-hours per 10⁹ tokens"},
    )


def devices_table(devices: pd.DataFrame) -> Html:
    """Solution of an exercise: loss-optimal plans on every device."""
    shown = devices[devices["objective"] == LOSS_OPTIMAL]
    columns = ["hardware", "architecture", "num_params", "ttft_s", "step_time_s", "memory_bytes", "fits"]
    return show_table(
        shown.assign(fits=_yes_no(shown["fits"]))[columns],
        caption="Loss-optimal models on other hardware.",
        formats={
            "num_params": count,
            "ttft_s": significant,
            "step_time_s": "{:.4f}",
            "memory_bytes": lambda v: significant(v / 2**30),
        },
        labels={"num_params": "N", "ttft_s": "to first token (s)", "step_time_s": "step (s)"}
        | {"memory_bytes": "memory (GiB)"},
    )


def hours_table(plans: Mapping[float, Plan]) -> Html:
    """Solution of an exercise: plans for the same device hours, by utilization."""
    rows = [
        {"utilization": share, "architecture": architecture_label(model.architecture)}
        | {name: model.numbers[name] for name in ("train_flops", "num_params", "loss")}
        for share, planned in plans.items()
        for model in planned.models
    ]
    return show_table(
        pd.DataFrame(rows),
        caption="1,000 device hours at two utilizations.",
        formats={"utilization": "{:.0%}", "train_flops": power_of_ten, "num_params": count, "loss": "{:.3f}"},
        labels={"train_flops": "C (FLOP)", "num_params": "N"},
    )


def _with_interval(model: PlannedModel, name: str) -> str:
    style, (low, high) = _ROWS[name][1], model.intervals[name]
    value = style(model.numbers[name])
    # what the request fixes, such as the training compute, varies by rounding alone
    return f"{value} [{style(low)}, {style(high)}]" if high - low > 1e-9 * abs(high) else value


def _yes_no(fits: pd.Series) -> pd.Series:
    return fits.map({True: "yes", False: "no"})
