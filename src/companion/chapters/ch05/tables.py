"""The tables of chapter 5 on the lines and their exponents."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from companion.chapters.ch05.analysis import Slopes, Tables
from companion.chapters.ch05.shown import published_exponents
from companion.chapters.ch05.words import p_text
from companion.chapters.labels import label_of
from companion.fitting.overtraining import OvertrainingSlopes
from companion.fitting.overtraining.slope_tests import compare_slopes, parallel_tests
from companion.formatting import interval, level_text, percent, power_of_ten, signed
from companion.plotting import Html, show_table

#: From here on a test statistic is printed as a power of ten.
_MANY = 1e5
#: Choices of runs by architecture, width of the window, and whether the left-out run is kept.
Choices = Mapping[tuple[str, float, bool], OvertrainingSlopes]
#: Columns of a list of `misread` exponents: architecture, reading, median error, distance of the extremes, Q, p.
MISREAD = ["architecture", "taken", "median", "apart", "Q", "p"]


def labeled(table: pd.DataFrame) -> pd.DataFrame:
    """The same with the labels of the architectures for their names."""
    return table.assign(architecture=table["architecture"].map(label_of))


def _compute_ranges(fits: OvertrainingSlopes) -> list[str]:
    """Least and largest compute of the runs of every line, as text."""
    ends = fits.data.groupby("tokens_per_param")["train_flops"].agg(["min", "max"])
    return [f"{power_of_ten(low)} to {power_of_ten(high)}" for low, high in zip(ends["min"], ends["max"], strict=True)]


def slopes_table(slopes: Slopes) -> Html:
    """Exponents of all lines with standard errors and intervals."""
    parts = []
    for name, fits in slopes.items():
        ends = [fit.interval("exponent") for fit in fits.laws.values()]
        part = fits.table().assign(architecture=label_of(name), interval=[interval((-b, -a), 4) for a, b in ends])
        parts.append(part.assign(flops=_compute_ranges(fits)))
    columns = ["architecture", "tokens_per_param", "num_runs", "flops", "eta", "eta_standard_error", "interval"]
    return show_table(
        pd.concat(parts, ignore_index=True)[columns],
        name="overtraining-slopes",
        caption="Exponent of every line. The 95 % intervals are Student's: with few runs per line they are much wider "
        "than two standard errors to either side.",
        formats={"tokens_per_param": "{:g}", "eta": "{:.5f}", "eta_standard_error": "{:.5f}"},
        labels={"tokens_per_param": "M", "num_runs": "runs", "eta": "η", "eta_standard_error": "standard error"}
        | {"flops": "C (FLOP)", "interval": "95 % interval"},
    )


def published_table(ledger: pd.DataFrame) -> Html:
    """Exponents of the paper's table beside ours, from rows of the ledger."""
    printed = published_exponents(ledger)
    return show_table(
        printed.assign(architecture=printed["name"].map(label_of))[
            ["architecture", "M", "published", "ours", "tolerance", "verdict"]
        ],
        name="overtraining-ledger",
        caption="Published exponents and ours. The tolerance is half a unit of the last printed digit.",
        formats={"M": "{:g}", "published": "{:.3f}", "ours": "{:.5f}", "tolerance": "{:.1g}"},
    )


def misread_table(misread: Sequence[tuple[str, str, float, float, float, float]]) -> Html:
    """Cochran's Q with the standard errors, and with their squares; columns as in `MISREAD`."""
    return show_table(
        labeled(pd.DataFrame(misread, columns=MISREAD)),
        name="overtraining-misread",
        caption="Two readings of one column of errors, with the same exponents. Apart: largest minus smallest "
        "η, in units of the median error.",
        formats={"median": power_of_ten, "apart": _large, "Q": _large, "p": p_text},
        labels={"taken": "column read as", "median": "median error"},
    )


def _large(value: float) -> str:
    return f"{value:,.1f}" if value < _MANY else power_of_ten(value)


def parallel_table(tests: Tables) -> Html:
    """Tests of parallel lines, of `companion.fitting.overtraining.slope_tests.parallel_tests` by architecture."""
    every = pd.concat([table.assign(architecture=label_of(name)) for name, table in tests.items()])
    every["degrees"] = [f"{a}, {b}" for a, b in zip(every["between"], every["within"], strict=True)]
    return show_table(
        every[["architecture", "shape", "scatter", "f_statistic", "degrees", "p_value", "trend_p_value"]],
        name="overtraining-parallel",
        caption="Tests of parallel lines, by what the lines may look like. Scatter: of ln L about lines with slopes of "
        "their own. Trend: the same test for slopes that change steadily with log M (one degree of freedom).",
        formats={"scatter": "{:.4f}", "f_statistic": "{:.2f}", "p_value": p_text, "trend_p_value": p_text},
        labels={"shape": "lines", "f_statistic": "F", "p_value": "p", "trend_p_value": "p of a trend"}
        | {"degrees": "degrees of freedom"},
    )


