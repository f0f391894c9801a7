"""Chapter 10: how fast the kernels are, over the context and one token at a time."""

from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from companion.benchmarks.kernels.identity import identity_today
from companion.benchmarks.kernels.log import against_peer
from companion.benchmarks.kernels.other_cells import OTHER_CELLS
from companion.benchmarks.kernels.requirements import plain_reason
from companion.benchmarks.kernels.results import OURS_DETACHED, Timings, measure_here, with_rooflines
from companion.benchmarks.kernels.shapes import NUM_TOKENS
from companion.chapters.ch10 import record_figures
from companion.chapters.ch10.shown import Shown
from companion.chapters.kernel_tables import TITLES, by_context, nothing, passes_of, short_gpu, short_name
from companion.formatting import count, listed, percent, power_of_ten, signed_percent, significant
from companion.plotting import Html, show, show_table

TIME_HEADINGS = {"forward": "forward (ms)", "training": "with backward (ms)"}
OURS_STEP = "companion step"
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
        caption=f"Time of {count(NUM_TOKENS)} tokens in sequences of T tokens, {shown.label}, bf16, "
        f"{shown.timings.gpu}: medians, with quartiles as bars. Thin lines: the rooflines of our kernels at their best "
        f"chunk length, and of attention.{other_cell_note(sequences)}",
    )


def show_speed(shown: Shown) -> Html:
    """Times, shares of the roofline and memory of every implementation at the context of the page."""
    rows = []
    for name, group in shown.at_context.groupby("implementation", sort=False):
        row: dict[str, object] = {"implementation": short_name(str(name))}
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
        name="kernel-speed",
        caption=f"Times of {shown.label} at T = {shown.context}, forward and forward with backward: median "
        "[quartiles], and which share of the roofline this reaches. Last column: peak memory beyond the inputs. The "
        "forms limit_chunk and xl_chunk are those of mlstm_kernels. Detached: without the normalizer's gradient."
        + other_cell_note(shown.at_context),
        formats={f"{part} roof": _share for part in timed} | {"GB": "{:.2f}"},
        labels={f"{part} roof": "of roofline" for part in timed}
        | {f"{part} ms": TIME_HEADINGS[part] for part in timed}
        | {"GB": "memory (GB)"},
    )


def show_untimed(timings: Timings) -> Html:
    """What was not timed, and why."""
    table = timings.table
    table = table.reindex(columns=table.columns.union(["skipped"], sort=False)).dropna(subset="skipped")
    pattern = r"relative error of (?P<of>\w+) (?P<error>[\d.e+-]+), allowed (?P<allowed>[\d.]+)"
    table = table.assign(skipped=reasons(table))
    wrong = table["skipped"].astype(str).str.extract(pattern)
    table = table.join(wrong).assign(kind=table["skipped"].where(wrong["of"].isna(), "wrong"))
    rows: list[dict[str, object]] = []
    for (name, part, kind), group in table.groupby(["implementation", "part", "kind"], sort=False):
        reason = kind
        if kind == "wrong":
            largest, tensors = group["error"].astype(float).max(), ", ".join(sorted(set(group["of"].dropna())))
            error = f"{largest:.3g}" if largest < 1000 else power_of_ten(largest, 3)
            reason = f"wrong: relative errors up to {error} ({tensors}), allowed {group['allowed'].iloc[0]}"
        rows.append({"implementation": short_name(str(name)), "pass": part, "reason": reason, "cases": len(group)})
    return show_table(
        pd.DataFrame(rows or [{"note": "every case was timed"}]),
        name="kernel-untimed",
        caption="Kernels that were not timed, and why.",
    )


def reasons(table: pd.DataFrame) -> pd.Series:
    """Why rows were not timed, in plain words; `table` has `skipped`, and `triton` as `load_timings` adds it."""
    versions = table["triton"] if "triton" in table else pd.Series(None, index=table.index, dtype=object)
    plain = [plain_reason(str(why), here) for why, here in zip(table["skipped"], versions, strict=True)]
    return pd.Series(plain, index=table.index, dtype=object)


def untimed_verdict(timings: Timings) -> str:
    """A verdict: how many cases were not timed, because a result was wrong or for another reason, and of which kernels.

    A case is one pass of one implementation at one size.
    """
    table = timings.table
    skipped = table["skipped"] if "skipped" in table else pd.Series(index=table.index, dtype=object)
    left_out = table.assign(skipped=skipped).dropna(subset="skipped")
    if not len(left_out):
        return "Every case was timed"
    why = reasons(left_out)
    wrong, old = why.str.contains("relative error of"), why.str.startswith("left out: needs Triton")
    kinds = {
        "whose results were wrong": wrong,
        "because the library needs a newer Triton": old,
        "for another reason": ~wrong & ~old,
    }
    found = []
    for reason, of_kind in kinds.items():
        if len(rows := left_out[of_kind]):
            names = listed([_in_brackets(str(name)) for name in rows["implementation"].unique()])
            found.append(f"{len(rows)} {reason} ({names})")
    return f"Of {len(table)} cases, {len(left_out)} were not timed: {listed(found)}"


