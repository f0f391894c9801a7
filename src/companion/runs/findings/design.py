"""Findings on the design of a table: units of N and D, rows that a command leaves out, data sets that are mixed."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from companion.formatting import cut, name_rows, plural
from companion.runs.findings.base import Finding, finding
from companion.runs.schema import COLUMNS, SHAPE_COLUMNS, used_params
from companion.runs.where import quote_column

#: Language models have more parameters, and see more tokens.
_FEW_PARAMS, _FEW_TOKENS = 1e5, 1e6
_MANY_RATIO = 1e5
_MAX_VALUES = 10


def design_findings(runs: pd.DataFrame) -> list[Finding]:
    """Units of N and D, rows that are left out, budgets without a parabola, mixed data, vocabularies and rates."""
    found = [*_magnitudes(runs), *_left_out(runs), *_small_profiles(runs), *_mixed(runs)]
    return [*found, *_several_rates(runs), *_alike_names(runs)]


def _magnitudes(runs: pd.DataFrame) -> list[Finding]:
    params, tokens = used_params(runs).to_numpy(np.float64), runs["num_tokens"].to_numpy(np.float64)
    every = np.ones(len(runs), dtype=bool)
    few = []
    if params.max() < _FEW_PARAMS:
        few.append(f"num_params at most {params.max():.6g}, in millions?")
    if tokens.max() < _FEW_TOKENS:
        few.append(f"num_tokens at most {tokens.max():.6g}, in millions or billions?")
    if few:
        column = "num_params" if params.max() < _FEW_PARAMS else "num_tokens"
        return [finding("magnitude", column, f"column {column!r}: {' '.join(few)} Write all digits", runs, every)]
    ratio = tokens / params
    if 2 * (below := ratio < 1).sum() > len(runs):
        message = (
            f"column 'num_tokens': below num_params in {below.sum()} of {len(runs)} rows, "
            f"{name_rows(runs.index[below].tolist())} (tokens per parameter {ratio.min():.2g} to {ratio.max():.2g}): "
            "are num_params and num_tokens exchanged?"
        )
        return [finding("exchanged", "num_tokens", message, runs, below)]
    if np.median(ratio) > _MANY_RATIO:
        message = f"column 'num_tokens': {np.median(ratio):.2g} tokens per parameter (median): a unit that slipped?"
        return [finding("magnitude", "num_tokens", message, runs, every)]
    return []


def _left_out(runs: pd.DataFrame) -> list[Finding]:
    """Rows with an empty cell where others have a value, of columns by which runs are chosen."""
    effects = {
        "isoflop_budget": "the IsoFLOP analysis leaves them out (fill in the budget, or drop the column: then budgets "
        "are read off gaps in train_flops)",
        "context_length": "they are left out wherever a context length is chosen",
        "experiment": "they are left out wherever an experiment is chosen",
    }
    found = []
    for column, effect in effects.items():
        if column not in runs.columns or not runs[column].notna().any():
            continue
        empty = runs[column].isna().to_numpy(bool)
        if column == "isoflop_budget" and "experiment" in runs.columns:
            other = runs["experiment"].notna() & (runs["experiment"] != "isoflop")
            empty = empty & ~other.to_numpy(bool)
        if empty.any():
            found.append(_empty_cells(runs, column, column, empty, effect))
    shapes = [column for column in SHAPE_COLUMNS if column in runs.columns and runs[column].notna().any()]
    if shapes:
        missing = runs[shapes].isna().any(axis=1).to_numpy(bool)
        if missing.any() and not missing.all():
            effect = "parameters and FLOPs cannot be counted from their shapes"
            found.append(_empty_cells(runs, shapes[0], f"{shapes[0]} or another shape", missing, effect))
    return found


def _empty_cells(runs: pd.DataFrame, column: str, what: str, empty: np.ndarray, effect: str) -> Finding:
    message = (
        f"column {column!r}: {plural(int(empty.sum()), 'run')} of {len(runs)} without {what}, "
        f"{name_rows(runs.index[empty].tolist())}: {effect}"
    )
    return finding("left_out", column, message, runs, empty)


def _small_profiles(runs: pd.DataFrame) -> list[Finding]:
    """Labeled budgets with fewer than three sizes, through which no parabola goes."""
    if "isoflop_budget" not in runs.columns or not runs["isoflop_budget"].notna().any():
        return []
    keys = ["architecture", "isoflop_budget"]
    keys += ["context_length"] if "context_length" in runs.columns and runs["context_length"].notna().any() else []
    labeled = runs[runs["isoflop_budget"].notna()]
    sizes = labeled.groupby(keys)["num_params"].transform("nunique")
    small = labeled[sizes < 3]
    if small.empty:
        return []
    budgets = sorted(small["isoflop_budget"].unique().tolist())
    named = ", ".join(f"{budget:.3g}" for budget in budgets[:5]) + (", ..." if len(budgets) > 5 else "")
    message = (
        f"column 'isoflop_budget': fewer than 3 sizes at {plural(len(budgets), 'budget')} ({named}), "
        f"{name_rows(small.index.tolist())}: no parabola goes through them"
    )
    return [finding("few_sizes", "isoflop_budget", message, runs, runs.index.isin(small.index))]


# ---- losses that cannot be compared --------------------------------------------------------------


def _mixed(runs: pd.DataFrame) -> list[Finding]:
    """Columns that split the runs of one architecture and design into a few kinds: data sets, tokenizers."""
    design = [
        name
        for name in ("architecture", "experiment", "context_length")
        if name in runs.columns and runs[name].notna().any()
    ]
    found = []
    texts = [name for name in runs.columns if name not in COLUMNS and not pd.api.types.is_numeric_dtype(runs[name])]
    for name in [*texts, *(["vocab_size"] if "vocab_size" in runs.columns else [])]:
        counts = runs[name].value_counts()
        if not 2 <= len(counts) <= _MAX_VALUES or counts.min() < 2:
            continue
        kinds = runs.groupby(design, dropna=False)[name].nunique()
        sizes = runs.groupby(name)["num_params"].nunique()
        if (kinds > 1).any() and ((sizes > 1).any() or name == "vocab_size"):  # else the values are names of sizes
            found.append(_mixture(runs, str(name), counts))
    return found


def _mixture(runs: pd.DataFrame, name: str, counts: pd.Series) -> Finding:
    numeric = name in COLUMNS
    first = f"{counts.index[0]:g}" if numeric else repr(str(counts.index[0]))
    values = cut(", ".join(f"{value:g}" if numeric else str(value) for value in counts.index), 100)
    reason = "losses per token of other vocabularies" if numeric else "losses on other data"
    message = (
        f"column {name!r}: {len(counts)} values in runs of one architecture ({values}); {reason} cannot be compared: "
        f'choose with --where "{quote_column(name)} == {first}"'
    )
    return finding("mixed", name, message, runs, runs[name].notna().to_numpy(bool))


def _several_rates(runs: pd.DataFrame) -> list[Finding]:
    """Configurations that were trained at several learning rates, as in a sweep that looks for the best one."""
    if "learning_rate" not in runs.columns or not runs["learning_rate"].notna().any():
        return []
    others = ("context_length", "vocab_size", "batch_size_seqs", "train_steps", "seed")
    keys = ["architecture", "num_params", "num_tokens", *(name for name in others if name in runs.columns)]
    several = _several(runs, keys)
    if not several.any():
        return []
    choose = "choose with --where"
    kinds = list(runs["experiment"].value_counts().index) if "experiment" in runs.columns else []
    for name in reversed(kinds if len(kinds) > 1 else []):  # the smallest first
        if not _several(runs[runs["experiment"] != name], keys).any():
            choose = f'leave them out with --where "experiment != {str(name)!r}"'
            break
    number = runs[several].groupby(keys, dropna=False).ngroups
    message = (
        f"column 'learning_rate': several rates for {plural(number, 'configuration')} that are otherwise alike, "
        f"{name_rows(runs.index[several].tolist())}: a fit of all rows takes a bad rate for scatter; {choose}"
    )
    return [finding("several_rates", "learning_rate", message, runs, several)]


def _several(runs: pd.DataFrame, keys: list[str]) -> np.ndarray:
    """Whether the configuration of a run has several learning rates."""
    return (runs.groupby(keys, dropna=False)["learning_rate"].transform("nunique") > 1).to_numpy(bool)


def _alike_names(runs: pd.DataFrame) -> list[Finding]:
    """Architectures whose names differ only in signs: llama2 and llama-2."""
    by_letters: dict[str, list[str]] = {}
    for name in _names(runs["architecture"].unique()):
        by_letters.setdefault("".join(filter(str.isalnum, name)), []).append(name)
    found = []
    for names in by_letters.values():
        if len(names) > 1:
            message = f"column 'architecture': {', '.join(names)} count as {len(names)} architectures; is it one?"
            mask = runs["architecture"].isin(names).to_numpy(bool)
            found.append(finding("alike_names", "architecture", message, runs, mask))
    return found


def _names(values: Iterable[object]) -> list[str]:
    return sorted(map(str, values))
