"""The reader's own GPU: records that they bring, or a quick suite that the page runs, beside the recorded ones."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from IPython.display import Markdown

from companion.chapters.applicability import need
from companion.chapters.ch13.profile import Profile, profile_table
from companion.chapters.ch13.records import PROFILE, TRAINING, Suite, in_order, own_suite
from companion.chapters.ch13.shown import Shown
from companion.chapters.ch13.steps import MODELS, Steps
from companion.chapters.timed_models import MODEL_LABELS
from companion.errors import InputError
from companion.formatting import percent, significant
from companion.plotting import Html, show_table

#: Rows of the comparison that a page shows at most.
MOST_ROWS = 24


def measure_here(folder: Path) -> str:
    """Run a quick training suite on this machine's GPU; its records go to a folder. Returns a note if there is no GPU.

    Raises
    ------
    InputError
        if the suite fails; the message is its last line.
    """
    if not torch.cuda.is_available():
        return "`measure` is set, but torch sees no CUDA GPU on this machine, so nothing was measured."
    out = folder / f"{TRAINING}.jsonl"
    command = [sys.executable, "-m", "companion", "bench", "training", "--quick", "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if not out.exists():
        lines = (run.stderr or run.stdout).strip().splitlines() or [f"status {run.returncode}"]
        raise InputError(f"companion bench training --quick: {lines[-1]}")
    return ""


def show_here(records: str | Path | None, measure: bool, shown: Shown) -> Html | Markdown:
    """The reader's training steps beside the recorded ones, and their profile; or what to set to see them."""
    if records is None and not measure:
        return Markdown("Neither `records` nor `measure` is set on this page, so it shows recorded measurements alone.")
    with tempfile.TemporaryDirectory() as folder:
        note = measure_here(Path(folder)) if records is None else ""
        if note:
            return Markdown(note)
        where = folder if records is None else records
        own, profile = own_suite(TRAINING, where), own_suite(PROFILE, where)
    pieces = [] if own is None else [beside_table(own, None if shown.steps is None else shown.steps.suite)]
    pieces += [] if profile is None else [profile_table(Profile(profile), name="model-passes-here")]
    if not pieces:
        return Markdown(f"`records` names a place without records of {TRAINING} or {PROFILE}.")
    return Html("".join(piece.markup for piece in pieces))


def compared(own: Suite, ours: Suite | None) -> pd.DataFrame:
    """Training steps of a reader, the fastest launch of each, with the same cells of ours.

    Returns
    -------
    DataFrame
        `model`, `size`, `context_length`, `own` and `ours` (seconds; NaN where we have none), `own_share` and
        `ours_share` (of the matmul peak).
    """
    names = ["size", "model", "context_length"]
    tables = []
    for suite in (own, ours):
        rows = Steps(suite, 0).fastest if suite is not None else Steps(own, 0).fastest[:0]
        tables.append(rows.set_index(names)[["seconds_median", "share_of_matmul_peak"]].astype(float))
    joined = tables[0].add_suffix("_own").join(tables[1].add_suffix("_ours")).reset_index()
    joined.columns = pd.Index([*names, "own", "own_share", "ours", "ours_share"])
    sizes, models = in_order(joined["size"]), list(MODELS)
    order = joined.assign(size=joined["size"].map(sizes.index), model=joined["model"].map(models.index))
    return joined.loc[order.sort_values(names).index].reset_index(drop=True)


def beside_table(own: Suite, ours: Suite | None) -> Html:
    """A reader's training steps beside ours.

    Raises
    ------
    NotApplicable
        if the reader's records hold none.
    """
    table = compared(own, ours)
    need(len(table), f"the records of {own.device} hold no training steps")
    shown = table.head(MOST_ROWS)
    models = shown["model"].map(lambda name: MODEL_LABELS.get(name, name)) + ", " + shown["size"].str.upper()
    shown = shown.assign(model=models, context_length=shown["context_length"].map("{:.0f}".format))
    mine, theirs = own.short_device, "recorded" if ours is None else f"{ours.short_device}, recorded"
    left = len(table) - len(shown)
    return show_table(
        shown.drop(columns="size"),
        name="model-here",
        caption=f"Training steps on your {own.device} beside the recorded ones, fastest launch of each: milliseconds, "
        "and the share of the FLOP/s of a product of matrices on the same GPU."
        + (f" {left} more are in your file." if left else ""),
        formats=dict.fromkeys(("own", "ours"), lambda v: significant(1e3 * v))
        | dict.fromkeys(("own_share", "ours_share"), percent),
        labels={"context_length": "T", "own": f"{mine} (ms)", "own_share": f"{mine}, share"}
        | {"ours": f"{theirs} (ms)", "ours_share": f"{theirs}, share"},
    )
