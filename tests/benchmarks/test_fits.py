"""The benchmark of fits at tiny sizes, and the record that is kept of the full one."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from companion.benchmarks import fits
from companion.benchmarks.records import read_records
from companion.errors import InputError
from companion.fitting.fit import Fit, fit
from companion.laws import LossSurface
from companion.paths import data_dir

COMMITTED = data_dir() / "benchmarks" / "fits.jsonl"
TINY = ["--repeats", "1", "--starts", "2", "--resamples", "20", "--rows", "30", "60", "--tables", "2"]
TINY += ["--coverage-resamples", "20"]


def test_small_run_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fits.jsonl"
    assert fits.main([*TINY, "--out", str(path)]) == 0
    assert f"recorded in {path}" in capsys.readouterr().out
    [record] = read_records(path)
    assert record["parameters"]["rows"] == [30, 60]
    assert {row["part"] for row in record["results"]} == set(fits.PARTS)
    parts = {part: [row for row in record["results"] if row["part"] == part] for part in fits.PARTS}
    assert [row["free_parameters"] for row in parts["full fit"]] == [6, 5]
    assert all(0 < row["seconds_min"] <= row["seconds_median"] <= row["seconds_max"] for row in parts["full fit"])
    assert all(row["lowest_excess"] > -1e-9 for row in parts["plain multi-start"])
    assert [row["processes"] for row in parts["bootstrap"]] == [1, 2]
    assert [(row["rows"], row["free_parameters"]) for row in parts["growth"]] == [(30, 5), (30, 6), (60, 5), (60, 6)]
    assert {row["interval"] for row in parts["coverage"]} == {"bootstrap", "profile"}
    assert all(0 <= row["coverage"] <= 1 for row in parts["coverage"])


def test_one_part_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert fits.main(["--parts", "plain multi-start", "--starts", "1", "--out", "-"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {row["part"] for row in record["results"]} == {"plain multi-start"}
    assert "--parts 'plain multi-start'" in record["command"]


def test_simulated_tables_are_repeatable_and_scatter_as_asked() -> None:
    n = np.geomspace(1e8, 1e10, 2000)
    first, again = (fits.simulated(fits.CHINCHILLA, n, 20 * n, 0.005, seed=3) for _ in range(2))
    assert first.equals(again)
    scatter = np.log(first["val_loss"] / fits.CHINCHILLA.predict(n, 20 * n))
    assert scatter.std() == pytest.approx(0.005, rel=0.1)


def test_bootstraps_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Fit.bootstrap
    monkeypatch.setattr(Fit, "bootstrap", lambda fitted, r, seed, num_jobs: original(fitted, r, seed=seed + num_jobs))
    with pytest.raises(ArithmeticError, match="2 processes differs"):
        fits.measure_bootstrap(fit(LossSurface, fits.isoflop_table()), 5, (1, 2), 0)


def test_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert fits.main(["--starts", "0"]) == 2
    assert capsys.readouterr().err == "error: starts 0 is not positive\n"
    with pytest.raises(InputError, match="the grid has 1 to 8000"):
        fits.measure_multistart(fit(LossSurface, fits.isoflop_table()), 9000, ("published",), 0)


def test_committed_records_hold_every_part() -> None:
    rows = [row for record in read_records(COMMITTED) for row in record["results"]]
    assert {row["part"] for row in rows} == set(fits.PARTS)
    fitted = [row for row in rows if row["part"] == "full fit" and row["free_parameters"] == 6][-1]
    assert fitted["rows"] == 107
    assert fitted["seconds_median"] < 1
    plain = [row for row in rows if row["part"] == "plain multi-start"]
    assert all(row["lowest_excess"] > -1e-9 for row in plain)
    assert all(row["seconds"] < 60 for row in rows if row["part"] == "bootstrap")
    coverage = [row for row in rows if row["part"] == "coverage"]
    assert all(0.85 <= row["coverage"] <= 1 for row in coverage)


def test_readme_describes_every_field() -> None:
    described = set(re.findall(r"`([\w.-]+)`", (COMMITTED.parent / "README.md").read_text(encoding="utf-8")))
    for record in read_records(COMMITTED):
        fields = set(record["parameters"]) | {name for row in record["results"] for name in row}
        assert fields <= described
