"""Chapter 11: what its sentences say."""

import numpy as np
import pandas as pd

from companion.chapters.ch11.compared import decompose
from companion.chapters.ch11.layers import intensity, tokens_per_gpu
from companion.chapters.ch11.prediction import Prediction
from companion.chapters.ch11.shown import Costs, each_row
from companion.chapters.labels import by_label, label_of, the
from companion.errors import NotApplicable
from companion.formatting import (
    count,
    listed,
    percent,
    plural,
    power_of_ten,
    share_in_words,
    significant,
    span_text,
)
from companion.training.matching import coverage, match_logs


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """A value with its interval where there is one: 3.23 [3.03, 3.41]."""
    text = significant(value, digits)
    if not np.isfinite(low + high):
        return text
    return f"{text} [{significant(low, digits)}, {significant(high, digits)}]"


def answer_facts(costs: Costs) -> dict[str, str]:
    """The answer, the context length and the loss of the page, and the hardware."""
    return {
        "c11_answer": answer_verdict(costs),
        "c11_context": f"{costs.context_length}",
        "c11_loss": f"{costs.loss:g}",
        "c11_hardware": costs.hardware.label,
        "c11_peak": f"{costs.hardware.peak_flops_per_s / 1e12:g}",
        "c11_ridge": f"{costs.hardware.ridge:.0f}",
    }


def answer_verdict(costs: Costs) -> str:
    """Which architecture reaches equal loss in fewer GPU-hours, how many times fewer, and how much of it is FLOPs."""
    where = f"At T = {costs.context_length}"
    try:
        parts = decompose(costs).set_index("quantity")
    except NotApplicable:
        known = costs.hours.dropna(subset="gpu_hours")
        hours = by_label({str(row.architecture): significant(row.gpu_hours) for row in each_row(known)})
        return f"{where} a loss of {costs.loss:g} takes {hours} GPU-hours by these logs"
    first, second = costs.pair()
    whole, flops, time = (parts.loc[name] for name in ("gpu_hours", "train_flops", "time_per_flop"))
    if whole["low"] <= 1 <= whole["high"]:
        return (
            f"{where} the two architectures do not differ clearly: at equal loss {the(second)} takes "
            f"{with_interval(*whole[['factor', 'low', 'high']])} times the GPU-hours of {the(first)}"
        )
    if whole["factor"] < 1:  # over all losses it is the other way round than at the one that was chosen
        first, second = second, first
        whole, flops, time = (1 / row[["factor"]] for row in (whole, flops, time))
    return (
        f"{where} {the(first)} does: at equal loss {the(second)} takes {whole['factor']:.1f} times its "
        f"GPU-hours. A factor of {flops['factor']:.1f} of this is FLOPs, and {time['factor']:.2f} is time per FLOP"
    )


def coverage_facts(costs: Costs, runs: pd.DataFrame) -> dict[str, str]:
    """How many runs of the run table have a log, how many do not, and how well the losses agree."""
    table, matched = coverage(runs, costs.logs), match_logs(runs, costs.logs)
    without, off = table[table["num_logs"] == 0], float(matched["loss_difference"].abs().max())
    return {
        "c11_runs": f"{len(runs)}",
        "c11_matched": f"{len(matched)}",
        "c11_agree": "are equal" if off == 0 else f"differ by at most {significant(off, 2)} nats per token",
        "c11_without": f"{int(without['num_runs'].sum())}",
    }


def log_facts(costs: Costs) -> dict[str, str]:
    """How many logs there are, how many are finished, and the GPU-hours of all of them."""
    hours = costs.logs["gpu_hours"]
    return {
        "c11_logs": f"{len(costs.logs):,}",
        "c11_finished": f"{int((costs.logs['status'] == 'finished').sum()):,}",
        "c11_all_hours": f"{float(significant(hours.sum(), 3)):,.0f}",
        "c11_timed": f"{int(hours.notna().sum()):,}",
    }


def example_facts(costs: Costs) -> dict[str, str]:
    """The worked example: the run with the lowest loss, from its step time to its GPU-hours."""
    run = pd.concat(costs.runs.values()).sort_values(["val_loss", "run"]).iloc[0]
    return {
        "c11_example": f"{the(str(run['architecture']))} with {count(run['num_params'])} parameters",
        "c11_example_step": significant(run["step_time_s"]),
        "c11_example_gpus": f"{int(run['num_gpus'])}",
        "c11_example_tokens": f"{run['num_tokens'] / run['train_steps']:,.0f}",
        "c11_example_flops": f"{run['train_flops'] / run['num_tokens'] / 1e9:.2f}",
        "c11_example_rate": f"{float(significant(run['tokens_per_second_per_gpu'])):,.0f}",
        "c11_example_utilization": percent(run["utilization"]),
        "c11_example_steps": f"{run['train_steps']:,.0f}",
        "c11_example_hours": significant(run["gpu_hours"]),
    }


