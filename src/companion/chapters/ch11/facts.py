"""Chapter 11: what its sentences say about logs, utilization and layers; about comparisons see `facts_compared`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch11.compared import decompose
from companion.chapters.ch11.layers import intensity, tokens_per_gpu
from companion.chapters.ch11.shown import Costs, each_row
from companion.chapters.labels import by_label, label_of, the
from companion.errors import NotApplicable
from companion.formatting import count, listed, percent, share_in_words, signed_percent, significant, span_text
from companion.training.matching import coverage, match_logs
from companion.training.throughput import finished

#: Ratio of two utilizations from which on a sentence calls them different: well above the scatter of one size.
CLEARLY = 1.05


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
    where = f"At a context of T = {costs.context_length} tokens"
    try:
        parts = decompose(costs).set_index("quantity")
    except NotApplicable:
        return f"{where} {_without_laws(costs)}"
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
        f"{where} {the(first)} does: at equal loss {the(second)} takes {whole['factor']:.2f} times its "
        f"GPU-hours. A factor of {flops['factor']:.2f} of this is FLOPs, and {time['factor']:.2f} is time per FLOP"
    )


def _without_laws(costs: Costs) -> str:
    """The answer of runs without two laws: hours read off the fronts, or those of the only architecture."""
    known = costs.hours.dropna(subset="gpu_hours")
    hours = {str(row.architecture): significant(row.gpu_hours) for row in each_row(known)}
    if len(costs.names) < 2:
        name = costs.names[0]
        there = "runs of the study's design" if costs.group else "finished runs in these logs"
        return f"only {the(name)} has {there}: it takes {hours[name]} GPU-hours to a loss of {costs.loss:g}"
    if len(hours) < 2:
        (name,) = hours
        return f"only {the(name)} reaches a loss of {costs.loss:g} in these logs, in {hours[name]} GPU-hours"
    first, *others = hours
    more = listed([f"{hours[name]} for {the(name)}" for name in others])
    return (
        f"{the(first)} reaches a loss of {costs.loss:g} in {hours[first]} GPU-hours, against {more}. These are single "
        "runs, and no law says how sure the difference is"
    )


def coverage_facts(costs: Costs, runs: pd.DataFrame) -> dict[str, str]:
    """How many runs of the run table have a log, how well the losses agree, and where both architectures have logs."""
    table, matched = coverage(runs, costs.logs), match_logs(runs, costs.logs)
    without, off = table[table["num_logs"] == 0], float(matched["loss_difference"].abs().max())
    known = table[table["num_logs"] > 0].groupby("context_length")["architecture"].nunique()
    both = [f"T = {length}" for length in known.index[known == table["architecture"].nunique()]]
    return {
        "c11_runs": f"{len(runs)}",
        "c11_matched": f"{len(matched)}",
        "c11_agree": "are equal" if off == 0 else f"differ by at most {significant(off, 2)} nats per token",
        "c11_without": f"{int(without['num_runs'].sum())}",
        "c11_both": f"at {listed(both)}" if both else "nowhere",
    }


def log_facts(costs: Costs) -> dict[str, str]:
    """How many logs there are, how many are finished, and the GPU-hours of those with step times and GPU counts."""
    hours = costs.logs["gpu_hours"].dropna()
    return {
        "c11_logs": f"{len(costs.logs):,}",
        "c11_finished": f"{int((costs.logs['status'] == 'finished').sum()):,}",
        "c11_all_hours": thousands(hours.sum()) if hours.sum() >= 1000 else significant(hours.sum()),
        "c11_timed": share_in_words(len(hours), len(costs.logs)),
    }


def thousands(value: float) -> str:
    """Three significant digits in full, with commas: 18,200."""
    return f"{float(significant(value)):,.0f}"


def example_facts(costs: Costs) -> dict[str, str]:
    """The worked example: the run with the lowest loss, from its step time to its GPU-hours."""
    run = pd.concat(costs.runs.values()).sort_values(["val_loss", "run"]).iloc[0]
    return {
        "c11_example": f"{the(str(run['architecture']))} with {count(run['num_params'])} parameters",
        "c11_example_step": significant(run["step_time_s"]),
        "c11_example_gpus": f"{int(run['num_gpus'])}",
        "c11_example_tokens": f"{run['num_tokens'] / run['train_steps']:,.0f}",
        "c11_example_flops": f"{run['train_flops'] / run['num_tokens'] / 1e9:.2f}",
        "c11_example_rate": thousands(run["tokens_per_second_per_gpu"]),
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
    rising, largest, tokens, over, steps = {}, {}, {}, {}, []
    for name in sorted(here["architecture"].unique()):
        rows = here[here["architecture"] == name].sort_values("smallest")
        low, high = rows["utilization"].iloc[0], rows["utilization"].iloc[-1]
        rising[name] = f"{percent(low)} to {percent(high)}" if len(rows) > 1 else percent(low)
        largest[name] = percent(high)
        tokens[name] = thousands(rows["tokens_per_second_per_gpu"].iloc[-1])
        steps += [high / low] if len(rows) > 1 else []
        top = classes[classes["architecture"] == name].sort_values("smallest").groupby("context_length").last()
        if len(top) > 1:
            over[name] = f"{listed([percent(each) for each in top['utilization']])} at T = {listed(top.index)}"
    contexts = "; ".join(f"{label_of(name)}: {text}" for name, text in over.items())
    return {
        "c11_size_verdict": size_verdict(steps),
        "c11_rising": by_label(rising),
        "c11_largest": by_label(largest),
        "c11_rate": by_label(tokens),
        "c11_over": contexts or "these logs have one context length for each architecture",
        "c11_over_note": outside_design(costs),
    }


def size_verdict(steps: Sequence[float]) -> str:
    """Whether larger models use more of a GPU, from the largest class over the smallest of every architecture."""
    if not steps:
        return "The models here are all of one class of sizes"
    if min(steps) > CLEARLY:
        return "Larger models use more of a GPU"
    if max(steps) < 1 / CLEARLY:
        return "Larger models use less of a GPU"
    return "Larger models do not use more of a GPU in every architecture here"


def outside_design(costs: Costs) -> str:
    """A sentence about contexts that an architecture has runs of other groups at only; empty without any."""
    logs = finished(costs.logs, group=None)
    if costs.group is None:
        return ""
    texts = []
    for (name, length), rows in logs.groupby(["architecture", "context_length"]):
        if not (rows["group"].isna() | (rows["group"] == costs.group)).any():
            gpus = listed([f"{each:.0f}" for each in sorted(rows["num_gpus"].unique())])
            texts.append(
                f"{the(str(name))} at T = {length} (group {listed(sorted(rows['group'].unique()))}, {gpus} GPUs)"
            )
    return f" For {listed(texts)} there are only runs outside the design of the study." if texts else ""


def small_facts(costs: Costs) -> dict[str, str]:
    """Tokens per GPU and the intensity of a projection in the narrowest and the widest models."""
    runs = pd.concat(costs.runs.values()).sort_values("num_params", kind="stable")
    tokens, ridge = tokens_per_gpu(runs), costs.hardware.ridge
    short = float(tokens.iloc[0]) < 2 * ridge
    facts = {
        "c11_tokens_small": f"{tokens.iloc[0]:,.0f}",
        "c11_tokens_large": f"{tokens.iloc[-1]:,.0f}",
        "c11_tokens_verdict": "the small models may well have too few"
        if short
        else "the small models have enough tokens",
    }
    if "d_model" in runs and runs["d_model"].notna().any():
        ends = [float(runs["d_model"].min()), float(runs["d_model"].max())]
        for name, width in zip(("narrow", "wide"), ends, strict=True):
            facts[f"c11_{name}"] = f"{width:.0f}"
            facts[f"c11_{name}_intensity"] = thousands(intensity(width, float(tokens.min())))
    return facts


def layer_facts(split: pd.DataFrame) -> dict[str, str]:
    """What does not grow with depth in the narrowest models, and the utilization of layers alone, narrow and wide."""
    rest, flops, alone, steps, more = {}, {}, {}, [], []
    for name, rows in split.groupby("architecture", sort=False):
        narrow, wide = (rows.sort_values("d_model").iloc[at] for at in (0, -1))
        rest[str(name)] = percent(narrow["rest_share"])
        flops[str(name)] = percent(narrow["rest_flops_share"])
        alone[str(name)] = f"{percent(narrow['layer_utilization'])} to {percent(wide['layer_utilization'])}"
        more.append(narrow["rest_share"] - narrow["rest_flops_share"])
        steps.append(wide["layer_utilization"] / narrow["layer_utilization"])
    return {
        "c11_rest": by_label(rest),
        "c11_rest_flops": by_label(flops),
        "c11_rest_verdict": "That is little more than its share, so it is not the main reason"
        if max(more) < 0.1
        else "That is more than its share, so it slows them down",
        "c11_layers_alone": by_label(alone),
        "c11_line_off": percent(split["off"].max(), 1),
        "c11_layers_verdict": "the layers themselves are slow where they are narrow"
        if min(steps) > CLEARLY
        else "narrow layers are not slower than wide ones in every architecture here",
    }


def head_facts(steps: pd.DataFrame) -> dict[str, str]:
    """How the utilization changes where heads become wider, beside other steps in width.

    Parameters
    ----------
    steps
        of `companion.chapters.ch11.layers.width_steps`.

    Returns
    -------
    dict
        empty where heads never become wider: the page then has no such sentence.
    """
    wider = steps["next_d_qk"] > steps["d_qk"]
    if not wider.any():
        return {}
    at, others, stands_out = {}, {}, []
    for name, rows in steps.groupby("architecture", sort=False):
        ratio, own = rows["ratio"] - 1, wider[rows.index]
        if own.any():
            at[str(name)] = span_text(ratio[own], signed_percent)
            others[str(name)] = span_text(ratio[~own], signed_percent) if (~own).any() else "no other steps"
            stands_out += [the(str(name))] if ratio[own].min() > max(ratio[~own], default=np.inf) + 0.05 else []
    low, high = steps.loc[wider, ["d_qk", "next_d_qk"]].iloc[0]
    return {
        "c11_head_widths": f"from {low:.0f} to {high:.0f}",
        "c11_heads": by_label(at),
        "c11_head_others": by_label(others),
        "c11_heads_verdict": f"the narrow heads of {listed(stands_out)} are slow as well"
        if stands_out
        else "the heads make no clear difference",
    }


def recompute_facts(table: pd.DataFrame) -> dict[str, str]:
    """The factor between hardware and model utilization, and the former of the largest models."""
    largest = table.groupby("architecture", sort=False).last()
    shares = {str(name): percent(row["hardware_utilization"]) for name, row in largest.iterrows()}
    return {
        "c11_recompute": span_text(table["factor"], "{:.2f}".format),
        "c11_hardware_utilization": by_label(shares),
    }
