"""`companion design` as a user runs it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import RUNS, error_line, run_json
from simulated_tables import CHINCHILLA, simulated

from companion import cli

PAPER = [RUNS, "--architecture", "xlstm", "--context-length", "8192"]
SMALL = ["--runs", "4", "--budget", "1e21"]


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.csv"
    runs = simulated(CHINCHILLA, 0.003, seed=0, num_sizes=6, num_ratios=5)
    runs.assign(architecture="mamba").round({"num_params": 0, "num_tokens": 0}).astype(
        {"num_params": "int64", "num_tokens": "int64"}
    ).to_csv(path, index=False)
    return str(path)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "design", *PAPER, *SMALL, "--for", "loss@7e9,2e12")
    assert result["wanted"] == "loss at N = 7.00B, D = 2.00T"
    assert result["num_runs"] == 180
    low, high = result["interval"]
    assert low < result["value"] < high
    runs = result["runs"]
    assert 1 <= len(runs) <= 4
    assert sum(run["train_flops"] for run in runs) <= 1e21
    errors = [result["standard_error"], *(run["standard_error"] for run in runs)]
    assert np.all(np.diff(errors) < 0)
    designs = {design["design"]: design for design in result["designs"]}
    assert set(designs) == {"chosen", "IsoFLOP grid", "token/param grid", "largest affordable", "random"}
    assert designs["chosen"]["standard_error"] == pytest.approx(errors[-1])
    assert all(designs["chosen"]["standard_error"] <= one["standard_error"] for one in designs.values())
    laws = {law["law"]: law for law in result["alternatives"]}
    assert set(laws) == {"gamma free", "product"}
    assert any("if the law is really 'gamma free'" in note for note in result["warnings"])
    assert abs(laws["gamma free"]["shift_in_half_widths"]) > 1


def test_text_names_runs_designs_and_laws(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["design", own, *SMALL, "--for", "optimum@1e23"]) == 0
    out = capsys.readouterr().out
    for words in ("optimal N at C = 1×10²³", "interval after it", "IsoFLOP grid", "if another law holds", "gamma free"):
        assert words in out


def test_hours_and_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--gpu-hours", "500", "--runs", "3", "--max-params", "1e9", "--min-ratio", "10", "--max-ratio", "50"]
    result = run_json(capsys, "design", *PAPER, *options, "--for", "exponent", "--criterion", "D", "--method", "greedy")
    assert sum(run["gpu_hours"] for run in result["runs"]) <= 500
    for run in result["runs"]:
        assert run["num_params"] <= 1e9 * 1.001
        assert 9.99 < run["tokens_per_param"] < 50.01
    shared = ["design", *PAPER, "--runs", "3", "--for", "exponent", "--gpu-hours"]
    half, whole = (
        run_json(capsys, *shared, hours, "--utilization", share) for hours, share in (("500", "0.4"), ("1000", "0.2"))
    )
    assert [run["num_tokens"] for run in half["runs"]] == [run["num_tokens"] for run in whole["runs"]]


def test_other_laws_and_noise(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    narrow, wide = (
        run_json(capsys, "design", own, *SMALL, "--for", "E", "--gamma", "1", "--noise", noise)["standard_error"]
        for noise in ("0.003", "0.03")
    )
    assert wide > 5 * narrow
    free = run_json(capsys, "design", own, *SMALL, "--for", "loss@2e10,4e11", "--gamma", "free")
    assert {law["law"] for law in free["alternatives"]} == {"gamma = 1", "product"}


def test_runs_far_from_the_table_are_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "design", *PAPER, *SMALL, "--for", "exponent", "--min-ratio", "0.1")
    assert any("tokens per parameter: whether the law holds" in note for note in result["warnings"])


def test_scatter_beyond_that_of_repeats_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = simulated(CHINCHILLA, 0.006, seed=0, num_sizes=6, num_ratios=5)
    notes = []
    for name, spread in (("misfit", 1e-3), ("none", 6e-3)):
        factor = np.exp(np.random.default_rng(1).normal(0, spread, len(first)))
        runs = pd.concat([first, first.assign(val_loss=first["val_loss"] * factor)]).assign(architecture="mamba")
        for column in ("num_params", "num_tokens"):
            runs[column] = runs[column].round().astype("int64")
        runs.to_csv(tmp_path / f"{name}.csv", index=False)
        found = run_json(capsys, "design", str(tmp_path / f"{name}.csv"), *SMALL, "--for", "exponent")
        notes.append(any("the law misses something" in note for note in found["warnings"]))
    assert notes == [True, False]


def test_one_law_for_several_contexts_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "design", RUNS, "--architecture", "xlstm", *SMALL, "--for", "exponent")
    assert any("several context_length values" in note for note in result["warnings"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*SMALL, "--for", "speed"], "quantity 'speed' is not known"),
        ([*SMALL, "--for", "loss@1e9"], "loss takes 2 numbers"),
        ([*SMALL, "--for", "gamma"], "gamma is held at 1"),
        ([*SMALL, "--for", "optimum@1e39"], "no optimum at 1e+39 FLOP"),
        ([*SMALL, "--for", "optimum@1e24", "--law", "product"], "no optimum"),
        ([*SMALL, "--for", "exponent", "--law", "product"], "only LossSurface"),
        ([*SMALL, "--for", "exponent", "--min-params", "1e12"], "below the cheapest candidate"),
        ([*SMALL, "--for", "exponent", "--max-ratio", "1e-9"], "tokens per parameter: 1e-09 to 1e-09 is not within"),
        ([*SMALL, "--for", "exponent", "--gamma", "1000"], "gamma 1000 is not between"),
        (["--budget", "1e9", "--for", "exponent"], "below the cheapest candidate"),
        (["--budget", "inf", "--for", "exponent"], "must be finite"),
        (["--budget", "1e20"], "--for"),
        (["--for", "exponent"], "--budget"),
        (["--gpu-hours", "1", "--budget", "1e20", "--for", "exponent"], "not allowed with"),
        (["--gpu-hours", "10", "--for", "exponent", "--hardware", "abacus"], "hardware 'abacus' is not known"),
        (["--gpu-hours", "10", "--for", "exponent", "--utilization", "40"], "utilization 40 is not between"),
        ([*SMALL, "--for", "exponent", "--where", "num_params > 1e12"], "no runs where"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in error_line(capsys, "design", *PAPER, *arguments)


def test_a_table_that_determines_no_law_is_told_which_runs_do(capsys: pytest.CaptureFixture[str]) -> None:
    line = error_line(capsys, "design", *PAPER, *SMALL, "--for", "exponent", "--where", "isoflop_budget == 6e18")
    assert "not identified" in line
    assert "would determine it: " in line
    few = error_line(capsys, "design", *PAPER, *SMALL, "--for", "exponent", "--where", "num_params > 6e9")
    assert "allow more sizes" in few, "the table has two sizes, and new ones reach three times the largest"


def test_files_that_are_no_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_bytes(b"\xff\xfe\x00num_params")
    for file in (str(wrong), str(tmp_path), str(tmp_path / "none.csv"), "/dev/null"):
        assert file in error_line(capsys, "design", file, *SMALL, "--for", "exponent")


def test_hours_of_an_unknown_architecture_need_a_utilization(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = error_line(capsys, "design", own, "--gpu-hours", "10", "--for", "exponent")
    assert "--utilization" in line


def test_two_runs_are_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.csv"
    table = {"architecture": ["mamba"] * 2, "num_params": [10**8, 10**9], "num_tokens": [10**9, 10**10]}
    pd.DataFrame({**table, "train_flops": [6e17, 6e19], "val_loss": [3.5, 2.9]}).to_csv(path, index=False)
    line = error_line(capsys, "design", str(path), *SMALL, "--runs", "8", "--for", "exponent")
    assert "2 runs for 5 free parameters" in line
    assert "would determine it: " in line
