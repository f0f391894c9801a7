"""What the page of the kernel log shows (`notebooks/92_kernel_log.md`): predictions, first and last times."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from companion.benchmarks.kernels.log import gains, load_log
from companion.benchmarks.kernels.results import OURS_DETACHED
from companion.chapters.kernel_tables import by_context, nothing, passes_of
from companion.plotting import Html, show, show_table
from companion.plotting.style import INK, subplots

#: Kernels as the log names them, and their names in its table.
KERNELS = {
    "state_gradients": "dC",
    "pair_gradients": "pairs",
    "query_gradients": "dq",
    "key_gradients": "dk",
    "value_gradients": "dv",
    "key_value_gradients": "dk and dv",
    "states_and_outputs": "C and h",
    "segment_states": "segments",
    "gate_weights": "weights",
}
#: How the log marks a change that was taken back.
NOT_KEPT = "(not kept)"
_COLORS = {"kept": ("#0173b2", "o"), "not kept": ("#de8f05", "X")}


def predictions(folder: Path) -> pd.DataFrame | None:
    """The log of a folder of records with a column `of` for what was timed, in words; None if there is no log."""
    path = folder / "kernel_predictions.csv"
    if not path.exists():
        return None
    log = load_log(path, folder / "kernels.jsonl")
    of = log["kernel"].replace(KERNELS).fillna(log["part"])
    of = of.mask(log["implementation"] == OURS_DETACHED, "detached")
    parts = log["case"].str.extract(r"(?:8x256x512|(.*))-([TB])(\d+)").fillna("")
    where = parts[0].str.replace(r"(\d+)x(\d+)x(\d+)", r" (\1)", regex=True)
    size = parts[2].replace({"2048": "2k", "16384": "16k", "65536": "64k"})
    of += where + (", " + parts[1] + "\u00a0=\u00a0" + size).where(parts[2] != "8192", "")
    return log.assign(of=of + (log["gpu"] != _usual(log)).map({True: "\u00a0†", False: ""}))


def ratio_figure(log: pd.DataFrame | None) -> Html:
    """Measured over predicted time of every prediction, in the order of the log."""
    if log is None or not log["ratio"].notna().any():
        return nothing("no prediction has a measurement")
    return show(
        ratios_in_order(log),
        name="kernel-ratios",
        alt="Measured over predicted time for every prediction in order: early ones up to 1.8, later ones close to 1, "
        "with two outliers that were not kept.",
        caption="Measured over predicted time, in the order in which the predictions were made. On the line a "
        "prediction is exact; above it, the change brought less than predicted. A cross marks a change that we took "
        "back.",
    )


def ratios_in_order(log: pd.DataFrame) -> Figure:
    """A mark per prediction with a measurement: its place in the log and its `ratio`, on a logarithmic axis."""
    figure, (ax,) = subplots(height=3.2)
    known = log.assign(place=np.arange(1, len(log) + 1)).dropna(subset="ratio")
    lost = known["change"].str.contains(NOT_KEPT, regex=False)
    for (name, (color, marker)), rows in zip(_COLORS.items(), (known[~lost], known[lost]), strict=True):
        ax.plot(rows["place"], rows["ratio"], marker, color=color, markersize=5, linestyle="none", label=name)
    ax.axhline(1, color=INK, linewidth=0.9)
    ticks = [0.7, 0.8, 1, 1.25, 1.5, 2, 2.5]
    ax.set(yscale="log", xlabel="number of the prediction", ylabel="measured / predicted time")
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def show_predictions(log: pd.DataFrame | None) -> Html:
    """Every prediction beside its measurement."""
    if log is None:
        return nothing("these records have no log of predictions", name="kernel-predictions")
    usual = _usual(log)
    elsewhere = log["measured_on"].notna() & (log["measured_on"] != log["gpu"])
    of = log["of"] + elsewhere.map({True: "\u00a0*", False: ""})
    change = log["change"].mask(log["change"].eq(log["change"].shift()), "").str.replace(" > ", "\u00a0>\u00a0")
    others = " and ".join(log.loc[log["gpu"] != usual, "gpu"].unique()) or "none"
    return show_table(
        log.assign(change=change, of=of)[["change", "of", "predicted_seconds", "measured_seconds", "ratio"]],
        name="kernel-predictions",
        caption="Every prediction beside its measurement: the time of a kernel or of a whole pass. Unless the second "
        f"column says otherwise, for 8 × (256, 512) and T = 8192. Predicted for {usual} (†: {others}) and "
        "measured there (*: on another GPU). (16): heads of (128, 256); (8): heads of (128, 128); detached: training "
        "without the normalizer's gradient.",
        formats={
            "predicted_seconds": _milliseconds,
            "measured_seconds": _milliseconds,
            "ratio": lambda v: "" if v != v else f"{v:.2f}",
        },
        labels={"of": "kernel or pass", "predicted_seconds": "predicted (ms)", "measured_seconds": "measured (ms)"}
        | {"ratio": "measured / predicted"},
    )


def log_facts(log: pd.DataFrame | None) -> dict[str, object]:
    """How many predictions have a measurement, the median ratio of measured over predicted, and the largest."""
    if log is None or not log["ratio"].notna().any():
        return {"c92_answer": "No prediction has a measurement", "c92_largest": "There is no largest ratio"}
    known = log[log["ratio"].notna()]
    far, low = known.sort_values("ratio").iloc[-1], known["ratio"].median()
    return {
        "c92_answer": f"Over {len(known)} predictions, the median ratio of measured to predicted time is {low:.2f}; "
        f"the largest is {far['ratio']:.2f}",
        "c92_largest": f"The largest ratio is that of “{far['of']}” after the change “{far['change']}”. The prediction "
        f"rested on this reasoning: {far['reason']}",
    }


def show_gains(records: Path, context: int) -> Html:
    """Our first and last times on every GPU whose records hold two states of the kernels."""
    table = passes_of(gains(records), context)
    if not len(table):
        return nothing("these records hold one state of our kernels on every GPU", name="kernel-gains")
    cells = [
        f"{1e3 * row['first_seconds']:.2f} → {1e3 * row['last_seconds']:.2f} ({row['gain']:.2f})"
        for _, row in table.iterrows()
    ]
    return show_table(
        by_context(table, cells),
        name="kernel-gains",
        caption="All changes together: times in milliseconds in the first and in the last records of a GPU, and in "
        "brackets the first over the last. A pass with “detached” leaves the normalizer's gradient out.",
        labels={"gpu": "GPU"},
    )


def _usual(log: pd.DataFrame) -> str:
    """The GPU of most predictions."""
    return str(log["gpu"].mode().iloc[0])


def _milliseconds(seconds: float) -> str:
    return "" if seconds != seconds else f"{1e3 * seconds:.3g}"
