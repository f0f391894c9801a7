"""Chapter 10: what a call of the cell takes of the host, and what the first call takes, by the records."""

from pathlib import Path

import pandas as pd

from companion.benchmarks.kernels.results import OURS, load_host
from companion.chapters.kernel_tables import label, nothing, short_gpu, short_name
from companion.formatting import listed, significant
from companion.plotting import Html, show_table

#: Of all operations the one that does as good as nothing (`companion.benchmarks.kernels.host.one_product`).
ONE_PRODUCT = "torch, v · 1"
LAUNCHES = {"calls": "eager", "compiled": "compiled"}
#: Columns of the records, and of the table.
_TIMES = {"seconds_forward": "forward", "seconds_median": "both passes", "seconds_further": "a further call"}
NO_HOST = "No record says what a call takes of the host"
NO_FIRST = "No record says how long the first call takes"


def show_host(path: Path) -> Html:
    """A row per implementation and way to launch it: the host's time of a call, and of a further one in a chain."""
    found = _timed(path, "host")
    if not len(found):
        return nothing(f"{NO_HOST[0].lower()}{NO_HOST[1:]}", name="kernel-host")
    rows = []
    for _, one in found.iterrows():
        row = {"implementation": short_name(one["implementation"]), "launch": LAUNCHES[one["launch"]]}
        rows.append(row | {name: _microseconds(one[column]) for column, name in _TIMES.items()})
    first = found.iloc[0]
    heads = label([first["n_heads"], first["d_qk"], first["d_hv"]])
    return show_table(
        pd.DataFrame(rows),
        name="kernel-host",
        caption=f"Time of the host until Python goes on, for one sequence of {first['context_length']:.0f} tokens and "
        f"heads of {heads}, on the host of an {_gpus(found)}. Forward is without a gradient. A further call: of both "
        "passes, in a chain in which h of one layer is v of the next; without what a function takes once.",
        labels={"implementation": "", "launch": "launch"},
    )


def host_facts(path: Path) -> dict[str, object]:
    """What the prose says of the host and of the first call."""
    return {"c10_host": host_verdict(_timed(path, "host")), "c10_first_call": first_verdict(_timed(path, "first-call"))}


def host_verdict(found: pd.DataFrame) -> str:
    """A verdict: what a call of ours takes, beside what torch takes for any operation."""
    rows = {(row["implementation"], row["launch"]): row for _, row in found.iterrows()}
    if (OURS, "calls") not in rows:
        return NO_HOST
    ours = rows[OURS, "calls"]
    text = f"On the host of an {_gpus(found)}, a forward pass takes {_microseconds(ours['seconds_forward'])}"
    text += f" and both passes take {_microseconds(ours['seconds_median'])}"
    if (ONE_PRODUCT, "calls") in rows:
        text += (
            f", where torch takes {_microseconds(rows[ONE_PRODUCT, 'calls']['seconds_median'])} for a product with 1"
        )
    if (OURS, "compiled") in rows:
        text += ". In a graph of torch.compile, every further call takes "
        text += _microseconds(rows[OURS, "compiled"]["seconds_further"])
    return text


def first_verdict(found: pd.DataFrame) -> str:
    """A verdict: how long the first call takes with nothing compiled, by heads."""
    if not len(found):
        return NO_FIRST
    times = [
        f"{significant(row['seconds_median'], 2)} s for {label([row['n_heads'], row['d_qk'], row['d_hv']])}"
        for _, row in found.sort_values("seconds_median", ascending=False).iterrows()
    ]
    return f"With nothing compiled, the first call of both passes takes {listed(times)}"


def _timed(path: Path, part: str) -> pd.DataFrame:
    table = load_host(path)
    if not len(table):
        return table
    return table[(table["part"] == part) & table["seconds_median"].notna()]


def _microseconds(seconds: float) -> str:
    return f"{significant(1e6 * seconds)} µs"


def _gpus(found: pd.DataFrame) -> str:
    return listed(list(dict.fromkeys(short_gpu(found["gpu"]))))
