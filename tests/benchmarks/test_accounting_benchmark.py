"""The accounting benchmark on a few configurations, and the record that is kept of the full one."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from companion.accounting import CONVENTIONS
from companion.architectures import PAPER_ARCHITECTURES
from companion.benchmarks import accounting
from companion.benchmarks.records import latest_record, read_records
from companion.errors import InputError
from companion.paths import data_dir

COMMITTED = data_dir() / "benchmarks" / "accounting.jsonl"


def test_small_run_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "accounting.jsonl"
    assert accounting.main(["--num-configurations", "50", "--repeats", "2", "--out", str(path)]) == 0
    assert f"recorded in {path}" in capsys.readouterr().out
    [record] = read_records(path)
    assert record["parameters"] == {"num_configurations": 50, "repeats": 2, "seed": 0}
    steps = {(row["architecture"], row["step"], row["convention"]) for row in record["results"]}
    expected = {(name, step, None) for name in PAPER_ARCHITECTURES for step in ("shapes", "num_params")}
    expected |= {(name, "count_flops", convention) for name in PAPER_ARCHITECTURES for convention in CONVENTIONS}
    assert steps == expected
    for row in record["results"]:
        assert 0 <= row["seconds_min"] <= row["seconds_median"] <= row["seconds_max"]
        assert row["verified_configurations"] == (50 if row["step"] == "count_flops" else 0)


def test_record_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert accounting.main(["--num-configurations", "5", "--repeats", "1", "--out", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["benchmark"] == "accounting"


def test_configurations_are_valid_and_repeatable() -> None:
    shapes, lengths = accounting.random_configurations(1000, seed=3)
    again, _ = accounting.random_configurations(1000, seed=3)
    assert all(np.array_equal(shapes[name], again[name]) for name in shapes)
    assert not (shapes["d_model"] % shapes["n_heads"]).any()
    assert lengths.min() >= 64
    assert (lengths % 64 != 0).any()


def test_wrong_counts_are_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = accounting.num_params
    monkeypatch.setattr(accounting, "num_params", lambda model: count(model) + (np.ndim(model.d_model) > 0))
    path = tmp_path / "accounting.jsonl"
    assert accounting.main(["--num-configurations", "20", "--out", str(path)]) == 1
    assert "array and scalar counts differ" in capsys.readouterr().err
    assert not path.exists()


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="repeats 0 is not positive"):
        accounting.measure(10, repeats=0)
    assert accounting.main(["--num-configurations", "0"]) == 2
    assert capsys.readouterr().err == "error: num-configurations 0 is not positive\n"
    assert accounting.main(["--num-configurations", "5", "--out", str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_committed_record() -> None:
    record = latest_record(COMMITTED, "accounting")
    assert record["parameters"]["num_configurations"] == 1_000_000
    slowest = accounting.slowest_total(record)
    assert slowest["seconds"] > 0
    assert slowest["architecture"] in PAPER_ARCHITECTURES
    assert all(row["verified_configurations"] for row in record["results"] if row["step"] == "count_flops")


def test_readme_describes_every_field() -> None:
    described = set(re.findall(r"`([\w.]+)`", (COMMITTED.parent / "README.md").read_text(encoding="utf-8")))
    for record in read_records(COMMITTED):
        fields = set(record) | {f"machine.{name}" for name in record["machine"]} - {"machine"}
        fields |= set(record["parameters"]) | {name for row in record["results"] for name in row}
        assert fields - {"machine"} <= described
