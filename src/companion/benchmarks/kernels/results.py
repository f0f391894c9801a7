"""Records of `companion.benchmarks.kernels` as tables: what is right, how fast it is, beside the roofline.

Of several records of one cell (same GPU) the last one counts. Nothing here needs torch or a GPU.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting.kernel_costs import CellShape, crossing_context
from companion.benchmarks.kernels.identity import Identity, identity_of
from companion.benchmarks.kernels.implementations import ATTENTION_WIDTH
from companion.benchmarks.kernels.other_cells import OTHER_CELLS
from companion.benchmarks.kernels.rooflines import PASS_OF_PART, least_kernels, roofline_seconds
from companion.benchmarks.kernels.shapes import NUM_TOKENS
from companion.benchmarks.records import read_records
from companion.errors import InputError
from companion.hardware import Hardware

CHECKS, TIMINGS = "kernel_checks", "kernels"
#: Parts of the timings that are of the host.
HOST_PARTS = ("host", "first-call")
_KEY = ("part", "case", "dtype", "implementation", "upstream", "configuration", "launch")
#: Our kernels in the records of timings: with the full gradient, and without the part through the normalizer.
OURS, OURS_DETACHED = "companion", "companion, detached normaliser"
_GRADIENTS = ("dq", "dk", "dv", "di", "df")


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Timings on one GPU.

    Attributes
    ----------
    table
        a row per cell: the fields of a result (`data/benchmarks/README.md`), and `triton`, the version of its record;
        cells without a timing have `skipped`.
    peaks
        what the GPU reached in the same runs: medians over them.
    versions, dates, commits
        of all records that the table holds rows of.
    identities
        of the code behind those that hold rows of ours: compare with `identity_today`.
    """

    table: pd.DataFrame
    peaks: Hardware
    versions: dict[str, str | None]
    dates: tuple[str, str]
    commits: tuple[str, ...]
    identities: tuple[Identity, ...]

    @property
    def gpu(self) -> str:
        """Name of the GPU."""
        return self.peaks.label


def load_checks(path: Path, gpu: str | None = None) -> pd.DataFrame:
    """Checks on one GPU, by default on any: a row per cell, with the fields of a result.

    `gpu` says where a cell was checked last, `code` with which state of the code, `version` of which release of the
    implementation. Cells of candidates that a case no longer has when it is checked again are left out.

    Raises
    ------
    InputError
        if the file cannot be read, or has no record of checks (on that GPU).
    """
    cells, records = _cells(path, CHECKS, gpu, everywhere=gpu is None)
    table = pd.DataFrame([result for _, result in cells])
    table["gpu"] = [str(record["parameters"].get("gpu")) for record, _ in cells]
    table["code"] = [identity_of(record["parameters"]).code for record, _ in cells]
    table["version"] = [_version(record, result["implementation"]) for record, result in cells]
    place = {id(record): number for number, record in enumerate(records)}
    places = pd.Series([place[id(record)] for record, _ in cells], index=table.index)
    case = [table[name] for name in _KEY if name in table and name != "configuration"]
    newest = places.groupby(case, dropna=False).transform("max")
    same = table["code"] == [identity_of(records[number]["parameters"]).code for number in newest]
    return table[same].reset_index(drop=True)


def load_timings(path: Path, gpu: str | None = None) -> Timings:
    """Timings on one GPU, by default that of the last record.

    Raises
    ------
    InputError
        if the file cannot be read, or has no record of timings (on that GPU).
    """
    cells, records = _cells(path, TIMINGS, gpu, (*PASS_OF_PART, "step"))
    cells.sort(key=lambda cell: not cell[1]["implementation"].startswith(OURS))  # ours first, else as recorded
    parameters = pd.DataFrame([record["parameters"] for record in records])
    first = records[-1]["parameters"]
    peaks = Hardware(
        name="measured",
        label=first["gpu"],
        peak_flops_per_s=float(parameters["peak_flops_per_s"].median()),
        peak_bytes_per_s=float(parameters["peak_bytes_per_s"].median()),
        memory_bytes=float(first["memory_bytes"]),
        num_multiprocessors=int(first["num_multiprocessors"]),
        source="measured in the runs of the records",
    )
    dates = sorted(record["date"] for record in records)
    commits = tuple(dict.fromkeys(str(record["git_commit"]) for record in records))
    mine = [record for record, result in cells if result["implementation"].startswith(OURS)]
    return Timings(
        table=pd.DataFrame([{**result, "triton": record["versions"].get("triton")} for record, result in cells]),
        peaks=peaks,
        versions=records[-1]["versions"],
        dates=(dates[0], dates[-1]),
        commits=commits,
        identities=tuple(dict.fromkeys(identity_of(record["parameters"]) for record in mine)),
    )


