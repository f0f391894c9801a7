"""What the grid of sizes does to an optimum: one side of the valley only, and valleys that are not parabolas."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from companion.chapters.applicability import need
from companion.chapters.ch03.words import p_value
from companion.chapters.labels import design_name, label_of
from companion.errors import InputError
from companion.fitting.isoflop.bias import GRIDS, exponent_bias, leading_bias
from companion.fitting.isoflop.goodness_of_fit import skew
from companion.fitting.isoflop.joint import JointIsoflopFit
from companion.fitting.isoflop.profiles import X_COLUMNS, IsoflopFit, IsoflopProfile, fit_profile
from companion.formatting import count, percent, power_of_ten, signed_percent
from companion.laws import LossSurface
from companion.ledger import load_published
from companion.plotting import Html
from companion.plotting.embed import show_table

Side = Literal["below", "above"]
SIDES: tuple[Side, Side] = ("below", "above")
_NUMBERS = re.compile(r" [\d.]+(e[+-]\d+)?( to [\d.]+(e[+-]\d+)?)?")


def one_sided(profile: IsoflopProfile, side: Side, reach: float = 0.0) -> IsoflopProfile:
    """The profile with the sizes of one side only, fitted again.

    Parameters
    ----------
    profile
        with an optimum.
    side
        `below` keeps x up to 10^reach times the optimum, `above` keeps x from 10^-reach times the optimum.
    reach
        decades by which the kept sizes pass the optimum (negative: they stop short of it).

    Raises
    ------
    InputError
        if the profile has no optimum, or no size is left.
    """
    if profile.fit is None or not profile.has_optimum:
        raise InputError(f"budget {profile.isoflop_budget:g} has no optimum to take a side of")
    decades = np.log10(profile.x / profile.fit.law.x_opt)
    # a size at the very optimum is kept whichever way the optimum was rounded
    keep = decades <= reach + 1e-9 if side == "below" else decades >= -reach - 1e-9
    if not keep.any():
        raise InputError(f"budget {profile.isoflop_budget:g}: no size {side} the optimum")
    return fit_profile(
        profile.isoflop_budget,
        profile.x[keep],
        profile.loss[keep],
        profile.train_flops[keep],
        profile.weights[keep],
    )


def one_sided_table(every: Mapping[tuple[str, str], IsoflopFit], reach: float = 0.0) -> pd.DataFrame:
    """N\\* of every budget from the sizes of one side of its optimum.

    Parameters
    ----------
    every
        fits by architecture and x.
    reach
        as in `one_sided`.

    Returns
    -------
    DataFrame
        `architecture` (as printed), `isoflop_budget`, `sizes` (only below, only above), `runs`, `all` (N\\* of all
        sizes), `x_opt`, `moved` (x_opt over `all`, minus 1), `error` (relative, of x_opt), `warning`.

    Raises
    ------
    NotApplicable
        if no budget has a parabola through one side.
    """
    rows = []
    for name, profile in _profiles_over_size(every):
        for side in SIDES:
            part, center = one_sided(profile, side, reach), profile.x_opt
            x_opt = part.fit.law.x_opt if part.fit else np.nan
            error = part.fit.log10_x_opt_standard_error if part.fit else np.nan
            row = {"architecture": label_of(name), "isoflop_budget": profile.isoflop_budget, "sizes": f"only {side}"}
            row |= {"runs": len(part.x), "all": center, "x_opt": x_opt, "moved": x_opt / center - 1}
            rows.append(row | {"error": 10**error - 1, "warning": "; ".join(map(_without_numbers, part.warnings))})
    table = pd.DataFrame(rows)
    need(table["moved"].notna().any(), "no budget has enough sizes on one side of its optimum for a parabola")
    return table


def show_one_sided(sided: pd.DataFrame) -> Html:
    """The table of `one_sided_table`, one row per budget."""
    rows = []
    for (name, _), parts in sided.groupby(["architecture", "isoflop_budget"], sort=False):
        budget = power_of_ten(parts["isoflop_budget"].iloc[0])
        row = {"architecture": name, "budget": budget, "all": parts["all"].iloc[0]}
        for part in parts.to_dict("records"):
            mark = "\u00a0*" if part["warning"] else ""
            size, moved = f"{part['sizes']}: N*", f"{part['sizes']}: moved"
            fitted = np.isfinite(part["moved"])
            row[size] = count(part["x_opt"]) if fitted else "–"
            row[moved] = (
                f"{signed_percent(part['moved'])} ± {percent(part['error'], decimals=0)}" if fitted else "–"
            ) + mark
        rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="isoflop-one-sided",
        caption="Optima from one side of the grid, with their standard errors, and from all sizes. "
        "An asterisk: the fit warns that the optimum lies outside the sizes, or that one side has too few.",
        formats={"all": count},
        labels={"budget": "budget (FLOP)", "all": "all sizes: N*"},
    )


def skew_table(every: Mapping[tuple[str, str], IsoflopFit]) -> pd.DataFrame:
    """N\\* of every budget by a parabola and by a cubic.

    Returns
    -------
    DataFrame
        `architecture` (as printed), `isoflop_budget`, `parabola` and `x_opt` (N\\* of parabola and cubic), `moved`
        (the second over the first, minus 1), `p_value` of the cubic term.

    Raises
    ------
    NotApplicable
        if no budget has more than four different sizes.
    """
    rows = []
    for name, profile in _profiles_over_size(every):
        if len(set(profile.x)) > 4:
            found = skew(profile)
            row = {"architecture": label_of(name), "isoflop_budget": profile.isoflop_budget, "parabola": profile.x_opt}
            row |= {"x_opt": found.x_opt, "moved": found.x_opt / profile.x_opt - 1}
            rows.append(row | {"p_value": found.p_value})
    need(rows, "no budget has more than four different sizes, which a cubic needs")
    return pd.DataFrame(rows)


def show_skews(skews: pd.DataFrame) -> Html:
    """The table of `skew_table`."""
    return show_table(
        skews,
        name="isoflop-cubics",
        caption="Parabola against cubic: minimum of each through the same runs (– if it has none), and p of the cubic "
        "term.",
        formats={"isoflop_budget": power_of_ten, "parabola": count, "x_opt": count}
        | {"moved": lambda share: signed_percent(share, 1), "p_value": p_value},
        labels={"isoflop_budget": "budget (FLOP)", "parabola": "N*, parabola", "x_opt": "N*, cubic", "p_value": "p"},
    )


def published_surfaces() -> dict[str, LossSurface]:
    """The paper's parametric fits that are stored with all digits, by architecture, runs and outer exponent."""
    surfaces = {}
    for fit in load_published()["parametric_fits"]:
        if "objective" in fit:  # those stored with all digits
            gamma = "free" if fit["fit_gamma"] else "= 1"
            name = f"{label_of(fit['architecture'])}, {design_name(fit['dataset'])}, γ {gamma}"
            surfaces[name] = LossSurface(**{key: fit[key] for key in ("E", "A", "B", "alpha", "beta", "gamma")})
    return surfaces


