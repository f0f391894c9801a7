"""The tables of chapter 5."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch05.analysis import Slopes, Tables
from companion.chapters.ch05.shown import published_exponents
from companion.chapters.labels import label_of
from companion.fitting.fit import Fit
from companion.fitting.overtraining import OvertrainingSlopes
from companion.fitting.overtraining.slope_tests import compare_slopes, parallel_tests
from companion.formatting import count, interval, power_of_ten, significant
from companion.laws import LossSurface
from companion.plotting import Html, show_table

#: Columns of a list of `misread` exponents: architecture, reading, median error, distance of the extremes, Q, p.
MISREAD = ["architecture", "taken", "median", "apart", "Q", "p"]


def _two_digits(value: float) -> str:
    return significant(value, 2)


def _labeled(table: pd.DataFrame) -> pd.DataFrame:
    """The same with the labels of the architectures for their names."""
    return table.assign(architecture=table["architecture"].map(label_of))


def _ranges(fits: OvertrainingSlopes) -> pd.DataFrame:
    """Least and largest train_flops of the runs of every line, columns `min` and `max`."""
    return fits.data.groupby("tokens_per_param")["train_flops"].agg(["min", "max"]).reset_index(drop=True)


def slopes_table(slopes: Slopes) -> Html:
    """Exponents of all lines with standard errors and intervals."""
    parts = []
    for name, fits in slopes.items():
        ends = [fit.interval("exponent") for fit in fits.laws.values()]
        part = fits.table().assign(architecture=label_of(name), interval=[interval((-b, -a), 4) for a, b in ends])
        parts.append(part.assign(from_flops=_ranges(fits)["min"], to_flops=_ranges(fits)["max"]))
    columns = ["architecture", "tokens_per_param", "num_runs", "from_flops", "to_flops", "eta", "eta_standard_error"]
    return show_table(
        pd.concat(parts, ignore_index=True)[[*columns, "interval"]],
        caption="Exponents with standard errors and 95 % intervals (Student's t: few runs per line make it much wider "
        "than ± 2).",
        formats={"tokens_per_param": "{:g}", "eta": "{:.5f}", "eta_standard_error": "{:.5f}"}
        | {"from_flops": power_of_ten, "to_flops": power_of_ten},
        labels={"tokens_per_param": "M", "num_runs": "runs", "eta": "η", "eta_standard_error": "standard error"}
        | {"from_flops": "from C (FLOP)", "to_flops": "to C (FLOP)", "interval": "95 % interval"},
    )


def published_table(ledger: pd.DataFrame) -> Html:
    """Exponents of the paper's table beside ours, from rows of the ledger."""
    printed = published_exponents(ledger)
    return show_table(
        printed.assign(architecture=printed["name"].map(label_of))[
            ["architecture", "M", "published", "ours", "tolerance", "verdict"]
        ],
        caption="Exponents of the paper's table. All rows of this section are on the page of the ledger.",
        formats={"M": "{:g}", "published": "{:.3f}", "ours": "{:.5f}", "tolerance": "{:.1g}"},
    )


def misread_table(misread: Sequence[tuple[str, str, float, float, float, float]]) -> Html:
    """Cochran's Q with the standard errors, and with their squares; columns as in `MISREAD`."""
    return show_table(
        _labeled(pd.DataFrame(misread, columns=MISREAD)),
        caption="The same exponents with two readings of one column. Apart: largest minus smallest η in units of the "
        "median error.",
        formats={"median": "{:.1e}", "apart": "{:,.1f}", "Q": "{:,.1f}"}
        | {"p": lambda p: f"{p:.2g}" if p > 1e-300 else "< 1e-300"},
        labels={"taken": "taken as the error", "median": "its median"},
    )


