"""Predictions of final losses: on curves whose end is known, and what the project's own logs give."""

import numpy as np
import pandas as pd
import pytest

from companion.errors import InputError
from companion.laws import LossSurface
from companion.training import load_training_curves, load_training_logs
from companion.training.curves import finished_runs, with_budgets
from companion.training.early_loss import early_ranking, predict_final_loss, rms_errors

LAW = LossSurface(E=2.0, A=400.0, B=400.0, alpha=0.34, beta=0.28)


def study(drop: float = 0.0, shuffled: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs on a known law whose training loss is their final loss plus a drop that shrinks along the run."""
    rows, parts = [], []
    for budget in (1e18, 3e18, 1e19):
        center = LAW.optimum(budget)[0]
        for size in center * np.geomspace(0.3, 3, 7):
            run = f"r{len(rows)}"
            tokens = budget / 6 / size
            final = float(LAW.predict(size, tokens))
            rows.append((run, "xlstm", 2048, size, tokens, budget, budget, 1000, final, "finished"))
            fraction = np.arange(1, 101) / 100
            gap = drop * (1 - fraction) * (len(rows) % 5 if shuffled else 1)
            parts.append(pd.DataFrame({"run": run, "step": 10 * np.arange(1, 101), "train_loss": final + gap}))
    names = (
        "run architecture context_length num_params num_tokens train_flops isoflop_budget train_steps val_loss status"
    )
    return pd.concat(parts, ignore_index=True), pd.DataFrame(rows, columns=names.split())


@pytest.fixture(scope="module")
def own() -> tuple[pd.DataFrame, pd.DataFrame]:
    logs = load_training_logs()
    return load_training_curves(), with_budgets(finished_runs(logs[logs["group"] == "isoflop"]))


def test_a_common_drop_is_learned_and_a_last_value_is_not() -> None:
    curves, logs = study(drop=0.5)
    logs["train_steps"] = 1000
    errors = rms_errors(predict_final_loss(curves, logs, fractions=[0.5, 1.0])).set_index(["predictor", "fraction"])
    rms = errors["rms_error"]
    assert rms["last value", 0.5] == pytest.approx(0.5 * (1 - np.mean([0.46, 0.47, 0.48, 0.49, 0.50])), abs=1e-9)
    assert rms["shift", 0.5] == pytest.approx(0, abs=1e-9)
    assert rms["line", 0.5] == pytest.approx(0, abs=1e-9)
    assert rms["last value", 1.0] == pytest.approx(0.5 * 0.02, abs=1e-9)
    assert rms.xs("law").iloc[0] == pytest.approx(0, abs=1e-4)
    last = errors.loc[("last value", 1.0)]
    assert last["median_error"] == pytest.approx(last["worst"]) == pytest.approx(last["bias"])


def test_the_mean_of_a_group_leaves_the_run_itself_out() -> None:
    curves, logs = study()
    found = predict_final_loss(curves, logs, fractions=[1.0]).query("predictor == 'group mean'").set_index("run")
    group = logs[logs["isoflop_budget"] == 1e18].set_index("run")["val_loss"]
    assert found.loc["r0", "predicted"] == pytest.approx(group.drop("r0").mean())
    assert set(found.loc[found["largest"], "isoflop_budget"]) == {1e19}


def test_nothing_of_a_left_out_group_reaches_its_predictions() -> None:
    """Final losses of the largest budget are changed: its predictions by line and law must stay."""
    curves, logs = study(drop=0.4, shuffled=True)
    changed = logs.assign(val_loss=np.where(logs["isoflop_budget"] == 1e19, logs["val_loss"] + 1, logs["val_loss"]))
    before, after = (predict_final_loss(curves, table, fractions=[0.3]) for table in (logs, changed))
    learned = before["largest"] & (before["predictor"] != "group mean")
    assert before.loc[learned, "predicted"].tolist() == after.loc[learned, "predicted"].tolist()
    assert not np.allclose(before.loc[~learned, "predicted"], after.loc[~learned, "predicted"])


def test_ranks_and_optimum_are_kept_by_a_common_drop_only() -> None:
    curves, logs = study(drop=0.5)
    kept = early_ranking(curves, logs, fractions=[0.3])
    assert kept["same_best"].all()
    assert kept["rank_correlation"].tolist() == pytest.approx([1, 1, 1])
    assert kept["optimum_ratio"].tolist() == pytest.approx([1, 1, 1])
    assert kept["regret"].tolist() == [0, 0, 0]
    mixed = early_ranking(*study(drop=5.0, shuffled=True), fractions=[0.3])
    assert (mixed["regret"] > 0).any()
    assert (mixed["rank_correlation"] < 1).all()


def test_the_loss_at_a_third_is_a_worse_predictor_than_a_law(own: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """What the book states, on the project's logs."""
    rms = rms_errors(predict_final_loss(*own, fractions=[1 / 3, 0.5, 1.0])).set_index(["predictor", "fraction"])
    rms = rms["rms_error"]
    law, mean = rms.xs("law").iloc[0], rms.xs("group mean").iloc[0]
    assert law < mean < rms["line", 1 / 3] < rms["last value", 1 / 3]
    assert rms["line", 0.5] < law
    assert rms["line", 1.0] < 0.006


def test_early_stopping_chooses_smaller_models(own: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    table = early_ranking(*own, fractions=[1 / 3, 1.0])
    third, end = table[table["fraction"] < 0.5], table[table["fraction"] == 1]
    assert len(third) == len(end) == 13
    assert not third["same_best"].any()
    assert (third["optimum_ratio"] < 0.9).all()
    assert end["regret"].max() < 0.001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logs: logs.drop(columns="isoflop_budget"), r"training logs: column 'isoflop_budget' is missing"),
        (
            lambda logs: logs[logs["isoflop_budget"] == 1e18],
            r"column 'isoflop_budget': the runs of xlstm, 2048 form a single group; none can be left out",
        ),
        (
            lambda logs: logs.iloc[3:11],
            r"column 'isoflop_budget': without 1e\+18 only 4 runs of xlstm, 2048 are left to learn from; at least 5",
        ),
        (lambda logs: logs.assign(status="diverged"), r"training logs: no finished run has a validation loss"),
        (lambda logs: logs.assign(val_loss=np.nan), r"training logs: no finished run has a validation loss"),
    ],
)
def test_bad_input_is_named(change: object, message: str) -> None:
    curves, logs = study()
    with pytest.raises(InputError, match=f"^{message}"):
        predict_final_loss(curves, change(logs))  # type: ignore[operator]


def test_small_profiles_are_refused() -> None:
    curves, logs = study()
    with pytest.raises(InputError, match=r"^training logs: no profile has 8 finished runs$"):
        early_ranking(curves, logs, min_runs=8)