def show_grid_bias(surfaces: Mapping[str, LossSurface], bias: Mapping[str, pd.DataFrame]) -> Html:
    """Error of N\\* and of its exponent for every surface and grid of `GRIDS`.

    Parameters
    ----------
    surfaces
        by what the table calls them.
    bias
        by the same names: tables of `companion.fitting.isoflop.bias.grid_bias` with `GRIDS`.
    """
    shares = ("leading", "symmetric", "off-center", "only below", "only above")
    even, beside, drifting = GRIDS["symmetric"], GRIDS["off-center"], GRIDS["drifting"]
    half, center = np.log(10) * (even.upper - even.lower) / 2, (beside.upper + beside.lower) / 2
    rows = []
    for name, surface in surfaces.items():
        moved = dict(zip(bias[name]["grid"], bias[name]["bias_lowest"], strict=True))
        drift = dict(zip(bias[name]["grid"], bias[name]["exponent_bias"], strict=True))
        row: dict[str, str | float] = {"surface": name, "exponents": float(surface.alpha - surface.beta)}
        row["leading"] = 10 ** leading_bias(surface, even.upper) - 1
        row |= {grid: 10 ** moved[grid] - 1 for grid in GRIDS if grid != "drifting"}
        rows.append(row | {"drift": drift["drifting"]})
    return show_table(
        pd.DataFrame(rows),
        name="isoflop-grid-bias",
        caption=f"Error of N* (%) without any noise, from {even.num_sizes} sizes over a "
        f"{10 ** (even.upper - even.lower):g}-fold range. Theory: (α − β)h²/10 with h = {half:.2f}, half that range in "
        f"ln N. Off-center: the middle of the range lies {center:g} decades above the optimum. Drifting: error of "
        f"exponent a when the range drifts upward by {drifting.drift:g} decades per decade of compute.",
        formats={"exponents": "{:+.3f}", "drift": "{:+.4f}"}
        | dict.fromkeys(shares, lambda share: f"{100 * share:+.1f}"),
        labels={"exponents": "α − β", "drift": "a, drifting"}
        | {grid: f"{grid.replace('leading', 'theory')} (%)" for grid in shares},
    )


