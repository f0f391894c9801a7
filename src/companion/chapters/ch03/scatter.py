"""Do the optima lie on a power law, and do its exponents add up to one?"""

from collections.abc import Mapping, Sequence

import pandas as pd

from companion.chapters.applicability import optional
from companion.chapters.ch03.words import p_value
from companion.chapters.labels import label_of
from companion.fitting.isoflop.goodness_of_fit import law_scatter
from companion.fitting.isoflop.joint import fit_isoflop_joint
from companion.fitting.isoflop.profiles import IsoflopFit, fit_isoflop
from companion.fitting.isoflop.select import near_optimum
from companion.fitting.power_law import fit_power_law
from companion.plotting import Html
from companion.plotting.embed import show_table


def scatter_of_optima(
    tables: Mapping[str, pd.DataFrame], budgets: Mapping[str, Sequence[float]], window: float
) -> pd.DataFrame:
    """Chi-square test of the power law of N\\*, for the main budgets and for all, for all sizes and the innermost ones.

    Parameters
    ----------
    tables
        IsoFLOP runs by architecture.
    budgets
        main budgets by architecture, FLOP.
    window
        decades around each optimum that the innermost sizes span.

    Returns
    -------
    DataFrame
        `architecture`, `budgets` (main or all), `optima` (their number), `sizes`, exponents `two steps` and `joint`,
        `error` (standard error of the joint exponent), `chi2`, `dof` and `p`, the chance that optima on a true power
        law scatter this much or more. Without three optima that have a standard error there is no row; without any row
        the table has `architecture`, `budgets`, `sizes` and `p` only.
    """
    rows = []
    for name, table in tables.items():
        main = table[table["isoflop_budget"].isin(budgets[name])]
        kept = {"main": main} if len(main) == len(table) else {"main": main, "all": table}
        for which, runs in kept.items():
            for sizes, part in {"all": runs, f"± {window:g} decades": optional(near_optimum, runs, window)}.items():
                fit, joint = optional(fit_isoflop, part, num_resamples=0), optional(fit_isoflop_joint, part)
                scatter = fit and optional(law_scatter, fit)
                if joint is None or scatter is None:
                    continue
                row = {"architecture": label_of(name), "budgets": which, "optima": len(fit.optima), "sizes": sizes}
                row |= {"two steps": fit.power_law.law.exponent, "joint": joint.law.exponent}
                row |= {"error": joint.exponent_standard_error, "chi2": scatter.chi_square}
                rows.append(row | {"dof": scatter.degrees_of_freedom, "p": scatter.farther})
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["architecture", "budgets", "sizes", "p"])


def show_scatter(scatter: pd.DataFrame) -> Html:
    """The table of `scatter_of_optima`."""
    rows = [
        {
            "architecture": row["architecture"],
            "budgets": f"{row['budgets']} ({row['optima']})",
            "sizes": row["sizes"],
            "two steps": f"{row['two steps']:.4f}",
            "joint": f"{row['joint']:.4f} ± {row['error']:.4f}",
            "chi2": f"{row['chi2']:.1f} ({row['dof']})",
            "p": p_value(row["p"]),
        }
        for row in scatter.to_dict("records")
    ]
    return show_table(
        pd.DataFrame(rows, columns=["architecture", "budgets", "sizes", "two steps", "joint", "chi2", "p"]),
        name="isoflop-scatter",
        caption="Tests of a power law. Exponent of N*, with the standard error of the joint fit, and scatter of the "
        "optima, χ² with its degrees of freedom. p: the chance that optima on a true power law scatter this much or "
        "more.",
        labels={"budgets": "budgets (optima)", "two steps": "a, two steps", "joint": "a, joint"}
        | {"chi2": "χ² (d.f.)"},
    )


def flops_per_param_and_token(sizes: IsoflopFit, tokens: IsoflopFit) -> pd.DataFrame:
    """N\\*, D\\* and C/(N\\*·D\\*) of every budget that has both optima.

    The exponents a of N\\*, b of D\\* and c of C/(N\\*·D\\*) over C obey a + b + c = 1 exactly, when all three are
    fitted by least squares in logarithms over the same budgets.

    Returns
    -------
    DataFrame
        `isoflop_budget`, `mean_train_flops`, `num_params_opt`, `num_tokens_opt`, `flops_per_param_and_token`.
    """
    by_budget = {p.isoflop_budget: p for p in tokens.optima}
    rows = []
    for profile in sizes.optima:
        other = by_budget.get(profile.isoflop_budget)
        if other is None or other.fit is None or profile.fit is None:
            continue
        size, number = profile.fit.law.x_opt, other.fit.law.x_opt
        rows.append(
            {
                "isoflop_budget": profile.isoflop_budget,
                "mean_train_flops": profile.mean_train_flops,
                "num_params_opt": size,
                "num_tokens_opt": number,
                "flops_per_param_and_token": profile.mean_train_flops / (size * number),
            }
        )
    return pd.DataFrame(rows)


def exponent_sums(main: Mapping[tuple[str, str], IsoflopFit]) -> pd.DataFrame:
    """Exponents a of N\\*, b of D\\* and c of kappa\\* = C/(N\\*·D\\*) by architecture, and their sums.

    Parameters
    ----------
    main
        two-step fits by architecture and x.

    Returns
    -------
    DataFrame
        `architecture` (as printed), `a`, `b`, `a + b`, `c`, `a + b + c`; `first` and `last`, kappa\\* at the lowest and
        the highest budget, FLOP per parameter and token.
    """
    rows = []
    for name in dict.fromkeys(name for name, _ in main):
        kappa = flops_per_param_and_token(main[name, "num_params"], main[name, "num_tokens"])
        c = fit_power_law(kappa["mean_train_flops"], kappa["flops_per_param_and_token"]).law.exponent
        a, b = (main[name, x].power_law.law.exponent for x in ("num_params", "num_tokens"))
        row = {"architecture": label_of(name), "a": a, "b": b, "a + b": a + b, "c": c, "a + b + c": a + b + c}
        ends = kappa["flops_per_param_and_token"].iloc[[0, -1]]
        rows.append(row | dict(zip(("first", "last"), ends, strict=True)))
    return pd.DataFrame(rows)


def show_exponent_sums(sums: pd.DataFrame) -> Html:
    """The table of `exponent_sums`."""
    return show_table(
        sums,
        name="isoflop-sums",
        caption="Two-step exponents. Each run counts once; κ* at the lowest and the highest main budget.",
        formats=dict.fromkeys(("a", "b", "a + b", "c", "a + b + c"), "{:.4f}")
        | dict.fromkeys(("first", "last"), "{:.2f}"),
        labels={"first": "κ*, lowest", "last": "κ*, highest"},
    )
