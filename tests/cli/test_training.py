"""`companion training` as a user runs it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import error_line, run_json

from companion import cli
from companion.paths import data_dir

LOGS = str(data_dir() / "training_logs.csv")
QUICK = ["--bootstrap", "40"]


def own_table(folder: Path, num_runs: int = 40, **changes: object) -> Path:
    """A reader's table: one architecture, neither `group` nor `batch_size_seqs` nor `run`."""
    rng = np.random.default_rng(0)
    size = np.tile(np.geomspace(1e8, 1e9, 8), 5)[:num_runs].round()
    tokens = np.repeat(np.geomspace(2e9, 2e10, 5), 8)[:num_runs].round()
    steps = np.full(num_runs, 1000)
    loss = 2.0 + 400 * size**-0.34 + 2000 * tokens**-0.37
    table = pd.DataFrame(
        {
            "architecture": "Mamba",
            "context_length": 4096,
            "num_params": size.astype(int),
            "num_tokens": tokens.astype(int),
            "train_flops": 6 * size * tokens,
            "train_steps": steps,
            "num_gpus": 4,
            "step_time_s": 6 * size * tokens / steps / 4 / (0.3 * 989.5e12) * np.exp(0.02 * rng.normal(size=num_runs)),
            "val_loss": loss * np.exp(0.003 * rng.normal(size=num_runs)),
        }
    )
    path = folder / "mine.csv"
    table.assign(**changes).to_csv(path, index=False)
    return path


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "training", LOGS, "--context-length", "16384", "--loss", "3.05", *QUICK, "--seed", "3")
    assert list(result) == [
        "file", "hardware", "utilization", "gpu_hours", "context_length", "fronts", "factors", "loss",
        "gpu_hours_at_loss", "gpu_hours_at_loss_intervals", "expected_gpu_hours_at_loss", "num_params_at_loss", "level",
        "num_resamples", "seed", "warnings",
    ]  # fmt: skip
    assert (result["context_length"], result["num_resamples"], result["seed"]) == (16384, 40, 3)
    assert set(result["fronts"]) == set(result["gpu_hours_at_loss"]) == {"transformer", "xlstm"}
    for name, hours in result["gpu_hours_at_loss"].items():
        front = result["fronts"][name]
        assert [run["loss"] for run in front] == sorted((run["loss"] for run in front), reverse=True)
        assert [run["gpu_hours"] for run in front] == sorted(run["gpu_hours"] for run in front)
        corners = [run for run in front if run["on_hull"]]
        loss, cost = (np.array([run[key] for run in corners]) for key in ("loss", "gpu_hours"))
        assert hours == pytest.approx(10 ** np.interp(-3.05, -loss, np.log10(cost)))
        low, high = result["gpu_hours_at_loss_intervals"][name]
        assert 0.8 * hours < low <= hours <= high < 1.2 * hours
    factors = {row["cost"]: row["factor"] for row in result["factors"]}
    assert (result["factors"][0]["first"], result["factors"][0]["second"]) == ("xlstm", "transformer")
    assert 1 < factors["num_tokens"] < factors["train_flops"] < factors["gpu_hours"] < 3.5


def test_throughput_of_large_models_is_what_was_known_before(capsys: pytest.CaptureFixture[str]) -> None:
    """18,200 and 38,800 tokens per second and GPU at T = 16384 above 1.2 B parameters (a first look at the logs)."""
    result = run_json(capsys, "training", LOGS, "--context-length", "16384")
    large = {row["architecture"]: row for row in result["utilization"] if row["smallest"] > 1.2e9}
    assert {name: round(row["tokens_per_second_per_gpu"], -2) for name, row in large.items()} == {
        "transformer": 18_200,
        "xlstm": 38_800,
    }
    assert {name: round(row["utilization"], 2) for name, row in large.items()} == {"transformer": 0.25, "xlstm": 0.33}
    assert "gpu_hours_at_loss" not in result


def test_the_context_length_of_the_fronts_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "training", LOGS)
    assert result["context_length"] == 16384
    assert {row["context_length"] for row in result["utilization"]} == {2048, 8192, 16384}
    assert any("fronts are of T = 16384" in note and "2048, 8192 and 16384" in note for note in result["warnings"])
    assert any("fronts are of the group isoflop" in note for note in result["warnings"])
    alone = run_json(capsys, "training", LOGS, "--architecture", "transformer")
    assert (alone["context_length"], list(alone["fronts"]), alone["factors"]) == (8192, ["transformer"], [])


