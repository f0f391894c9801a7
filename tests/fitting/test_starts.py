"""Where a fit starts: E and K in closed form."""

import numpy as np
import pytest

from companion.fitting.derivatives import make_rows
from companion.fitting.starts import floor_and_factor
from companion.laws import LossSurface

SIZES, TOKENS = np.geomspace(1e8, 1e10, 12), np.geomspace(1e10, 2e10, 12)
H = SIZES**-0.3


@pytest.mark.parametrize("bounded", [True, False])
def test_exact_losses_give_their_floor_and_factor(bounded: bool) -> None:
    loss = 1.7 + 400 * H
    rows = make_rows(LossSurface, SIZES, TOKENS, loss, np.linspace(1, 2, 12), 1.0)
    floor, factor = floor_and_factor(np.array([H, 2 * H]) / loss, rows, bounded=bounded)
    np.testing.assert_allclose(floor, [1.7, 1.7], rtol=1e-9)
    np.testing.assert_allclose(factor, [400, 200], rtol=1e-9)


def test_a_floor_out_of_bounds_takes_the_factor_with_it() -> None:
    loss = 400 * H - 0.2
    weights = np.linspace(1, 2, 12)
    rows = make_rows(LossSurface, SIZES, TOKENS, loss, weights, 1.0)
    shape = (H / loss)[None]
    assert floor_and_factor(shape, rows, bounded=False)[0] == pytest.approx([-0.2])
    [floor], [factor] = floor_and_factor(shape, rows)
    assert floor == 0.01
    scale = np.sqrt(weights)
    [expected], *_ = np.linalg.lstsq((scale * shape[0])[:, None], scale * (1 - floor / loss), rcond=None)
    assert factor == pytest.approx(expected)
