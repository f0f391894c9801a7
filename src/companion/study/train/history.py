"""Losses and norms of gradients of every step: the curve of a run, and when it has diverged. No torch."""

import math
from typing import Any

import numpy as np

from companion.study.train.recipe import Recipe

#: Points that a curve has at most.
MAX_POINTS = 500
#: Share of all steps whose mean loss is the training loss of a run.
LAST_SHARE = 0.01
#: A run is given up after so many steps in a row whose loss is so much (nats) above that of uniform guesses, ln V.
USELESS_STEPS, USELESS_EXCESS = 100, 1.0


def diverged_after(recipe: Recipe, losses: np.ndarray) -> int | None:
    """Number of steps after which a run is given up; None while it is not.

    That is the first step whose loss is not finite, or the last of 100 in a row after the warm-up whose losses are
    above ln V + 1. It depends on the losses alone, not on when they are looked at.

    Parameters
    ----------
    losses
        of the first steps, nats per token.
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    ends = [int(bad[0]) + 1] if bad.size else []
    ceiling = math.log(recipe.architecture.vocab_size) + USELESS_EXCESS
    high = np.cumsum(losses[recipe.warmup_steps :] > ceiling)
    if high.size >= USELESS_STEPS:
        in_a_row: np.ndarray = high[USELESS_STEPS - 1 :] - np.concatenate(([0], high[:-USELESS_STEPS]))
        full = np.flatnonzero(in_a_row == USELESS_STEPS)
        ends += [recipe.warmup_steps + int(full[0]) + USELESS_STEPS] if full.size else []
    return min(ends) if ends else None


def curve_of(recipe: Recipe, losses: np.ndarray, grad_norms: np.ndarray) -> dict[str, list[Any]]:
    """The curve of a record: means over equal blocks of steps, at most 500, the last one shorter.

    Returns
    -------
    dict
        lists `step` (the last of a block, from 1), `num_tokens` (until then), `loss`, `learning_rate`, `grad_norm`;
        None for a mean that is not finite.
    """
    steps = len(losses)
    width = max(1, math.ceil(recipe.train_steps / MAX_POINTS))
    starts = np.arange(0, steps, width)
    ends = np.minimum(starts + width, steps)

    def means(values: Any) -> list[float | None]:
        # a loss that is not finite must stay visible, and is no reason to warn
        with np.errstate(invalid="ignore", over="ignore"):
            sums = np.add.reduceat(np.asarray(values, dtype=np.float64), starts) if steps else np.zeros(0)
        return [_number(value) for value in sums / (ends - starts)]

    rates: Any = recipe.learning_rate_at(np.arange(steps))
    return {
        "step": ends.tolist(),
        "num_tokens": (ends * recipe.tokens_per_step).tolist(),
        "loss": means(losses),
        "learning_rate": means(rates),
        "grad_norm": means(grad_norms),
    }


def last_loss(recipe: Recipe, losses: np.ndarray, *, diverged: bool) -> tuple[float | None, int]:
    """The training loss of a record, and how many steps it is the mean of; of a run that diverged the last finite one.

    None, 0 if no loss was finite.
    """
    if diverged:
        finite = losses[np.isfinite(losses)]
        return (_number(finite[-1]), 1) if finite.size else (None, 0)
    number = max(1, round(LAST_SHARE * recipe.train_steps))
    return _number(np.mean(losses[-number:], dtype=np.float64)), number


def _number(value: Any) -> float | None:
    """Nine digits: all that float32 holds."""
    return float(f"{value:.9g}") if math.isfinite(value) else None
