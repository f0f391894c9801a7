"""Chapter 11: its tables, and its figures with their captions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch11 import figures
from companion.chapters.ch11.compared import QUANTITIES, ratio_readings
from companion.chapters.ch11.facts import with_interval
from companion.chapters.ch11.layers import tokens_per_gpu
from companion.chapters.ch11.prediction import Prediction
from companion.chapters.ch11.shown import Costs, each_row
from companion.chapters.labels import by_label, label_of
from companion.errors import InputError
from companion.formatting import count, percent, power_of_ten, significant
from companion.plotting import Html, show, show_table
from companion.training import front_bands, utilization_by_size
from companion.training.matching import coverage
from companion.training.measured import MeasuredUtilization
from companion.training.throughput import finished


def fronts_figure(costs: Costs) -> Html:
    """Loss over GPU-hours: the figure of the first screen."""
    try:
        bands = front_bands(costs.logs, costs.context_length, costs.laws, group=costs.group)
    except InputError:  # no law: the hulls are shown alone
        bands = pd.DataFrame()
    names = " and ".join(label_of(name) for name in costs.names)
    above = sum(int((runs["val_loss"] > figures.front_window(costs)[1]).sum()) for runs in costs.runs.values())
    beyond = f", {above} more above the figure" if above else ""
    return show(
        figures.fronts(costs, bands),
        name="cost-fronts",
        alt=f"Loss over GPU-hours of {names}: clouds of runs, and the lower hull of each falling to the right.",
        caption=f"Loss over GPU-hours at T = {costs.context_length}. Faint: finished runs{beyond}. Lines: lower "
        "hulls of these. "
        + (
            "Bands: 95 % intervals of the least GPU-hours by the law of the loss, inside the budgets of the runs. "
            if len(bands)
            else ""
        )
        + f"Dotted: a loss of {costs.loss:g}, at {_hours_words(costs)} GPU-hours.",
    )


def _hours_words(costs: Costs) -> str:
    known = costs.hours.dropna(subset="gpu_hours")
    return by_label({str(row.architecture): significant(row.gpu_hours) for row in each_row(known)})


def answer_table(costs: Costs) -> Html:
    """GPU-hours to the loss of the page, with the model that takes the fewest."""
    rows = []
    for row in each_row(costs.hours):
        name = str(row.architecture)
        line: dict[str, Any] = {
            "architecture": label_of(name),
            "hours": with_interval(row.gpu_hours, row.low, row.high),
        }
        best = costs.laws[name].cheapest([costs.loss]).to_dict("records")[0] if name in costs.laws else {}
        columns = ("num_params", "num_tokens", "train_flops", "utilization")
        line |= {column: best.get(column, np.nan) for column in columns}
        rows.append(line)
    reasons = [*(str(reason) for reason in costs.hours["reason"] if reason), *costs.notes]
    return show_table(
        pd.DataFrame(rows),
        name="cost-answer",
        caption=f"GPU-hours to a loss of {costs.loss:g} at T = {costs.context_length}, read off the hulls, with 95 % "
        "intervals by the law of the loss, widened where they leave out the value; and the trained model that takes "
        "the fewest by that law." + "".join(f" {reason[0].upper()}{reason[1:]}." for reason in reasons),
        formats={"num_params": count, "num_tokens": count, "train_flops": power_of_ten, "utilization": percent},
        labels={"hours": "GPU-hours", "num_params": "N", "num_tokens": "D", "train_flops": "C (FLOP)"},
    )


def coverage_table(costs: Costs, runs: pd.DataFrame) -> Html:
    """Which runs of a run table have a log (`companion.training.matching.coverage`)."""
    table = coverage(runs, costs.logs)
    table["architecture"] = table["architecture"].map(label_of)
    return show_table(
        table,
        name="cost-coverage",
        caption="Runs of the run table that have a training log. Last column: the largest difference of the final loss "
        "between the two.",
        formats={"largest_difference": lambda value: significant(value, 2)},
        labels={"context_length": "T", "num_runs": "runs", "num_logs": "with a log"}
        | {"largest_difference": "difference (nats/token)"},
    )


def utilization_figure(costs: Costs) -> Html:
    """Utilization over size, a panel for every context length."""
    logs = finished(costs.logs, group=None)
    try:
        measured = MeasuredUtilization.of(logs)
    except InputError:  # too few runs for a curve: points alone
        measured = None
    return show(
        figures.utilization(logs, measured),
        name="cost-utilization",
        alt="Utilization over parameters, a panel for every context length, runs as points with a curve through them.",
        caption=f"Model FLOP utilization over size: finished runs of all groups, share of {costs.hardware.label}'s "
        "peak."
        + (
            "" if measured is None else " Curves: a parabola in the logarithms; bands: 95 % intervals of a further run."
        ),
    )


def utilization_table(costs: Costs) -> Html:
    """Median utilization and throughput by architecture, context and size."""
    table = utilization_by_size(finished(costs.logs, group=None))
    spans = [
        count(row.smallest) if row.smallest == row.largest else f"{count(row.smallest)} to {count(row.largest)}"
        for row in each_row(table)
    ]
    quartiles = [f"{percent(row.utilization_q25)} to {percent(row.utilization_q75)}" for row in each_row(table)]
    shown = table.assign(architecture=table["architecture"].map(label_of), sizes=spans, quartiles=quartiles)
    columns = ["architecture", "context_length", "sizes", "num_runs", "utilization", "quartiles"]
    return show_table(
        shown[[*columns, "tokens_per_second_per_gpu"]],
        name="cost-utilization",
        caption="Median utilization with quartiles, and median throughput.",
        formats={"utilization": percent, "tokens_per_second_per_gpu": lambda v: f"{float(significant(v)):,.0f}"},
        labels={"context_length": "T", "sizes": "N", "num_runs": "runs"}
        | {"tokens_per_second_per_gpu": "tokens/s per GPU"},
    )


def width_figure(costs: Costs, split: pd.DataFrame) -> Html:
    """Utilization over the width of the models (`companion.chapters.ch11.layers.layer_split`)."""
    tokens = float(min(tokens_per_gpu(runs).min() for runs in costs.runs.values()))
    width = costs.hardware.ridge * 2 / (1 - 2 * costs.hardware.ridge / tokens)
    return show(
        figures.widths(split, width),
        name="cost-width",
        alt="Utilization over the width of the models: layers alone and whole steps of every architecture.",
        caption=f"Utilization over the width d at T = {costs.context_length}, for every width with three depths or "
        "more. Solid: the layers alone. Dashed: whole steps, median; where they lie above the layers, the rest runs "
        "faster than these. Gray: widths at which a perfect product with a "
        "d × d matrix waits for memory.",
    )


def sizes_figure(costs: Costs, tables: Mapping[str, pd.DataFrame], table: pd.DataFrame) -> Html:
    """GPU-hours to the loss of the page over size (`companion.chapters.ch11.compared.hours_over_size`)."""
    best = table[np.isclose(table["loss"], costs.loss)]
    return show(
        figures.sizes(tables, best),
        name="cost-sizes",
        alt=f"GPU-hours to a loss of {costs.loss:g} over the size of the model: a flat valley for every architecture.",
        caption=f"GPU-hours to a loss of {costs.loss:g} at T = {costs.context_length} over the size of the model. "
        "Lines: by the law of the loss and a smooth price of a token. Points: sizes that were trained, at their own "
        "price. Triangles: the sizes with the fewest FLOPs and with the fewest GPU-hours.",
    )


def settings_table(settings: pd.DataFrame) -> Html:
    """How the runs were trained (`companion.chapters.ch11.facts_compared.settings_of`)."""
    return show_table(
        settings,
        name="cost-settings",
        caption="Settings of the runs behind the fronts, as far as the logs record them for both architectures. In "
        "brackets: number of runs.",
        labels={str(name): label_of(str(name)) for name in settings.columns[1:]},
    )


def layers_table(split: pd.DataFrame) -> Html:
    """What of a step does not grow with depth (`companion.chapters.ch11.layers.layer_split`)."""
    columns = ["architecture", "d_model", "num_gpus", "depths", "rest_share", "rest_flops_share", "layer_utilization"]
    return show_table(
        split.assign(architecture=split["architecture"].map(label_of))[[*columns, "off"]],
        name="cost-layers",
        caption="Step time as a line in the number of layers, for every width with three depths or more. Rest: what "
        "does not grow with depth, as a share of time and of FLOPs at the middle depth. Utilization of layers: from "
        "the slopes alone. Off: largest distance of a step time from the line. A rest of a few percent is not known: "
        "the line reaches from the shallowest model to no layers at all.",
        formats={"d_model": "{:.0f}", "num_gpus": "{:.0f}", "depths": "{:.0f}"}
        | dict.fromkeys(("rest_share", "rest_flops_share", "layer_utilization"), percent)
        | {"off": lambda v: percent(v, 1)},
        labels={"num_gpus": "GPUs", "rest_share": "rest, time", "rest_flops_share": "rest, FLOPs"}
        | {"layer_utilization": "utilization of layers"},
    )


def recompute_table(table: pd.DataFrame) -> Html:
    """Model and hardware utilization (`companion.chapters.ch11.layers.recomputed`)."""
    return show_table(
        table.assign(architecture=table["architecture"].map(label_of)),
        name="cost-recomputed",
        caption="Utilization with and without the FLOPs of recomputation, smallest and largest model. Factor: FLOPs "
        "done over FLOPs counted.",
        formats={"num_params": count, "utilization": percent, "factor": "{:.2f}", "hardware_utilization": percent},
        labels={"num_params": "N", "utilization": "model FLOPs", "hardware_utilization": "all FLOPs done"},
    )


def ratio_words(costs: Costs) -> str:
    """What ratios are of: `Transformer over xLSTM`."""
    first, second = costs.pair()
    return f"{label_of(second)} over {label_of(first)}"


def factors_figure(costs: Costs, parts: pd.DataFrame) -> Html:
    """The decomposition of the ratio of GPU-hours."""
    losses = costs.common_losses()
    return show(
        figures.factors(parts, QUANTITIES, ratio_words(costs)),
        name="cost-factors",
        alt="Five factors with intervals: tokens, FLOPs per token, their product, time per FLOP, and GPU-hours.",
        caption=f"{ratio_words(costs)} at equal loss, geometric mean over losses from {losses[0]:.2f} to "
        f"{losses[-1]:.2f}, each at the size of fewest GPU-hours, with 95 % intervals. Diamonds are products of the "
        "circles above them.",
    )


def factors_table(costs: Costs, parts: pd.DataFrame) -> Html:
    """The factors of the decomposition as numbers."""
    table = pd.DataFrame(
        {
            "quantity": parts["quantity"].map(QUANTITIES),
            "factor": [with_interval(row.factor, row.low, row.high) for row in each_row(parts)],
            "range": [f"{row.smallest:.2f} to {row.largest:.2f}" for row in each_row(parts)],
        }
    )
    return show_table(
        table,
        name="cost-factors",
        caption=f"{ratio_words(costs)} at equal loss: factor with 95 % interval, and its range over the losses.",
        labels={"quantity": "per", "range": "over the losses"},
    )


def ratio_figure(costs: Costs) -> Html:
    """The pitfall: the ratio of GPU-hours over the loss, by hulls and by laws."""
    return show(
        figures.ratio_over_loss(ratio_readings(costs), costs.common_losses(), ratio_words(costs)),
        name="cost-ratio",
        alt="Ratio of GPU-hours over the loss: by the laws nearly level, by the hulls falling toward high losses.",
        caption=f"GPU-hours, {ratio_words(costs)}, over the loss. Dashed: read off the hulls of the runs. Solid: by "
        "the laws. Shaded: losses that the runs of both were made for.",
    )


def hull_table(costs: Costs, table: pd.DataFrame) -> Html:
    """Factors read off the hulls of the runs, by cost."""
    words = {"train_flops": "FLOPs", "num_tokens": "tokens", "gpu_hours": "GPU-hours"}
    losses = [f"{row.lowest_loss:.2f} to {row.highest_loss:.2f}" for row in each_row(table)]
    ranges = [f"{row.smallest:.2f} to {row.largest:.2f}" for row in each_row(table)]
    shown = table.assign(cost=table["cost"].map(words), losses=losses, range=ranges)
    return show_table(
        shown[["cost", "factor", "range", "losses"]],
        name="cost-hulls",
        caption=f"{ratio_words(costs)}, read off hulls of the runs: median and range over all losses that both reach.",
        formats={"factor": "{:.2f}"},
        labels={"factor": "median", "losses": "losses (nats/token)"},
    )


def shift_table(table: pd.DataFrame) -> Html:
    """Sizes of fewest FLOPs and of fewest GPU-hours."""
    shown = table.assign(
        architecture=table["architecture"].map(label_of),
        larger=[with_interval(row.ratio, row.ratio_low, row.ratio_high) for row in each_row(table)],
        saved=[percent(row.saving, 1) for row in each_row(table)],
    )
    return show_table(
        shown[["architecture", "loss", "flops_optimal", "hours_optimal", "larger", "saved"]],
        name="cost-shift",
        caption="The size that reaches a loss with the fewest FLOPs, and the one with the fewest GPU-hours: ratio with "
        "95 % interval, and the share of GPU-hours that the second saves.",
        formats={"loss": "{:.3f}", "flops_optimal": count, "hours_optimal": count},
        labels={"loss": "loss (nats/token)", "flops_optimal": "N, fewest FLOPs", "hours_optimal": "N, fewest hours"}
        | {"larger": "ratio", "saved": "hours saved"},
    )


def prediction_table(costs: Costs, cases: pd.DataFrame) -> Html:
    """What faster kernels would change, by assumption."""
    return show_table(
        cases,
        name="cost-prediction",
        caption="A prediction, not a measurement: share of the cell in a step (median over the models), what kernels "
        "that are faster by the given factor save, and the ratio of GPU-hours, "
        f"{ratio_words(costs)}, with them. First "
        "row: the factor at the width of the models' heads; below, other assumptions.",
        formats={"share": percent, "factor": "{:.1f}", "saved": percent, "ratio": "{:.2f}"},
        labels={"assumption": "share of the cell", "share": "of a step", "factor": "kernel faster by"}
        | {"saved": "step saved", "ratio": "ratio then"},
    )


def kernels_table(prediction: Prediction) -> Html:
    """How much faster our kernels are than those of the runs, by heads."""
    table = prediction.factors
    heads = [f"({int(row.d_qk)}, {int(row.d_hv)})" for row in each_row(table)]
    wide = table.assign(heads=heads).pivot_table("factor", "heads", "gradient", sort=False).reset_index()
    wide = wide.rename_axis(columns=None)
    return show_table(
        wide,
        name="cost-kernels",
        caption=f"Time of the kernel of the runs over ours, two forward passes and one backward, {prediction.gpu}. "
        "Heads: widths of queries and values. Detached: without the normalizer's gradient.",
        formats=dict.fromkeys([str(name) for name in wide.columns[1:]], "{:.2f}"),
        labels={"heads": "heads (d_qk, d_hv)"},
    )


def conventions_table(costs: Costs, table: pd.DataFrame) -> Html:
    """Solution of an exercise: the decomposition under other counts."""
    return show_table(
        table,
        caption=f"{ratio_words(costs)} at equal loss, with FLOPs counted by several conventions.",
        formats=dict.fromkeys(QUANTITIES, "{:.2f}"),
        labels=dict(QUANTITIES),
    )


def values_table(values: Mapping[str, float], caption: str) -> Html:
    """Solution of an exercise: numbers by name."""
    return show_table(
        pd.DataFrame({"quantity": list(values), "value": list(values.values())}),
        caption=caption,
        formats={"value": lambda value: f"{value:,.0f}" if value >= 1000 else significant(value)},
    )


def contexts_table(found: Mapping[int, pd.DataFrame], loss: float) -> Html:
    """Solution of an exercise: GPU-hours to a loss at several context lengths."""
    rows = [
        {"T": length, "architecture": label_of(str(row.architecture)), "hours": row.gpu_hours, "N": row.num_params}
        for length, table in found.items()
        for row in each_row(table)
    ]
    return show_table(
        pd.DataFrame(rows),
        caption=f"GPU-hours to a loss of {loss:g} by context length, read off the hulls; a dash: not reached.",
        formats={"hours": significant, "N": count},
        labels={"hours": "GPU-hours"},
    )