def parallel_table(tests: Tables) -> Html:
    """Tests of parallel lines, of `companion.fitting.overtraining.slope_tests.parallel_tests` by architecture."""
    every = pd.concat([table.assign(architecture=label_of(name)) for name, table in tests.items()])
    every["degrees"] = [f"{a}, {b}" for a, b in zip(every["between"], every["within"], strict=True)]
    return show_table(
        every[["architecture", "shape", "scatter", "f_statistic", "degrees", "p_value", "trend_p_value"]],
        caption="Tests of parallel lines. Scatter: of ln L about lines with slopes of their own. Trend: slopes that "
        "change steadily with log M, one degree of freedom.",
        formats={"scatter": "{:.4f}", "f_statistic": "{:.2f}", "p_value": _two_digits, "trend_p_value": _two_digits},
        labels={"f_statistic": "F", "p_value": "p", "trend_p_value": "p of a trend", "degrees": "degrees of freedom"},
    )


def detectable_table(seen: pd.DataFrame) -> Html:
    """Which changes the tests find, of `companion.chapters.ch05.detectable`."""
    return show_table(
        _labeled(seen),
        caption="The change of η from the smallest to the largest ratio that is found in 80 % of simulations. False "
        "alarms: share of p < 0.05 with no change at all. Last column: the F-test's change relative to η.",
        formats={"false alarms": "{:.3f}", "f_test": "{:.4f}", "trend_test": "{:.4f}", "share": "{:.0%}"},
        labels={"f_test": "found by F", "trend_test": "found by trend", "share": "of η"},
    )


def choices_table(choices: Mapping[tuple[str, float, bool], OvertrainingSlopes]) -> Html:
    """Exponents by choice of runs: architecture, width of the window, and whether the left-out run is kept."""
    rows = []
    for (name, width, keep), fits in choices.items():
        row = {"architecture": label_of(name), "within": width, "left-out run": "kept" if keep else "out"}
        row |= {"runs": len(fits.data), "common": fits.common_eta, "p": fits.p_value}
        row |= {"by size": parallel_tests(fits)["p_value"].iloc[-1]}
        rows.append(row | {f"M = {ratio:g}": -law.law.exponent for ratio, law in fits.laws.items()})
    table = pd.DataFrame(rows)
    ratios = sorted({ratio for fits in choices.values() for ratio in fits.laws})
    numbers = list(dict.fromkeys(f"M = {ratio:g}" for ratio in ratios))
    styles: dict[str, str | Callable[[Any], str]] = dict.fromkeys(("common", *numbers), "{:.4f}")
    styles |= {"within": "± {:.0%}", "p": "{:.2f}", "by size": _two_digits}
    same = table.drop(columns="left-out run").duplicated()  # keeping changes nothing where there is nothing to keep
    return show_table(
        table.loc[~same, ["architecture", "within", "left-out run", "runs", "common", "p", "by size", *numbers]],
        caption="Exponents by choice of runs.",
        formats=styles,
        labels={"common": "common η", "p": "p, parallel", "by size": "p, by size", "runs": "runs used"},
    )


def conventions_table(counted: Mapping[tuple[str, str], OvertrainingSlopes], missing: str) -> Html:
    """Common exponents by architecture and convention, and their difference where there are two architectures.

    Parameters
    ----------
    missing
        why the table cannot be counted again; empty if it can.
    """
    names, rows = list(dict.fromkeys(name for name, _ in counted)), []
    for convention in dict.fromkeys(convention for _, convention in counted):
        fits = [counted[name, convention] for name in names]
        row: dict[str, Any] = {"convention": convention}
        for name, each in zip(names, fits, strict=True):
            row |= {f"η, {label_of(name)}": each.common_eta, f"p, {label_of(name)}": each.p_value}
        if len(fits) == 2:
            difference = compare_slopes(*fits)
            row |= {"difference": difference.value, "±": difference.standard_error, "p, difference": difference.p_value}
        rows.append(row)
    styles = {"η": "{:.6f}", "d": "{:+.5f}", "±": "{:.5f}"}
    table = pd.DataFrame(rows)
    return show_table(
        table if rows else pd.DataFrame({"note": [f"this table cannot be counted again: {missing}"]}),
        caption="Common exponent and test of parallel lines by convention; difference: first architecture minus "
        "second.",
        formats={name: styles.get(name[0], _two_digits) for name in map(str, table) if name != "convention"},
    )


