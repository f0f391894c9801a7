"""Which ratio of tokens to parameters every run of an over-training study belongs to.

The runs of the paper (arXiv 2510.02228) scatter up to 18 % above the ratios that they aim at, so they carry the names
of those presets. Any other table keeps its own ratios: runs whose D/N lie together form a group that is named by its
own value, and runs outside of every group are reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import NotApplicable
from companion.runs.groups import split_at_gaps

#: Tokens per parameter that the Token/Param runs of the paper aim at.
PRESET_RATIOS = (22.0, 44.0, 110.0, 220.0, 550.0, 1100.0, 2200.0)
#: A run of the paper belongs to a preset when its ratio is this close to it.
RATIO_TOLERANCE = 0.18
#: Gaps in log10 of D/N that may separate two ratios, the finest first.
GAPS = (0.02, 0.04, 0.08, 0.12)
#: A line needs this many runs of different compute.
MIN_RUNS = 3
#: A clear gap is taken as long as it leaves this share of the runs in groups that have a line.
_KEPT = 2 / 3
#: A gap is clear when the steps between groups are this many times those within; steps below `_ROUNDING` are none.
_CLEAR, _ROUNDING = 3.0, 0.002
#: A ratio may be named by a number this close to it, relative: D and N are rounded.
_EXACT = 0.005
_LISTED = 8
#: Designs whose runs are no lines of over-training.
_OTHERS = ("isoflop", "learning_rate")

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RatioGroups:
    """`ratios`, shape (n,): the ratio that a run belongs to, NaN for none; `warnings` on runs that belong to none."""

    ratios: Array
    warnings: tuple[str, ...]


def tokens_per_param_preset(runs: pd.DataFrame, tolerance: float = RATIO_TOLERANCE) -> Array:
    """The preset ratio of every run of the paper's Token/Param design; NaN where none is within 18 %.

    Parameters
    ----------
    runs
        a run table, n rows; where it has no column `experiment`, every run counts.
    tolerance
        relative distance from the preset, above 0.

    Returns
    -------
    array
        float64, shape (n,).
    """
    ratio = _ratio(runs)
    presets = np.array(PRESET_RATIOS)
    nearest = presets[np.argmin(np.abs(np.log(ratio[:, None] / presets)), axis=1)]
    result = np.where(np.abs(ratio / nearest - 1) <= tolerance, nearest, np.nan)
    if "experiment" in runs:
        result[(runs["experiment"] != "tokenparam").to_numpy()] = np.nan
    return result


def group_by_ratio(runs: pd.DataFrame, tolerance: float = RATIO_TOLERANCE) -> RatioGroups:
    """The ratio of every run, by the paper's presets where the runs aim at them, by their own values otherwise.

    Where the column `experiment` has runs of the design `tokenparam`, only those count; otherwise all but those of
    `isoflop` and `learning_rate`.

    Parameters
    ----------
    runs
        a run table of one architecture, n rows.
    tolerance
        of `tokens_per_param_preset`.

    Raises
    ------
    NotApplicable
        if all runs are of these designs, or the ratios are spread without a gap.
    """
    chosen = _of_the_design(runs)
    part = runs[chosen]
    ratios = np.full(len(runs), np.nan)
    usual = tokens_per_param_preset(part)
    if "experiment" in part and _aims_at_presets(_ratio(part), usual):
        presets = tokens_per_param_preset(part, tolerance)
        # a run that only a narrower window leaves out belongs to no other ratio
        rest = ~(np.isfinite(usual) | np.isfinite(presets))
        if rest.any():
            presets[rest] = _clustered(_ratio(part)[rest], _flops(part)[rest])
        ratios[chosen] = presets
    else:
        ratios[chosen] = ratio_groups(part)
    notes = _outsiders(_ratio(part)[~np.isfinite(ratios[chosen])])
    if unused := len(runs) - len(part):
        kinds = ", ".join(sorted(map(str, runs.loc[~chosen, "experiment"].dropna().unique()))) or "none named"
        notes.append(f"{unused} run{'s' * (unused > 1)} of another design left out (column experiment: {kinds})")
    return RatioGroups(ratios=ratios, warnings=tuple(notes))


def ratio_groups(runs: pd.DataFrame) -> Array:
    """A ratio of tokens to parameters for every run, found from the table, shape (n,); NaN for runs in no group.

    Runs are sorted by log10 of D/N, and a gap starts a new group. The gap is the finest of `GAPS` that stands out from
    the scatter within groups (exact ratios may lie close together), else the one with most runs in groups of at least
    three. A group is named by its geometric mean, to as few digits (2 to 4) as its own scatter allows. Runs of the
    designs `isoflop` and `learning_rate`, where the table says so, belong to none.

    Raises
    ------
    NotApplicable
        if most runs are spread without a gap, so that they form no separate ratios, or all are of these designs.
    """
    chosen = _of_the_design(runs)
    result = np.full(len(runs), np.nan)
    result[chosen] = _clustered(_ratio(runs)[chosen], _flops(runs)[chosen], refuse=True)
    return result


def distinct_computes(train_flops: ArrayLike) -> int:
    """How many values of C there are, to three decimals of log10: what differs by rounding is one value."""
    return int(np.unique(np.round(np.log10(np.asarray(train_flops, dtype=float)), 3)).size)


def _ratio(runs: pd.DataFrame) -> Array:
    return (runs["num_tokens"] / runs["num_params"]).to_numpy(dtype=float)


def _flops(runs: pd.DataFrame) -> Array:
    flops = runs["train_flops"] if "train_flops" in runs else 6.0 * runs["num_params"] * runs["num_tokens"]
    return np.asarray(flops, dtype=float)


def _of_the_design(runs: pd.DataFrame) -> NDArray[np.bool_]:
    if "experiment" not in runs:
        return np.ones(len(runs), dtype=bool)
    kinds = runs["experiment"]
    chosen = (kinds == "tokenparam" if (kinds == "tokenparam").any() else ~kinds.isin(_OTHERS)).to_numpy(dtype=bool)
    if len(runs) and not chosen.any():
        named = " or ".join(name for name in _OTHERS if (kinds == name).any())
        raise NotApplicable(
            f"over-training: all {len(runs)} runs are of the design {named} (column experiment); no ratio of tokens to "
            "parameters has three runs of another"
        )
    return chosen


def _aims_at_presets(ratio: Array, presets: Array) -> bool:
    """Whether all groups of at least three runs look like the paper's: scattered upwards from their preset.

    Not below it, on average no further above than they scatter, and not several exact ratios in the window of one.
    """
    judged, exact = [], np.log10(1 + _EXACT)
    for preset in np.unique(presets[np.isfinite(presets)]):
        logs = np.log10(ratio[presets == preset] / preset)
        if logs.size >= MIN_RUNS:
            parts = split_at_gaps(logs, GAPS[0]) if _stands_out(logs, GAPS[0]) else []
            several = sum(part.size >= MIN_RUNS for part in parts) > 1
            judged.append(logs.min() > -exact and logs.mean() <= max(np.ptp(logs), exact) and not several)
    return bool(judged) and all(judged)


def _clustered(ratio: Array, flops: Array, *, refuse: bool = False) -> Array:
    logs = np.log10(ratio)

    def narrow(cluster: NDArray[np.intp], gap: float) -> bool:
        return bool(np.ptp(logs[cluster]) <= 2 * gap)

    def with_a_line(clusters: Sequence[NDArray[np.intp]], gap: float) -> int:
        return sum(c.size for c in clusters if narrow(c, gap) and distinct_computes(flops[c]) >= MIN_RUNS)

    splits = {gap: split_at_gaps(logs, gap) for gap in GAPS}
    scores = {gap: with_a_line(clusters, gap) for gap, clusters in splits.items()}
    best = max(scores.values())
    clear = [g for g in GAPS if scores[g] >= _KEPT * best and _stands_out(logs, g)]
    fullest = [g for g in GAPS if scores[g] == best]
    gap = (clear or fullest)[0] if best else GAPS[-1]
    chained = [cluster for cluster in splits[GAPS[-1]] if not narrow(cluster, GAPS[-1])]
    if refuse and sum(cluster.size for cluster in chained) > len(logs) / 2 > scores[gap]:
        longest = max(chained, key=len)
        raise NotApplicable(
            f"over-training: tokens per parameter of {longest.size} runs from {ratio[longest].min():.3g} to "
            f"{ratio[longest].max():.3g} form no separate ratios (no gap above {GAPS[-1]:g} in log10)"
        )
    result = np.full(len(logs), np.nan)
    for cluster in splits[gap]:
        if narrow(cluster, gap):
            result[cluster] = _label(logs[cluster])
    return result


def _stands_out(logs: Array, gap: float) -> bool:
    steps = np.diff(np.sort(logs))
    within, between = steps[steps <= gap], steps[steps > gap]
    return not between.size or bool(between.min() >= _CLEAR * max(within.max(initial=0.0), _ROUNDING))


def _label(logs: Array) -> float:
    mean = float(10 ** logs.mean())
    allowed = max(_EXACT, (10 ** float(np.ptp(logs)) - 1) / 2)
    names = [float(f"{mean:.{digits}e}") for digits in (1, 2, 3)]
    return next((name for name in names if abs(name / mean - 1) <= allowed), names[-1])


def _outsiders(ratio: Array) -> list[str]:
    if not ratio.size:
        return []
    listed = ", ".join(f"{value:.3g}" for value in np.sort(ratio)[:_LISTED])
    if ratio.size > _LISTED:
        listed = f"{ratio.min():.3g} to {ratio.max():.3g}"
    runs = "1 run belongs" if ratio.size == 1 else f"{ratio.size} runs belong"
    return [f"{runs} to no ratio of tokens to parameters and {'is' if ratio.size == 1 else 'are'} left out: {listed}"]
