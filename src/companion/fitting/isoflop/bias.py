"""What an IsoFLOP parabola gets wrong without any noise: the loss surface is known, so the true optimum is too.

Along a budget, with u = ln(N/N\\*), the reducible loss of the surface is P·exp(-alpha·u) + Q·exp(beta·u), where
alpha·P = beta·Q. Its third derivative over its second at the optimum is beta - alpha, whatever the budget and the outer
exponent: a parabola fits exactly only in the limit of a narrow grid. Source: arXiv 2603.22339.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.fitting.isoflop.profiles import X_COLUMNS, IsoflopProfile, fit_profile
from companion.fitting.power_law import fit_power_law
from companion.laws import LossSurface

#: FLOPs per parameter and token: the surface is cut along C = 6·N·D, where its optimum has a closed form.
FLOPS_PER_PARAM_AND_TOKEN = 6.0


@dataclass(frozen=True, kw_only=True)
class SizeGrid:
    """Sizes of one profile around its true optimum, evenly spaced in log N.

    `lower` and `upper` are decades from N\\* (negative: below it) at `reference_flops`; with every decade of compute
    above that, both move up by `drift` decades.

    Raises
    ------
    InputError
        if the grid is empty or has fewer than three sizes.
    """

    lower: float
    upper: float
    drift: float = 0.0
    num_sizes: int = 15
    reference_flops: float = 1e19

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise InputError(f"grid of sizes: lower {self.lower} is not below upper {self.upper}")
        if self.num_sizes < 3:
            raise InputError(f"grid of sizes: {self.num_sizes} sizes; a parabola needs at least 3")

    def num_params(self, surface: LossSurface, train_flops: float) -> NDArray[np.float64]:
        """The sizes N at one budget, shape (num_sizes,)."""
        optimum, _ = surface.optimum(train_flops, FLOPS_PER_PARAM_AND_TOKEN)
        shift = self.drift * np.log10(train_flops / self.reference_flops)
        decades = shift + np.linspace(self.lower, self.upper, self.num_sizes)
        return np.asarray(optimum * 10**decades, dtype=np.float64)


#: Grids a decade wide: around the optimum, beside it, and one that moves as compute grows.
GRIDS = {
    "symmetric": SizeGrid(lower=-0.5, upper=0.5),
    "off-center": SizeGrid(lower=-0.2, upper=0.8),
    "only below": SizeGrid(lower=-1.0, upper=0.0),
    "only above": SizeGrid(lower=0.0, upper=1.0),
    "drifting": SizeGrid(lower=-0.5, upper=0.5, drift=0.25),
}


def noise_free_profile(
    surface: LossSurface, train_flops: float, num_params: Any, x: str = "num_params"
) -> IsoflopProfile:
    """The parabola through exact losses at sizes `num_params`, shape (n,), all with C = 6·N·D = `train_flops`."""
    sizes = np.asarray(num_params, dtype=float)
    tokens = train_flops / (FLOPS_PER_PARAM_AND_TOKEN * sizes)
    if x not in X_COLUMNS:
        raise InputError(f"x {x!r} is not one of {', '.join(X_COLUMNS)}")
    along = sizes if x == "num_params" else tokens
    return fit_profile(train_flops, along, surface.predict(sizes, tokens), np.full_like(sizes, train_flops))


def optimum_bias(surface: LossSurface, train_flops: float, num_params: Any, x: str = "num_params") -> float:
    """log10 of the parabola's optimum over the true one, decades; NaN where the parabola has no minimum."""
    profile = noise_free_profile(surface, train_flops, num_params, x)
    true = surface.optimum(train_flops, FLOPS_PER_PARAM_AND_TOKEN)[X_COLUMNS.index(x)]
    return float(np.log10(profile.fit.law.x_opt / true)) if profile.fit else float("nan")


def exponent_bias(surface: LossSurface, sizes: Mapping[float, Any], x: str = "num_params") -> float:
    """Exponent of the power law through the parabolas' optima minus the true exponent.

    Parameters
    ----------
    surface
        the true loss.
    sizes
        by budget in FLOP: the sizes N of its profile, shape (n,).
    x
        `num_params` (true exponent beta/(alpha + beta)) or `num_tokens` (alpha/(alpha + beta)).
    """
    budgets = list(sizes)
    profiles = [noise_free_profile(surface, budget, sizes[budget], x) for budget in budgets]
    law = fit_power_law(budgets, [p.fit.law.x_opt if p.fit else np.nan for p in profiles]).law
    own = surface.beta if x == "num_params" else surface.alpha
    return law.exponent - float(own / (surface.alpha + surface.beta))


def grid_bias(
    surface: LossSurface, budgets: Any, grids: Mapping[str, SizeGrid] | None = None, x: str = "num_params"
) -> pd.DataFrame:
    """Bias of optimum and exponent for every grid, without noise.

    Returns
    -------
    DataFrame
        one row per grid: `grid`, `bias_lowest` and `bias_highest` (decades, at the lowest and highest budget),
        `exponent_bias`.
    """
    flops = sorted(float(budget) for budget in budgets)
    rows = []
    for name, grid in (GRIDS if grids is None else grids).items():
        sizes = {budget: grid.num_params(surface, budget) for budget in flops}
        rows.append(
            {
                "grid": name,
                "bias_lowest": optimum_bias(surface, flops[0], sizes[flops[0]], x),
                "bias_highest": optimum_bias(surface, flops[-1], sizes[flops[-1]], x),
                "exponent_bias": exponent_bias(surface, sizes, x),
            }
        )
    return pd.DataFrame(rows)


def leading_bias(surface: LossSurface, half_width: float) -> float:
    """log10(N/N\\*) of the parabola's optimum on a dense symmetric grid, to leading order in its width.

    With half width h in ln N, the cubic term leans the parabola by (alpha - beta)·h²/10 in ln N.

    Parameters
    ----------
    surface
        the true loss.
    half_width
        decades on each side of N\\*.
    """
    h = half_width * np.log(10)
    return float((surface.alpha - surface.beta) * h**2 / 10 / np.log(10))
