"""Spikes, bands and partings: planted ones are found where they were planted; the project's own failures."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.training import load_training_curves, load_training_logs
from companion.training.curve_faults import common_noise, failures, left_band, parting, siblings, spike_counts, spikes


def smooth(run: str, seed: int, points: int = 100, noise: float = 0.005) -> pd.DataFrame:
    steps = 50 * np.arange(1, points + 1)
    loss = 3 + 40 / (steps / 10) + np.random.default_rng(seed).normal(0, noise, points)
    return pd.DataFrame({"run": run, "step": steps, "train_loss": loss, "grad_norm": 0.2})


@pytest.fixture(scope="module")
def own() -> tuple[pd.DataFrame, pd.DataFrame]:
    return load_training_curves(), load_training_logs()


@settings(deadline=None, max_examples=25)
@given(at=st.integers(20, 95), seed=st.integers(0, 999), length=st.integers(1, 2))
def test_a_planted_spike_is_found_once_with_its_gradient(at: int, seed: int, length: int) -> None:
    curve = smooth("a", seed)
    curve.loc[at : at + length - 1, "train_loss"] += 0.5
    curve.loc[at, "grad_norm"] = 2.0
    curve.loc[at - 1, "grad_norm"] = 0.6
    found = spikes(pd.concat([smooth("b", seed + 1), curve]))
    assert found["run"].tolist() == ["a"]
    assert found["step"].iloc[0] in curve.loc[at : at + length - 1, "step"].tolist()
    assert found["grad_norm_ratio_before"].iloc[0] == pytest.approx(3)
    if length == 1:
        assert found["grad_norm_ratio"].iloc[0] == pytest.approx(10)
        assert found["jump"].iloc[0] == pytest.approx(0.5, abs=0.2)


def test_a_jump_is_measured_from_the_points_before_it() -> None:
    loss = np.linspace(4, 2.1, 20)  # 0.1 a point
    loss[10] += 2
    curve = pd.DataFrame({"run": "a", "step": np.arange(1, 21), "train_loss": loss})
    found = spikes(curve, median_points=2).iloc[0]
    assert found["step"] == 11
    assert found["jump"] == pytest.approx(5 - (3.2 + 3.1) / 2)


def test_a_quiet_curve_has_no_spike_and_counts_say_so() -> None:
    curves = pd.concat([smooth(name, seed) for seed, name in enumerate("abc")])
    logs = pd.DataFrame({"run": list("abc"), "train_steps": 5000, "architecture": ["x", "x", "y"]})
    assert spikes(curves).empty
    table = spike_counts(spikes(curves), logs, ["architecture"])
    assert table["num_runs"].tolist() == [2, 1]
    assert table["num_spikes"].tolist() == [0, 0]
    curves.loc[(curves["run"] == "b") & (curves["step"] == 2500), "train_loss"] += 1
    table = spike_counts(spikes(curves.drop(columns="grad_norm")), logs, ["architecture"])
    assert table["num_spiked"].tolist() == [1, 0]
    assert table["spikes_per_1000_steps"].tolist() == pytest.approx([0.1, 0])
    assert table["median_fraction"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)


def test_a_band_is_left_where_the_run_begins_to_stay_outside() -> None:
    others = [smooth(name, seed) for seed, name in enumerate("bcdef", 1)]
    curve = smooth("a", 0)
    curve.loc[20, "train_loss"] += 1  # one point is not a departure
    curve.loc[60:, "train_loss"] *= 1.2
    curves = pd.concat([curve, *others])
    step, band = left_band(curves, "a", list("bcdef"))
    assert step == curve["step"][60]
    assert (band["upper"] > band["median"]).all()
    assert left_band(curves, "a", list("bcdef"), "grad_norm")[0] is None
    assert left_band(curves, "b", list("cdef"))[0] is None


def test_partings_are_found_and_healed_spikes_are_not() -> None:
    first, second = smooth("a", 0), smooth("b", 0)
    first.loc[20, "train_loss"] += 2
    assert parting(pd.concat([first, second.assign(train_loss=second["train_loss"] - 1e-9)]), "a", "b")[0] is not None
    noisy = second.assign(train_loss=second["train_loss"] + np.random.default_rng(3).normal(0, 0.001, 100))
    assert parting(pd.concat([first, noisy]), "a", "b")[0] is None
    first.loc[40:, "train_loss"] += 0.1
    step, table = parting(pd.concat([first, noisy]), "a", "b")
    assert step == first["step"][40]
    assert table["difference"].iloc[-1] == pytest.approx(0.1, abs=0.01)


def test_the_two_trainings_of_one_configuration(own: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """They part at one spike of the warm-up, and end at the losses that the paper's logs give, 0.117 apart."""
    curves, logs = own
    assert logs.set_index("run").loc[["104", "105"], "val_loss"].tolist() == [3.06800, 2.95118]
    step, table = parting(curves, "104", "105")
    assert step == 600
    before = table[table["step"] < 600]["difference"].abs().max()
    assert before < 0.11
    assert table.set_index("step")["difference"][600] > 3.7
    assert spikes(curves[curves["run"].isin(["104", "105"])])[["run", "step"]].to_numpy().tolist() == [["104", 600]]


