"""Tables of kernel timings that chapter 10 and the page of the kernel log share: names, passes, nothing to show.

No torch: the log can be read without it.
"""

from collections.abc import Sequence

import pandas as pd

from companion.benchmarks.kernels.results import OURS, OURS_DETACHED
from companion.plotting import Html, show_table

#: Parts of the timings, and what the page calls them.
TITLES = {"forward": "forward", "training": "forward and backward"}


def label(heads: Sequence[int]) -> str:
    """H × (d_qk, d_hv)."""
    return f"{int(heads[0])} × ({int(heads[1])}, {int(heads[2])})"


def short_name(implementation: str) -> str:
    """An implementation as figures and tables write it: `ours, detached`, `xl_chunk, L = 128`."""
    if " step" in implementation:
        return implementation.replace(" step", "").replace("companion", "ours")
    name = implementation.removeprefix("mlstm_kernels ").replace("companion", "ours").replace(", chunk", ", L =")
    return name.replace("detached normaliser", "detached")


def nothing(note: str, name: str | None = None) -> Html:
    """In place of a figure or table for which there are no records; with its name, if the prose points to it."""
    return show_table(pd.DataFrame({"note": [note]}), name=name, caption="Nothing to show.")


def short_gpu(names: pd.Series) -> pd.Series:
    """Names of GPUs without their maker and memory."""
    return names.str.replace(r"^NVIDIA |[ -]\d+GB.*", "", regex=True)


def passes_of(table: pd.DataFrame, context: int) -> pd.DataFrame:
    """Rows of our passes, the detached one in training alone, at three contexts, widest heads first.

    Parameters
    ----------
    table
        with `gpu`, `part`, `case` and `implementation` (`companion.benchmarks.kernels.log`).

    Returns
    -------
    The rows with `heads`, `pass` (in words), `T` (tokens) and a short `gpu`.
    """
    detached = (table["implementation"] == OURS_DETACHED) & (table["part"] == "training")
    table = table[((table["implementation"] == OURS) | detached) & table["part"].isin(list(TITLES))]
    sizes = table["case"].str.extract(r"(\d+)x(\d+)x(\d+)-T(\d+)").astype(int)
    table = table.assign(
        heads=[label(n) for n in sizes[[0, 1, 2]].to_numpy().tolist()], T=sizes[3], state=sizes[1] * sizes[2]
    )
    table["pass"] = table["part"] + table["implementation"].map({OURS_DETACHED: ", detached"}).fillna("–")
    table["gpu"] = short_gpu(table["gpu"])
    table = table[table["T"].isin([2048, context, 65536])]
    return table.sort_values(["state", "pass", "gpu", "T"], ascending=[False, True, True, True])


def by_context(table: pd.DataFrame, cells: Sequence[str]) -> pd.DataFrame:
    """A row per heads, pass and GPU of `passes_of`, and a column of these texts for every context."""
    index = ["heads", "pass", "gpu"]
    wide = table.assign(text=cells).pivot_table(index=index, columns="T", values="text", aggfunc="last", sort=False)
    return wide.rename(columns=lambda tokens: f"T = {tokens}").rename_axis(columns=None).reset_index().fillna("")
