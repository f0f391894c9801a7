"""Which context length an analysis of a run table uses when nobody named one, and what to say about the choice."""

from dataclasses import dataclass

import pandas as pd

from companion.errors import NotApplicable
from companion.formatting import plural
from companion.runs.where import table_name

#: Context length of the paper's main runs (arXiv 2510.02228): chosen where a table has it and several others.
PAPER_CONTEXT = 8192


@dataclass(frozen=True)
class ContextChoice:
    """The chosen context length in tokens (None: the table names none) and one line that says why, or an empty one."""

    context_length: int | None
    note: str


def choose_context(
    runs: pd.DataFrame, requested: int | None = None, *, architecture: str | None = None, source: str | None = None
) -> ContextChoice:
    """The context length whose runs an analysis uses.

    The requested one; else the only one of the table; else `PAPER_CONTEXT` if the table has it; else the one with most
    runs (the shorter of equals). Runs without a value do not count.

    Parameters
    ----------
    runs
        a run table.
    requested
        tokens; None leaves the choice to the table.
    architecture
        look at the runs of this architecture only.
    source
        what messages call the table; by default the file it was loaded from.

    Raises
    ------
    NotApplicable
        if the table has context lengths, and the requested one is not among them; the message lists them.
    """
    label = table_name(runs, source)
    if "context_length" not in runs.columns:
        return ContextChoice(None, "")
    chosen = runs if architecture is None else runs[runs["architecture"] == architecture]
    counts = chosen["context_length"].dropna().astype(int).value_counts()
    if counts.empty:
        return ContextChoice(None, "")
    there = sorted(counts.index.tolist())
    if requested is not None:
        if requested not in there:
            whose = f" of {architecture}" if architecture is not None else ""
            listed = ", ".join(map(str, there[:20]))
            raise NotApplicable(f"{label}: no runs{whose} with context_length {requested}; the table has {listed}")
        return ContextChoice(int(requested), "")
    if len(there) == 1:
        return ContextChoice(there[0], f"context_length {there[0]}: the only one of {label}")
    most = PAPER_CONTEXT if PAPER_CONTEXT in there else min(there, key=lambda length: (-counts[length], length))
    others = ", ".join(str(length) for length in there if length != most)
    runs_there = plural(int(counts[most]), "run")
    return ContextChoice(most, f"context_length {most} of {label} ({runs_there}); there are also {others}")
