"""Chapter 10: how fast the kernels are, over the context and one token at a time."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from companion.benchmarks.kernels.identity import identity_today
from companion.benchmarks.kernels.log import against_peer
from companion.benchmarks.kernels.results import OURS_DETACHED, Timings, measure_here, with_rooflines
from companion.benchmarks.kernels.shapes import NUM_TOKENS
from companion.chapters.ch10 import record_figures
from companion.chapters.ch10.shown import TITLES, Shown, short_gpu
from companion.formatting import count, percent, significant
from companion.plotting import Html, show, show_table

TIME_HEADINGS = {"forward": "forward", "training": "and backward"}
LAUNCHES = {"calls": "kernels launched one by one", "graph": "CUDA graph"}


def show_times(shown: Shown) -> Html:
    """Times of every implementation over the context length."""
    sequences = shown.here[shown.here["part"].isin(list(TITLES))]
    if not len(sequences):
        return shown.untimed()
    return show(
        record_figures.times_over_context(sequences, TITLES),
        name="kernel-times",
        alt="Times over the context length: flat lines for every mLSTM, rising ones for attention, thin lines for "
        "rooflines below.",
        caption=f"{shown.label}, {count(NUM_TOKENS)} tokens in sequences of T, bf16, {shown.timings.gpu}: medians, "
        "quartiles as bars. Thin: roofline of our kernels at their best chunk, and of attention.",
    )


def show_speed(shown: Shown) -> Html:
    """Times, shares of the roofline and memory of every implementation at the context of the page."""
    rows = []
    for name, group in shown.at_context.groupby("implementation", sort=False):
        row: dict[str, object] = {"implementation": _short(str(name))}
        for part in [p for p in TITLES if (group["part"] == p).any()]:
            one = group[group["part"] == part].iloc[0]
            low, high = (significant(1e3 * one[f"seconds_quartile_{q}"], 3) for q in (1, 3))
            row[f"{part} ms"] = f"{significant(1e3 * one['seconds_median'])} [{low}, {high}]"
            row[f"{part} roof"] = one["roofline_share"]
        rows.append(row | {"GB": group["peak_memory_bytes"].max() / 1e9})
    if not rows:
        return shown.untimed()
    table = pd.DataFrame(rows)
    timed = [part for part in TITLES if f"{part} ms" in table]
    return show_table(
        table,
        caption=f"{shown.label}, T = {shown.context}: median [quartiles] in ms, share of the roofline that it reaches, "
        "forward and then forward with backward; peak memory (GB) beyond the inputs. The forms limit_chunk and "
        "xl_chunk are of mlstm_kernels; detached: without the normalizer's gradient.",
        formats={f"{part} roof": (lambda v: f"{100 * v:.0f} %") for part in timed} | {"GB": "{:.2f}"},
        labels={f"{part} roof": "roofline" for part in timed} | {f"{part} ms": TIME_HEADINGS[part] for part in timed},
    )


def show_untimed(timings: Timings) -> Html:
    """What was not timed, and why."""
    table = timings.table
    table = table.reindex(columns=table.columns.union(["skipped"], sort=False)).dropna(subset="skipped")
    pattern = r"relative error of (?P<of>\w+) (?P<error>[\d.e+-]+), allowed (?P<allowed>[\d.]+)"
    wrong = table["skipped"].astype(str).str.extract(pattern)
    table = table.join(wrong).assign(kind=table["skipped"].where(wrong["of"].isna(), "wrong"))
    rows: list[dict[str, object]] = []
    for (name, part, kind), group in table.groupby(["implementation", "part", "kind"], sort=False):
        reason = kind
        if kind == "wrong":
            largest, tensors = group["error"].astype(float).max(), ", ".join(sorted(set(group["of"].dropna())))
            reason = f"wrong: relative errors up to {largest:.3g} ({tensors}), allowed {group['allowed'].iloc[0]}"
        rows.append({"implementation": name, "part": part, "reason": reason, "cells": len(group)})
    return show_table(pd.DataFrame(rows or [{"note": "every cell was timed"}]), caption="What was not timed, and why.")


def speed_facts(shown: Shown) -> dict[str, object]:
    """Where and when the timings were taken, our times beside those of mlstm_kernels, and the cheaper backward pass."""
    timings = shown.timings
    first, last = (date[:10] for date in timings.dates)
    known = ", ".join(f"{name} {version}" for name, version in timings.versions.items() if version and name != "python")
    changed = "" if set(timings.identities) <= {identity_today()} else "; kernels or benchmark have changed since"
    return {
        "c10_gpu": timings.gpu,
        "c10_dates": first if first == last else f"{first} to {last}",
        "c10_versions": known + changed,
        "c10_answer_speed": speed_verdict(shown),
        "c10_speed": cheaper_verdict(shown),
    }


def speed_verdict(shown: Shown) -> str:
    """A verdict: our times at the context of the page, and how many times as long mlstm_kernels takes."""
    ours = shown.ours
    if not ours:
        return f"Our kernels were not timed at {shown.label}, T = {shown.context}"
    times = []
    for part, row in ours.items():
        took = f"{TITLES[part]} {significant(1e3 * row['seconds_median'])} ms"
        times.append(f"{took} ({percent(row['roofline_share'])} of the roofline)")
    where = f"At {shown.label}, T = {shown.context} and {count(NUM_TOKENS)} tokens"
    answer = f"{where} our kernels take {' and '.join(times)}"
    against = "; ".join(_against(shown))
    theirs = ". mlstm_kernels, whose backward leaves the normalizer's gradient out, takes this many times as long: "
    theirs += against
    return answer + (theirs if against else "")


def cheaper_verdict(shown: Shown) -> str:
    """A verdict: what leaving the normalizer's gradient out saves."""
    saved = []
    for part, row in shown.ours.items():
        if (drop := shown.row_of(OURS_DETACHED, part)) is not None:
            saved.append(f"{100 * (drop['seconds_median'] / row['seconds_median'] - 1):+.1f} % ({TITLES[part]})")
    if not saved:
        return "The cheaper backward pass was not timed here"
    return f"Leaving the normalizer's gradient out changes the time of our kernels by {' and '.join(saved)}"


