"""Findings on train_flops and isoflop_budget: other ways to count, integers that overflowed, wrong labels."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.formatting import name_rows
from companion.runs.findings.base import LABEL_FACTOR, MAX_ROWS_LISTED, Finding, finding
from companion.runs.overflow import wrapped_flops
from companion.runs.schema import flops_ratio, overflow_message

#: C/(6 N D) outside which a count of FLOPs needs an explanation; the paper's runs lie within 0.7 to 2.1.
USUAL_RATIO = (0.5, 3.0)
#: C / (N D) of other ways to count, and what they count.
_OTHER_COUNTS = {
    1: "multiply-adds of the forward pass only?",
    2: "the forward pass only?",
    3: "multiply-adds counted as one FLOP?",
    4: "the backward pass only?",
    8: "with the activations computed again?",
}


def ratio_range(runs: pd.DataFrame) -> dict[str, Any]:
    """C/(6 N D) of a table: min, median and max, and the rows outside `USUAL_RATIO`.

    `params` names the column that was used as N: num_active_params if a run has it.
    """
    ratio = flops_ratio(runs).to_numpy(np.float64)
    outside = _outside(ratio)
    active = "num_active_params" in runs.columns and runs["num_active_params"].notna().any()
    return {
        "params": "num_active_params" if active else "num_params",
        "min": float(ratio.min()),
        "median": float(np.median(ratio)),
        "max": float(ratio.max()),
        "num_outside": int(outside.sum()),
        "rows": runs.index[outside].tolist()[:MAX_ROWS_LISTED],
    }


def _outside(ratio: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (ratio < USUAL_RATIO[0]) | (ratio > USUAL_RATIO[1])


# ---- train_flops ---------------------------------------------------------------------------------


def flops_findings(runs: pd.DataFrame) -> list[Finding]:
    """train_flops against 6 N D: integers that overflowed, other ways to count, single rows, mixtures of experts."""
    found = []
    ratio = flops_ratio(runs).to_numpy(np.float64)
    wrapped = wrapped_flops(runs["num_params"], runs["num_tokens"], runs["train_flops"])
    left = np.ones(len(runs), dtype=bool)
    if wrapped.positions.size:
        left[wrapped.positions] = False
        found.append(finding("overflow", "train_flops", overflow_message(runs, wrapped), runs, wrapped.positions))
    for factor, words in _OTHER_COUNTS.items():
        same = left & (np.abs(ratio * 6 / factor - 1) < 0.01)
        if 2 * same.sum() >= len(runs):
            left &= ~same
            message = (
                f"column 'train_flops': {factor} N D in {same.sum()} of {len(runs)} rows "
                f"(C/(6 N D) = {factor / 6:.3f}): {words} Training, forward and backward, takes about 6 N D"
            )
            found.append(finding("flops_count", "train_flops", message, runs, same))
    found += [*_outside_findings(runs, ratio, left & _outside(ratio)), *_active_findings(runs)]
    center = float(np.median(ratio[left])) if left.any() else 1.0
    regular = np.abs(ratio / center - 1) < 1e-3
    odd = left & (np.abs(ratio / center - 1) > 0.05) & ~_outside(ratio)
    if odd.any() and regular.sum() >= 0.8 * len(runs):
        values = ", ".join(f"{value:.3g}" for value in ratio[odd][:3])
        message = (
            f"column 'train_flops': {6 * center:.3g} N D in {regular.sum()} of {len(runs)} rows, but not in "
            f"{name_rows(runs.index[odd].tolist())} (C/(6 N D) = {values})"
        )
        found.append(finding("flops_differ", "train_flops", message, runs, odd))
    return found


def _outside_findings(runs: pd.DataFrame, ratio: NDArray[np.float64], outside: NDArray[np.bool_]) -> list[Finding]:
    found = []
    active = "num_active_params" in runs.columns and runs["num_active_params"].notna().any()
    low_words = "another way to count FLOPs, or a unit that slipped"
    if not active:
        low_words = f"a mixture of experts (give N of one token in a column num_active_params), {low_words}"
    high_words = "long contexts or embeddings outside of N, another way to count FLOPs, or a unit that slipped"
    for mask, words in ((outside & (ratio < 1), low_words), (outside & (ratio > 1), high_words)):
        if mask.any():
            low, high = USUAL_RATIO
            message = (
                f"column 'train_flops': C/(6 N D) is {_span(ratio[mask])}, outside {low:g} to {high:g}, in "
                f"{mask.sum()} of {len(runs)} rows, {name_rows(runs.index[mask].tolist())}: {words}?"
            )
            found.append(finding("flops_ratio", "train_flops", message, runs, mask))
    return found


def _active_findings(runs: pd.DataFrame) -> list[Finding]:
    if "num_active_params" not in runs.columns or not runs["num_active_params"].notna().any():
        return []
    active, total = runs["num_active_params"].to_numpy(np.float64), runs["num_params"].to_numpy(np.float64)
    found = []
    if (above := active > total).any():
        rows = name_rows(runs.index[above].tolist())
        message = f"column 'num_active_params': above num_params in {rows}: are the columns exchanged?"
        found.append(finding("active_params", "num_active_params", message, runs, above))
    if (below := active < total).any():
        message = (
            f"column 'num_active_params': fits take num_params as N, {np.median((total / active)[below]):.3g} times "
            "as many (median); to fit with those of one token: companion import runs FILE "
            "--map num_params=num_active_params, or companion.runs.with_active_params"
        )
        found.append(finding("active_params", "num_active_params", message, runs, below))
    return found


def _span(values: NDArray[np.float64]) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


# ---- isoflop_budget ------------------------------------------------------------------------------


def label_findings(runs: pd.DataFrame) -> list[Finding]:
    """isoflop_budget against train_flops: a constant factor between them, and runs with the label of another budget."""
    if "isoflop_budget" not in runs.columns:
        return []
    label, flops = (runs[name].to_numpy(np.float64) for name in ("isoflop_budget", "train_flops"))
    known = ~np.isnan(label)
    found = []
    names = runs["architecture"].to_numpy(object)
    for name in pd.unique(names[known]):
        here = np.flatnonzero(known & (names == name))
        ratio = label[here] / flops[here]
        center = float(np.median(ratio))
        near = np.abs(ratio / center - 1) < 0.05
        if abs(np.log(center)) > np.log(1.1) and near.sum() >= 0.8 * here.size:
            reason = "; labels of 2 N D, the forward pass?" if abs(center * 3 - 1) < 0.05 else ""
            message = (
                f"column 'isoflop_budget': labels are {center:.3f} of train_flops in {near.sum()} of {here.size} rows "
                f"of {name}: profiles are named by the label, fitted over train_flops{reason}"
            )
            found.append(finding("label_factor", "isoflop_budget", message, runs, here[near]))
        else:
            # without one factor for all, a label is held against the compute itself, unless most are off anyway
            center = 1.0 if 2 * (np.abs(np.log(ratio)) <= np.log(LABEL_FACTOR)).sum() >= here.size else center
        wrong = here[np.abs(np.log(ratio / center)) > np.log(LABEL_FACTOR)]
        if wrong.size:
            found.append(_wrong_labels(runs, wrong, here, center))
    return found


def _wrong_labels(runs: pd.DataFrame, wrong: NDArray[np.intp], here: NDArray[np.intp], center: float) -> Finding:
    """Runs of which the label, over a factor common to all runs, is not the compute."""
    label, flops = (runs[name].to_numpy(np.float64) for name in ("isoflop_budget", "train_flops"))
    labels = np.unique(label[here])
    words = []
    for at in wrong[:3]:
        meant = labels[np.argmin(np.abs(np.log(labels / (center * flops[at]))))]
        fits = abs(np.log(meant / (center * flops[at]))) <= np.log(LABEL_FACTOR) and meant != label[at]
        belongs = f" as in runs labeled {meant:.3g}" if fits else ""
        words.append(f"row {runs.index[at]} is labeled {label[at]:.3g}, its train_flops is {flops[at]:.3g}{belongs}")
    more = f" and {wrong.size - 3} more rows" if wrong.size > 3 else ""
    return finding("label", "isoflop_budget", f"column 'isoflop_budget': {'; '.join(words)}{more}", runs, wrong)
