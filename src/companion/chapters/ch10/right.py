"""Chapter 10: are the kernels right? Checks of ours and of published ones."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from companion.benchmarks.kernels.cases import all_cases
from companion.benchmarks.kernels.gate import TOLERANCE
from companion.benchmarks.kernels.identity import identity_today
from companion.benchmarks.kernels.results import (
    CHECKS,
    OURS,
    OURS_DETACHED,
    error_rows,
    gpus,
    load_checks,
    peer_cases,
    tensor_errors,
    verdicts,
)
from companion.chapters.ch10 import record_figures
from companion.chapters.ch10.forms import small
from companion.formatting import percent, power_of_ten, significant
from companion.plotting import Html, show, show_table

PARTS = {
    "checks": "sequences",
    "step-checks": "single steps",
    "configurations": "every configuration",
    "long": "65,536 tokens",
}
#: Implementations whose gradient of the forget gate is compared by regime of the gates.
BY_REGIME = (f"{OURS_DETACHED}, chunk 64", "mlstm_kernels limit_chunk, chunk 64", "mlstm_kernels xl_chunk, chunk 128")


def show_verdicts(ours: pd.DataFrame) -> Html:
    """How many checks our kernels pass, by part and dtype, and their largest errors."""
    own = verdicts(ours, ["part", "dtype"])
    worst = error_rows(ours).groupby(["part", "dtype"])[["error_h", "error_gradients"]].max()
    own = own.join(worst, on=["part", "dtype"])
    own["passed"] = own["passed"].astype(str) + " of " + own["cells"].astype(str)
    columns = ["part", "dtype", "passed", "worst_over_allowed", "error_h", "error_gradients"]
    return show_table(
        own.assign(part=own["part"].map(PARTS))[columns],
        caption="Our kernels: all chunk lengths and both backward passes (the cheaper one with an orthogonal upstream "
        "gradient). Largest error over what is allowed, and largest relative errors of any case, hard ones included; "
        f"{' and '.join(ours['gpu'].unique())}. {own['skipped'].sum()} cells do not fit the GPU.",
        formats={"worst_over_allowed": "{:.2f}", "error_h": small, "error_gradients": small},
        labels={"part": "checked", "worst_over_allowed": "largest/allowed", "error_h": "error of h"}
        | {"error_gradients": "of a gradient"},
    )


def show_errors(checks: pd.DataFrame) -> Html:
    """Errors of all implementations in bf16, a dot per case that peers ran (or of gates, without peers)."""
    rows = error_rows(checks)
    regimes = {case for case in rows["case"] if case.startswith("regime_")}
    shared = rows[rows["case"].isin(peer_cases(checks) or regimes) & (rows["part"] == "checks")]
    shared = shared[(shared["dtype"] == "bfloat16") & ~shared["implementation"].str.contains("detached")]
    return show(
        record_figures.error_strip(shared, TOLERANCE),
        name="kernel-errors",
        alt="Errors by implementation, a dot per case: ours below 0.01; mlstm_kernels near 1 for general upstream "
        "gradients.",
        caption=f"bf16 on the {shared['case'].nunique()} cases "
        f"{'that peers ran' if peer_cases(checks) else 'of gates'}, one dot each. Dotted: {TOLERANCE}, above which "
        "nothing is timed. Kernels without the normalizer's gradient are judged for an upstream gradient orthogonal "
        "to h as well.",
    )


def show_peers(checks: pd.DataFrame) -> Html:
    """How many cases published kernels pass in bf16, by upstream gradient, and their median errors."""
    found, _ = peer_rows(checks)
    caption = (
        "Published kernels in bf16 by upstream gradient (one that only raised an error has no row: see below): cases "
        "that pass the same bounds as ours, median errors over the cases, and cases with a number that is not finite."
    )
    if not len(found):
        note = "no other implementation was checked on this GPU"
        return show_table(pd.DataFrame({"note": [note]}), caption=caption)
    keys = ["implementation", "upstream"]
    table = verdicts(checks.loc[found.index], keys)
    columns = found.groupby(keys).agg(
        error_h=("error_h", "median"), gradients=("error_gradients", "median"), lost=("lost", "sum")
    )
    table["of"] = table["passed"].astype(str) + " of " + table["cells"].astype(str)
    table = table.join(columns, on=keys)[[*keys, "of", *columns]]
    names = table["implementation"].str.removeprefix("mlstm_kernels ")
    table["implementation"] = names.str.replace(", chunk", ", L =")
    return show_table(
        table,
        caption=caption,
        formats=dict.fromkeys(("error_h", "gradients"), lambda v: small(v) if np.isfinite(v) else "not finite"),
        labels={"implementation": "kernel", "of": "passed", "error_h": "error of h", "gradients": "worst gradient"}
        | {"lost": "not finite"},
    )


def peer_rows(checks: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors of published kernels in bf16: cells with numbers (`lost`: one is not finite), and cells without any.

    The second raised an exception: they are neither right nor wrong.
    """
    theirs = checks[~checks["implementation"].str.startswith(OURS)]
    theirs = error_rows(theirs[(theirs["part"] == "checks") & (theirs["dtype"] == "bfloat16")])
    errors = theirs[["error_h", "error_gradients"]].astype(float)
    theirs = theirs.assign(lost=(errors == np.inf).any(axis=1))
    silent = errors.isna().all(axis=1)
    return theirs[~silent], theirs[silent]


