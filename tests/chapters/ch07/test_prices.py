"""What a longer context does to prices: against the closed forms."""

from collections.abc import Mapping

import numpy as np
import pytest

from companion.accounting import count_flops
from companion.chapters.ch07.prices import context_of_half, price_of_context
from companion.fitting.context.prediction import Explanation


def test_price_of_context(explanations: Mapping[str, Explanation]) -> None:
    each = explanations["transformer"]
    size = 4e8
    dearer, by_price, elasticity = price_of_context(each, size, size, 16384)
    model = each.family.at(size)
    ends = [count_flops(model, t).train_flops_per_token for t in (8192, 16384)]
    assert dearer == pytest.approx(ends[1] / ends[0], rel=1e-9)
    law = each.law_fit.law
    assert by_price == pytest.approx(dearer ** -(law.beta / (law.alpha + law.beta)))
    nearby = [each.family.flops_per_token(each.family.width_of(size * f), 16384) for f in (0.99, 1.01)]
    assert elasticity == pytest.approx(np.log(nearby[1] / nearby[0]) / np.log(1.01 / 0.99), rel=1e-3)
    assert price_of_context(each, size, size, 8192)[:2] == (1.0, 1.0)


def test_an_mlstm_does_not_get_dearer(explanations: Mapping[str, Explanation]) -> None:
    dearer, by_price, _ = price_of_context(explanations["xlstm"], 4e8, 4e8, 2**20)
    assert dearer == pytest.approx(1)
    assert by_price == pytest.approx(1)


def test_context_of_half() -> None:
    lengths = np.array([2.0**k for k in range(10, 16)])
    assert context_of_half(lengths / (lengths + 5000), lengths) == pytest.approx(5000)
    assert np.isnan(context_of_half([0.1, 0.2, 0.5], [1024, 2048, 4096]))
