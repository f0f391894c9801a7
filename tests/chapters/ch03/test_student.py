"""Student's factor against tables, and the table that the page shows."""

import numpy as np
import pytest

from companion.chapters.ch03.student import coverage_of_one_standard_error, show_student_factors, student_factor


def test_student() -> None:
    assert student_factor(1) == pytest.approx(12.706, abs=1e-3)
    assert student_factor(1e9) == pytest.approx(1.96, abs=1e-3)
    assert np.isnan(student_factor(0))
    assert coverage_of_one_standard_error(1) == pytest.approx(0.5)
    assert coverage_of_one_standard_error(1e9) == pytest.approx(0.6827, abs=1e-4)
    assert np.isnan(coverage_of_one_standard_error(0))


def test_table_of_student_factors() -> None:
    # Student's t at 95 %: 12.7 for 1, 4.3 for 2 and 2.0 for 98 degrees of freedom
    text = show_student_factors([3, 4, 100]).markup
    assert all(f">{factor}<" in text for factor in ("12.7", "4.3", "2.0", "50\u00a0%"))
    assert ">–<" in show_student_factors([2]).markup, "two optima leave no degree of freedom"
