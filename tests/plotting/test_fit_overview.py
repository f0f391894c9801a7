"""A fit at a glance: runs, contours, residuals, and a caption that says how it ended."""

import numpy as np
from simulated_tables import CHINCHILLA, simulated

from companion.fitting.fit import fit
from companion.laws import LossSurface
from companion.plotting.fit_overview import fit_overview, show_fit


def test_fit_overview() -> None:
    table = simulated(CHINCHILLA, 0.01, 0).assign(w=1)
    table.loc[:4, "w"] = 0
    fitted = fit(LossSurface, table, gamma=1.0, weights="w")
    left, right = fit_overview(fitted).axes
    assert len(left.lines[0].get_xdata()) == len(right.lines[0].get_xdata()) == fitted.num_rows == len(table) - 5
    assert left.get_xscale() == left.get_yscale() == "log"
    ratios = np.exp(fitted.residuals[5:]) - 1  # the label says: observed over fitted loss − 1
    np.testing.assert_allclose(right.lines[0].get_ydata(), ratios, rtol=1e-12)
    markup = show_fit(fitted).markup
    assert "converged" in markup
    assert f"{fitted.num_rows} runs" in markup
