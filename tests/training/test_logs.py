"""Tables of training logs: the project's own against known facts, and what a reader's can get wrong."""

import gzip
import hashlib
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.paths import data_dir
from companion.runs import load_paper_runs
from companion.training import finished, load_training_curves, load_training_logs, utilization_by_size, with_throughput
from companion.training.logs import CURVE_SCHEMA, LOG_SCHEMA, last_attempt

ROW = {
    "architecture": "xlstm",
    "context_length": 1024,
    "num_params": 1_000_000,
    "num_tokens": 1_024_000,
    "train_flops": 6e12,
    "batch_size_seqs": 10,
    "train_steps": 100,
    "num_gpus": 8,
    "step_time_s": 0.5,
    "val_loss": 3.2,
}


@pytest.fixture(scope="module")
def logs() -> pd.DataFrame:
    return with_throughput(load_training_logs())


def table(folder: Path, *changes: dict[str, object]) -> Path:
    path = folder / "logs.csv"
    pd.DataFrame([ROW | change for change in changes]).to_csv(path, index=False)
    return path


def test_the_files_are_those_that_the_readme_describes() -> None:
    readme = (data_dir() / "README.md").read_text(encoding="utf-8")
    for name, schema in (("training_logs.csv", LOG_SCHEMA), ("training_curves.csv.gz", CURVE_SCHEMA)):
        digest = hashlib.sha256((data_dir() / name).read_bytes()).hexdigest()
        section = readme.split(f"## {name}\n")[1].split("\n## ")[0]
        assert digest in section
        columns = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
        assert columns == list(pd.read_csv(data_dir() / name, nrows=1).columns) == list(schema.columns)


def test_utilization_is_what_was_known_before(logs: pd.DataFrame) -> None:
    """Medians of a first look at the logs, two digits (data/README.md, source of the tables)."""
    found = utilization_by_size(finished(logs, group=None)).set_index(["architecture", "context_length"])["utilization"]
    for key, (least, most) in {
        ("transformer", 2048): (0.20, 0.35),
        ("transformer", 8192): (0.16, 0.29),
        ("transformer", 16384): (0.15, 0.25),
        ("xlstm", 16384): (0.16, 0.33),
    }.items():
        assert found[key].round(2).iloc[[0, -1]].tolist() == [least, most]
    large = (
        finished(logs, 16384).query("num_params > 1.2e9").groupby("architecture")["tokens_per_second_per_gpu"].median()
    )
    assert large.round(-2).to_dict() == {"transformer": 18_200, "xlstm": 38_800}


def test_logs_and_runs_agree(logs: pd.DataFrame) -> None:
    keys = ["architecture", "context_length", "num_params", "num_tokens", "d_model", "n_layers", "batch_size_seqs"]
    both = logs[logs["in_runs_csv"] == 1].merge(load_paper_runs(), on=keys, suffixes=("", "_of_run"))
    assert len(both) == 341
    assert (both["val_loss"] - both["val_loss_of_run"]).abs().max() < 1e-4


def test_curves_end_at_the_losses_of_the_logs(logs: pd.DataFrame) -> None:
    curves = load_training_curves()
    assert set(curves["run"]) == set(logs["run"])
    last = curves[curves["val_loss"].notna()].groupby("run")["val_loss"].last()
    both = logs.set_index("run")["val_loss"].dropna().to_frame().join(last.rename("last"), how="inner")
    assert (both["val_loss"] - both["last"]).abs().max() < 1e-4