def bias_of_trained_sizes(
    surfaces: Mapping[str, LossSurface],
    tables: Mapping[str, pd.DataFrame],
    budgets: Mapping[str, Sequence[float]],
    joint: Mapping[tuple[str, str], JointIsoflopFit],
) -> pd.DataFrame:
    """Error of the exponents without noise at the very sizes that were trained, each surface taken as the truth.

    A published surface is combined with the sizes of its own architecture, any other with those of all.

    Returns
    -------
    DataFrame
        `surface`, `sizes of` (architecture as printed), errors of the exponents of `num_params` and `num_tokens`, and
        `error`, the standard error of the joint exponent of N\\*.
    """
    published, rows = published_surfaces(), []
    for surface_name, surface in surfaces.items():
        for name, table in tables.items():
            if surface_name in published and surface_name.split(",")[0] != label_of(name):
                continue
            groups = table.groupby("isoflop_budget")["num_params"]
            trained = {budget: groups.get_group(budget) for budget in budgets[name]}
            row: dict[str, str | float] = {"surface": surface_name, "sizes of": label_of(name)}
            row |= {x: exponent_bias(surface, trained, x) for x in X_COLUMNS}
            rows.append(row | {"error": joint[name, "num_params"].exponent_standard_error})
    return pd.DataFrame(rows)


def show_bias_of_trained_sizes(bias: pd.DataFrame) -> Html:
    """The table of `bias_of_trained_sizes`."""
    return show_table(
        bias,
        name="isoflop-trained-sizes",
        caption="Bias of the trained sizes: error of the exponents that they alone cause, and the standard error of "
        "the joint fit.",
        formats=dict.fromkeys(X_COLUMNS, "{:+.4f}") | {"error": "{:.4f}"},
        labels={"num_params": "error of a", "num_tokens": "error of b", "error": "standard error of a, joint"},
    )


def _profiles_over_size(fits: Mapping[tuple[str, str], IsoflopFit]) -> Iterator[tuple[str, IsoflopProfile]]:
    return ((name, profile) for (name, x), fit in fits.items() if x == "num_params" for profile in fit.optima)


def _without_numbers(warning: str) -> str:
    """A warning of a fit without the optimum and the range of sizes, which the table has in its columns."""
    return _NUMBERS.sub("", warning.split(": ")[-1]).replace("sampled", "sizes")