def utilization_facts(costs: Costs, classes: pd.DataFrame) -> dict[str, str]:
    """Utilization from the smallest to the largest models at the context of the page, and over the contexts.

    Parameters
    ----------
    classes
        of `companion.training.utilization_by_size`.
    """
    here = classes[classes["context_length"] == costs.context_length]
    rising, tokens, over = {}, {}, {}
    for name in sorted(here["architecture"].unique()):
        rows = here[here["architecture"] == name].sort_values("smallest")
        rising[name] = f"{percent(rows['utilization'].iloc[0])} to {percent(rows['utilization'].iloc[-1])}"
        tokens[name] = f"{float(significant(rows['tokens_per_second_per_gpu'].iloc[-1])):,.0f}"
        largest = classes[classes["architecture"] == name].sort_values("smallest").groupby("context_length").last()
        if len(largest) > 1:
            ends = f"{percent(largest['utilization'].iloc[0])} at T = {largest.index[0]}"
            over[name] = f"{ends}, {percent(largest['utilization'].iloc[-1])} at T = {largest.index[-1]}"
    spread = "; ".join(f"{label_of(name)}: {text}" for name, text in over.items())
    return {
        "c11_rising": by_label(rising),
        "c11_rate": by_label(tokens),
        "c11_over": f"The largest class by context: {spread}" if over else "The logs have one context length",
    }


def small_facts(costs: Costs) -> dict[str, str]:
    """Tokens per GPU and the intensity of a projection in the narrowest and the widest models."""
    runs = pd.concat(costs.runs.values())
    tokens = tokens_per_gpu(runs)
    facts = {"c11_tokens_gpu": span_text(tokens, lambda value: f"{value:,.0f}")}
    if "d_model" in runs and runs["d_model"].notna().any():
        ends = [float(runs["d_model"].min()), float(runs["d_model"].max())]
        for name, width in zip(("narrow", "wide"), ends, strict=True):
            facts[f"c11_{name}"] = f"{width:.0f}"
            facts[f"c11_{name}_intensity"] = f"{intensity(width, float(tokens.min())):.0f}"
    return facts


def layer_facts(split: pd.DataFrame) -> dict[str, str]:
    """What does not grow with depth in the narrowest models, and the utilization of layers alone, narrow and wide."""
    rest, flops, alone = {}, {}, {}
    for name, rows in split.groupby("architecture", sort=False):
        narrow, wide = (rows.sort_values("d_model").iloc[at] for at in (0, -1))
        rest[str(name)] = percent(narrow["rest_share"])
        flops[str(name)] = percent(narrow["rest_flops_share"])
        alone[str(name)] = f"{percent(narrow['layer_utilization'])} to {percent(wide['layer_utilization'])}"
    return {
        "c11_rest": by_label(rest),
        "c11_rest_flops": by_label(flops),
        "c11_layers_alone": by_label(alone),
        "c11_line_off": percent(split["off"].max(), 1),
    }


def recompute_facts(table: pd.DataFrame) -> dict[str, str]:
    """The factor between hardware and model utilization, and the former of the largest models."""
    largest = table.groupby("architecture", sort=False).last()
    shares = {str(name): percent(row["hardware_utilization"]) for name, row in largest.iterrows()}
    return {
        "c11_recompute": span_text(table["factor"], "{:.2f}".format),
        "c11_hardware_utilization": by_label(shares),
    }


def decomposition_facts(costs: Costs, parts: pd.DataFrame) -> dict[str, str]:
    """The factors at equal loss with their intervals, and the losses they are of."""
    first, second = costs.pair()
    losses = costs.common_losses()
    rows = parts.set_index("quantity")
    texts = {
        name: with_interval(*rows.loc[quantity, ["factor", "low", "high"]])
        for name, quantity in (
            ("tokens", "num_tokens"),
            ("per_token", "flops_per_token"),
            ("flops", "train_flops"),
            ("time", "time_per_flop"),
            ("hours", "gpu_hours"),
        )
    }
    least, most = rows.loc["gpu_hours", ["smallest", "largest"]]
    return {
        "c11_first": the(first),
        "c11_second": the(second),
        "c11_low": f"{losses[0]:.2f}",
        "c11_high": f"{losses[-1]:.2f}",
        "c11_hours_span": f"{least:.2f} to {most:.2f}",
        **{f"c11_{name}": text for name, text in texts.items()},
    }