def load_host(path: Path, gpu: str | None = None) -> pd.DataFrame:
    """What calls took of the host of one GPU, by default that of the last such record.

    Returns
    -------
    DataFrame
        a row per cell of the parts `host` and `first-call`, with the fields of a result and `gpu`; without rows if no
        record has them.

    Raises
    ------
    InputError
        if the file cannot be read, or has such records of other GPUs alone.
    """
    known = read_records(path)
    if not any(result["part"] in HOST_PARTS for record in known for result in record["results"]):
        return pd.DataFrame()
    cells, _ = _cells(path, TIMINGS, gpu, HOST_PARTS)
    return pd.DataFrame([{**result, "gpu": str(record["parameters"].get("gpu"))} for record, result in cells])


# ---- what is right -------------------------------------------------------------------------------


def verdicts(checks: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Cells per group: how many were run, passed and failed, and the worst of them.

    Returns
    -------
    DataFrame
        with the columns of `by`, `cells`, `passed`, `failed`, `skipped`, `worst_over_allowed` (largest error over what
        is allowed; infinite if a number was not finite) and `deterministic` (of those asked, cells with the same bits).
    """
    rows = []
    for key, group in checks.groupby(list(by), sort=False, dropna=False):
        run = group[group["verdict"] != "skipped"]
        row: dict[str, Any] = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        row |= {"cells": len(run)} | {
            name: int((group["verdict"] == verdict).sum())
            for name, verdict in (("passed", "pass"), ("failed", "fail"), ("skipped", "skipped"))
        }
        ratios = _column(run, "worst_over_allowed").astype(float).fillna(np.inf)
        asked = _column(run, "deterministic").dropna()
        row["worst_over_allowed"] = float(ratios.max()) if len(ratios) else np.nan
        row["deterministic"] = f"{int(asked.astype(bool).sum())} of {len(asked)}" if len(asked) else ""
        rows.append(row)
    return pd.DataFrame(rows)


def error_rows(checks: pd.DataFrame) -> pd.DataFrame:
    """One row per cell that was run: its error of h, and the largest of its gradients; infinite where not finite.

    A cell that failed without a number (it raised, or left a tensor out) has NaN.
    """
    run = checks[checks["verdict"] != "skipped"].copy()
    found = [errors if isinstance(errors, dict) else {} for errors in _column(run, "errors")]
    run["error_h"] = [_worst(errors, ("h",)) for errors in found]
    run["error_gradients"] = [_worst(errors, _GRADIENTS) for errors in found]
    return run.drop(columns=["errors"], errors="ignore")


def tensor_errors(checks: pd.DataFrame, name: str) -> pd.Series:
    """Error of one tensor (`h`, `dq`, ..., `df`) by row; infinite where not finite, NaN where it was not found."""
    found = [errors if isinstance(errors, dict) else {} for errors in _column(checks, "errors")]
    return pd.Series([_worst(errors, (name,)) for errors in found], index=checks.index, dtype=float)


def peer_cases(checks: pd.DataFrame) -> set[str]:
    """Cases on which at least one implementation that is not ours was run."""
    mine = checks["implementation"].str.startswith(OURS)
    return set(checks.loc[~mine & (checks["verdict"] != "skipped"), "case"])


# ---- how fast it is ------------------------------------------------------------------------------


def case_shape(row: Any) -> CellShape:
    """Shape of a timed row (of sequences, or of steps, which have one token)."""
    context = row.get("context_length")
    return CellShape(
        batch_size=int(row["batch_size"]),
        context_length=1 if context is None or pd.isna(context) else int(context),
        n_heads=int(row["n_heads"]),
        d_qk=int(row["d_qk"]),
        d_hv=int(row["d_hv"]),
    )


def with_rooflines(timings: Timings) -> pd.DataFrame:
    """The timed cells with `roofline_seconds` and `roofline_share`, for the mLSTM, attention and steps; NaN for others.

    The mLSTM's is the sum over our kernels, whichever is less: states and outputs in two kernels at the chunk length
    that makes it least, or in one at chunks of 128; in training with states kept for the backward pass, where they keep
    them. It is one yardstick for all, whatever chunks an implementation uses, and whatever it leaves out. Another
    division into kernels may have less to move.
    """
    table = timings.table[_column(timings.table, "skipped").isna()].copy()
    least = [roofline_seconds(row, case_shape(row), timings.peaks) for _, row in table.iterrows()]
    table["roofline_seconds"] = least
    table["roofline_share"] = table["roofline_seconds"] / table["seconds_median"]
    return table


def heads_of(timings: Timings) -> list[tuple[int, int, int]]:
    """H, d_qk and d_hv of the mLSTM in the timed cases of sequences, in their order."""
    rows = timings.table[timings.table["part"].isin(list(PASS_OF_PART))]
    rows = rows[~rows["computation"].isin(["attention", *OTHER_CELLS])]
    return list(dict.fromkeys(zip(rows["n_heads"], rows["d_qk"], rows["d_hv"], strict=True)))


def of_heads(table: pd.DataFrame, heads: Sequence[int]) -> pd.DataFrame:
    """Rows of the cases of one (H, d_qk, d_hv), attention of the same width among them."""
    return table[table["case"].str.startswith("x".join(str(int(n)) for n in heads) + "-")]


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """From which context on our kernels are faster than attention of the same width.

    Attributes
    ----------
    measured
        tokens, interpolated between the timed contexts on logarithmic axes; NaN if no two of them have it between.
    by_roofline, by_flops
        tokens predicted from the rooflines at the measured peaks, and from FLOPs alone, both for the kernels and the
        chunk length of the least roofline time.
    table
        context_length, and seconds: attention (its faster backend), cell, attention_roofline, cell_roofline.
    """

    measured: float
    by_roofline: float
    by_flops: float
    table: pd.DataFrame

    @property
    def text(self) -> str:
        """The measured crossing in words."""
        contexts, ratio = self.table["context_length"], self.table["attention"] / self.table["cell"]
        if not len(contexts):
            return "not timed"
        if np.isfinite(self.measured):
            return f"T = {self.measured:.0f}"
        return f"below T = {contexts.min():.0f}" if ratio.iloc[0] > 1 else f"beyond T = {contexts.max():.0f}"

    @property
    def since(self) -> str:
        """The same as the end of a sentence: from where on our kernels are faster."""
        text = self.text
        if text.startswith("T"):
            return f"from {text} on"
        if text.startswith("below"):
            return f"at every timed context, T = {self.table['context_length'].min():.0f} and longer"
        return f"at no context up to {text.removeprefix('beyond ')}" if text.startswith("beyond") else text


def crossing(timings: Timings, heads: Sequence[int], part: str, ours: str = OURS) -> Crossing:
    """See `Crossing`; `part` is `forward` or `training`, `ours` the implementation that attention is compared with."""
    rows = of_heads(with_rooflines(timings), heads)
    rows = rows[rows["part"] == part]
    attention = rows[rows["computation"] == "attention"]
    columns = ["seconds_median", "roofline_seconds"]
    own = rows[rows["implementation"] == ours].set_index("context_length")[columns].astype(float)
    best = attention.groupby("context_length")[columns].min().astype(float)
    both = pd.concat([best, own], axis=1, join="inner").sort_index()
    both.columns = pd.Index(["attention", "attention_roofline", "cell", "cell_roofline"])
    measured = _log_crossing(both.index.to_numpy(float), (both["attention"] / both["cell"]).to_numpy())
    passes, (n_heads, d_qk, d_hv) = PASS_OF_PART[part], map(int, heads)
    shape = CellShape(batch_size=1, context_length=NUM_TOKENS, n_heads=n_heads, d_qk=d_qk, d_hv=d_hv)
    cell, carried, kept = least_kernels(shape, timings.peaks, passes)
    width = min(ATTENTION_WIDTH, n_heads * d_hv)
    attends = replace(shape, n_heads=n_heads * d_hv // width, d_qk=width, d_hv=width)
    by_roofline, by_flops = (
        crossing_context(attends, cell, passes=passes, hardware=peaks, carried_tile=carried, keep_states=kept)
        for peaks in (timings.peaks, None)
    )
    table = both.rename_axis("context_length").reset_index()
    return Crossing(measured=measured, by_roofline=by_roofline, by_flops=by_flops, table=table)


def measure_here() -> tuple[Timings | None, str]:
    """A quick benchmark on this machine's GPU: our kernels, plain torch and attention at one shape, about a minute.

    Returns
    -------
    The timings and an empty note; or None and a sentence that says why there are none.
    """
    try:
        import torch
    except ImportError as error:
        return None, f"There is no torch here ({error}), so nothing was timed."
    if not torch.cuda.is_available():
        return None, "This page was built on a machine without a CUDA GPU, so nothing was timed here."
    from companion.benchmarks.kernels import benchmark

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernels.jsonl"
        words = ["--quick", "--part", "forward", "training", "--implementations", "companion", "torch"]
        if (status := benchmark.main([*words, "--out", str(out)])) or not out.exists():
            return None, f"The benchmark ended with status {status} and timed nothing; run it by itself to see why."
        return load_timings(out), ""


def _log_crossing(contexts: np.ndarray, ratios: np.ndarray) -> float:
    """Context at which a ratio first passes 1 from below, straight lines between logarithms; beyond the ends NaN."""
    logs = np.log(ratios)
    for left in range(len(logs) - 1):
        if logs[left] <= 0 < logs[left + 1]:
            weight = -logs[left] / (logs[left + 1] - logs[left])
            return float(np.exp((1 - weight) * np.log(contexts[left]) + weight * np.log(contexts[left + 1])))
    return float("nan")


def gpus(path: Path, benchmark: str) -> tuple[str, ...]:
    """GPUs that a file has records of, the one of the last record at the end."""
    names = [str(record["parameters"].get("gpu")) for record in read_records(path) if record["benchmark"] == benchmark]
    return tuple(reversed(dict.fromkeys(reversed(names))))


def _cells(
    path: Path, benchmark: str, gpu: str | None, parts: Sequence[str] | None = None, everywhere: bool = False
) -> tuple[list[tuple[Any, Any]], list[dict[str, Any]]]:
    """The last result of every cell (of some parts) with its record, and these records in the order of the file.

    On one GPU, by default that of the last record, or on any of them (`everywhere`).
    """
    records = [record for record in read_records(path) if record["benchmark"] == benchmark]
    if parts is not None:
        records = [record for record in records if any(result["part"] in parts for result in record["results"])]
    known = list(dict.fromkeys(record["parameters"].get("gpu") for record in records))
    if not records:
        raise InputError(f"{path}: no record of benchmark {benchmark!r}")
    wanted = records[-1]["parameters"].get("gpu") if gpu is None else gpu
    if wanted not in known:
        raise InputError(f"{path}: no record of GPU {wanted!r}; there are {', '.join(map(str, known))}")
    last = {}
    for record in records:
        if everywhere or record["parameters"].get("gpu") == wanted:
            for result in record["results"]:
                if parts is not None and result["part"] not in parts:
                    continue
                last[tuple(result.get(name) for name in _KEY)] = (record, result)
    used = {id(record) for record, _ in last.values()}
    return list(last.values()), [record for record in records if id(record) in used]


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column that records without such a field may lack."""
    return table[name] if name in table else pd.Series(np.nan, index=table.index, dtype=object)


def _worst(errors: dict[str, float | None], names: Sequence[str]) -> float:
    values = [np.inf if errors[name] is None else float(errors[name] or 0.0) for name in names if name in errors]
    return max(values, default=np.nan)


def _version(record: dict[str, Any], implementation: str) -> str:
    """Version of the library that an implementation belongs to, where the record names it."""
    distribution = {"mlstm_kernels": "mlstm-kernels", "simple_gla": "fla-core", "gated_delta_rule": "fla-core"}
    for start, name in distribution.items():
        if implementation.startswith(start):
            return str(record["versions"].get(name) or "")
    return ""