def bends_table(bends: pd.DataFrame) -> Html:
    """How η changes per decade of compute, of `companion.chapters.ch05.bends`."""
    shown = _labeled(bends[bends["seen"].notna()])
    shown["interval"] = [interval(ends, 4) for ends in zip(shown["low"], shown["high"], strict=True)]
    return show_table(
        shown[["architecture", "runs", "seen", "interval", "p", "law"]],
        caption="Change of η per decade of compute: in the runs, and in the losses that the parametric law gives the "
        "same runs.",
        formats={"seen": "{:+.4f}", "law": "{:+.4f}", "p": _two_digits},
        labels={"seen": "Δη per decade", "interval": "95 % interval", "law": "Δη per decade, law"},
    )


def cost_table(costs: Tables, train_flops: float) -> Html:
    """What over-training costs, of `companion.chapters.ch05.costs` by architecture."""
    styles = {
        "relative_penalty": lambda value: f"{value:.1%}",
        "size_ratio": lambda value: f"{value:.2f}",
        "compute_factor": lambda value: f"{value:.2f}",
        "break_even_tokens": lambda value: count(value, 2),
    }
    parts = []
    for name, table in costs.items():
        texts = {
            column: [
                f"{style(value)} [{style(low)}, {style(high)}]" if np.isfinite(value) else "–"
                for value, low, high in zip(table[column], table[f"{column}_low"], table[f"{column}_high"], strict=True)
            ]
            for column, style in styles.items()
        }
        parts.append(table.assign(architecture=label_of(name), **texts))
    columns = ["architecture", "tokens_per_param", "num_params", "relative_penalty", "size_ratio", "compute_factor"]
    return show_table(
        pd.concat(parts, ignore_index=True)[[*columns, "size_at_equal_loss", "break_even_tokens"]],
        caption=f"What over-training costs and what it buys, at {power_of_ten(train_flops)} FLOP; 95 % bootstrap "
        "intervals in brackets.",
        formats={"tokens_per_param": "{:g}", "num_params": count, "size_at_equal_loss": "{:.2f}"},
        labels={"tokens_per_param": "M", "num_params": "N", "relative_penalty": "loss above optimum"}
        | {"size_ratio": "N/N*, equal compute", "compute_factor": "C/C*, equal loss"}
        | {"size_at_equal_loss": "N/N*, equal loss", "break_even_tokens": "served tokens to break even"},
    )


def sensitivity_table(sensitivity: Tables, train_flops: float, ratio: float) -> Html:
    """The price of one ratio by other laws, of `companion.fitting.overtraining.cost.penalty_by_law` by architecture."""
    every = pd.concat([table.assign(architecture=label_of(name)) for name, table in sensitivity.items()])
    every["form"] = [
        f"{gamma:.2f}" if free else "1 (fixed)" for gamma, free in zip(every["gamma"], every["gamma_free"], strict=True)
    ]
    return show_table(
        every[["architecture", "runs", "num_runs", "form", "E", "optimal_ratio", "penalty", "rms", "status"]],
        caption=f"The same cost from other laws: optimal M and loss penalty at M = {ratio:g}, "
        f"{power_of_ten(train_flops)} FLOP.",
        formats={"E": "{:.2f}", "optimal_ratio": "{:.1f}", "penalty": "{:.1%}", "rms": "{:.4f}"},
        labels={"num_runs": "number", "form": "γ", "optimal_ratio": "optimal M"}
        | {"penalty": f"penalty at M = {ratio:g}", "rms": "rms of ln L"},
    )