def detectable_table(seen: pd.DataFrame) -> Html:
    """Which changes the tests find, of `companion.chapters.ch05.detectable`."""
    return show_table(
        labeled(seen),
        name="overtraining-power",
        caption="Change of η that a test finds: from the smallest to the largest ratio, in 80 % of simulations. "
        "False alarms: share of p < 0.05 without any change. Share of η: of the change found by F.",
        formats={"false alarms": "{:.3f}", "f_test": "{:.4f}", "trend_test": "{:.4f}", "share": percent},
        labels={"shape": "lines", "f_test": "found by F", "trend_test": "found by trend", "share": "share of η"},
    )


def choices_table(choices: Choices) -> Html:
    """The common exponent and the tests of parallel lines by choice of runs."""
    rows = []
    for (name, width, keep), fits in choices.items():
        row = {"architecture": label_of(name), "within": width, "left-out run": "kept" if keep else "out"}
        row |= {"runs": len(fits.data), "common": fits.common_eta, "p": fits.p_value}
        rows.append(row | {"by size": parallel_tests(fits)["p_value"].iloc[-1]})
    table = pd.DataFrame(rows)
    same = table.drop(columns="left-out run").duplicated()  # keeping changes nothing where there is nothing to keep
    return show_table(
        table[~same],
        name="overtraining-choices",
        caption="Choices of runs: common exponent and tests of parallel lines, by the width of the window about a "
        "ratio and by the run that is left out by hand.",
        formats={"within": _window, "common": "{:.4f}", "p": p_text, "by size": p_text},
        labels={"common": "common η", "p": "p, straight", "by size": "p, by size"},
    )


def exponents_table(choices: Choices) -> Html:
    """The exponent of every line by the width of the window; in parentheses with the left-out run, where it differs."""
    rows: list[dict[str, Any]] = []
    widths = list(dict.fromkeys(width for _, width, _ in choices))
    for name in dict.fromkeys(name for name, _, _ in choices):
        for ratio in sorted({ratio for key, fits in choices.items() if key[0] == name for ratio in fits.laws}):
            texts = {_window(width): _exponents(choices, name, width, ratio) for width in widths}
            rows.append({"architecture": label_of(name), "M": f"{ratio:g}"} | texts)
    return show_table(
        pd.DataFrame(rows),
        name="overtraining-choices-lines",
        caption="Exponent of every line by the width of the window. In parentheses: with the run that is left out by "
        "hand, where it changes the line. A dash: fewer than three runs.",
    )


def _window(width: float) -> str:
    return f"± {level_text(width)}"


def _exponents(choices: Choices, name: str, width: float, ratio: float) -> str:
    laws = [choices[name, width, keep].laws.get(ratio) for keep in (False, True)]
    out, kept = ["–" if fit is None else f"{-fit.law.exponent:.4f}" for fit in laws]
    return out if out == kept else f"{out} ({kept})"


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
            row[f"η, {label_of(name)}"] = f"{each.common_eta:.6f} (p = {p_text(each.p_value)})"
        if len(fits) == 2:
            difference = compare_slopes(*fits)
            row["difference"] = f"{signed(difference.value, 5)} ± {difference.standard_error:.5f}"
            row["p of difference"] = p_text(difference.p_value)
        rows.append(row)
    table = pd.DataFrame(rows)
    return show_table(
        table if rows else pd.DataFrame({"note": [f"this table cannot be counted again: {missing}"]}),
        name="overtraining-conventions",
        caption="Exponents by convention of counting, common to all ratios, with the p of the test of parallel lines. "
        "Difference: first architecture minus second, ± one standard error.",
    )


def bends_table(bends: pd.DataFrame) -> Html:
    """How η changes per decade of compute, of `companion.chapters.ch05.bends`."""
    shown = labeled(bends[bends["seen"].notna()])
    shown["interval"] = [interval(ends, 4).replace("-", "−") for ends in zip(shown["low"], shown["high"], strict=True)]
    return show_table(
        shown[["architecture", "runs", "seen", "interval", "p", "law"]],
        name="overtraining-bends",
        caption="Change of η per decade of compute: in the runs, and in the losses that the parametric law predicts "
        "for the same runs.",
        formats={"seen": signed, "law": signed, "p": p_text},
        labels={"seen": "Δη", "interval": "95 % interval", "law": "Δη by the law"},
    )


def beyond_table(beyond: pd.DataFrame) -> Html:
    """Line and law beyond the runs, of `companion.chapters.ch05.beyond`."""
    ends = zip(beyond["low"], beyond["high"], strict=True)
    law = [f"{value:.3f} {interval(each)}" for value, each in zip(beyond["law"], ends, strict=True)]
    return show_table(
        labeled(beyond).assign(law=law).drop(columns=["low", "high"]),
        name="overtraining-beyond",
        caption="Loss (nats/token) at a hundred times the compute of the last run of the smallest ratio, by its line "
        "and by the law (95 % confidence band, bootstrap).",
        formats={"M": "{:g}", "flops": power_of_ten, "line": "{:.3f}"},
        labels={"flops": "C (FLOP)", "line": "by the line", "law": "by the law"},
    )
