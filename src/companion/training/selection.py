"""What keeping the better of several trainings does to a fit: a simulation on a known law.

A table of final losses shows one loss per configuration, not how many trainings it is the best of. The least of k
losses with normal scatter σ lies below the mean by σ / √π for two, 3 σ / (2 √π) for three (order statistics of the
normal distribution). Where all runs are picked alike, only the level moves; where large runs are picked and small ones
are not, the shape does.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad
from scipy.stats import norm

from companion.errors import InputError
from companion.fitting import fit
from companion.fitting.isoflop import fit_isoflop
from companion.laws import LossSurface
from companion.training.curves import need

#: Starts of every fit: few, because the truth is smooth and near.
NUM_STARTS = 4

Array = NDArray[np.float64]


def mean_of_best(best_of: int, noise_std: float = 1.0) -> float:
    """Mean of the least of `best_of` normal numbers of mean 0 and standard deviation `noise_std`.

    Raises
    ------
    InputError
        if `best_of` is below 1 or the standard deviation negative.

    Examples
    --------
    >>> print(f"{mean_of_best(2, 0.01):.5f} nats per token")
    -0.00564 nats per token
    """
    if best_of < 1 or noise_std < 0:
        raise InputError(f"best of {best_of} with noise {noise_std:g}: at least 1, and noise not below 0")

    def density(x: float) -> float:
        return float(best_of * x * norm.pdf(x) * norm.sf(x) ** (best_of - 1))

    return float(noise_std * quad(density, -12, 12)[0])


def kept_noise(
    retrained: NDArray[np.bool_],
    noise_std: float,
    best_of: int,
    rng: np.random.Generator,
    *,
    only_above: float | None = None,
    fault_share: float = 0.0,
    fault_size: float = 0.0,
) -> tuple[Array, Array]:
    """Deviations of the first training of every run from its law, and of the one that is kept, both of shape (n,).

    Parameters
    ----------
    retrained
        runs that are trained `best_of` times, shape (n,); of these the best is kept.
    noise_std
        standard deviation between trainings of one configuration, nats per token.
    only_above
        of these, only runs whose first training came out more than this above the law are trained again.
    fault_share, fault_size
        the share of trainings that go wrong, and what that costs, nats per token.
    """
    noise = rng.normal(0, noise_std, (len(retrained), best_of))
    noise += fault_size * (rng.random(noise.shape) < fault_share)
    again = retrained if only_above is None else retrained & (noise[:, 0] > only_above)
    return noise[:, 0], np.where(again, noise.min(axis=1), noise[:, 0])


def selection_bias(
    law: LossSurface,
    runs: pd.DataFrame,
    noise_std: float,
    *,
    best_of: int = 2,
    retrained: ArrayLike | None = None,
    only_above: float | None = None,
    fault_share: float = 0.0,
    fault_size: float = 0.0,
    num_draws: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """Fits of the first trainings and of the kept ones, against the truth.

    Parameters
    ----------
    law
        the truth; its gamma is held in the fits.
    runs
        the design: `num_params`, `num_tokens`, `train_flops`, and `isoflop_budget` if it is known; of one architecture
        and context length.
    noise_std, best_of, only_above, fault_share, fault_size
        see `kept_noise`.
    retrained
        mask of shape (n,); None for all runs.
    num_draws, seed
        simulated studies; first and kept trainings share their draws.

    Returns
    -------
    DataFrame
        indexed by quantity: `loss` and `loss of the retrained` (mean deviation from the law), `E`, `alpha`, `beta` of
        the fitted law, `exponent` of N\\*(C), `log N*` and `least loss` of the parabola of the largest budget. Columns:
        `truth` (for parabolas, those through losses without noise), `first_bias`, `kept_bias` (means over the draws,
        less the truth), `selection_bias` and its `standard_error` (kept less first, draw by draw), `spread` (standard
        deviation of the first over the draws).

    Raises
    ------
    InputError
        for a missing column, a mask of another length, options out of range, or what `fit` and `fit_isoflop` refuse.
    """
    need(runs, ("num_params", "num_tokens", "train_flops"), "runs")
    if noise_std < 0 or best_of < 1 or num_draws < 2 or not 0 <= fault_share <= 1:
        raise InputError(
            f"selection: noise_std {noise_std:g} must not be below 0, best_of {best_of} not below 1, num_draws "
            f"{num_draws} not below 2, fault_share {fault_share:g} between 0 and 1"
        )
    again = np.ones(len(runs), dtype=bool) if retrained is None else np.asarray(retrained, dtype=bool)
    if again.shape != (len(runs),):
        raise InputError(f"retrained: a mask of shape {again.shape} for {len(runs)} runs")
    if not again.any():
        raise InputError("retrained: no run is trained again")
    exact = np.asarray(law.predict(runs["num_params"], runs["num_tokens"]), dtype=float)
    rng = np.random.default_rng(seed)
    first, kept = [], []
    for _ in range(num_draws):
        once, best = kept_noise(
            again, noise_std, best_of, rng, only_above=only_above, fault_share=fault_share, fault_size=fault_size
        )
        first.append(_fitted(law, runs, exact, once, again))
        kept.append(_fitted(law, runs, exact, best, again))
    truth = pd.Series(
        {"loss": 0.0, "loss of the retrained": 0.0, "E": law.E, "alpha": law.alpha, "beta": law.beta}
        | _parabolas(runs.assign(val_loss=exact))
    )
    before, after = pd.DataFrame(first), pd.DataFrame(kept)
    change = after - before
    return pd.DataFrame(
        {
            "truth": truth,
            "first_bias": before.mean() - truth,
            "kept_bias": after.mean() - truth,
            "selection_bias": change.mean(),
            "standard_error": change.std() / np.sqrt(num_draws),
            "spread": before.std(),
        }
    ).rename_axis("quantity")


def _fitted(
    law: LossSurface, runs: pd.DataFrame, exact: Array, noise: Array, again: NDArray[np.bool_]
) -> dict[str, float]:
    drawn = runs.assign(val_loss=exact + noise)
    found = fit(LossSurface, drawn, gamma=float(law.gamma), num_starts=NUM_STARTS).parameters
    return {
        "loss": float(noise.mean()),
        "loss of the retrained": float(noise[again].mean()),
        **{name: found[name] for name in ("E", "alpha", "beta")},
        **_parabolas(drawn),
    }


def _parabolas(runs: pd.DataFrame) -> dict[str, float]:
    found = fit_isoflop(runs, num_resamples=0)
    largest = found.profiles[-1]
    return {
        "exponent": found.power_law.law.exponent,
        "log N*": float(np.log(largest.x_opt)),
        "least loss": largest.loss_opt,
    }
