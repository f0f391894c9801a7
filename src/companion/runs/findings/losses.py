"""Findings on val_loss: another unit than nats per token, values that no other run of the table explains."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from companion.formatting import name_rows
from companion.runs.findings.base import LABEL_FACTOR, Finding, finding

#: Below this median, losses are unlikely to be nats per token of text (large models reach 1.6 to 1.9).
_LOW_MEDIAN = 1.3
#: Above these, losses are unlikely to be nats per token: small runs, and runs from 1e18 FLOP on.
_HIGH, _HIGH_TRAINED, _TRAINED_FLOPS = 7.5, 5.5, 1e18
#: Vocabulary of the paper's tokenizer, where a table names none.
_VOCAB_SIZE = 50304
#: An outlier needs this distance from its profile (nats per token) and this probability under normal noise, times runs.
_OUTLIER_NATS, _OUTLIER_PROBABILITY = 0.05, 1e-3
#: Fewest runs of a profile in which one can be far off, and most profiles that are looked at (one by one).
_MIN_PROFILE, _MAX_PROFILES = 6, 2000
#: Columns that do not describe how a run was made.
_OUTCOMES = ("val_loss", "train_loss", "loss_uncertainty", "source", "multiplicity_in_published_fits", "derived")


def loss_findings(runs: pd.DataFrame) -> list[Finding]:
    """Losses in another unit, repeated configurations that disagree, runs far off the profile of their budget."""
    return [*_units(runs), *_against_train_loss(runs), *_direction(runs), *_repeats(runs), *_outliers(runs)]


def _units(runs: pd.DataFrame) -> list[Finding]:
    loss, flops = runs["val_loss"].to_numpy(np.float64), runs["train_flops"].to_numpy(np.float64)
    found = []
    if np.median(loss) < _LOW_MEDIAN:
        message = (
            f"column 'val_loss': {loss.min():.3g} to {loss.max():.3g}, low for nats per token of text: bits per byte, "
            "or normalized? Optima and their exponents stay; E, A, B and predicted losses are in the table's unit"
        )
        found.append(finding("loss_unit", "val_loss", message, runs, np.ones(len(runs), dtype=bool)))
    high = loss > np.where(flops >= _TRAINED_FLOPS, _HIGH_TRAINED, _HIGH)
    if 2 * high.sum() > len(runs):
        message = (
            f"column 'val_loss': {np.median(loss):.3g} (median), high for nats per token: perplexity (take its "
            "logarithm), or a sum over more than one token?"
        )
        return [*found, finding("loss_unit", "val_loss", message, runs, high)]
    vocab = runs["vocab_size"].fillna(_VOCAB_SIZE) if "vocab_size" in runs.columns else _VOCAB_SIZE
    guess = np.log(np.broadcast_to(np.asarray(vocab, dtype=np.float64), loss.shape))
    if (worse := loss > guess).any():
        at = int(np.argmax(worse))
        message = (
            f"column 'val_loss': {name_rows(runs.index[worse].tolist())} (first {loss[at]:.4g}) worse than a uniform "
            f"guess over {np.exp(guess[at]):.0f} tokens ({guess[at]:.3g}): perplexity, or a run that diverged?"
        )
        found.append(finding("loss_above_guess", "val_loss", message, runs, worse))
    return found


def _against_train_loss(runs: pd.DataFrame) -> list[Finding]:
    """A validation loss in bits beside a training loss in nats, or the other way round."""
    if "train_loss" not in runs.columns or not runs["train_loss"].notna().any():
        return []
    ratio = (runs["val_loss"] / runs["train_loss"]).to_numpy(np.float64)
    median = float(np.nanmedian(ratio))
    for factor, words in ((1 / np.log(2), "val_loss is in bits"), (np.log(2), "train_loss is in bits")):
        if abs(median / factor - 1) < 0.02:
            message = f"column 'val_loss': {median:.3f} of train_loss (median), the factor of bits to nats: {words}?"
            return [finding("loss_unit", "val_loss", message, runs, ~np.isnan(ratio))]
    return []


def _direction(runs: pd.DataFrame) -> list[Finding]:
    """A loss that grows with compute is not a loss."""
    found = []
    for name, group in runs.groupby("architecture", sort=True):
        if len(group) < 10 or group["train_flops"].nunique() < 3 or group["val_loss"].nunique() < 3:
            continue
        correlation = group["train_flops"].rank().corr(group["val_loss"].rank())
        if correlation > 0.5:
            message = (
                f"column 'val_loss': rises with train_flops in runs of {name} (rank correlation {correlation:.2f}): "
                "an accuracy, or another column's values?"
            )
            mask = (runs["architecture"] == name).to_numpy(bool)
            found.append(finding("loss_direction", "val_loss", message, runs, mask))
    return found


def _repeats(runs: pd.DataFrame) -> list[Finding]:
    """Runs that agree in every column but the outcome, with losses that seeds alone do not explain."""
    # a text column with another value in every row (a name of the run) describes nothing
    config = [
        name
        for name in runs.columns
        if name not in _OUTCOMES
        and name != "train_flops"
        and (pd.api.types.is_numeric_dtype(runs[name]) or runs[name].nunique() < len(runs))
    ]
    doubled = runs[runs.duplicated(config, keep=False)]
    if doubled.empty:
        return []
    keys = doubled.groupby(config, dropna=False, sort=False).ngroup()
    groups = doubled["val_loss"].groupby(keys)
    spread = (groups.transform("max") - groups.transform("min")).to_numpy(np.float64)
    apart = spread > np.maximum(0.05, 0.02 * doubled["val_loss"].to_numpy(np.float64))
    if not apart.any():
        return []
    same = (keys == keys.iloc[int(np.argmax(apart))]).to_numpy(bool)
    values = doubled["val_loss"].to_numpy(np.float64)[same]
    message = (
        f"column 'val_loss': {name_rows(doubled.index[same].tolist())} repeat one configuration, with losses from "
        f"{values.min():.4g} to {values.max():.4g}"
    )
    others = int(keys[apart].nunique()) - 1
    message += f"; {others} more configurations likewise" if others > 1 else "; one more likewise" if others else ""
    return [finding("repeats_differ", "val_loss", message, runs, runs.index.isin(doubled.index[apart]))]


def _outliers(runs: pd.DataFrame) -> list[Finding]:
    """Runs far off the parabola through the other runs of their budget."""
    if "isoflop_budget" not in runs.columns:
        return []
    keys = ["architecture", "isoflop_budget"]
    keys += ["context_length"] if "context_length" in runs.columns and runs["context_length"].notna().any() else []
    # a run of another compute is off for that reason, and its label is a finding of its own
    center = runs.groupby(keys)["train_flops"].transform("median")
    near = (runs["train_flops"] / center).between(1 / LABEL_FACTOR, LABEL_FACTOR)
    sizes = runs.groupby(keys)["train_flops"].transform("size")
    groups = runs[near & (sizes >= _MIN_PROFILE)].groupby(keys)
    if groups.ngroups > _MAX_PROFILES:
        return []
    found = []
    for _, group in groups:
        distance, probability = _left_out(
            np.log(group["num_params"].to_numpy(np.float64)), group["val_loss"].to_numpy(np.float64)
        )
        far = (np.abs(distance) > _OUTLIER_NATS) & (probability * len(runs) < _OUTLIER_PROBABILITY)
        found += list(zip(group.index[far], distance[far], strict=True))
    if not found:
        return []
    words = ", ".join(f"row {row} by {distance:+.2f}" for row, distance in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    message = f"column 'val_loss': far from the parabola through the other runs of the budget: {words}{more} nats"
    return [finding("loss_outlier", "val_loss", message, runs, runs.index.isin([row for row, _ in found]))]


def _left_out(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of every run from the parabola through the others, and its probability under normal noise (n,) each.

    Externally studentized residuals, t-distributed with n - 4 degrees of freedom; nothing is far in fewer than 6 runs.
    """
    nothing = np.zeros(x.size), np.ones(x.size)
    if x.size < _MIN_PROFILE or np.unique(x).size < 4:
        return nothing
    scaled = (x - x.mean()) / x.std()
    q, _ = np.linalg.qr(np.stack([np.ones_like(x), scaled, scaled**2], axis=1))
    residual, leverage = y - q @ (q.T @ y), (q**2).sum(axis=1)
    free = 1 - leverage
    if (free < 1e-9).any():
        return nothing
    distance = residual / free
    variance = ((residual**2).sum() - residual * distance) / (x.size - 4)
    scale = np.sqrt(np.maximum(variance, 1e-24) / free)
    return distance, 2 * stats.t.sf(np.abs(distance) / scale, x.size - 4)
