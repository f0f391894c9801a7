"""Labels of contours beside the right edge."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from companion.chapters.contours import label_contours


def test_a_level_is_written_where_its_contour_meets_the_right_edge() -> None:
    n, d = np.geomspace(1e8, 1e10, 40), np.geomspace(1e9, 1e12, 90)
    losses = 5 - 0.25 * np.log10(d[:, None]) + 0 * n[None, :]  # 2.75 at the lowest tokens, 2 at the highest
    ax = Figure().add_subplot(xscale="log", yscale="log")
    label_contours(ax, n, d, losses, [1.8, 2.25, 2.5, 2.8])
    places = {each.get_text(): each.xy for each in ax.texts}
    assert list(places) == ["2.2", "2.5"]  # the other two lie outside of the grid
    assert places["2.5"] == pytest.approx((1e10, 1e10))
    assert places["2.2"] == pytest.approx((1e10, 1e11))
