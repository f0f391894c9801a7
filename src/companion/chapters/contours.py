"""Labels of the contours of a loss surface, where no line or run crosses them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from companion.plotting.style import INK

Array = NDArray[np.float64]


def label_contours(ax: Axes, n: Array, d: Array, losses: Array, levels: Sequence[float] | Array) -> None:
    """Write each level beside the right edge, where its contour meets it; contours that end elsewhere get none.

    Parameters
    ----------
    n, d
        parameters and tokens of the grid, ascending, shapes (k,) and (l,).
    losses
        nats per token, shape (l, k); they fall with `d`.
    levels
        nats per token.
    """
    tokens = np.interp(levels, losses[::-1, -1], np.log(d[::-1]), left=np.nan, right=np.nan)
    for level, place in zip(levels, np.exp(tokens), strict=True):
        if np.isfinite(place):
            at = (float(n[-1]), float(place))
            ax.annotate(f"{level:.1f}", at, (3, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