@pytest.mark.parametrize("run", ["317", "319", "320", "321"])
def test_failures_were_visible_at_the_first_point(own: tuple[pd.DataFrame, pd.DataFrame], run: str) -> None:
    curves, logs = own
    alike = siblings(logs, run, 1.6)
    assert len(alike) >= 4
    assert left_band(curves, run, alike)[0] == left_band(curves, run, alike, "grad_norm")[0] == 50
    first = curves[curves["step"] == 50].set_index("run")["grad_norm"]
    finished = logs.loc[logs["status"] == "finished", "run"]
    assert first[run] > 5 * first[first.index.isin(finished)].max()


def test_failures_are_listed_with_when_they_showed(own: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    table = failures(*own).set_index("run")
    assert table.index.tolist() == ["167", "317", "319", "320", "321"]
    assert (
        table.loc[["317", "319", "320", "321"], ["loss_step", "grad_norm_step"]].to_numpy().tolist() == [[50, 50]] * 4
    )
    assert 1000 < table.loc["167", "loss_step"] < table.loc["167", "last_step"] == 5400
    assert (
        table.loc[["319", "320", "321"], "learning_rate"] < table["sibling_learning_rate"][["319", "320", "321"]]
    ).all()
    assert table.loc["319", "num_siblings"] == 4
    curves, logs = own
    alone = logs[logs["run"].isin(["319", "320", "324"])]
    lonely = failures(curves, alone)
    assert lonely["num_siblings"].tolist() == [1, 1]
    assert lonely["loss_step"].isna().all()
    with pytest.raises(InputError, match=r"training_logs.csv: all runs finished$"):
        failures(curves, logs[logs["status"] == "finished"])


def test_runs_of_one_design_saw_the_same_batches(own: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    curves, _ = own
    twins = curves[curves["run"].isin(["104", "105"])]
    assert common_noise(twins, ["104", "105"], begin=1500) > 0.98
    late = twins.assign(step=twins["step"].where(twins["run"] == "104", twins["step"] + 50))
    assert common_noise(late, ["104", "105"], begin=1500) < 0.5
    independent = pd.concat([smooth("a", 1), smooth("b", 2)])
    assert abs(common_noise(independent, ["a", "b"], begin=1000)) < 0.4


def test_siblings_are_alike(own: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    _, logs = own
    found = logs[logs["run"].isin(siblings(logs, "167", 1.3))]
    assert len(found) > 3
    assert set(found["architecture"]) == {"transformer"}
    assert set(found["status"]) == {"finished"}
    assert found["num_params"].between(1339894528 / 1.3001, 1339894528 * 1.3001).all()
    near = logs[logs["run"].isin(siblings(logs, "167", 1.3, learning_rate_factor=1.0))]
    assert set(near["learning_rate"]) == {1e-3}


def test_bad_input_is_named() -> None:
    curves = pd.concat([smooth("a", 0), smooth("b", 1, points=8)])
    with pytest.raises(InputError, match=r"^curves: run 'b': 8 points with a training loss; spikes need at least 10$"):
        spikes(curves)
    with pytest.raises(InputError, match=r"^spikes: threshold 0 must be positive"):
        spikes(curves, threshold=0)
    with pytest.raises(InputError, match=r"^run 'a': a band needs at least 3 siblings, not 1$"):
        left_band(curves, "a", ["b"])
    with pytest.raises(InputError, match=r"^curves: run 'x' has no train_loss above 0$"):
        left_band(curves, "x", ["a", "b", "c"])
    with pytest.raises(InputError, match=r"^curves: runs 'a' and 'x' share 0 steps with a train_loss; at least 5"):
        parting(curves, "a", "x")
    with pytest.raises(
        InputError, match=r"^curves: no two neighbors of 2 runs share 8 steps with a training loss after step 9000"
    ):
        common_noise(curves, ["a", "b"], begin=9000)
    with pytest.raises(InputError, match=r"^curves: column 'train_loss' is missing$"):
        spikes(curves.drop(columns="train_loss"))
    with pytest.raises(InputError, match=r"training_logs.csv: no run 'q'$"):
        siblings(load_training_logs(), "q")
