"""Learning rates of a run: linear warm-up, then a cosine, or a constant rate and a cool-down. No torch.

A schedule is a share of the peak rate for every step, numbered from 0. All functions take arrays of steps.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from companion.errors import InputError


def cosine_shares(
    steps: ArrayLike, *, train_steps: int, warmup_steps: int, final_share: float, **_: float
) -> np.ndarray:
    """Shares of the peak along half a cosine after the warm-up (arXiv 1608.03983, equation 5, without restarts).

    The last step of the warm-up has the peak, the last step of the run `final_share` of it; `cooldown_share` is not
    used.

    Examples
    --------
    >>> cosine_shares([0, 1, 3, 5], train_steps=6, warmup_steps=2, final_share=0.0).round(3)
    array([0.5, 1. , 0.5, 0. ])
    """
    progress = _progress(steps, warmup_steps, train_steps)
    falling = final_share + (1.0 - final_share) * 0.5 * (1.0 + np.cos(np.pi * progress))
    return falling * _warm_up(steps, warmup_steps)


def wsd_shares(
    steps: ArrayLike, *, train_steps: int, warmup_steps: int, final_share: float, cooldown_share: float
) -> np.ndarray:
    """Shares of the peak for warm-up, stable rate, decay (WSD, arXiv 2404.06395).

    The decay is 1 − (1 − final_share)·sqrt(x) for x from 0 to 1 over the last `cooldown_share` of all steps: the form
    that ended lowest of those that arXiv 2405.18392, section 3, compares.

    Examples
    --------
    >>> wsd_shares(range(6), train_steps=6, warmup_steps=1, final_share=0.0, cooldown_share=0.5).round(3)
    array([1.   , 1.   , 1.   , 0.423, 0.184, 0.   ])
    """
    progress = _progress(steps, train_steps - cooldown_steps(train_steps, cooldown_share), train_steps)
    return (1.0 - (1.0 - final_share) * np.sqrt(progress)) * _warm_up(steps, warmup_steps)


#: How the rate goes on after the warm-up, by name.
SCHEDULES: dict[str, Callable[..., np.ndarray]] = {"cosine": cosine_shares, "wsd": wsd_shares}


def cooldown_steps(train_steps: int, cooldown_share: float) -> int:
    """Steps of the decay of `wsd_shares`: a share of all, rounded.

    Examples
    --------
    >>> cooldown_steps(1000, 0.2)
    200
    """
    return round(train_steps * cooldown_share)


def schedule_shares(schedule: str, steps: ArrayLike, **settings: float) -> np.ndarray:
    """Shares of the peak rate at some steps, by the name of a schedule.

    Parameters
    ----------
    schedule
        `cosine` or `wsd`.
    steps
        whole numbers from 0.
    settings
        `train_steps`, `warmup_steps`, `final_share`, `cooldown_share`.

    Raises
    ------
    InputError
        for another name.

    Examples
    --------
    >>> settings = {"train_steps": 4, "warmup_steps": 2, "final_share": 0.1, "cooldown_share": 0.0}
    >>> schedule_shares("cosine", [0, 3], **settings)
    array([0.5, 0.1])
    """
    if schedule not in SCHEDULES:
        raise InputError(f"schedule {schedule!r} is not known; there are {', '.join(SCHEDULES)}")
    return SCHEDULES[schedule](steps, **settings)


def _warm_up(steps: ArrayLike, warmup_steps: int) -> np.ndarray:
    """1/W, 2/W, …, 1, and 1 from there on; without a warm-up always 1."""
    return np.minimum(1.0, (np.asarray(steps, dtype=float) + 1.0) / max(1, warmup_steps))


def _progress(steps: ArrayLike, begin: int, end: int) -> np.ndarray:
    """0 before step `begin`, 1 at the last step before `end`, straight between."""
    done = np.asarray(steps, dtype=float) + 1.0 - begin
    return np.clip(done / max(1, end - begin), 0.0, 1.0)
