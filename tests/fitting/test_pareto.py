"""Fronts: known answers, an independent computation on a grid, and properties on any set of runs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from companion.errors import InputError
from companion.fitting.pareto import (
    READINGS,
    Curve,
    Reading,
    beaten,
    compare_architectures,
    compare_fronts,
    fit_front,
    matched_pairs,
)
from companion.runs.load import load_paper_runs
from companion.runs.select import subset

# C in FLOP: 1, 10, 100, 1000; the run at 10 lies above the line between its neighbors
FLOPS, LOSS = np.array([1.0, 10.0, 100.0, 1000.0]), np.array([4.0, 3.8, 3.0, 2.9])
points = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=30)


def front_of(pairs: list[tuple[int, int]], scale: float = 1.0):
    flops, loss = np.array(pairs, dtype=float).T
    return fit_front(1e18 * flops, 1 + scale * loss / 10)


class TestFront:
    def test_keeps_what_no_run_beats(self) -> None:
        front = fit_front([100.0, 1.0, 10.0, 10.0, 1000.0, 500.0], [3.0, 4.0, 3.8, 3.9, 2.9, 3.0])
        assert front.rows.tolist() == [1, 2, 0, 4]
        assert front.train_flops.tolist() == FLOPS.tolist()
        assert front.loss.tolist() == LOSS.tolist()

    def test_equal_runs_stand_once(self) -> None:
        assert fit_front([5.0, 5.0, 9.0], [2.0, 2.0, 1.0]).rows.tolist() == [0, 2]

    def test_hull_leaves_out_what_lies_above(self) -> None:
        assert fit_front(FLOPS, LOSS).hull().rows.tolist() == [0, 2, 3]

    def test_hull_of_points_on_a_line_is_its_ends(self) -> None:
        assert fit_front([1.0, 10.0, 100.0], [3.0, 2.0, 1.0]).hull().rows.tolist() == [0, 2]

    @pytest.mark.parametrize(("reading", "expected"), [("hull", 3.25), ("linear", 3.4), ("steps", 3.8)])
    def test_loss_between_runs(self, reading: Reading, expected: float) -> None:
        front = fit_front(FLOPS, LOSS)
        assert front.loss_at(10**1.5, reading) == pytest.approx(expected)
        assert front.loss_at([1.0, 1000.0], reading).tolist() == [4.0, 2.9]
        assert np.isnan(front.loss_at([0.99, 1001.0], reading)).all()

    @pytest.mark.parametrize(("flops", "loss"), [([], []), ([0.0, 1.0], [2.0, 1.0]), ([1.0], [1.0, 2.0])])
    def test_refuses(self, flops: list[float], loss: list[float]) -> None:
        with pytest.raises(InputError):
            fit_front(flops, loss)

    def test_unknown_reading(self) -> None:
        with pytest.raises(InputError, match="'spline' is not one of hull, linear, steps"):
            fit_front(FLOPS, LOSS).loss_at(2.0, "spline")  # type: ignore[arg-type]

    @given(points)
    def test_no_run_lies_below_the_hull_and_readings_are_ordered(self, pairs: list[tuple[int, int]]) -> None:
        flops, loss = np.array(pairs, dtype=float).T
        front = fit_front(flops, loss)
        inside = flops <= front.train_flops[-1]
        hull, linear, steps = (front.loss_at(flops[inside], reading) for reading in READINGS)
        assert (hull <= loss[inside] + 1e-9).all()
        assert (hull <= linear + 1e-9).all()
        assert (linear <= steps + 1e-9).all()

    @given(points)
    def test_hull_against_qhull(self, pairs: list[tuple[int, int]]) -> None:
        front = front_of(pairs)
        x, y = np.log10(front.train_flops), front.loss
        # a far point above closes the polygon, so that only lower corners are left
        corners = np.column_stack((np.r_[x, x.mean()], np.r_[y, 100.0]))
        if x.size < 2:
            assert front.hull().rows.tolist() == front.rows.tolist()
            return
        expected = sorted(set(ConvexHull(corners).vertices) - {x.size})
        # as curves: rounding decides whether a run on a line between two others is a corner
        assert front.loss_at(front.train_flops) == pytest.approx(np.interp(x, x[expected], y[expected]), abs=1e-9)

    @given(points, points)
    def test_beaten_against_all_pairs(self, ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> None:
        flops, loss = np.array(ours, dtype=float).T
        other_flops, other_loss = np.array(theirs, dtype=float).T
        expected = [
            any((other_flops <= c) & (other_loss <= height) & ((other_flops < c) | (other_loss < height)))
            for c, height in zip(flops, loss, strict=True)
        ]
        assert beaten(flops, loss, fit_front(other_flops, other_loss)).tolist() == expected


class TestCurve:
    curve = Curve(edges=np.array([0.0, 1.0, 3.0]), left=np.array([-1.0, 2.0]), right=np.array([1.0, 2.0]))

    def test_known_values(self) -> None:
        assert (self.curve.minimum, self.curve.maximum) == (-1.0, 2.0)
        assert self.curve.mean == pytest.approx(4 / 3)
        assert self.curve.share_below(0.0) == pytest.approx(1 / 6)
        assert self.curve.share_above(0.0) == pytest.approx(5 / 6)
        assert self.curve.share_below(2.0) == pytest.approx(1 / 3)
        assert self.curve.share_above(2.0) == 0.0
        assert self.curve.quantile(1 / 6) == pytest.approx(0.0, abs=1e-12)
        assert self.curve.quantile(0.5) == 2.0

    @given(st.lists(st.tuples(st.integers(1, 9), st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=8))
    def test_against_a_fine_grid(self, pieces: list[tuple[int, int, int]]) -> None:
        widths, left, right = np.array(pieces, dtype=float).T
        curve = Curve(edges=np.r_[0.0, np.cumsum(widths)], left=left, right=right)
        within = (np.arange(2000) + 0.5) / 2000
        values = np.concatenate([a + (b - a) * within for a, b in zip(left, right, strict=True)])
        weights = np.repeat(widths, within.size)
        for level in (-3.5, 0.0, 2.0):
            assert curve.share_below(level) == pytest.approx(np.average(values < level, weights=weights), abs=2e-3)
        assert curve.mean == pytest.approx(np.average(values, weights=weights), abs=1e-9)
        median = curve.quantile(0.5)
        assert curve.share_below(median) <= 0.5 + 1e-9
        assert curve.share_above(median) <= 0.5 + 1e-9


class TestTwoFronts:
    @pytest.mark.parametrize("reading", READINGS)
    def test_a_front_moved_in_compute(self, reading: Reading) -> None:
        """Twice the compute for the same losses: the factor is 2 at every loss."""
        found = compare_fronts(fit_front(FLOPS, LOSS), fit_front(2 * FLOPS, LOSS), reading)
        assert found.flops_factor() == pytest.approx(2.0)
        assert (found.flops_gap.minimum, found.flops_gap.maximum) == pytest.approx((np.log10(2), np.log10(2)))
        assert found.flops_range == pytest.approx((2.0, 1000.0))
        assert found.loss_range == (2.9, 4.0)
        assert found.decades == pytest.approx(np.log10(500))

    @pytest.mark.parametrize("reading", READINGS)
    def test_a_front_moved_in_loss(self, reading: Reading) -> None:
        found = compare_fronts(fit_front(FLOPS, LOSS), fit_front(FLOPS, LOSS + 0.25), reading)
        assert found.share_lower == 1.0
        assert [found.loss_gap.minimum, found.loss_gap.maximum, found.loss_gap.mean] == pytest.approx([0.25] * 3)

    def test_fronts_that_cross(self) -> None:
        found = compare_fronts(fit_front([1.0, 100.0], [3.0, 2.0]), fit_front([1.0, 100.0], [3.5, 1.5]))
        assert found.share_lower == pytest.approx(0.5)
        assert found.loss_gap.quantile(0.5) == pytest.approx(0.0, abs=1e-12)

    @given(points, points, st.sampled_from(READINGS))
    def test_against_a_grid(self, a: list[tuple[int, int]], b: list[tuple[int, int]], reading: Reading) -> None:
        first, second = front_of(a), front_of(b, 1.3)
        low = max(first.train_flops[0], second.train_flops[0])
        high = min(first.train_flops[-1], second.train_flops[-1])
        try:
            found = compare_fronts(first, second, reading)
        except InputError:
            losses = max(first.loss[-1], second.loss[-1]), min(first.loss[0], second.loss[0])
            assert not low < high or not losses[0] < losses[1]
            return
        grid = low * (high / low) ** ((np.arange(4000) + 0.5) / 4000)
        gap = second.loss_at(grid, reading) - first.loss_at(grid, reading)
        assert found.loss_gap.mean == pytest.approx(gap.mean(), abs=5e-3)
        if reading == "steps":
            assert found.share_lower == pytest.approx((gap > 1e-12).mean(), abs=1e-2)

    def test_swapping_the_fronts_changes_the_sign(self) -> None:
        runs = subset(load_paper_runs(), context_length=8192)
        there, back = (
            compare_architectures(runs, *pair) for pair in (("xlstm", "transformer"), ("transformer", "xlstm"))
        )
        assert there.loss_gap.mean == pytest.approx(-back.loss_gap.mean)
        assert there.flops_factor() * back.flops_factor() == pytest.approx(1.0)

    def test_no_common_range(self) -> None:
        with pytest.raises(InputError, match=r"share no range of compute \(log10 FLOP\): 3 to 4 and 0 to 1"):
            compare_fronts(fit_front([1.0, 10.0], [3.0, 2.0]), fit_front([1e3, 1e4], [3.0, 2.0]))
        with pytest.raises(InputError, match=r"share no range of loss"):
            compare_fronts(fit_front([1.0, 10.0], [3.0, 2.0]), fit_front([1.0, 10.0], [1.5, 1.0]))


class TestPaper:
    def test_claim_at_8192(self) -> None:
        """The paper's claim: xLSTM is lower at every compute that both cover, however one reads between runs."""
        runs = subset(load_paper_runs(), context_length=8192)
        for reading in READINGS:
            found = compare_architectures(runs, "xlstm", "transformer", reading)
            assert found.share_lower == 1.0
            assert 1.6 < found.flops_factor() < 2.0
            assert 3.8 < found.decades < 3.81


class TestPairs:
    runs = pd.DataFrame(
        {
            "num_params": [1000, 1010, 2000, 1000],
            "num_tokens": [5000, 5000, 5000, 9000],
            "train_flops": [3e7, 6e7, 9e7, 8e7],
            "val_loss": [3.0, 3.5, 2.5, 2.8],
        },
        index=[10, 11, 12, 13],
    )

    def test_nearest_within_the_tolerance(self) -> None:
        pairs = matched_pairs(self.runs.loc[[10, 13]], self.runs.loc[[11, 12]])
        assert pairs[["first_row", "second_row", "num_params"]].to_numpy().tolist() == [[10, 11, 1010]]
        assert pairs["loss_gap"].item() == pytest.approx(0.5)
        assert pairs["flops_ratio"].item() == pytest.approx(2.0)
        assert pairs["tokens_per_param"].item() == pytest.approx(5000 / 1010)

    def test_none(self) -> None:
        assert matched_pairs(self.runs.loc[[10]], self.runs.loc[[12]]).empty
        assert matched_pairs(self.runs.loc[[]], self.runs).empty
        with pytest.raises(InputError, match="must be positive"):
            matched_pairs(self.runs, self.runs, 0.0)