@given(st.floats(1e-3, 1e3), st.integers(1, 4096), st.integers(1, 10**6))
def test_throughput(step_time: float, gpus: int, steps: int) -> None:
    row = {"train_steps": [steps], "num_tokens": [steps * 7], "train_flops": [steps * 3e15]}
    found = with_throughput(pd.DataFrame(row | {"step_time_s": [step_time], "num_gpus": [float(gpus)]})).iloc[0]
    assert found["gpu_hours"] * 3600 == pytest.approx(step_time * steps * gpus)
    assert found["gpu_hours"] * 3600 * found["tokens_per_second_per_gpu"] == pytest.approx(steps * 7)
    assert found["gpu_hours"] * 3600 * found["utilization"] * 989e12 == pytest.approx(steps * 3e15, rel=2e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_time_s": 500_000.0}, r"row 3, column 'step_time_s': 500000.0 is not the time of a step in seconds"),
        ({"num_gpus": 7.5}, r"row 3, column 'num_gpus': 7.5 is not a whole number"),
        ({"num_gpus": "eight"}, r"row 3, column 'num_gpus': 'eight' is not a number"),
        ({"num_tokens": 1_024_001}, r"row 3, column 'num_tokens': 1024001 is not batch_size_seqs \* context_length"),
        ({"val_loss": 25.0}, r"row 3, column 'val_loss': 25.0 is not a loss in nats per token"),
        ({"last_logged_step": 101}, r"row 3, column 'last_logged_step': 101 is above train_steps = 100"),
        ({"step_time_q25_s": 0.6}, r"row 3, column 'step_time_q25_s': 0.6 is above step_time_s = 0.5"),
        ({"run": "a"}, r"row 2, column 'run': 'a' appears twice"),
        ({"status": "done"}, r"row 3, column 'status': done is not one of finished, diverged, stopped"),
        ({"train_steps": None}, r"row 3, column 'train_steps': the cell is empty"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    first = {"run": "a"} if "run" in changes else {}
    path = table(tmp_path, first, changes)
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: {message}") as caught:
        load_training_logs(path)
    assert "\n" not in str(caught.value)


def test_runs_that_lack_something_are_kept_and_named(tmp_path: Path) -> None:
    lacking = ({"num_gpus": None}, {"val_loss": None}, {"last_logged_step": 50, "status": "finished"})
    path = table(tmp_path, {}, *lacking)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logs = load_training_logs(path)
    assert len(logs) == 4
    assert logs["run"].tolist() == ["0", "1", "2", "3"]
    assert logs["status"].tolist() == ["finished", "finished", "stopped", "finished"]
    assert [str(each.message).removeprefix(f"{path}: ") for each in caught] == logs.attrs["notes"]
    assert logs.attrs["notes"] == [
        "column 'num_gpus': 1 run without a value has no throughput, row 3",
        "column 'val_loss': 1 run without a value has no place in comparisons of loss, row 4",
        "column 'last_logged_step': 1 finished run cut off before the end, row 5",
    ]
    assert with_throughput(logs)["gpu_hours"].isna().tolist() == [False, True, False, False]
    with pytest.warns(UserWarning, match="2 runs without a value have no place in comparisons of loss, rows 3, 4"):
        load_training_logs(table(tmp_path, {}, {"val_loss": None}, {"val_loss": None}))
    assert finished(logs)["run"].tolist() == ["0", "3"]
    with pytest.raises(
        InputError,
        match=r"no finished run with val_loss, step_time_s and num_gpus at context length 7; .*xlstm at T = 1024",
    ):
        finished(logs, 7)


def test_a_restart_keeps_both_attempts(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text("run,step,train_loss\na,10,3\nb,10,4\na,20,2\na,15,2.5\na,20,2.1\nb,20,\n")
    with pytest.warns(UserWarning, match=r"1 run restarted: row 5, run 'a': step 15 follows step 20; column 'attempt'"):
        curves = load_training_curves(path)
    assert curves["attempt"].tolist() == [0, 0, 0, 1, 1, 0]
    assert last_attempt(curves[curves["run"] == "a"])["train_loss"].tolist() == [3, 2.5, 2.1]
    assert np.isnan(curves["train_loss"].iloc[-1])


def test_steps_that_a_later_attempt_did_not_reach_are_left_out() -> None:
    curves = pd.DataFrame({"step": [10, 20, 30, 40, 15, 25, 12], "attempt": [0, 0, 0, 0, 1, 1, 2]})
    assert last_attempt(curves)["step"].tolist() == [10, 12]
    two = pd.concat([curves.assign(run="b"), curves.head(4).assign(run="a")], ignore_index=True)
    found = last_attempt(two)
    assert found[["run", "step"]].to_records(index=False).tolist() == [
        ("a", 10), ("a", 20), ("a", 30), ("a", 40), ("b", 10), ("b", 12),
    ]  # fmt: skip


def test_a_compressed_file_that_is_cut_off(tmp_path: Path) -> None:
    whole = gzip.compress(b"run,step,train_loss\n" + b"a,10,3\n" * 1000)
    path = tmp_path / "curves.csv.gz"
    path.write_bytes(whole[:-20])
    with pytest.raises(
        InputError, match=r"curves.csv.gz: the compressed file is cut off after [\d,]+ bytes of its content"
    ):
        load_training_curves(path)
    path.write_bytes(whole[:-8] + bytes(8))
    with pytest.raises(InputError, match=r"curves.csv.gz: the compressed file is damaged: "):
        load_training_curves(path)
