"""Numbers as text: known answers, and no digit lost or invented."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import companion
from companion.formatting import (
    count,
    interval,
    listed,
    number_word,
    percent,
    power_of_ten,
    share_in_words,
    significant,
    together,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(83634688, "83.6M"), (999.6e6, "1.00B"), (1.0695e9, "1.07B"), (2.1e12, "2.10T"), (12, "12.0"), (1500, "1.50k")],
)
def test_count(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(("value", "text"), [(6e18, "6×10¹⁸"), (3.13e-4, "3.1×10⁻⁴"), (9.96e9, "1×10¹⁰"), (0, "0")])
def test_power_of_ten(value: float, text: str) -> None:
    assert power_of_ten(value) == text


@given(st.floats(1e-6, 1e15), st.integers(1, 6))
def test_significant_keeps_the_value_to_its_digits(value: float, digits: int) -> None:
    assert float(significant(value, digits)) == pytest.approx(value, rel=0.5000001 * 10 ** (1 - digits))


def test_the_rest() -> None:
    assert significant(9.999, 3) == "10.0"
    assert significant(-0.0547, 2) == "-0.055"
    assert percent(0.1234) == "12 %"
    assert interval((0.5382, 0.5558)) == "[0.538, 0.556]"


@pytest.mark.parametrize("function", [count, power_of_ten, significant])
def test_undefined_values_say_so(function: object) -> None:
    assert function(math.nan) == function(math.inf) == "undefined"  # type: ignore[operator]
    assert interval((math.nan, 1.0)) == "undefined"


def test_counts_and_lists_in_sentences() -> None:
    assert [number_word(n, "none") for n in (0, 1, 12, 13, 2000)] == ["none", "one", "twelve", "13", "2,000"]
    assert number_word(0) == "no"
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", 2, "c"])] == ["", "a", "a and b", "a, 2 and c"]


@pytest.mark.parametrize(
    ("number", "total", "text"),
    [
        (0, 6, "none of the six"),
        (4, 6, "four of the six"),
        (6, 6, "all six"),
        (13, 18, "13 of the 18"),
        (5, 18, "5 of the 18"),
        (0, 18, "none of the 18"),
        (12, 12, "all twelve"),
        (1200, 1300, "1,200 of the 1,300"),
        (275, 275, "all 275"),
        (1, 1, "1 of 1"),
        (0, 1, "0 of 1"),
        (0, 0, "0 of 0"),
        (0, 2, "neither of the two"),
        (1, 2, "one of the two"),
        (2, 2, "both"),
    ],
)
def test_share_in_words(number: int, total: int, text: str) -> None:
    assert share_in_words(number, total) == text


def test_percent_has_one_form() -> None:
    """Number, space, sign: nothing outside `companion.formatting` writes it by itself."""
    own = re.compile(r":[+]?(?:\.\d+)?%[}\"]|\} ?%(?![\w{])")
    assert all(own.search(text) for text in ('f"{share:.1%}"', 'f"{100 * share:g} %"', '"{:.0%}"'))
    sources = Path(companion.__file__).parent.rglob("*.py")
    found = [f"{p.name}: {line.strip()}" for p in sources for line in p.read_text().splitlines() if own.search(line)]
    assert [line for line in found if not line.startswith("formatting.py")] == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("80 GB at 3.35 TB/s", "80_GB at 3.35_TB/s"),
        ("5\n% of T = −1, M ≥ 20", "5_% of T_=_−1, M_≥_20"),
        ("x = y, 3 modes, 2 shares, 4 Bs", "x = y, 3 modes, 2 shares, 4 Bs"),
    ],
)
def test_numbers_stay_with_units_and_symbols(text: str, kept: str) -> None:
    assert together(text) == kept.replace("_", "\u00a0")