def show_steps(shown: Shown) -> Html:
    """Times of a single step over the batch, launched one by one and in a CUDA graph."""
    if not len(shown.steps):
        return shown.untimed()
    return show(
        record_figures.step_times(shown.steps, LAUNCHES),
        name="kernel-steps",
        alt="Time of a step over the batch: flat at small batches, then along the roofline; the graph is faster at "
        "small batches.",
        caption=f"A step of the cell, {shown.label}, on {shown.timings.gpu}. Thin: a state read and written once at "
        "the bandwidth of a copy.",
    )


def show_step_rivals(shown: Shown, records: Path) -> Html:
    """A step of ours beside that of mlstm_kernels, on every GPU that timed both."""
    rivals = against_peer(records, "mlstm_kernels step")
    same = rivals["case"].str.startswith("x".join(str(n) for n in shown.heads) + "-")
    rivals = rivals[(rivals["implementation"] == "companion step") & same]
    if not len(rivals):
        return shown.untimed()
    rivals = rivals.assign(gpu=short_gpu(rivals["gpu"])).sort_values(["gpu", "batch_size"])
    return show_table(
        rivals[["gpu", "batch_size", "seconds", "peer_seconds", "ratio", "share_of_peak_bytes"]],
        caption=f"A step in a CUDA graph, {shown.label}, state in float32: microseconds of ours and of mlstm_kernels, "
        f"theirs over ours, and the share of the bandwidth of a copy that ours reaches.{of_earlier(rivals)}",
        formats={c: (lambda v: significant(1e6 * v)) for c in ("seconds", "peer_seconds")}
        | {"ratio": "{:.2f}", "share_of_peak_bytes": percent, "batch_size": "{:.0f}"},
        labels={"gpu": "GPU", "batch_size": "B", "seconds": "ours", "peer_seconds": "theirs", "ratio": "theirs/ours"}
        | {"share_of_peak_bytes": "of a copy"},
    )


def step_facts(shown: Shown) -> dict[str, object]:
    """Which share of the roofline a step reaches in a graph, at the smallest and the largest batch."""
    found = []
    steps = shown.steps
    for name, group in steps[steps["launch"] == "graph"].groupby("implementation", sort=False):
        ends = group.set_index("batch_size")["roofline_share"].sort_index()
        low, high = (f"{percent(ends.iloc[n])} at B = {ends.index[n]}" for n in (0, -1))
        found.append(f"{name} {low} and {high}")
    words = f"Share of the roofline in a CUDA graph: {'; '.join(found)}" if found else "No step was timed"
    return {"c10_steps": words}


def show_here(enabled: bool) -> Html | Markdown:
    """A quick benchmark on this machine's GPU, or why there is none."""
    timings, note = measure_here() if enabled else (None, "Set `benchmark_here` to time kernels on this machine.")
    if timings is None:
        return Markdown(note)
    peaks = timings.peaks
    return show_table(
        with_rooflines(timings)[["part", "implementation", "context_length", "seconds_median", "roofline_share"]],
        caption=f"{timings.gpu}, {peaks.peak_flops_per_s / 1e12:.0f} TFLOP/s and {peaks.peak_bytes_per_s / 1e12:.2f} "
        "TB/s reached.",
        formats={"seconds_median": lambda v: f"{1e3 * v:.2f}", "roofline_share": percent},
        labels={"seconds_median": "median (ms)", "roofline_share": "of roofline", "context_length": "T (tokens)"},
    )


def of_earlier(table: pd.DataFrame) -> str:
    """For a caption: the GPUs whose records are of an earlier state of the kernels."""
    gpus = sorted(set(table.loc[table["code"] != identity_today().code, "gpu"]))
    return f" With an earlier state of the kernels: {', '.join(gpus)}." if gpus else ""


def _against(shown: Shown) -> Iterator[str]:
    """For every form of mlstm_kernels how many times as long it takes as ours."""
    for name in shown.at_context["implementation"].unique():
        if not name.startswith("mlstm_kernels") or "sigmoid" in name:
            continue
        theirs = {part: shown.row_of(name, part) for part in shown.ours}
        ratios = [
            f"{significant(row['seconds_median'] / shown.ours[part]['seconds_median'], 2)} ({TITLES[part]})"
            for part, row in theirs.items()
            if row is not None
        ]
        if ratios:
            yield f"{name.removeprefix('mlstm_kernels ')} {' and '.join(ratios)}"


def _short(name: str) -> str:
    name = name.removeprefix("mlstm_kernels ").replace("companion", "ours").replace(", chunk", ", L =")
    return name.replace("detached normaliser", "detached")