def show_forget_gates(checks: pd.DataFrame) -> Html:
    """Relative error of df̃ in bf16 by regime of the gates, ours beside two published forms."""
    table = forget_gates(checks)
    names = [str(name) for name in table]
    labels = {
        n: n.replace(OURS_DETACHED, "ours").removeprefix("mlstm_kernels ").replace(", chunk", ", L =") for n in names
    }
    return show_table(
        table.reset_index(),
        caption="Relative error of df̃ in bf16 by regime of the gates, upstream gradient orthogonal to h: ours beside "
        "two forms of mlstm_kernels. Open: f̃ around 30.",
        formats=dict.fromkeys(names, _error_of_gate),
        labels=labels,
    )


def forget_gates(checks: pd.DataFrame) -> pd.DataFrame:
    """Errors of df̃ by regime of the gates (index `gates`), a column per implementation of `BY_REGIME` that was run."""
    rows = checks[checks["case"].str.startswith("regime_") & (checks["dtype"] == "bfloat16")]
    rows = rows[(rows["upstream"] == "orthogonal") & rows["implementation"].isin(BY_REGIME)]
    rows = rows[(rows["part"] == "checks") & (rows["verdict"] != "skipped")]
    rows = rows.assign(df=tensor_errors(rows, "df"), gates=_words(rows["case"]))
    table = rows.pivot_table("df", "gates", "implementation", aggfunc="max", sort=False)
    return table[[name for name in BY_REGIME if name in table]]


def forget_gate_verdict(checks: pd.DataFrame) -> str:
    """A verdict: the largest error of df̃ of each implementation, with its regime."""
    table = forget_gates(checks)
    if len(table.columns) < 2:
        return "It was not run on this GPU"
    found = [
        f"{str(name).replace(OURS_DETACHED, 'ours')} {small(column.max())} ({column.idxmax()})"
        if np.isfinite(column).all()
        else f"{name} a number that is not finite"
        for name, column in table.items()
    ]
    return f"The largest of each: {', '.join(found)}"


def check_facts(folder: Path, checks: pd.DataFrame) -> dict[str, object]:
    """Everything that the page's prose says about checks.

    Parameters
    ----------
    folder
        with `kernel_checks.jsonl`.
    checks
        of `load_checks` on that file.
    """
    ran = [case for case in all_cases() if case.name in set(checks["case"])]
    lengths, widths = [case.context_length for case in ran], [d for case in ran for d in (case.d_qk, case.d_hv)]
    cases = f"lengths from {min(lengths)} to {max(lengths):,} tokens, heads from {min(widths)} to {max(widths)}"
    ours = checks[checks["implementation"].str.startswith(OURS)]
    own, peers = passed_verdict(ours), peer_verdicts(checks)
    return {
        "c10_cases": cases if ran else "none here",
        "c10_gpus": ", ".join(by_gpu(folder / "kernel_checks.jsonl")),
        "c10_underflow": underflow_verdict(ours),
        "c10_silent": silent_verdict(checks),
        "c10_prediction": forget_gate_verdict(checks),
        "c10_right": peers[1],
        "c10_answer_right": own + peers[0],
    }