def hull_facts(costs: Costs, table: pd.DataFrame, parts: pd.DataFrame) -> dict[str, str]:
    """The hulls' median over all common losses, beside the factor by the laws.

    Parameters
    ----------
    table, parts
        of `hull_factors` and `decompose`.
    """
    row = table.set_index("cost").astype(float).T.to_dict()["gpu_hours"]
    law = factor_of(parts, "gpu_hours")
    high = float(costs.common_losses()[-1])
    beyond = max(0.0, row["highest_loss"] - high) / (row["highest_loss"] - row["lowest_loss"])
    smallest = {name: power_of_ten(runs["train_flops"].min()) for name, runs in costs.runs.items()}
    return {
        "c11_hull": f"{row['factor']:.2f}",
        "c11_hull_range": f"{row['smallest']:.2f} to {row['largest']:.2f}",
        "c11_hull_losses": f"{row['lowest_loss']:.2f} to {row['highest_loss']:.2f}",
        "c11_hull_law": f"{law:.2f}",
        "c11_hull_beyond": percent(beyond, decimals=0),
        "c11_hull_smallest": by_label(smallest),
    }


def shift_facts(costs: Costs, table: pd.DataFrame) -> dict[str, str]:
    """How much larger the size of fewest GPU-hours is, and what it saves, at the loss nearest to that of the page."""
    ratios, savings = {}, {}
    for name, rows in table.groupby("architecture", sort=False):
        near = rows.iloc[int((rows["loss"] - costs.loss).abs().argmin())]
        ratios[str(name)] = with_interval(*near[["ratio", "ratio_low", "ratio_high"]])
        savings[str(name)] = percent(near["saving"], 1)
    return {"c11_shift": by_label(ratios), "c11_saving": by_label(savings)}


def prediction_facts(prediction: Prediction, cases: pd.DataFrame, ratio: float) -> dict[str, str]:
    """Share of the cell, factor of the kernels, what that would change, and its range.

    Parameters
    ----------
    cases, ratio
        of `Prediction.cases`, and what it was called with.
    """
    shares, central = prediction.shares, cases.iloc[0]
    return {
        "c11_kernel_gpu": prediction.gpu.removeprefix("NVIDIA ").split(" ")[0],
        "c11_kernel_factor": f"{central['factor']:.1f}",
        "c11_kernel_factors": span_text(prediction.factors["factor"], "{:.1f}".format),
        "c11_share_timed": span_text(shares["share_timed"], lambda v: percent(v)),
        "c11_share_flops": span_text(shares["share_flops"], lambda v: percent(v)),
        "c11_share_models": f"{len(shares)}",
        "c11_saved": percent(central["saved"]),
        "c11_saved_range": span_text(cases["saved"], lambda v: percent(v)),
        "c11_ratio_now": f"{ratio:.2f}",
        "c11_ratio_then": f"{central['ratio']:.1f}",
        "c11_ratio_range": span_text(cases["ratio"], "{:.1f}".format),
        "c11_ratio_most": f"{cases['ratio'].max():.1f}",
    }


def gpu_facts(costs: Costs) -> dict[str, str]:
    """GPUs of the runs, utilization on both sides of a change of their number, tokens per step, and sharding."""
    on, batches, beside = {}, {}, {}
    for name, runs in costs.runs.items():
        counts = runs["num_gpus"].value_counts().sort_index()
        on[name] = listed([f"{plural(number, 'run')} on {gpus:.0f}" for gpus, number in counts.items()])
        batches[name] = span_text(runs["num_tokens"] / runs["train_steps"], lambda v: count(v))
        if len(counts) > 1:
            fewer, more = (runs[runs["num_gpus"] == gpus] for gpus in (counts.index[0], counts.index[-1]))
            ends = (fewer.sort_values("num_params").iloc[-1], more.sort_values("num_params").iloc[0])
            beside[name] = " to ".join(f"{percent(run['utilization'], 3)} ({count(run['num_params'])})" for run in ends)
    sharded = pd.concat(costs.runs.values())["fsdp_size"].dropna()
    alone = int((sharded == 1).sum())
    return {
        "c11_gpus": "; ".join(f"{label_of(name)}: {text}" for name, text in on.items()),
        "c11_batches": by_label(batches),
        "c11_beside": "; ".join(f"{label_of(name)}: {text}" for name, text in beside.items()) or "not known",
        "c11_unsharded": share_in_words(alone, len(sharded)),
    }


def hours_ratio(costs: Costs) -> float:
    """GPU-hours of the second architecture over the first by the laws.

    Raises
    ------
    NotApplicable
        without two laws.
    """
    return factor_of(decompose(costs), "gpu_hours")


def factor_of(parts: pd.DataFrame, quantity: str) -> float:
    """The factor of one quantity of `decompose`."""
    return float(parts.loc[parts["quantity"] == quantity, "factor"].iloc[0])
