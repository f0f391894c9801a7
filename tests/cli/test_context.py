"""`companion context` as a user runs it."""

from pathlib import Path

import numpy as np
import pytest
from commands import RUNS, error_line, run_json
from context_tables import simulated_contexts

from companion import cli
from companion.ledger.entries import load_published

QUICK = ["--bootstrap", "100"]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "context", RUNS, "--architecture", "transformer", *QUICK, "--seed", "3", "--level", "0.9")
    assert list(result) == [
        "file",
        "architecture",
        "trends",
        "optima",
        "level",
        "num_resamples",
        "seed",
        "warnings",
    ]
    assert (result["architecture"], result["level"], result["num_resamples"], result["seed"]) == (
        "transformer",
        0.9,
        100,
        3,
    )
    assert [(row["isoflop_budget"], row["quantity"]) for row in result["trends"]] == [
        (budget, quantity) for budget in (6e18, 1e19, 3e19) for quantity in ("num_params", "num_tokens")
    ]
    for row in result["trends"]:
        low, high = row["exponent_interval"]
        assert low < row["exponent"] < high < 0
        low, high = row["prefactor_interval"]
        assert 0 < low < row["prefactor"] < high
        assert row["context_lengths"] == [2048, 8192, 16384]
        assert row["num_contexts"] == 3
    assert len(result["optima"]) == 18
    assert any("budget 1e+20" in note for note in result["warnings"])


def test_trend_is_the_line_through_the_optima_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "context", RUNS, "--architecture", "xlstm", *QUICK)
    for trend in result["trends"]:
        key = (trend["isoflop_budget"], trend["quantity"])
        points = [o for o in result["optima"] if (o["isoflop_budget"], o["quantity"]) == key]
        slope, log_prefactor = np.polyfit(
            np.log([o["context_length"] for o in points]), np.log([o["x_opt"] for o in points]), 1
        )
        assert trend["exponent"] == pytest.approx(slope, rel=1e-9)
        assert trend["prefactor"] == pytest.approx(np.exp(log_prefactor), rel=1e-7)


def test_published_optima(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "context", RUNS, "--architecture", "transformer", "--bootstrap", "0")
    ours = {(o["isoflop_budget"], o["context_length"], o["quantity"]): o["x_opt"] for o in result["optima"]}
    published = [
        entry
        for entry in load_published()["isoflop_optima"]
        if entry["architecture"] == "transformer" and entry["context_length"] == 2048
    ]
    assert len(published) == 4
    for entry in published:
        assert ours[entry["isoflop_budget"], 2048, entry["x"]] == pytest.approx(entry["x_opt"], rel=1e-5)


def test_no_bootstrap_gives_null_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "context", RUNS, "--architecture", "xlstm", "--bootstrap", "0")
    assert all(row["exponent_interval"] == [None, None] for row in result["trends"])
    assert cli.main(["context", RUNS, "--architecture", "xlstm", "--bootstrap", "0"]) == 0
    assert "undefined" in capsys.readouterr().out


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--where", "context_length < 9000 and imposed_published_fit == 0"]
    assert cli.main(["context", RUNS, "--architecture", "transformer", *QUICK, *where]) == 0
    out = capsys.readouterr().out
    assert "prefactor * T^exponent" in out
    assert "6×10¹⁸" in out
    assert "2048, 8192" in out
    assert "warning: num_params, budget 6e+18: two contexts" in out


def test_own_table_needs_no_architecture_and_no_shapes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    columns = ["architecture", "context_length", "num_params", "num_tokens", "train_flops", "val_loss"]
    runs = simulated_contexts(noise=1e-3).assign(architecture="mamba")
    runs[columns].to_csv(path, index=False)
    result = run_json(capsys, "context", str(path), *QUICK)
    assert result["architecture"] == "mamba"
    assert len(result["trends"]) == 6
    assert all(row["exponent"] < -0.05 for row in result["trends"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([RUNS], "runs of 2 architectures (transformer, xlstm): choose one"),
        ([RUNS, "--architecture", "mamba"], "no runs with architecture mamba"),
        ([RUNS, "--architecture", "xlstm", "--where", "context_length == 8192"], "there are T = 8192"),
        ([RUNS, "--architecture", "xlstm", "--weights", "nope"], "no column 'nope'"),
        ([RUNS, "--architecture", "xlstm", "--level", "2"], "2 is not between 0 and 1"),
        ([RUNS, "--architecture", "xlstm", "--context-length", "8192"], "unrecognized arguments"),
        (["nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_line(capsys, "context", *arguments)


def test_table_without_contexts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    simulated_contexts(contexts=(2048,)).drop(columns="context_length").to_csv(path, index=False)
    assert "no column 'context_length'" in error_line(capsys, "context", str(path))