def by_gpu(path: Path) -> Iterable[str]:
    """For every GPU how many cells our kernels pass, and whether the records are of an earlier state of them."""
    for gpu in gpus(path, CHECKS):
        there = load_checks(path, gpu)
        there = there[there["implementation"].str.startswith(OURS) & (there["verdict"] != "skipped")]
        before = (there["code"] != identity_today().code).sum()
        kind = f" ({'' if before == len(there) else f'{before} of them by '}an earlier state)" if before else ""
        if len(there):
            yield f"on {gpu} our kernels pass {(there['verdict'] == 'pass').sum():,} of {len(there):,} cells{kind}"


def underflow_verdict(ours: pd.DataFrame) -> str:
    """A verdict: whether results that pass are too small for their dtype."""
    rows = error_rows(ours)
    gone = rows[(rows["verdict"] == "pass") & (rows["error_h"].astype(float) > 0.5)]
    if not len(gone):
        return "No result is too small for its dtype"
    names, dtypes = ", ".join(_words(gone["case"]).unique()), ", ".join(gone["dtype"].unique())
    return (
        f"Errors of h above a half that pass are numbers too small for {dtypes}, which holds zero instead "
        f"(gates: {names})"
    )


def silent_verdict(checks: pd.DataFrame) -> str:
    """A verdict: which published kernels raised an exception instead of giving a result."""
    _, silent = peer_rows(checks)
    error = silent["reason"].astype(str).str.removeprefix("gradients: ").str.split(":").str[0]
    found = []
    for (name, kind), rows in silent.assign(error=error).groupby(["implementation", "error"], sort=False):
        found.append(f"{name} ({kind}, {rows['case'].nunique()} cases)")
    return f"An exception instead of a result came from {', '.join(found)}" if found else "None raised an exception"


def passed_verdict(ours: pd.DataFrame) -> str:
    """A verdict: how many checks our kernels pass, and whether the records are of an earlier state of the code."""
    run = ours[ours["verdict"] != "skipped"]
    before = (run["code"] != identity_today().code).sum()
    which = "the records" if before == len(run) else f"{before} of them"
    stale = f" ({which} are of an earlier state of this code)" if before else ""
    largest, passed = pd.to_numeric(run["worst_over_allowed"]).max(), (run["verdict"] == "pass").sum()
    return (
        f"Our kernels pass {passed:,} of {len(run):,} checks; the largest error is {significant(largest, 2)} times "
        f"what is allowed{stale}"
    )


def peer_verdicts(checks: pd.DataFrame) -> tuple[str, str]:
    """Two verdicts on `mlstm_kernels`: the end of the page's answer (empty without peers), a sentence with errors."""
    found, _ = peer_rows(checks)
    name = found["implementation"]
    theirs = found[name.str.startswith("mlstm_kernels") & ~name.str.contains("sigmoid")]
    theirs = theirs.assign(chunk=theirs["implementation"].str.extract(r"chunk (\d+)$")[0].astype(int))
    passes, with_errors = [], []
    for upstream, rows in theirs.groupby("upstream", sort=False):
        by_chunk = [(chunk, part["verdict"], part["error_gradients"].median()) for chunk, part in rows.groupby("chunk")]
        counts = ", ".join(
            f"{(verdict == 'pass').sum()} of {len(verdict)} at L = {chunk}" for chunk, verdict, _ in by_chunk
        )
        errors = ", ".join(
            f"{percent(e) if np.isfinite(e) else 'not finite'} at L = {chunk}" for chunk, _, e in by_chunk
        )
        gradient = f"{'an' if upstream == 'orthogonal' else 'a'} {upstream} upstream gradient"
        passes.append(f"{counts} for {gradient}")
        with_errors.append(f"With {gradient} {counts}; median error of the worst gradient {errors}")
    if not passes:
        return "", "No peer was run"
    versions = ", ".join(sorted(set(theirs["version"])))
    return (
        f". Both forms of mlstm_kernels {versions} together pass, in bf16, {'; '.join(passes)}",
        f"Cases that both forms of mlstm_kernels pass. {'. '.join(with_errors)}",
    )


def _error_of_gate(value: float) -> str:
    if not np.isfinite(value):
        return "not finite"
    return percent(value, 2) if value < 10 else power_of_ten(value, 1)


def _words(cases: pd.Series) -> pd.Series:
    return cases.str.removeprefix("regime_").str.replace("_", " ")