# ---- one ratio alone -----------------------------------------------------------------------------


def exact_table(fits: Mapping[tuple[tuple[float, ...], float | None], Fit], truth: LossSurface) -> Html:
    """Fits to exact losses of a known law, by the ratios of the design and the γ that was fixed (None: free)."""
    far, rows = (1e9, 5e12), []
    for (ratios, gamma), fit in fits.items():
        row: dict[str, Any] = {"ratios": ", ".join(map(str, ratios)), "γ": "free" if gamma is None else "1"}
        row |= {"status": fit.status}
        row |= {"conditioning": fit.conditioning, "rms": np.sqrt(np.mean(fit.residuals**2))}
        row |= {"α": fit.law.alpha, "β": fit.law.beta, "far": fit.law.predict(*far) / truth.predict(*far) - 1}
        rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        caption=f"Noise-free losses of a known law (α {truth.alpha:.3f}, β {truth.beta:.3f}, γ {truth.gamma:.3f}) at "
        "fixed ratios. Last column: error of the loss predicted for 1B parameters and 5T tokens.",
        formats={"conditioning": "{:.1e}", "rms": "{:.0e}", "α": "{:.3f}", "β": "{:.3f}", "far": "{:+.2%}"},
        labels={"rms": "rms of ln L", "far": "error at M = 5000"},
    )


def single_table(fits: Mapping[tuple[str, str], Fit]) -> Html:
    """Fits with γ = 1 by architecture and the runs they see."""
    rows = []
    for (name, which), fit in fits.items():
        row = {"architecture": label_of(name), "runs of": which, "runs": len(fit.data), "status": fit.status}
        row |= {"detail": fit.status_detail, "conditioning": fit.conditioning}
        rows.append(row | {"α": fit.law.alpha, "β": fit.law.beta})
    return show_table(
        pd.DataFrame(rows),
        caption="The law with γ = 1 fitted to single ratios and to all of them. A status other than converged warns.",
        formats={"conditioning": "{:.1e}", "α": "{:.3f}", "β": "{:.3f}"},
    )


# ---- solutions of the exercises ------------------------------------------------------------------


def floors_table(rows: Sequence[tuple[str, float, float, float, float]]) -> Html:
    """Lines after subtracting a floor; rows of architecture, floor, common η, its change per decade, and p of that."""
    return show_table(
        _labeled(pd.DataFrame(rows, columns=["architecture", "floor", "η", "bend", "p"])),
        caption="Common exponent and its change per decade of compute after subtracting a floor (nats per token).",
        formats={"floor": "{:.2f}", "η": "{:.4f}", "bend": "{:+.4f}", "p": "{:.2g}"},
    )


def serving_table(rows: Sequence[tuple[str, float, float, float, float]]) -> Html:
    """Cheapest ratios; rows of architecture, tokens served, ratio, size, share of all FLOP saved."""
    return show_table(
        _labeled(pd.DataFrame(rows, columns=["architecture", "served", "M", "N", "saved"])),
        caption="Cheapest ratio at equal loss, and what it saves against the compute-optimal model.",
        formats={"served": count, "M": "{:.0f}", "N": count, "saved": "{:.1%}"},
        labels={"served": "tokens served", "saved": "total FLOP saved"},
    )


def sizes_table(rows: Sequence[tuple[str, float, int, float, float, float, float]]) -> Html:
    """Lines without one size; rows of architecture, size, runs, common η, p of parallel lines, bend, and its p."""
    return show_table(
        _labeled(pd.DataFrame(rows, columns=["architecture", "without", "runs", "η", "parallel", "bend", "p"])),
        caption="Common exponent, test of parallel lines and bend without one size.",
        formats={"without": count, "η": "{:.4f}", "bend": "{:+.4f}", "parallel": _two_digits, "p": _two_digits},
        labels={"without": "without N", "parallel": "p, parallel", "bend": "Δη per decade", "p": "p, bend"},
    )
