"""`companion data check`: JSON, text and exit status."""

import re
from pathlib import Path

import pandas as pd
import pytest
from commands import RUNS, error_line, run_json
from foreign import NAMES, table

from companion import cli
from companion.paths import data_dir
from companion.runs.load import load_paper_runs


def test_data_check(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "data", "check", RUNS)
    assert result["num_runs"] == 640
    assert result["accounting"]["num_params_equal"] == result["accounting"]["num_compared"] == 640
    assert result["accounting"]["largest_relative_train_flops_difference"] < 1e-5
    assert result["findings"] == result["warnings"] == []
    assert result["flops_ratio"]["num_outside"] == 0
    assert cli.main(["data", "check", RUNS]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{RUNS}: 640 runs, no fault found\nC/(6 N D): 0.706 to 2.08, median 0.943; 0 of 640 runs")


def test_the_accounting_counts_rows_with_shapes_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = load_paper_runs().head(30)
    runs["d_ff"] = runs["d_ff"].astype("Int64")
    runs.loc[runs.index[:4], "d_ff"] = None
    runs.loc[runs.index[4], "architecture"] = "mamba"
    runs.loc[runs.index[5], "num_params"] += 1
    runs.loc[runs.index[6], "train_flops"] *= 1.01
    runs.to_csv(tmp_path / "runs.csv", index=False)
    accounting = run_json(capsys, "data", "check", str(tmp_path / "runs.csv"))["accounting"]
    assert (accounting["num_compared"], accounting["num_params_equal"]) == (25, 24)
    assert accounting["largest_relative_train_flops_difference"] == pytest.approx(0.01 / 1.01, rel=1e-3)
    runs.drop(columns="d_ff").to_csv(tmp_path / "bare.csv", index=False)
    assert run_json(capsys, "data", "check", str(tmp_path / "bare.csv"))["accounting"] is None


@pytest.mark.parametrize("name", NAMES)
def test_every_foreign_table_is_accepted(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(table(name))]) == 0
    captured = capsys.readouterr()
    assert "C/(6 N D): " in captured.out
    assert "Traceback" not in captured.err


def test_findings_as_text_and_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(table("int64_wrapped"))
    result = run_json(capsys, "data", "check", path)
    [found] = result["findings"]
    assert (found["kind"], found["column"], found["num_rows"]) == ("overflow", "train_flops", 6)
    assert found["rows"] == result["flops_ratio"]["rows"] == [3, 4, 5, 10, 16, 18]
    assert cli.main(["data", "check", path]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""  # what is a finding is not noted again
    assert captured.out.splitlines()[:2] == [f"{path}: 25 runs, 1 finding", f"finding: {found['message']}"]


def test_what_was_rounded_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(table("digitised_fractions"))
    assert cli.main(["data", "check", path]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"note: {path}: column 'num_params': 15 fractions rounded, rows 2, 3,")
    assert second.startswith(f"note: {path}: column 'num_tokens': 15 fractions rounded")
    assert len(run_json(capsys, "data", "check", path)["warnings"]) == 2


def test_a_column_without_values_is_empty_and_not_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """T_unknown.csv: 35 runs of Gadre et al. (arXiv 2403.08540) with an empty column context_length."""
    path = str(table("T_unknown"))
    assert "column 'context_length' is empty" in error_line(capsys, "fit", path, "--context-length", "2048")
    assert "column 'context_length' is empty" in error_line(capsys, "fit", path, "--where", "context_length == 2048")


def test_a_name_with_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    """columns_with_spaces.csv: runs of hadasah/scaling_laws; its column model holds sizes."""
    path = str(table("columns_with_spaces"))
    hint = "write `C4 Eval Loss` in backquotes, or rename the column"
    assert hint in error_line(capsys, "fit", path, "--where", "C4 Eval Loss < 4")
    error = error_line(capsys, "fit", path, "--where", "`C4 Eval Loss` < 0")
    assert "no runs where" in error


def test_extra_column_is_a_note_and_an_error_when_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "extra.csv"
    load_paper_runs().head(20).assign(color="red").to_csv(path, index=False)
    assert cli.main(["data", "check", str(path)]) == 0
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 1
    assert notes[0].startswith("note: ")
    assert "color" in notes[0]
    assert "color" in error_line(capsys, "data", "check", str(path), "--strict")


def test_training_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data_dir() / "training_logs.csv"
    result = run_json(capsys, "data", "check", str(path))
    assert result["by_status"] == {"finished": 426, "diverged": 3, "stopped": 2}
    assert result["accounting"]["num_params_equal"] == result["num_runs"] == result["num_with_throughput"] == 431
    assert result["accounting"]["largest_relative_train_flops_difference"] < 1e-5
    assert len(result["warnings"]) == 1
    logs = pd.read_csv(path)
    assert result["sum_gpu_hours"] == pytest.approx((logs.step_time_s * logs.train_steps * logs.num_gpus).sum() / 3600)

    logs.assign(step_time_s=logs["step_time_s"] / 10, step_time_q25_s=None).to_csv(tmp_path / "fast.csv", index=False)
    assert cli.main(["data", "check", str(tmp_path / "fast.csv")]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tmp_path / 'fast.csv'}: training logs of 431 runs\n")
    assert re.search(r"would use \d\.\d+ times the peak of NVIDIA H100 SXM, and \d+ other runs would", captured.err)
    assert "C/(6 N D): " in captured.out
    (above,) = [note for note in run_json(capsys, "data", "check", str(tmp_path / "fast.csv"))["warnings"][1:]]
    assert f"note: {tmp_path / 'fast.csv'}: {above}" in captured.err
    logs.assign(train_flops=1.0).to_csv(tmp_path / "flops.csv", index=False)
    ratio = run_json(capsys, "data", "check", str(tmp_path / "flops.csv"))["flops_ratio"]
    assert ratio["num_outside"] == 431
    logs.assign(mine=1).to_csv(tmp_path / "mine.csv", index=False)
    assert error_line(capsys, "data", "check", str(tmp_path / "mine.csv"), "--strict").endswith("'mine' is not known")
    logs.assign(num_gpus=0).to_csv(tmp_path / "none.csv", index=False)
    assert error_line(capsys, "data", "check", str(tmp_path / "none.csv")).endswith("'num_gpus': 0.0 must be positive")
