"""Chapter 10: what changes of the kernels were expected to bring, and what they brought."""

from pathlib import Path

import pandas as pd

from companion.benchmarks.kernels.log import against_peer, gains, load_log
from companion.benchmarks.kernels.results import OURS, OURS_DETACHED
from companion.chapters.ch10.shown import TITLES, label, nothing, short_gpu
from companion.chapters.ch10.speed import of_earlier
from companion.plotting import Html, show_table

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
    of += where + (", " + parts[1] + " = " + size).where(parts[2] != "8192", "")
    return log.assign(of=of + (log["gpu"] != _usual(log)).map({True: " †", False: ""}))


def show_predictions(log: pd.DataFrame | None) -> Html:
    """Every prediction beside its measurement."""
    if log is None:
        return nothing("these records have no log of predictions")
    usual = _usual(log)
    elsewhere = log["measured_on"].notna() & (log["measured_on"] != log["gpu"])
    measured = log["measured_seconds"].map(_milliseconds) + elsewhere.map({True: " *", False: ""})
    change = log["change"].mask(log["change"].eq(log["change"].shift()), "")
    others = " and ".join(log.loc[log["gpu"] != usual, "gpu"].unique()) or "none"
    return show_table(
        log.assign(change=change, measured=measured)[["change", "of", "predicted_seconds", "measured", "ratio"]],
        caption=f"Milliseconds expected on {usual} (†: {others}) before a change was timed, and measured there (*: "
        "elsewhere), of a kernel or a whole pass: 8 × (256, 512) and T = 8192 unless said; (16): heads of (128, 256), "
        "(8): heads of (128, 128); detached: training.",
        formats={"predicted_seconds": _milliseconds, "ratio": lambda v: "" if v != v else f"{v:.2f}"},
        labels={"predicted_seconds": "expected"},
    )


def log_facts(log: pd.DataFrame | None) -> dict[str, object]:
    """The median ratio of measured over predicted, and the largest."""
    if log is None or not log["ratio"].notna().any():
        return {"c10_log": "No prediction has a measurement"}
    known = log[log["ratio"].notna()]
    far, low = known.sort_values("ratio").iloc[-1], known["ratio"].median()
    largest = f"the largest is {far['ratio']:.2f} ({far['of']}, expected of {far['change']!r}: {far['reason']})"
    return {"c10_log": f"The median of {len(known)} ratios is {low:.2f}; {largest}"}


def show_gains(records: Path, context: int) -> Html:
    """Our first and last times on every GPU whose records hold two states of the kernels."""
    table = _passes(gains(records), context)
    if not len(table):
        return nothing("these records hold one state of our kernels on every GPU")
    return show_table(
        table[["heads", "pass", "gpu", "T", "first_seconds", "last_seconds", "gain"]],
        caption="Milliseconds of our kernels in the first records of a GPU and in the last.",
        formats={c: (lambda v: f"{1e3 * v:.2f}") for c in ("first_seconds", "last_seconds")}
        | {"gain": "{:.2f}", "T": "{:.0f}"},
        labels={"gpu": "GPU", "first_seconds": "first", "last_seconds": "last"},
    )


def show_rivals(records: Path, context: int) -> Html:
    """Our times beside those of xl_chunk of mlstm_kernels, on every GPU that timed both."""
    rivals = _passes(against_peer(records, "mlstm_kernels xl_chunk, chunk 128"), context)
    if not len(rivals):
        return nothing("no published kernel was timed beside ours")
    rivals["both"] = [f"{1e3 * row['seconds']:.2f} ({row['ratio']:.2f})" for _, row in rivals.iterrows()]
    table = rivals.pivot_table(index=["heads", "pass", "gpu"], columns="T", values="both", aggfunc="last", sort=False)
    return show_table(
        table.rename(columns=lambda context: f"T = {context}").rename_axis(columns=None).reset_index().fillna(""),
        caption="Milliseconds of our kernels, and in brackets how many times as long xl_chunk of mlstm_kernels "
        f"(L = 128) takes on the same GPU.{of_earlier(rivals)}",
        labels={"gpu": "GPU"},
    )


def _passes(table: pd.DataFrame, context: int) -> pd.DataFrame:
    """Rows of our passes, the cheaper one in training alone, at three contexts, widest heads first."""
    detached = (table["implementation"] == OURS_DETACHED) & (table["part"] == "training")
    table = table[((table["implementation"] == OURS) | detached) & table["part"].isin(list(TITLES))]
    sizes = table["case"].str.extract(r"(\d+)x(\d+)x(\d+)-T(\d+)").astype(int)
    table = table.assign(
        heads=[label(n) for n in sizes[[0, 1, 2]].to_numpy().tolist()], T=sizes[3], state=sizes[1] * sizes[2]
    )
    table["pass"] = table["part"] + table["implementation"].map({OURS_DETACHED: ", detached"}).fillna("")
    table["gpu"] = short_gpu(table["gpu"])
    table = table[table["T"].isin([2048, context, 65536])]
    return table.sort_values(["state", "pass", "gpu", "T"], ascending=[False, True, True, True])


def _usual(log: pd.DataFrame) -> str:
    """The GPU of most predictions."""
    return str(log["gpu"].mode().iloc[0])


def _milliseconds(seconds: float) -> str:
    return "" if seconds != seconds else f"{1e3 * seconds:.3g}"
