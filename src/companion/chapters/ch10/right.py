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
from companion.chapters.kernel_tables import short_name
from companion.formatting import listed, percent, plural, power_of_ten, significant
from companion.plotting import Html, show, show_table

PARTS = {
    "checks": "sequences",
    "step-checks": "single steps",
    "configurations": "all configurations",
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
        name="kernel-checks",
        caption="Checks that our kernels pass, by what was checked and in which dtype: all chunk lengths and both "
        "backward passes (the one without the normalizer's gradient for an orthogonal upstream gradient). Beside them "
        "the largest error over what is allowed, and the largest relative errors of any case, hard ones included. "
        f"{' and '.join(ours['gpu'].unique())}.{_too_large(int(own['skipped'].sum()))}",
        formats={"worst_over_allowed": "{:.2f}", "error_h": small, "error_gradients": small},
        labels={"part": "checked", "worst_over_allowed": "largest error / allowed", "error_h": "largest error of h"}
        | {"error_gradients": "largest error of a gradient"},
    )


def show_errors(checks: pd.DataFrame) -> Html:
    """Errors of all implementations in bf16, a dot per case that peers ran (or of gates, without peers)."""
    rows = error_rows(checks)
    regimes = {case for case in rows["case"] if case.startswith("regime_")}
    shared = rows[rows["case"].isin(peer_cases(checks) or regimes) & (rows["part"] == "checks")]
    shared = shared[(shared["dtype"] == "bfloat16") & ~shared["implementation"].str.contains("detached")]
    return show(
        record_figures.error_strip(shared.assign(implementation=shared["implementation"].map(short_name)), TOLERANCE),
        name="kernel-errors",
        alt="Errors by implementation, a dot per case: ours below 0.01; mlstm_kernels near 1 for general upstream "
        "gradients.",
        caption=f"Errors in bf16 on the {shared['case'].nunique()} cases "
        f"{'that published kernels ran' if peer_cases(checks) else 'of gates'}, one mark per case. Dotted: "
        f"{TOLERANCE}, above which nothing is timed. Kernels that leave the normalizer's gradient out are also checked "
        "with an upstream gradient orthogonal to h. Kernels with limit_chunk and xl_chunk in their name are those of "
        "mlstm_kernels.",
    )


