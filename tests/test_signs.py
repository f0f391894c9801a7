"""Numbers below zero have a minus sign on a page, and hyphens stay hyphens."""

import pandas as pd
import pytest

from companion.formatting import signed_percent, true_minus
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


def test_cells_of_a_table_and_nothing_else() -> None:
    markup = show_table(pd.DataFrame({"x": [-1.5]}), name="a-1", caption="A.", formats={"x": "{:.1f}"}).markup
    assert ">−1.5<" in markup
    assert 'id="tbl-a-1"' in markup
