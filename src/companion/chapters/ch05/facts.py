"""Values and words of chapter 5's sentences on the lines: are they parallel, and what the choices of a study change.

A `..._facts` function returns values by the name under which they are glued, a `..._verdict` one sentence or several.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch05.analysis import Slopes, Tables
from companion.chapters.ch05.tables import MISREAD, Choices
from companion.chapters.ch05.words import LEVEL, each, p_text, rejection, span
from companion.chapters.labels import label_of, the
from companion.fitting.overtraining import OvertrainingSlopes
from companion.fitting.overtraining.exponents import RATIO_TOLERANCE
from companion.fitting.overtraining.slope_tests import compare_slopes, parallel_tests
from companion.formatting import listed, number_word, percent, power_of_ten, signed, significant

Facts = dict[str, str]
#: Counts of compute that the page compares with the paper's.
_OTHER_COUNTS = ("tfla", "chinchilla attention", "6ND")


def opening_facts(slopes: Slopes, tolerance: float) -> Facts:
    """The window, that of the paper, and the exponents of the lines: a typical one, and the range by architecture."""
    etas = pd.concat([fits.table() for fits in slopes.values()])["eta"]
    return {
        "c5_tolerance": percent(tolerance),
        "c5_published_tolerance": percent(RATIO_TOLERANCE),
        "c5_eta_typical": f"{etas.median():.3f}",
        "c5_eta_range": each({name: span(fits.table()["eta"]) for name, fits in slopes.items()}),
    }


def ledger_facts(ledger: pd.DataFrame) -> Facts:
    """How many published numbers come out again, how many are independent, and how many repeat another one."""
    done = ledger[ledger["verdict"] == "reproduced"]
    independent = int(done["independent"].sum())
    # ln λ is printed beside λ, and the paper's table rounds exponents of the notebooks
    repeated = (ledger["quantity"] == "lambda_") | ledger["entry"].str.contains("table_of_the_paper")
    return {
        "c5_reproduced": f"all {len(ledger)}" if len(done) == len(ledger) else f"{len(done)} of the {len(ledger)}",
        "c5_independent": "All of them are" if independent == len(done) else f"Of these, {independent} are",
        "c5_repeated": str(int(repeated.sum())),
        "c5_distinct": str(int((~repeated).sum())),
    }


def variance_verdict(slopes: Slopes, misread: Sequence[tuple[str, str, float, float, float, float]]) -> str:
    """What a reader would conclude who took the variance for the standard error."""
    errors = pd.concat([fits.table() for fits in slopes.values()])["eta_standard_error"]
    factor = float(significant(float((1 / errors).median()), 1))
    text = f"The variance is about {factor:,.0f} times smaller than the standard error"
    table = pd.DataFrame(misread, columns=MISREAD)
    right, wrong = (table[table["taken"].str.startswith(word)] for word in ("standard", "variance"))
    if not len(right):
        return text
    seen = each({str(row["architecture"]): p_text(row["p"]) for row in right.to_dict("records")})
    words = f"p falls to {p_text(wrong['p'].min())}"
    if (wrong["p"] < 1e-6).all():
        words = "the same exponents would differ beyond doubt"
    return f"{text}. Read correctly, the test of equal exponents has p = {seen}. Misread, {words}"


def parallel_facts(tests: Tables) -> Facts:
    """Whether the lines are parallel, and how many tests were made.

    Parameters
    ----------
    tests
        of `companion.fitting.overtraining.slope_tests.parallel_tests`, by architecture.
    """
    straight, sized = (
        {name: float(table.set_index("shape")["p_value"].to_dict()[shape]) for name, table in tests.items()}
        for shape in ("straight", "by size")
    )
    return {
        "c5_straight": rejection(straight),
        "c5_sized": rejection(sized),
        "c5_num_tests": number_word(2 * len(next(iter(tests.values())))),
    }


def power_verdict(seen: pd.DataFrame, largest: float) -> str:
    """The change of η over the ratios that the F test of straight lines finds.

    Parameters
    ----------
    seen
        of `companion.chapters.ch05.detectable`.
    largest
        the largest change that was simulated.
    """
    return listed(
        f"{row['f_test']:.4f} ({percent(row['share'])} of η) for {the(row['architecture'])}"
        if np.isfinite(row["f_test"])
        else f"more than {largest:.4f} (the largest that was simulated) for {the(row['architecture'])}"
        for row in seen[seen["shape"] == "straight"].to_dict("records")
    )


def choice_verdict(choices: Choices, tolerance: float) -> str:
    """How far the choice of runs moves η; choices as in `companion.chapters.ch05.choices_table`."""
    ranges, moved, sharp = {}, [], {}
    for name in dict.fromkeys(name for name, _, _ in choices):
        kept, out = choices[name, tolerance, True], choices[name, tolerance, False]
        for ratio in sorted(set(kept.laws) & set(out.laws)):
            a, b = -kept.laws[ratio].law.exponent, -out.laws[ratio].law.exponent
            if a != b:
                errors = abs(a - b) / out.laws[ratio].exponent_standard_error
                moved.append(
                    f"the exponent at M = {ratio:g} ({label_of(name)}) from {b:.4f} to {a:.4f}, "
                    f"by {errors:.1f} standard errors"
                )
        own = {key: fits for key, fits in choices.items() if key[0] == name}
        ranges[name] = span(fits.common_eta for fits in own.values())
        p_values = [parallel_tests(fits)["p_value"].iloc[-1] for (_, _, keep), fits in own.items() if not keep]
        tested = [p for p in p_values if np.isfinite(p)]
        if tested:
            sharp[name] = number_word(sum(p < LEVEL for p in tested), "none")
    text = f"Over all these choices the common η is {each(ranges)}"
    if moved:
        text += f". Keeping the run that was left out moves {listed(moved)}"
    if sharp:
        widths = len({width for _, width, _ in choices})
        text += f". By size, equal slopes are rejected at {each(sharp)} of the {number_word(widths)} widths"
    return text


def convention_facts(slopes: Slopes, counted: Mapping[tuple[str, str], OvertrainingSlopes], missing: str) -> Facts:
    """How far the count of compute moves the exponents, and the difference of two architectures.

    Parameters
    ----------
    counted
        by architecture and convention; empty where the table cannot be counted again.
    missing
        why it cannot.
    """
    text = f"This table cannot be counted again: {missing}"
    if counted:
        names = list(dict.fromkeys(name for name, _ in counted))
        changes = {other: max(_largest_change(counted, name, other) for name in names) for other in _OTHER_COUNTS}
        said = [f"{power_of_ten(change, 1)} with {other}" for other, change in changes.items()]
        text = f"Against the paper's count, the exponent of a line changes by up to {listed(said)}"
    return {"c5_convention": text, "c5_difference": _difference(slopes, counted)}


def _largest_change(counted: Mapping[tuple[str, str], OvertrainingSlopes], name: str, other: str) -> float:
    base, laws = counted[name, "paper"].laws, counted[name, other].laws
    return max(abs(base[ratio].law.exponent - laws[ratio].law.exponent) for ratio in set(base) & set(laws))


def _difference(slopes: Slopes, counted: Mapping[tuple[str, str], OvertrainingSlopes]) -> str:
    """η of one of two architectures minus that of the other, and whether the count of compute turns its sign."""
    if len(slopes) != 2:
        return "With one architecture, or more than two, there is no pair to compare"
    first, second = map(the, slopes)
    own = compare_slopes(*slopes.values())
    text = (
        f"With the compute of the table, η of {first} minus η of {second} is {signed(own.value)} ± "
        f"{own.standard_error:.4f} (p = {p_text(own.p_value)})"
    )
    if not counted:
        return text
    named = {
        convention: compare_slopes(*(counted[name, convention] for name in slopes)).value
        for convention in dict.fromkeys(convention for _, convention in counted)
    }
    least, most = min(named, key=lambda key: named[key]), max(named, key=lambda key: named[key])
    words = "Its sign depends on the convention" if named[least] < 0 < named[most] else "Its sign stays the same"
    ends = " to ".join(f"{signed(named[key])} ({key})" for key in (least, most))
    return f"{text}. {words}: the difference ranges from {ends}"