def show_peers(checks: pd.DataFrame) -> Html:
    """How many cases published kernels pass in bf16, by upstream gradient, and their median errors."""
    found, _ = peer_rows(checks)
    caption = (
        "Published kernels in bf16, by upstream gradient: cases that pass the bounds that ours must pass, median "
        "errors over the cases, and cases with a number that is not finite. A kernel that only raised an error has "
        "no row."
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
    table["implementation"] = table["implementation"].map(short_name)
    return show_table(
        table,
        name="kernel-peers",
        caption=caption,
        formats=dict.fromkeys(("error_h", "gradients"), lambda v: small(v) if np.isfinite(v) else "not finite"),
        labels={"implementation": "kernel", "upstream": "upstream gradient", "of": "passed", "lost": "not finite"}
        | {"error_h": "error of h", "gradients": "error of the worst gradient"},
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
    labels = {name: _without_detached(name) for name in names}
    return show_table(
        table.reset_index(),
        name="kernel-regimes",
        caption="Error of df̃ by regime of the gates. Relative, in bf16, for an upstream gradient orthogonal to h: ours "
        "beside two forms of mlstm_kernels. In the regime “open”, f̃ lies around 30.",
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
    """A verdict: where our error of df̃ is the smallest, and the largest of each implementation with its regime."""
    table = forget_gates(checks)
    if len(table.columns) < 2:
        return "It was not run on this GPU"
    found = [
        f"{small(column.max())} for {_in_prose(name)} with gates “{column.idxmax()}”"
        if np.isfinite(column).all()
        else f"not finite for {_in_prose(name)}"
        for name, column in table.items()
    ]
    best = int((table.idxmin(axis=1) == table.columns[0]).sum())
    where = "every regime" if best == len(table) else f"{best} of {len(table)} regimes"
    return f"Ours has the smallest error in {where} of the gates. The largest errors are {listed(found)}"


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
    cases = f"lengths from {min(lengths)} to {max(lengths):,} tokens, heads from {min(widths)} to {max(widths)} wide"
    ours = checks[checks["implementation"].str.startswith(OURS)]
    return {
        "c10_cases": cases if ran else "none here",
        "c10_gpus": listed(list(by_gpu(folder / "kernel_checks.jsonl"))),
        "c10_underflow": underflow_verdict(ours),
        "c10_silent": silent_verdict(checks),
        "c10_prediction": forget_gate_verdict(checks),
        "c10_right": peer_verdict(checks),
        "c10_passed": passed_verdict(ours),
    }


def by_gpu(path: Path) -> Iterable[str]:
    """For every GPU how many cells our kernels pass, and whether the records are of an earlier state of them."""
    for gpu in gpus(path, CHECKS):
        there = load_checks(path, gpu)
        there = there[there["implementation"].str.startswith(OURS) & (there["verdict"] != "skipped")]
        before = (there["code"] != identity_today().code).sum()
        part = "" if before == len(there) else f"{before} of them "
        kind = f" ({part}with an earlier state of the code)" if before else ""
        if len(there):
            yield f"{(there['verdict'] == 'pass').sum():,} of {len(there):,} checks on {gpu}{kind}"


def underflow_verdict(ours: pd.DataFrame) -> str:
    """A verdict: whether results that pass are too small for their dtype."""
    rows = error_rows(ours)
    gone = rows[(rows["verdict"] == "pass") & (rows["error_h"].astype(float) > 0.5)]
    if not len(gone):
        return "No result is too small for its dtype"
    names, dtypes = ", ".join(_words(gone["case"]).unique()), ", ".join(gone["dtype"].unique())
    return (
        f"Where an error of h above a half passes, the numbers are too small for {dtypes}, which holds zero instead "
        f"(regime of the gates: {names})"
    )


def silent_verdict(checks: pd.DataFrame) -> str:
    """A verdict: which published kernels raised an exception instead of giving a result."""
    _, silent = peer_rows(checks)
    error = silent["reason"].astype(str).str.removeprefix("gradients: ").str.split(":").str[0]
    found = []
    for (name, kind), rows in silent.assign(error=error).groupby(["implementation", "error"], sort=False):
        found.append(f"{_in_prose(name)} in {plural(rows['case'].nunique(), 'case')} ({kind})")
    return f"Instead of a result, an exception came from {listed(found)}" if found else "None raised an exception"


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


def peer_verdict(checks: pd.DataFrame) -> str:
    """A verdict: how many cases in bf16 the forms of `mlstm_kernels` pass, by upstream gradient."""
    found, _ = peer_rows(checks)
    name = found["implementation"]
    theirs = found[name.str.startswith("mlstm_kernels") & ~name.str.contains("sigmoid")]
    passes, errors = [], []
    for upstream, rows in theirs.groupby("upstream", sort=False):
        number = int((rows["verdict"] == "pass").sum())
        article = "an" if upstream == "orthogonal" else "a"
        passes.append(f"{number or 'none'} of {len(rows)} cases with {article} {upstream} upstream gradient")
        errors.append(_median_error(rows["error_gradients"]))
    if not passes:
        return "No published kernel was run"
    versions = ", ".join(sorted(set(theirs["version"])))
    return (
        f"Over all chunk lengths, the two forms of mlstm_kernels {versions} pass {listed(passes)}; the median error of "
        f"the worst gradient is {listed(errors)}"
    )


def _median_error(errors: pd.Series) -> str:
    """The median over the cases that gave a gradient, as `small` writes it."""
    median = errors.astype(float).median()
    return small(median) if np.isfinite(median) else "not finite"


def _too_large(number: int) -> str:
    """For a caption: how many checks do not fit the GPU; empty if all do."""
    return f" {plural(number, 'check')} more did not fit the GPU." if number else ""


def _without_detached(name: str) -> str:
    return short_name(name).replace(", detached", "")


def _in_prose(name: object) -> str:
    """An implementation in a sentence: `xl_chunk (L = 128)`."""
    short, _, chunk = _without_detached(str(name)).partition(", ")
    return f"{short} ({chunk})" if chunk else short


def _error_of_gate(value: float) -> str:
    if not np.isfinite(value):
        return "not finite"
    return percent(value, 2) if value < 10 else power_of_ten(value, 1)


def _words(cases: pd.Series) -> pd.Series:
    return cases.str.removeprefix("regime_").str.replace("_", " ")
