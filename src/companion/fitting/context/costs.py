"""What the sequence mixer costs at the optimum, and what a law says of contexts that nobody trained at.

Everything here beyond the measured contexts is extrapolation twice over: the law keeps its form, and the loss keeps
depending on N and D alone. Tables say so row by row.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import forward_flops
from companion.errors import InputError
from companion.fitting.bootstrap import interval_with_lost
from companion.fitting.context.prediction import Explanation, paired_laws
from companion.fitting.context.scaling import ContextFit
from companion.laws import compute_for_loss, optimum
from companion.runs.shape_family import FamilyScale, ShapeFamily

#: 2k to 1M tokens in powers of two.
FAR_CONTEXTS = tuple(2**k for k in range(11, 21))


def mixer_shares(
    family: ShapeFamily, num_params: Any, context_length: float, convention: str | Convention = PAPER
) -> tuple[Any, Any]:
    """Shares of the mixer in the training FLOP of the family's model of N parameters, any shape.

    Returns
    -------
    core, mixer
        between 0 and 1: attention or mLSTM cell alone; with the projections and the output gate around it.
    """
    parts = forward_flops(family.at(num_params), float(context_length), get_convention(convention))
    return parts.mixer_core / parts.total, (
        parts.mixer_core + parts.mixer_projections + parts.output_gate
    ) / parts.total


def shares_at_optima(
    measured: ContextFit, family: ShapeFamily, convention: str | Convention = PAPER, level: float = 0.95
) -> pd.DataFrame:
    """Shares of the mixer at the measured N\\*.

    Returns
    -------
    DataFrame
        with `isoflop_budget`, `context_length`, `num_params`, and `core_share` and `mixer_share` (see `mixer_shares`),
        each with `_low` and `_high` from the resampled optima.
    """
    rows = []
    for each in measured.optima:
        if each.quantity != "num_params" or not np.isfinite(each.x_opt):
            continue
        sizes = np.concatenate([[each.x_opt], each.x_opt_resamples])
        sizes = sizes[np.isfinite(sizes)]
        row = {"isoflop_budget": each.isoflop_budget, "context_length": each.context_length}
        row |= {"num_params": each.x_opt}
        for name, values in zip(
            ("core_share", "mixer_share"), mixer_shares(family, sizes, each.context_length, convention), strict=True
        ):
            row |= _with_interval(name, values, level)
        rows.append(row)
    return pd.DataFrame(rows)


def optimum_by_context(
    explanation: Explanation,
    train_flops: float,
    context_lengths: Sequence[float] = FAR_CONTEXTS,
    level: float = 0.95,
    convention: str | Convention | None = None,
) -> pd.DataFrame:
    """The compute-optimal model of the law at each context, with intervals of the resampled laws.

    Parameters
    ----------
    convention
        what counts; that of the explanation if not given.

    Returns
    -------
    DataFrame
        with `context_length`, `num_params`, `num_tokens`, `tokens_per_param`, `loss` (nats per token), `core_share`,
        `mixer_share`, each with `_low` and `_high`; `beyond_contexts` (T outside the measured contexts), `beyond_sizes`
        (N\\* outside the sizes that were trained) and `beyond_compute` (C outside the runs of the law).
    """
    laws, family = paired_laws(explanation.bootstrap), explanation.family
    chosen = explanation.convention if convention is None else get_convention(convention)
    known, runs = explanation.measured.context_lengths, explanation.measured.runs
    smallest, largest = _trained_sizes(explanation)
    flops = runs.loc[runs["context_length"] == explanation.fit_context, "train_flops"]
    rows = []
    for length in context_lengths:
        scale = FamilyScale(family=family, context_length=length, convention=chosen)
        best = optimum(laws, scale, train_flops)
        usable = np.isfinite(best.num_params)
        core, mixer = (np.full(len(laws), np.nan) for _ in range(2))
        core[usable], mixer[usable] = mixer_shares(family, best.num_params[usable], length, chosen)
        columns = {"num_params": best.num_params, "num_tokens": best.num_tokens, "loss": best.loss}
        columns |= {"tokens_per_param": best.tokens_per_param, "core_share": core, "mixer_share": mixer}
        row: dict[str, Any] = {"context_length": length}
        for name, values in columns.items():
            row |= _with_interval(name, values, level)
        row["beyond_contexts"] = not known[0] <= length <= known[-1]
        row["beyond_sizes"] = not smallest <= row["num_params"] <= largest
        row["beyond_compute"] = not flops.min() <= train_flops <= flops.max()
        rows.append(row)
    return pd.DataFrame(rows)


def equal_loss_by_context(
    first: Explanation,
    second: Explanation,
    train_flops: float,
    context_lengths: Sequence[float] = FAR_CONTEXTS,
    level: float = 0.95,
) -> pd.DataFrame:
    """Compute that the second architecture needs for the loss that the first reaches with `train_flops`, both optimal.

    Parameters
    ----------
    first, second
        with the same number of resamples; resample r of one meets resample r of the other.

    Returns
    -------
    DataFrame
        with `context_length`, `factor` (compute of the second over that of the first, with `_low` and `_high`), `loss`,
        `num_params` (of the second, with intervals), `beyond_contexts`, and `beyond_sizes` (N\\* of the second outside
        the sizes that were trained).

    Raises
    ------
    InputError
        if the numbers of resamples differ, or the second never reaches the loss.
    """
    ours, theirs = paired_laws(first.bootstrap), paired_laws(second.bootstrap)
    if len(ours) != len(theirs):
        raise InputError(f"equal loss: {len(ours) - 1} and {len(theirs) - 1} resamples do not pair up")
    known, rows = second.measured.context_lengths, []
    smallest, largest = _trained_sizes(second)
    for length in context_lengths:
        scales = [
            FamilyScale(family=each.family, context_length=length, convention=each.convention)
            for each in (first, second)
        ]
        target = optimum(ours, scales[0], train_flops).loss
        # a law enters by loss − E alone: shifting E gives every pair the same target
        common = float(target[0])
        shifted = replace(theirs, E=theirs.E + common - target)
        needed = compute_for_loss(shifted, scales[1], common)
        row: dict[str, Any] = {"context_length": length}
        columns = {"factor": needed.train_flops / train_flops, "loss": target, "num_params": needed.num_params}
        for name, values in columns.items():
            row |= _with_interval(name, values, level)
        row["beyond_contexts"] = not known[0] <= length <= known[-1]
        row["beyond_sizes"] = not smallest <= row["num_params"] <= largest
        rows.append(row)
    return pd.DataFrame(rows)


def _trained_sizes(explanation: Explanation) -> tuple[float, float]:
    sizes = explanation.measured.runs["num_params"]
    return float(sizes.min()), float(sizes.max())


def _with_interval(name: str, values: Any, level: float) -> dict[str, float]:
    """The first value, and the interval of the others."""
    low, high = interval_with_lost(values[1:], level)
    return {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}