def test_a_loss_out_of_reach_is_null_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "training", LOGS, "--context-length", "16384", "--loss", "2.9", *QUICK)
    assert result["gpu_hours_at_loss"]["transformer"] is None
    assert result["gpu_hours_at_loss_intervals"]["transformer"] is None
    assert result["gpu_hours_at_loss"]["xlstm"] > 0
    assert any("front of transformer has losses from 3.0076 to 3.3528, not 2.9" in w for w in result["warnings"])


def test_utilization_is_a_share_of_the_hardware_s_peak(capsys: pytest.CaptureFixture[str]) -> None:
    h100, a100 = (
        run_json(capsys, "training", LOGS, "--hardware", name)["utilization"][0]["utilization"]
        for name in ("h100-sxm", "a100-sxm")
    )
    assert a100 / h100 == pytest.approx(989.5 / 312, rel=1e-3)


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["training", LOGS, "--loss", "3.05", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "431" not in out.splitlines()[0]  # runs that diverged or stopped are not counted
    assert "Fronts of loss over GPU-hours, T = 16384" in out
    assert "transformer / xlstm GPU-hours   2.70" in out
    assert "GPU-hours to a loss of 3.05 nats per token" in out
    assert "note: fronts are of T = 16384" in out


def test_own_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(own_table(tmp_path))
    result = run_json(capsys, "training", path, "--loss", "3.2", *QUICK)
    assert result["warnings"] == []
    assert list(result["fronts"]) == ["mamba"]
    assert all(row["utilization"] == pytest.approx(0.3, rel=0.05) for row in result["utilization"])
    low, high = result["gpu_hours_at_loss_intervals"]["mamba"]
    assert low <= result["gpu_hours_at_loss"]["mamba"] <= high
    assert cli.main(["training", path]) == 0
    assert "mamba" in capsys.readouterr().out


def test_groups_of_other_names_are_all_taken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = own_table(tmp_path, group=["sweep", "final"] * 20)
    assert len(run_json(capsys, "training", str(path))["fronts"]["mamba"]) > 3


def test_few_runs_have_no_interval(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(own_table(tmp_path, num_runs=5))
    front = run_json(capsys, "training", path)["fronts"]["mamba"]
    between = str((front[0]["loss"] + front[-1]["loss"]) / 2)
    result = run_json(capsys, "training", path, "--loss", between)
    assert result["gpu_hours_at_loss"]["mamba"] > 0
    assert result["gpu_hours_at_loss_intervals"]["mamba"] is None
    assert any("no interval for mamba" in note for note in result["warnings"])
    assert cli.main(["training", path, "--loss", between]) == 0
    assert "undefined" in capsys.readouterr().out


def test_without_losses_there_is_still_utilization(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(own_table(tmp_path, val_loss=np.nan))
    result = run_json(capsys, "training", path)
    assert len(result["utilization"]) == 3
    assert (result["fronts"], result["context_length"]) == ({}, None)
    assert any("no fronts" in note for note in result["warnings"])
    assert cli.main(["training", path]) == 0
    assert "no fronts" in capsys.readouterr().out
    assert "no finished run" in error_line(capsys, "training", path, "--loss", "3")


def test_step_times_in_milliseconds_are_noticed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = run_json(capsys, "training", str(own_table(tmp_path, step_time_s=1e-3)))
    assert any("step times in another unit" in note for note in result["warnings"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "nowhere.csv: no such file"),
        ([str(data_dir() / "runs.csv")], "column"),
        ([LOGS, "--architecture", "mamba"], "no runs with architecture mamba; the table has transformer, xlstm"),
        ([LOGS, "--context-length", "4096"], "no runs with context_length 4096"),
        ([LOGS, "--loss", "-1"], "-1 is not positive"),
        ([LOGS, "--loss", "inf"], "--loss inf is not finite"),
        ([LOGS, "--loss", "3", "--bootstrap", "1e12"], "--bootstrap 1000000000000: at most 1000000"),
        ([LOGS, "--hardware", "abacus"], "hardware 'abacus' is not known"),
        ([LOGS, "--level", "2"], "2 is not between 0 and 1"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in error_line(capsys, "training", *arguments)


def test_no_throughput_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(own_table(tmp_path, num_gpus=np.nan))
    assert "no run has both step_time_s and num_gpus" in error_line(capsys, "training", path)
