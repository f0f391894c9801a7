"""`companion isoflop` on other people's tables and on generated designs; `companion context` on the latter."""

import contextlib
import io
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import RUNS, error_line, run_json
from designs import designs, write
from foreign import table
from hypothesis import HealthCheck, given, settings

from companion import cli

QUICK = ["--bootstrap", "400"]


def outcome(*arguments: str) -> dict[str, Any] | str:
    """The JSON of a command, or its one line of error; fails on a traceback, a RuntimeWarning or another status."""
    out, err = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        warnings.simplefilter("error", RuntimeWarning)
        status = cli.main([*arguments, "--json"])
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
    if status == 2:
        assert out.getvalue() == ""
        assert len(lines) == 1
        return lines[0]
    assert (status, lines) == (0, [])
    return dict(json.loads(out.getvalue(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON")))


def check_interval(bounds: list[float | None], widest: float, *, ratio: bool) -> None:
    """Both ends or none; not of zero width; not absurdly wide."""
    low, high = bounds
    if low is None or high is None:
        assert bounds == [None, None]
        return
    assert low < high
    assert (math.log10(high / low) if ratio else high - low) < widest


# ---- other people's tables -----------------------------------------------------------------------


def test_nominal_budgets_have_optima_and_a_law(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "isoflop", str(table("nominal_budget")))
    runs = pd.read_csv(table("nominal_budget"))
    for row in result["optima"]:
        group = runs[runs["isoflop_budget"] == row["isoflop_budget"]]
        a, b, _ = np.polyfit(np.log10(group["num_params"]), group["val_loss"], 2)
        assert row["x_opt"] == pytest.approx(10 ** (-b / (2 * a)), rel=1e-6)
    first, second = (row["x_opt"] for row in result["optima"])
    # two budgets, a decade apart
    assert result["exponent"] == pytest.approx(math.log10(second / first), rel=1e-9)
    assert result["joint"]["exponent"] == pytest.approx(result["exponent"], abs=1e-6)
    # the exponent that generated the course's set (Stanford CS336, assignment 3) lies inside
    low, high = result["intervals"]["exponent"]["bootstrap"]
    assert low < 0.5143 < high
    assert result["joint"]["slope"] is None
    assert "same train_flops" in result["joint"]["slope_left_out"]


def test_llama3_points_at_nominal_compute(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(table("isoflop_nominal_llama3"))
    result = run_json(capsys, "isoflop", path, "--x", "num_tokens", *QUICK)
    runs, optima = pd.read_csv(path), []
    for _, group in runs.groupby("isoflop_budget"):
        a, b, _ = np.polyfit(np.log10(group["num_tokens"]), group["val_loss"], 2)
        optima.append(-b / (2 * a))
    slope, constant = np.polyfit(np.log10(sorted(runs["isoflop_budget"].unique())), optima, 1)
    assert result["exponent"] == pytest.approx(slope, abs=1e-6)
    assert math.log10(result["prefactor"]) == pytest.approx(constant, abs=1e-4)
    # the published 0.53 (arXiv 2407.21783) is of ten budgets up to 1e22; the table ends at 1e21
    sizes = run_json(capsys, "isoflop", path, *QUICK)
    assert sizes["exponent"] + result["exponent"] == pytest.approx(1, abs=1e-6)  # C = 6·N·D in every row
    assert sizes["joint"]["exponent"] + result["joint"]["exponent"] == pytest.approx(1, abs=1e-5)


def test_lost_resamples_and_unlabeled_runs_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "isoflop", str(table("isoflop_comma")))
    assert "7 of 92 runs are left out: they have no isoflop_budget" in result["warnings"]
    smallest = result["optima"][0]
    assert smallest["num_runs"] == 5
    assert any("budget 1e+18" in note and "lost the optimum" in note for note in result["warnings"])
    for row in result["optima"]:
        check_interval(row["x_opt_interval"], 1.0, ratio=True)
    assert result["share_of_lost_resamples"] > 0.01
    # nothing is said of the resamples that survived alone
    assert smallest["x_opt_interval"] == [None, None]
    assert "of the resamples lost an optimum" in smallest["x_opt_interval_undefined"]
    assert result["intervals"]["exponent"]["bootstrap"] == [None, None]
    without = run_json(capsys, "isoflop", str(table("isoflop_comma")), "--budgets", "3e18,6e18,1e19,3e19,6e19,1e20")
    check_interval(without["intervals"]["exponent"]["bootstrap"], 0.3, ratio=False)


def test_small_profiles_hold_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "isoflop", str(table("isoflop_three_by_four")))
    low, high = result["optima"][0]["x_opt_interval"]
    assert low < 432_191_283 < high  # the law that made the table has its optimum there
    check_interval(result["optima"][0]["x_opt_interval"], 0.3, ratio=True)


def test_one_budget_has_its_optimum_and_no_law(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "isoflop", str(table("six_runs")))
    assert (result["exponent"], result["prefactor"], result["joint"]) == (None, None, None)
    assert "only budget 1e+19 has an optimum" in result["law_undefined"]
    low, high = result["optima"][0]["x_opt_interval"]
    assert low < 432_191_283 < high
    assert cli.main(["isoflop", str(table("six_runs"))]) == 0
    out = capsys.readouterr().out
    assert "N*(C) undefined: only budget 1e+19 has an optimum, and a law needs two" in out
    assert "nan" not in out


def test_a_table_of_one_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "isoflop", str(table("xlstm_alone")))
    assert len(result["optima"]) == 4
    for bounds in (result["intervals"]["exponent"]["bootstrap"], result["joint"]["exponent_interval"]):
        assert bounds[0] < result["exponent"] < bounds[1]
    assert "same train_flops" in result["joint"]["slope_left_out"]


def test_two_sizes_have_no_optimum(capsys: pytest.CaptureFixture[str]) -> None:
    line = error_line(capsys, "isoflop", str(table("two_sizes")))
    assert "two_sizes.csv: no budget of 9 has an optimum" in line
    assert "1 different size, fewer than 4" in line
    assert line.endswith("and 5 more")


def test_a_column_that_is_no_weight(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["isoflop", RUNS, "--architecture", "xlstm", "--context-length", "8192", "--bootstrap", "0"]
    line = error_line(capsys, *chosen, "--weights", "isoflop_budget")
    assert "column 'isoflop_budget' holds" in line
    assert "not how many times a run counts" in line


def test_flat_losses_have_no_optimum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = pd.read_csv(table("xlstm_alone"))
    path = tmp_path / "flat.csv"
    for loss in (2.5, 2.5 + 1e-13 * runs["num_params"] / 1e9):
        runs.assign(val_loss=loss).to_csv(path, index=False)
        for x in ("num_params", "num_tokens"):
            assert "the loss is the same at every size" in error_line(capsys, "isoflop", str(path), "--x", x)


def test_few_resamples_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "isoflop", str(table("xlstm_alone")), "--bootstrap", "10")
    assert "10 resamples are few for an interval at 95 %: take at least 39" in result["warnings"]
    assert run_json(capsys, "isoflop", str(table("xlstm_alone")), "--bootstrap", "39")["warnings"][1:] == []
    one = run_json(capsys, "isoflop", str(table("xlstm_alone")), "--bootstrap", "1")
    assert one["optima"][0]["x_opt_interval"] == [None, None]


def test_contexts_need_two_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there are T = 2048" in error_line(capsys, "context", str(table("context_2048")))
    assert "no column 'context_length'" in error_line(capsys, "context", str(table("six_runs")))
    assert "column 'context_length' is empty" in error_line(capsys, "context", str(table("T_unknown")))


def test_runs_without_a_context_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = pd.read_csv(RUNS)
    runs = runs[(runs["architecture"] == "xlstm") & (runs["experiment"] == "isoflop")].reset_index(drop=True)
    lengths = runs["context_length"].astype("Int64")
    lengths[[3, 50]] = pd.NA
    path = tmp_path / "unknown.csv"
    runs[["architecture", "num_params", "num_tokens", "train_flops", "val_loss", "isoflop_budget"]].assign(
        context_length=lengths, seed=range(len(runs))
    ).to_csv(path, index=False)
    result = run_json(capsys, "context", str(path), "--bootstrap", "0")
    assert f"2 of {len(runs)} IsoFLOP runs are left out: they have no context_length" in result["warnings"]


# ---- generated designs ---------------------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(runs=designs())
def test_isoflop_on_any_design(runs: pd.DataFrame, tmp_path: Path) -> None:
    path = str(write(runs, tmp_path))
    for options in ([], ["--x", "num_tokens", "--weights", "times"]):
        result = outcome("isoflop", path, "--bootstrap", "100", *options)
        if isinstance(result, str):
            assert "generated.csv" in result
            continue
        optima = [row for row in result["optima"] if row["x_opt"] is not None]
        assert optima
        assert (result["exponent"] is None) == bool(result["law_undefined"])
        assert len(optima) > 1 or result["exponent"] is None
        for row in optima:
            check_interval(row["x_opt_interval"], 20, ratio=True)
            assert (row["x_opt_interval"][0] is None) == bool(row["x_opt_interval_undefined"])
        for kind in ("student_t", "bootstrap"):
            check_interval(result["intervals"]["exponent"][kind], 5, ratio=False)
            check_interval(result["intervals"]["prefactor"][kind], 50, ratio=True)
        if result["joint"]:
            check_interval(result["joint"]["exponent_interval"], 5, ratio=False)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(runs=designs(contexts=True))
def test_context_on_any_design(runs: pd.DataFrame, tmp_path: Path) -> None:
    result = outcome("context", str(write(runs, tmp_path)), "--bootstrap", "100")
    if isinstance(result, str):
        assert "generated.csv" in result
        return
    for row in result["optima"]:
        check_interval(row["x_opt_interval"], 20, ratio=True)
    for row in result["trends"]:
        check_interval(row["exponent_interval"], 5, ratio=False)
        check_interval(row["prefactor_interval"], 50, ratio=True)
