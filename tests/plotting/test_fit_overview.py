"""A fit plots itself: runs, contours, residuals, and a caption that says how it ended."""

from simulated_tables import CHINCHILLA, simulated

from companion.fitting.parametric import fit_parametric
from companion.plotting.fit_overview import fit_overview


def test_a_fit_plots_itself() -> None:
    table = simulated(CHINCHILLA, 0.01, 0).assign(w=1)
    table.loc[:4, "w"] = 0
    fit = fit_parametric(table, gamma=1.0, weights="w")
    left, right = fit_overview(fit).axes
    assert len(left.lines[0].get_xdata()) == len(right.lines[0].get_xdata()) == fit.num_rows == len(table) - 5
    assert left.get_xscale() == left.get_yscale() == "log"
    assert max(abs(right.lines[0].get_ydata())) == abs(fit.residuals[5:]).max()
    markup = fit.plot().markup
    assert "converged" in markup
    assert f"{fit.num_rows} runs" in markup
