"""Curves and divergence: known answers, and independence of when losses are looked at."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_runs import VOCAB_SIZE, tiny_recipe

from companion.study.train.history import MAX_POINTS, USELESS_STEPS, curve_of, diverged_after, last_loss

USELESS = math.log(VOCAB_SIZE) + 1.5


def test_a_short_curve_has_every_step() -> None:
    recipe = tiny_recipe(train_steps=3, warmup_steps=1, final_share=1.0)
    curve = curve_of(recipe, np.array([3, 2, 1], np.float32), np.array([1, np.inf, 2], np.float32))
    assert curve == {
        "step": [1, 2, 3],
        "num_tokens": [256, 512, 768],
        "loss": [3.0, 2.0, 1.0],
        "learning_rate": [3e-3, 3e-3, 3e-3],
        "grad_norm": [1.0, None, 2.0],
    }


def test_a_long_curve_has_means() -> None:
    recipe = tiny_recipe(train_steps=1001)
    losses = np.arange(1001, dtype=np.float32)
    curve = curve_of(recipe, losses, losses)
    assert len(curve["step"]) == 334 <= MAX_POINTS
    assert curve["step"][:2] == [3, 6]
    assert curve["loss"][:2] == [1.0, 4.0]
    assert curve["step"][-1] == 1001
    assert curve["loss"][-1] == 999.5  # of two steps


@given(steps=st.integers(1, 4000), made=st.floats(0, 1))
def test_curves_keep_the_mean_of_all_steps(steps: int, made: float) -> None:
    recipe = tiny_recipe(train_steps=steps, warmup_steps=0)
    losses = np.random.default_rng(steps).uniform(1, 4, round(made * steps)).astype(np.float32)
    curve = curve_of(recipe, losses, losses)
    widths = np.diff([0, *curve["step"]])
    assert len(widths) <= MAX_POINTS
    if losses.size:
        assert np.average(curve["loss"], weights=widths) == pytest.approx(losses.mean(), rel=1e-5)


def test_a_loss_that_is_not_finite_ends_a_run() -> None:
    recipe = tiny_recipe()
    assert diverged_after(recipe, np.array([3.0, np.nan, 2.0])) == 2
    assert diverged_after(recipe, np.array([np.inf])) == 1
    assert diverged_after(recipe, np.array([3.0, 2.0])) is None
    assert diverged_after(recipe, np.array([])) is None


def test_useless_losses_end_a_run_only_in_a_row_and_after_the_warm_up() -> None:
    recipe = tiny_recipe(train_steps=1000, warmup_steps=50)
    losses = np.full(1000, USELESS)
    assert diverged_after(recipe, losses) == 50 + USELESS_STEPS
    assert diverged_after(recipe, losses[: 50 + USELESS_STEPS - 1]) is None
    losses[100] = 1.0
    assert diverged_after(recipe, losses) == 101 + USELESS_STEPS
    losses[150::90] = 1.0
    assert diverged_after(recipe, losses) is None
    assert diverged_after(recipe, np.full(1000, math.log(VOCAB_SIZE) + 0.9)) is None


@given(st.lists(st.sampled_from([1.0, USELESS, USELESS, USELESS, math.nan]), max_size=400), st.integers(0, 50))
def test_when_losses_are_looked_at_does_not_matter(losses: list[float], warmup_steps: int) -> None:
    recipe = tiny_recipe(train_steps=400, warmup_steps=warmup_steps)
    values = np.array(losses)
    found = diverged_after(recipe, values)
    for end in range(0, len(values) + 1, 7):
        early = diverged_after(recipe, values[:end])
        assert early == (found if found is not None and found <= end else None)


def test_the_training_loss() -> None:
    recipe = tiny_recipe(train_steps=400)
    losses = np.arange(400, dtype=np.float32)
    assert last_loss(recipe, losses, diverged=False) == (397.5, 4)
    assert last_loss(recipe, np.array([3.0, np.nan]), diverged=True) == (3.0, 1)
    assert last_loss(recipe, np.array([np.nan]), diverged=True) == (None, 0)
