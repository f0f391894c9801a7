"""`companion fit`, `overtraining` and `extrapolate` as a user runs them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import RUNS, error_line, run_json
from foreign import table

from companion import cli
from companion.fitting.fit import Fit
from companion.ledger.entries import load_published

ISOFLOP = ["--context-length", "8192", "--where", "experiment == 'isoflop'"]
WEIGHTS = ["--weights", "multiplicity_in_published_fits"]


@pytest.fixture
def own_table(tmp_path: Path) -> Path:
    """Forty runs of an architecture nobody has heard of, five columns only."""
    rng = np.random.default_rng(0)
    size = 10 ** rng.uniform(7.5, 10, 40)
    tokens = size * 10 ** rng.uniform(0.5, 2.5, 40)
    loss = (1.7 + 400 * size**-0.34 + 410 * tokens**-0.28) * np.exp(rng.normal(0, 0.002, 40))
    columns = {"num_params": size.round(), "num_tokens": tokens.round(), "train_flops": 6 * size * tokens}
    path = tmp_path / "mine.csv"
    pd.DataFrame(columns).assign(architecture="mamba", val_loss=loss).to_csv(path, index=False)
    return path


def test_fit_reaches_published_objectives(capsys: pytest.CaptureFixture[str]) -> None:
    for entry in load_published()["parametric_fits"]:
        if "objective" not in entry or entry["dataset"] != "isoflop":
            continue
        gamma = "free" if entry["fit_gamma"] else "1"
        options = ["--architecture", entry["architecture"], *ISOFLOP, *WEIGHTS, "--gamma", gamma, "--bootstrap", "0"]
        result = run_json(capsys, "fit", RUNS, *options)
        assert result["objective"] <= entry["objective"] * (1 + 1e-3)
        assert result["parameters"]["alpha"] == pytest.approx(entry["alpha"], abs=1e-4)
        assert result["status"] == "converged"


def test_fit_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--architecture", "transformer", *ISOFLOP, "--bootstrap", "50", "--seed", "3"]
    result = run_json(capsys, "fit", RUNS, *options, "--save", str(tmp_path / "fit.json"))
    assert set(result["parameters"]) == {"E", "A", "B", "alpha", "beta", "gamma"}
    for name, value in result["parameters"].items():
        low, high = result["intervals"][name]
        assert low < value < high
    assert result["num_rows"] == 107
    assert result["seed"] == 3
    assert {"numpy", "scipy", "companion"} <= set(result["versions"])
    assert 1 < result["conditioning"] < 1e4
    assert 0 < result["seconds"] < 60
    again = run_json(capsys, "fit", RUNS, *options)
    assert again["intervals"] == result["intervals"]
    saved = Fit.from_json((tmp_path / "fit.json").read_text())
    assert saved.parameters == result["parameters"]


def test_fit_of_an_own_table(own_table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "fit", str(own_table), "--gamma", "1", "--bootstrap", "100")
    low, high = result["intervals"]["alpha"]
    assert low < 0.34 < high
    assert result["intervals"]["gamma"] == [None, None]
    assert cli.main(["fit", str(own_table), "--gamma", "1", "--bootstrap", "20", "--cluster", "num_params"]) == 0
    out = capsys.readouterr().out
    assert "bootstrap intervals" in out
    assert "gamma none" in " ".join(out.split())


def test_collinear_sizes_and_tokens_get_a_status_and_no_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = np.logspace(8, 10, 30).round()
    columns = {"num_params": size, "num_tokens": 20 * size, "train_flops": 120 * size**2}
    loss = 1.7 + 400 * size**-0.34 + 410 * (20 * size) ** -0.28
    pd.DataFrame(columns).assign(architecture="x", val_loss=loss).to_csv(tmp_path / "line.csv", index=False)
    result = run_json(capsys, "fit", str(tmp_path / "line.csv"), "--gamma", "1", "--bootstrap", "20")
    assert result["status"] == "not identified"
    assert "trade off freely" in result["status_detail"]
    assert set(result["intervals"].values()) == {None}
    assert any("no intervals" in note for note in result["warnings"])


def test_fit_says_when_laws_are_mixed(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "fit", RUNS, "--bootstrap", "0")
    assert any("one law for several architecture values" in note for note in result["warnings"])


def test_overtraining_reproduces_the_published_slopes(capsys: pytest.CaptureFixture[str]) -> None:
    for name, mode in (("transformer", "distill_scaling"), ("xlstm", '"first"')):
        result = run_json(capsys, "overtraining", RUNS, "--architecture", name, "--context-length", "8192")
        ours = {row["token_param_ratio"]: row for row in result["slopes"]}
        compared = 0
        for entry in load_published()["overtraining_slopes"]:
            if entry.get("architecture") == name and mode in entry["flop_mode"]:
                row = ours[entry["token_param_ratio"]]
                assert row["eta"] == pytest.approx(entry["eta"], abs=2e-6)
                assert row["lambda"] == pytest.approx(entry["lambda_"], rel=1e-4)
                assert row["eta_interval"][0] < row["eta"] < row["eta_interval"][1]
                assert 1e-4 < row["eta_standard_error"] < 1e-2
                compared += 1
        assert compared == 4
        assert 0 < result["parallel_test"]["p_value"] < 1


def test_left_out_run_can_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["overtraining", RUNS, "--architecture", "xlstm", "--context-length", "8192"]
    without, kept = run_json(capsys, *options), run_json(capsys, *options, "--keep-left-out")
    counts = [
        next(r["num_runs"] for r in result["slopes"] if r["token_param_ratio"] == 44) for result in (without, kept)
    ]
    assert counts == [6, 7]
    assert any("left out as published" in note for note in without["warnings"])


def test_extrapolate(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["extrapolate", RUNS, "--architecture", "xlstm", "--context-length", "8192", "--cutoffs", "1e20,1e21"]
    result = run_json(capsys, *options)
    assert [row["cutoff"] for row in result["cutoffs"]] == [1e20, 1e21]
    assert all(0 < row["rms_log_error"] < 0.2 for row in result["cutoffs"])
    assert {"measured", "parabola", "parametric"} <= set(result["optima"][0])
    assert cli.main(options) == 0
    assert "optimal size of withheld budgets" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "missing.csv"], "missing.csv"),
        (["fit", RUNS, "--gamma", "0"], "--gamma: 0 is not positive"),
        (["fit", RUNS, "--gamma", "some"], "'some' is not a number"),
        (["fit", RUNS, "--huber-delta", "-1"], "-1 is not positive"),
        (["fit", RUNS, "--weights", "times"], "no column 'times'"),
        (["fit", RUNS, "--where", "num_params < 1"], "no runs where"),
        (["fit", RUNS, "--where", "train_flops > 5e22"], "runs for 6 free parameters"),
        (["overtraining", RUNS], "several architecture values are mixed"),
        (["overtraining", RUNS, "--architecture", "xlstm", "--context-length", "2048"], "no ratio"),
        (["extrapolate", RUNS, "--architecture", "xlstm", "--cutoffs", "1e30"], "no run lies above"),
        (["extrapolate", RUNS, "--architecture", "xlstm", "--cutoffs", "1e10"], "below the cut-off 1e+10"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in error_line(capsys, *arguments)


@pytest.mark.parametrize(
    ("name", "identified"),
    [("one_ratio", False), ("two_sizes", False), ("six_runs", False), ("xlstm_alone", True), ("int64_right", True)],
)
def test_tables_of_other_people(name: str, identified: bool, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "fit", str(table(name)), "--gamma", "1", "--bootstrap", "40")
    assert result["identified"] == identified == (result["status"] != "not identified")
    if not identified:
        assert set(result["intervals"].values()) == {None}
        assert result["intervals_withheld"]
        assert any("no intervals" in note for note in result["warnings"])
    assert cli.main(["extrapolate", str(table(name)), "--gamma", "1"]) in {0, 2}
    assert "Traceback" not in capsys.readouterr().err


def test_extrapolate_says_first_what_is_not_identified(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["extrapolate", str(table("overtraining_rpj")), "--gamma", "1"]) == 0
    assert capsys.readouterr().out.startswith("warning: below 2.85e+18 FLOP the law is not identified")


def test_cutoffs_that_select_the_same_runs_are_used_once(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["extrapolate", RUNS, "--architecture", "xlstm", "--context-length", "8192", "--gamma", "1"]
    result = run_json(capsys, *options, "--cutoffs", "1e21,1.0000001e21")
    assert [row["cutoff"] for row in result["cutoffs"]] == [1e21]
    assert any("selects the same runs" in note for note in result["warnings"])


def test_a_place_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_line(capsys, "fit", "missing.csv", "--save", str(tmp_path))
    assert "it is a folder" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", "-1"], "-1 is not a whole number of at least 0"),
        (["--gamma", "1e300"], "gamma 1e+300 is not between"),
        (["--huber-delta", "1e-300"], "huber_delta 1e-300 is not at least"),
        (["--max-iterations", "0"], "0 is not a positive whole number"),
    ],
)
def test_extreme_options_are_one_line(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in error_line(capsys, "fit", str(table("xlstm_alone")), *options)


@pytest.mark.parametrize("options", [["--bootstrap", "1"], ["--level", "0.999999", "--bootstrap", "30"]])
def test_too_few_resamples_are_said(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "fit", str(table("xlstm_alone")), "--gamma", "1", *options)
    assert any("are few for intervals" in note for note in result["warnings"])
