"""The benchmark of large tables: its tables, its measurement, its record."""

import json
from pathlib import Path

import pytest

from companion.benchmarks import large_tables


def test_a_record_of_one_command(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    assert large_tables.main(["--rows", "200", "--commands", "data check", "--out", str(out)]) == 0
    [result] = json.loads(out.read_text())["results"]
    assert result["command"] == "data check"
    assert result["rows"] == 200
    assert result["exit_status"] == 0
    assert result["seconds"] > 0
    assert 1e7 < result["peak_memory_bytes"] < 1e10


def test_too_few_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert large_tables.main(["--rows", "5"]) == 2
    assert "at least 100" in capsys.readouterr().err


def test_the_table_keeps_its_budgets() -> None:
    table = large_tables.simulated_table(1000, 0.0, 0)
    assert (table["train_flops"] / table["isoflop_budget"] - 1).abs().max() < 1e-6
    assert table["isoflop_budget"].nunique() == 10
