"""Numbers below zero have a minus sign on a page, and hyphens stay hyphens."""

import math

import pandas as pd
import pytest

from companion.formatting import percent, signed, signed_percent, true_minus
from companion.plotting import show_table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-0.029 [-0.054, -0.004]", "−0.029 [−0.054, −0.004]"),
        ("10-fold, one-sided, 2019-20, T-5", "10-fold, one-sided, 2019-20, T-5"),
        ("between -30 % and +93 %", "between −30 % and +93 %"),
        ("(-.5)", "(−.5)"),
        ("– and --seed 0", "– and --seed 0"),
    ],
)
def test_minus(text: str, expected: str) -> None:
    assert true_minus(text) == expected


def test_changes_in_percent() -> None:
    assert [signed_percent(0.93), signed_percent(-0.3), signed_percent(-0.0051, 1)] == ["+93 %", "−30 %", "−0.5 %"]
    assert [signed(-0.00182), signed(0.5, 1), signed(math.nan)] == ["−0.0018", "+0.5", "undefined"]


@pytest.mark.parametrize("nothing", [0.0, -0.0, 0.0004, -0.0004])
def test_what_rounds_to_zero_has_no_sign(nothing: float) -> None:
    """Neither +0 % nor −0 %."""
    assert [signed_percent(nothing), signed(nothing, 2)] == ["0 %", "0.00"]
    assert percent(nothing, decimals=0) == "0 %"


def test_cells_of_a_table_and_nothing_else() -> None:
    markup = show_table(pd.DataFrame({"x": [-1.5]}), name="a-1", caption="A.", formats={"x": "{:.1f}"}).markup
    assert ">−1.5<" in markup
    assert 'id="tbl-a-1"' in markup
