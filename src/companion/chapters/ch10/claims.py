"""Chapter 10: times that others report for another cell, beside ours of a state of the same size. Never a ranking."""

from pathlib import Path

import pandas as pd

from companion.benchmarks.kernels.other_cells import GATED_DELTA_RULE
from companion.benchmarks.kernels.results import OURS, Timings
from companion.chapters.kernel_tables import short_gpu, short_name
from companion.errors import InputError
from companion.formatting import listed, significant
from companion.paths import data_dir
from companion.plotting import Html, show_table

#: Columns of the file of claims; `data/benchmarks/README.md` says what they hold.
COLUMNS = (
    "library", "version", "cell", "pass", "context_length", "num_sequences", "key_heads", "value_heads", "d_qk", "d_hv",
    "dtype", "gpu", "launch", "seconds", "reported_by", "source", "where",
)  # fmt: skip
#: For the caption, where there is something of ours.
OURS_BELOW = (
    " Below: what we timed with as large a state, several sequences at once, launched eagerly, both passes in one."
)
#: What names a claim: its passes become columns.
_CLAIM = [name for name in COLUMNS if name not in ("pass", "seconds", "where")]


def load_claims(path: Path | None = None) -> pd.DataFrame:
    """A row per claim with `forward` and `backward` in seconds, NaN where the source has none.

    Parameters
    ----------
    path
        CSV file with `COLUMNS`; by default `kernel_claims.csv` of the package, which is nobody's own records.

    Raises
    ------
    InputError
        if the file cannot be read or a column is missing.
    """
    path = path or data_dir() / "benchmarks" / "kernel_claims.csv"
    try:
        table = pd.read_csv(path, dtype={"version": str})
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    if missing := [name for name in COLUMNS if name not in table]:
        raise InputError(f"{path}: no column {', '.join(missing)}")
    wide = table.pivot_table("seconds", _CLAIM, "pass", sort=False).rename_axis(columns=None).reset_index()
    return wide.reindex(columns=[*_CLAIM, "forward", "backward"])


def rows_beside(timings: Timings, claims: pd.DataFrame) -> pd.DataFrame:
    """What we timed with a state of the same size per token as a claim, at the same context and on the same GPU.

    Returns
    -------
    DataFrame
        with `name`, `cell`, `heads`, `num_tokens`, `context_length`, and seconds `forward` and `both` (forward and
        backward): of our mLSTM, and of the other cell where we timed it.
    """
    table = timings.table
    skipped = table["skipped"].isna() if "skipped" in table else pd.Series(True, index=table.index)
    table = table[skipped & table["part"].isin(["forward", "training"])]
    wanted = set(zip(claims["value_heads"] * claims["d_qk"] * claims["d_hv"], claims["context_length"], strict=True))
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for _, one in table.iterrows():
        size = (int(one["n_heads"] * one["d_qk"] * one["d_hv"]), int(one["context_length"]))
        name, other = str(one["implementation"]), one["computation"] == GATED_DELTA_RULE
        if size not in wanted or timings.gpu not in set(claims["gpu"]) or not (other or name == OURS):
            continue
        row: dict[str, object] = {"name": short_name(name), "cell": "gated delta rule" if other else "mLSTM"}
        row |= {"heads": f"{one['n_heads']:.0f} × ({one['d_qk']:.0f}, {one['d_hv']:.0f})"}
        row |= {"num_tokens": one["batch_size"] * one["context_length"], "context_length": one["context_length"]}
        rows.setdefault((name, *row.values()), row)["forward" if one["part"] == "forward" else "both"] = one[
            "seconds_median"
        ]
    names = ["name", "cell", "heads", "num_tokens", "context_length", "forward", "both"]
    return pd.DataFrame(list(rows.values()), columns=names)


def show_claims(timings: Timings, claims: pd.DataFrame) -> Html:
    """The claims as reported, and below them what we timed with as large a state."""
    rows = [
        {
            "who": f"{one['library']} {one['version']}, as reported",
            "cell": one["cell"],
            "heads": claimed_heads(one),
            "T": one["context_length"],
            "tokens": one["num_sequences"] * one["context_length"],
            "forward": _printed(one["forward"]),
            "backward": _printed(one["backward"]),
            "both": _printed(one["forward"] + one["backward"]),
            "token": _ns((one["forward"] + one["backward"]) / (one["num_sequences"] * one["context_length"])),
        }
        for _, one in claims.iterrows()
    ]
    beside = rows_beside(timings, claims)
    for _, one in beside.iterrows():
        row = {"who": f"{one['name']}, timed here", "cell": one["cell"], "heads": one["heads"]}
        row |= {"T": one["context_length"], "tokens": one["num_tokens"]}
        row |= {"forward": _ms(one["forward"]), "backward": "–", "both": _ms(one["both"])}
        rows.append(row | {"token": _ns(one["both"] / one["num_tokens"])})
    return show_table(
        pd.DataFrame(rows),
        name="kernel-claims",
        caption=f"Times that the {listed(claims['reported_by'].unique())} report for another cell, bf16, "
        f"{listed(short_gpu(claims['gpu']).unique())}, {_launches(claims)}, one sequence. Heads are those of queries "
        "and keys / of values. The two passes were timed apart; “both” is their sum."
        f"{OURS_BELOW if len(beside) else ''} No ranking: the cells differ.",
        formats={"T": "{:,.0f}", "tokens": "{:,.0f}"},
        labels={"who": "kernels", "heads": "heads × (d_qk, d_hv)", "T": "T (tokens)", "tokens": "tokens in all"}
        | {
            "forward": "forward (ms)",
            "backward": "backward (ms)",
            "both": "both (ms)",
            "token": "both, per token (ns)",
        },
    )


def claims_facts(claims: pd.DataFrame, library: str = "FlashQLA") -> dict[str, object]:
    """What the prose says of one library's claim at its longest context."""
    rows = claims[(claims["library"] == library) & claims["backward"].notna()].sort_values("context_length")
    if not len(rows):
        return {"c10_claim": f"No figure of {library} is on file"}
    one = rows.iloc[-1]
    both = significant(1e3 * (one["forward"] + one["backward"]))
    heads = f"{one['key_heads']} heads of queries and keys and {one['value_heads']} of values, {one['d_qk']} wide"
    split = f"{_printed(one['forward'])} ms forward and {_printed(one['backward'])} ms backward"
    return {
        "c10_claim": f"The {one['reported_by']} report {both} ms for both passes ({split}) of "
        f"{one['context_length']:,} tokens on {one['gpu']}, with {heads}"
    }


def claimed_heads(one: pd.Series) -> str:
    """Heads of queries and keys over heads of values, with their widths: `16/32 × (128, 128)`."""
    return f"{one['key_heads']}/{one['value_heads']} × ({one['d_qk']}, {one['d_hv']})"


def _launches(claims: pd.DataFrame) -> str:
    return listed([f"in a {launch}" if launch == "CUDA graph" else str(launch) for launch in claims["launch"].unique()])


def _printed(seconds: float) -> str:
    """Milliseconds with the three decimals that the source prints."""
    return "–" if pd.isna(seconds) else f"{1e3 * seconds:.3f}"


def _ms(seconds: float) -> str:
    return "–" if pd.isna(seconds) else significant(1e3 * seconds)


def _ns(seconds: float) -> str:
    return "–" if pd.isna(seconds) else significant(1e9 * seconds)