def speed_facts(shown: Shown) -> dict[str, object]:
    """Where and when the timings were taken, times of `mlstm_kernels` over ours, and the cheaper backward pass."""
    timings = shown.timings
    first, last = (date[:10] for date in timings.dates)
    known = ", ".join(f"{name} {version}" for name, version in timings.versions.items() if version and name != "python")
    changed = "" if set(timings.identities) <= {identity_today()} else "; kernels or benchmark have changed since"
    return {
        "c10_gpu": timings.gpu,
        "c10_dates": first if first == last else f"{first} to {last}",
        "c10_versions": known + changed,
        "c10_against": against_verdict(shown),
        "c10_speed": cheaper_verdict(shown),
        "c10_untimed": untimed_verdict(timings),
    }


def against_verdict(shown: Shown) -> str:
    """A verdict: how many times as long as ours the forms of `mlstm_kernels` take at the context of the page."""
    found = []
    for name, ratios in shown.published.items():
        form, _, chunk = short_name(name).partition(", ")
        times = listed([f"{significant(ratio, 2)} times as long {TITLES[part]}" for part, ratio in ratios.items()])
        found.append(f"{form} ({chunk}) takes {times}")
    if not found:
        return "No published kernel of the same cell was timed here"
    return f"Compared with ours, {'; '.join(found)}"


def cheaper_verdict(shown: Shown) -> str:
    """A verdict: what leaving the normalizer's gradient out saves."""
    saved = []
    for part, row in shown.ours.items():
        if (drop := shown.row_of(OURS_DETACHED, part)) is not None:
            saved.append(f"{signed_percent(drop['seconds_median'] / row['seconds_median'] - 1, 1)} {TITLES[part]}")
    if not saved:
        return "The backward pass without the normalizer's gradient was not timed here"
    return f"Without the normalizer's gradient, the time of our kernels changes by {' and '.join(saved)}"


def show_steps(shown: Shown) -> Html:
    """Times of a single step over the batch, launched one by one and in a CUDA graph."""
    if not len(shown.steps):
        return shown.untimed()
    return show(
        record_figures.step_times(shown.steps, LAUNCHES),
        name="kernel-steps",
        alt="Time of a step over the batch: flat at small batches, then along the roofline; the graph is faster at "
        "small batches.",
        caption=f"Time of one step of the cell over the batch, {shown.label}, on {shown.timings.gpu}. Thin lines: the "
        "time to read and write a state once at the bandwidth of a copy.",
    )


def step_rivals(shown: Shown, records: Path) -> pd.DataFrame:
    """Steps of the heads of the page, ours beside those of mlstm_kernels (`benchmarks.kernels.log.against_peer`)."""
    rivals = against_peer(records, "mlstm_kernels step")
    same = rivals["case"].str.startswith("x".join(str(n) for n in shown.heads) + "-")
    return rivals[(rivals["implementation"] == OURS_STEP) & same]


def show_step_rivals(shown: Shown, records: Path) -> Html:
    """A step of ours beside that of mlstm_kernels, on every GPU that timed both."""
    rivals = step_rivals(shown, records)
    if not len(rivals):
        return shown.untimed()
    rivals = rivals.assign(gpu=short_gpu(rivals["gpu"])).sort_values(["gpu", "batch_size"])
    return show_table(
        rivals[["gpu", "batch_size", "seconds", "peer_seconds", "ratio", "share_of_peak_bytes"]],
        name="kernel-step-rivals",
        caption=f"Time of one step in a CUDA graph, ours and mlstm_kernels: {shown.label}, state in float32. The last "
        f"column is the share of the bandwidth of a copy that ours reaches.{of_earlier(rivals)}",
        formats={c: (lambda v: significant(1e6 * v)) for c in ("seconds", "peer_seconds")}
        | {"ratio": "{:.2f}", "share_of_peak_bytes": percent, "batch_size": "{:.0f}"},
        labels={"gpu": "GPU", "batch_size": "batch B", "seconds": "ours (µs)", "peer_seconds": "mlstm_kernels (µs)"}
        | {"ratio": "theirs / ours", "share_of_peak_bytes": "share of a copy's bandwidth"},
    )


def show_step_shares(shown: Shown) -> Html:
    """Which share of its roofline every step reaches in a CUDA graph, by batch."""
    graphs = shown.steps[shown.steps["launch"] == "graph"]
    if not len(graphs):
        return shown.untimed()
    rows = graphs.assign(step=graphs["implementation"].map(lambda name: short_name(str(name))))
    wide = rows.pivot_table("roofline_share", "step", "batch_size", sort=False)
    wide = wide.sort_index(axis=1).rename(columns=lambda batch: f"B = {batch:.0f}").rename_axis(columns=None)
    return show_table(
        wide.reset_index(),
        name="kernel-step-shares",
        caption=f"Share of its roofline that a step reaches in a CUDA graph, by batch: {shown.label}, "
        f"{shown.timings.gpu}.",
        formats=dict.fromkeys(map(str, wide), percent),
    )


