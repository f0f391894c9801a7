"""Student's t for an error that is estimated from few degrees of freedom."""

from collections.abc import Sequence

import pandas as pd
from scipy import stats

from companion.formatting import percent
from companion.plotting import Html, show_table


def student_factor(degrees_of_freedom: float, level: float = 0.95) -> float:
    """Standard errors in half a confidence interval: 12.7 for one degree of freedom at 95 %, 1.96 for many."""
    return float(stats.t.ppf((1 + level) / 2, degrees_of_freedom)) if degrees_of_freedom > 0 else float("nan")


def coverage_of_one_standard_error(degrees_of_freedom: float) -> float:
    """Chance that the truth lies within one standard error of the estimate, the error having few degrees of freedom.

    0.5 for one, 0.68 for many (Student's t).
    """
    return float(1 - 2 * stats.t.sf(1, degrees_of_freedom)) if degrees_of_freedom > 0 else float("nan")


def show_student_factors(num_optima: Sequence[int]) -> Html:
    """Student's factor, and the coverage of one standard error, for a line through each number of optima."""
    rows = [
        {
            "optima": number,
            "degrees of freedom": number - 2,
            "factor": student_factor(number - 2),
            "within one": coverage_of_one_standard_error(number - 2),
        }
        for number in num_optima
    ]
    return show_table(
        pd.DataFrame(rows),
        name="isoflop-student",
        caption="Half a 95 % interval in standard errors, and the chance that the truth lies within one.",
        formats={"factor": "{:.1f}", "within one": percent},
        labels={"factor": "Student's factor", "within one": "truth within one standard error"},
    )
