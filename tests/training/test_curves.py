"""Curves on the fraction of the run: simulated ones with known values, and the project's own."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.training import load_training_curves, load_training_logs
from companion.training.curves import finished_runs, on_common_axis, with_budgets
from companion.training.logs import last_attempt


def curve(run: str, steps: list[int], losses: list[float], **more: object) -> pd.DataFrame:
    return pd.DataFrame({"run": run, "step": steps, "train_loss": losses, **more})


def logs_of(**steps: int) -> pd.DataFrame:
    return pd.DataFrame({"run": list(steps), "train_steps": list(steps.values())})


@given(
    lengths=st.lists(st.integers(5, 40), min_size=1, max_size=4),
    window=st.floats(0.05, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_value_is_the_mean_of_its_window(lengths: list[int], window: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts, steps = [], {}
    for number, length in enumerate(lengths):
        at = np.sort(rng.choice(np.arange(1, 200), length, replace=False))
        parts.append(curve(f"r{number}", at.tolist(), (10 ** rng.normal(0, 4, length)).tolist()))
        steps[f"r{number}"] = int(at[-1])
    shuffled = pd.concat(parts).sample(frac=1, random_state=1)
    found = on_common_axis(shuffled, logs_of(**steps), fractions=[0.3, 0.5, 1.0], window=window)
    assert list(found.index) == list(steps)
    for part, (run, last) in zip(parts, steps.items(), strict=True):
        fraction = part["step"] / last
        for at in (0.3, 0.5, 1.0):
            inside = part[(fraction > at - window + 1e-9) & (fraction <= at + 1e-9)]
            edge = np.abs(fraction - (at - window)) < 1e-9
            if edge.any():
                continue
            expected = inside["train_loss"].mean() if len(inside) else np.nan
            assert found.loc[run, at] == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_a_validation_loss_is_interpolated_and_never_extended() -> None:
    points = curve("a", [10, 20, 30, 40, 50], [5.0, 4, 3, 2, 1], val_loss=[np.nan, 4, np.nan, 2, np.nan])
    found = on_common_axis(points, logs_of(a=50), "val_loss", fractions=[0.2, 0.4, 0.6, 0.8, 1.0], window=0)
    assert found.loc["a"].tolist() == pytest.approx([np.nan, 4, 3, 2, np.nan], nan_ok=True)


def test_a_stopped_run_has_no_values_past_its_end() -> None:
    points = curve("a", list(range(5, 51, 5)), [3.0] * 10)
    found = on_common_axis(points, logs_of(a=100), fractions=[0.25, 0.5, 0.52, 0.56, 1.0], window=0.1).loc["a"]
    assert found.isna().tolist() == [False, False, False, True, True]


def test_a_restart_replaces_the_steps_that_it_repeats() -> None:
    points = curve("a", [10, 20, 30, 20, 30, 40, 50], [5.0, 4, 9, 3, 2, 1, 1], attempt=[0, 0, 0, 1, 1, 1, 1])
    other = curve("b", [10, 20, 30, 40, 50], [1.0] * 5, attempt=0)
    assert last_attempt(pd.concat([points, other]))["train_loss"].tolist() == [5, 3, 2, 1, 1, 1, 1, 1, 1, 1]
    found = on_common_axis(points, logs_of(a=50), fractions=[0.4, 0.6], window=0.1)
    assert found.loc["a"].tolist() == [3, 2]


def test_a_huge_gradient_norm_does_not_drown_its_neighbors() -> None:
    points = curve("a", [1, 2, 3, 4, 5], [1e16, 0.1, 0.2, 0.3, 0.4])
    assert on_common_axis(points, logs_of(a=5), fractions=[1.0], window=0.3).loc["a", 1.0] == pytest.approx(0.35)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": [0.0, 1.0]}, r"fractions of a run must be above 0 and at most 1"),
        ({"fractions": []}, r"fractions of a run must be above 0"),
        ({"window": 1.0}, r"window 1 is not a share of the run"),
        ({"column": "val_loss"}, r"curves: column 'val_loss' is missing"),
        ({"logs": logs_of(a=50, z=10)}, r"curves: run 'z': column 'train_loss' has 0 values; at least 5 are needed"),
        ({"logs": logs_of(b=50)}, r"curves: run 'b': column 'train_loss' has 2 values; at least 5"),
        ({"logs": logs_of(a=45)}, r"curves: run 'a': step 50 is past the last step of the run, train_steps = 45"),
        ({"logs": pd.concat([logs_of(a=50), logs_of(a=50)])}, r"training logs: run 'a' appears twice"),
        ({"logs": logs_of(a=50).drop(columns="train_steps")}, r"training logs: column 'train_steps' is missing"),
    ],
)
def test_bad_input_is_named(options: dict[str, object], message: str) -> None:
    points = pd.concat([curve("a", [10, 20, 30, 40, 50], [5.0, 4, 3, 2, 1]), curve("b", [10, 20], [2.0, 1])])
    given_logs = options.pop("logs", logs_of(a=50))
    with pytest.raises(InputError, match=f"^{message}") as caught:
        on_common_axis(points, given_logs, **options)
    assert "\n" not in str(caught.value)


def test_runs_without_a_validation_loss_are_no_finished_runs() -> None:
    table = pd.DataFrame({"run": ["a", "b"], "val_loss": [np.nan, 3.0], "status": ["finished", "stopped"]})
    with pytest.raises(InputError, match=r"^training logs: no finished run has a validation loss$"):
        finished_runs(table)


def test_the_smoothed_curves_end_at_the_validation_losses() -> None:
    """Training and validation losses of a single pass over data differ by noise and by the last steps' mean."""
    logs = finished_runs(load_training_logs())
    end = on_common_axis(load_training_curves(), logs, fractions=[1.0])[1.0]
    difference = end.to_numpy() - logs["val_loss"].to_numpy()
    assert np.abs(difference).max() < 0.03
    assert np.median(difference) == pytest.approx(0.003, abs=0.002)


def test_budgets_are_those_of_the_paper() -> None:
    logs = load_training_logs()
    budgets = with_budgets(finished_runs(logs[logs["group"] == "isoflop"]))["isoflop_budget"]
    assert sorted(budgets.round(-18).unique()) == pytest.approx([6e18, 1e19, 3e19, 1e20])