def step_facts(shown: Shown) -> dict[str, object]:
    """Which share of its roofline our step reaches in a graph, at the smallest and the largest batch."""
    steps = shown.steps
    own = steps[(steps["launch"] == "graph") & (steps["implementation"] == OURS_STEP)]
    if not len(own):
        return {"c10_steps": "No step was timed"}
    ends = own.set_index("batch_size")["roofline_share"].sort_index()
    low, high = (f"{percent(ends.iloc[n])} of its roofline at B = {ends.index[n]}" for n in (0, -1))
    return {"c10_steps": f"In a CUDA graph our step reaches {low} and {high}"}


def pass_rivals(records: Path, context: int) -> pd.DataFrame:
    """Our passes beside those of xl_chunk of mlstm_kernels at three contexts (`kernel_tables.passes_of`)."""
    return passes_of(against_peer(records, "mlstm_kernels xl_chunk, chunk 128"), context)


def rival_facts(shown: Shown, records: Path) -> dict[str, object]:
    """Between which ratios the times of mlstm_kernels over ours lie: passes of sequences, and steps."""
    rivals = pass_rivals(records, shown.context)
    detached = rivals["implementation"] == OURS_DETACHED
    kinds = {"as our forward pass": rivals[rivals["part"] == "forward"], "as our detached pass": rivals[detached]}
    found = [f"{_range(rows['ratio'])} times as long {kind}" for kind, rows in kinds.items() if len(rows)]
    steps = step_rivals(shown, records)
    of_steps = f"The step of mlstm_kernels takes {_range(steps['ratio'])} times as long"
    return {
        "c10_rivals": f"There xl_chunk takes {listed(found)}" if found else "No GPU timed both",
        "c10_step_rivals": of_steps if len(steps) else "No published step was timed beside ours",
    }


def show_rivals(records: Path, context: int) -> Html:
    """Our times beside those of xl_chunk of mlstm_kernels, on every GPU that timed both."""
    rivals = pass_rivals(records, context)
    if not len(rivals):
        return nothing("no published kernel was timed beside ours", name="kernel-rivals")
    cells = [f"{1e3 * row['seconds']:.2f} ({row['ratio']:.2f})" for _, row in rivals.iterrows()]
    return show_table(
        by_context(rivals, cells),
        name="kernel-rivals",
        caption="Our kernels and xl_chunk by GPU. Milliseconds of ours, and in brackets how many times as long "
        f"xl_chunk of mlstm_kernels (L = 128) takes on the same GPU.{of_earlier(rivals)}",
        labels={"gpu": "GPU"},
    )


def show_here(enabled: bool) -> Html | Markdown:
    """A quick benchmark on this machine's GPU, or why there is none."""
    timings, note = measure_here() if enabled else (None, "Set `benchmark_here` to time kernels on this machine.")
    if timings is None:
        return Markdown(note)
    peaks = timings.peaks
    return show_table(
        with_rooflines(timings)[["part", "implementation", "context_length", "seconds_median", "roofline_share"]],
        caption=f"Times on this machine's GPU, {timings.gpu}, which reached {peaks.peak_flops_per_s / 1e12:.0f} "
        f"TFLOP/s and {peaks.peak_bytes_per_s / 1e12:.2f} TB/s.",
        formats={"seconds_median": lambda v: f"{1e3 * v:.2f}", "roofline_share": percent},
        labels={"seconds_median": "median (ms)", "roofline_share": "of roofline", "context_length": "T (tokens)"},
    )


def other_cell_note(table: pd.DataFrame) -> str:
    """For a caption: that a cell of another kind is among the rows, if there is one."""
    if not table["computation"].isin(OTHER_CELLS).any():
        return ""
    return " The gated delta rule is another cell: it is there for orientation and computes something else."


def _share(share: float) -> str:
    """A share of the roofline; a dash for a cell that has none here."""
    return "–" if pd.isna(share) else percent(share, decimals=0)


def of_earlier(table: pd.DataFrame) -> str:
    """For a caption: the GPUs whose records are of an earlier state of the kernels."""
    gpus = sorted(set(table.loc[table["code"] != identity_today().code, "gpu"]))
    return f" The times on {listed(gpus)} are of an earlier state of the kernels." if gpus else ""


def _in_brackets(implementation: str) -> str:
    """An implementation in a list that is in brackets: `xl_chunk at L = 256`."""
    return short_name(implementation).replace(", L", " at L")


def _range(ratios: pd.Series) -> str:
    """From the smallest to the largest: 0.90 to 4.3; one number if both read the same."""
    return " to ".join(dict.fromkeys(significant(float(value), 2) for value in (ratios.min(), ratios.max())))
