"""The command as a user runs it: results, JSON, one-line errors, exit status."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import RUNS, error_line, run_json

from companion import cli
from companion.accounting import count_flops, num_params
from companion.architectures import XLSTM
from companion.cli import options
from companion.ledger.entries import load_published
from companion.runs.load import load_paper_runs

SHAPES = ["--architecture", "xlstm", "--d-model", "4096", "--n-layers", "32", "--n-heads", "8"]
SHAPES += ["--d-qk", "256", "--d-hv", "512", "--d-ff", "10944"]
COMMANDS = (["flops"], ["params"], ["isoflop"], ["ledger"], ["data"], ["data", "check"], ["book"], ["slides"], ["plan"])
COMMANDS += (["context"], ["inference", "fit"], ["inference", "count"], ["training"], ["new-study"], ["study-page"])
COMMANDS += (["kernels", "warm-up"],)


# ---- accounting ---------------------------------------------------------------------------------


def test_flops(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "flops", *SHAPES, "--context-length", "8192", "--num-tokens", "1e12")
    model = XLSTM(d_model=4096, n_layers=32, n_heads=8, d_ff=10944)
    assert result["num_params"] == num_params(model) == 6865424896
    assert result["train_flops_per_token"] == count_flops(model, 8192).train_flops_per_token
    parts = result["breakdown"]
    assert sum(parts["forward"].values()) + sum(parts["backward"].values()) == result["train_flops_per_token"]
    assert result["train_flops"] == result["train_flops_per_token"] * 1e12


def test_flops_of_every_convention_and_chunk(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["flops", *SHAPES, "--context-length", "8192"]
    paper, tfla, six_nd = (
        run_json(capsys, *options, "--convention", name)["train_flops_per_token"] for name in ("paper", "tfla", "6ND")
    )
    assert tfla < paper
    assert six_nd == 6 * 6865424896
    assert run_json(capsys, *options, "--chunk-size", "256")["train_flops_per_token"] > paper


def test_params_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "params", "--architecture", "transformer", "--size", "400m")
    assert result["num_params"] == sum(result["breakdown"].values()) == 406635520


def test_text_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["flops", "--architecture", "xlstm", "--size", "7b", "--context-length", "8192"]) == 0
    assert "6.87B parameters" in (out := capsys.readouterr().out)
    assert "mixer_core" in out
    assert cli.main(["params", "--architecture", "xlstm", "--size", "7b"]) == 0
    assert "6865424896" in capsys.readouterr().out
    assert cli.main(["ledger", "--section", "run_table_statistics"]) == 0
    assert "reproduced" in capsys.readouterr().out
    assert cli.main(["data", "check", RUNS]) == 0
    assert "640 runs, no fault found" in capsys.readouterr().out
    chosen = ["--architecture", "xlstm", "--context-length", "8192"]
    assert cli.main(["isoflop", RUNS, *chosen]) == 0
    assert "N*(C) = " in capsys.readouterr().out


# ---- IsoFLOP ------------------------------------------------------------------------------------


def test_isoflop_reproduces_every_published_law_and_optimum(capsys: pytest.CaptureFixture[str]) -> None:
    published = load_published()
    for law in published["isoflop_power_laws"]:
        x = "num_params" if law["quantity"].startswith("N") else "num_tokens"
        where = ["--architecture", law["architecture"], "--context-length", str(law["context_length"]), "--x", x]
        budgets = ["--budgets", law["budgets_used"].split(" ")[0], "--bootstrap", "10"]
        result = run_json(capsys, "isoflop", RUNS, *where, *budgets, "--weights", "multiplicity_in_published_fits")
        assert result["exponent"] == pytest.approx(law["exponent"], abs=2e-5)
        assert result["exponent_standard_error"] == pytest.approx(law["exponent_std"], abs=2e-5)
        assert result["prefactor"] == pytest.approx(law["prefactor"], rel=2e-3)
        optima = {row["isoflop_budget"]: row for row in result["optima"]}
        for optimum in published["isoflop_optima"]:
            if all(optimum[key] == law[key] for key in ("architecture", "context_length")) and optimum["x"] == x:
                budget = float(optimum["isoflop_budget"])
                if budget in optima:
                    assert optima[budget]["x_opt"] == pytest.approx(optimum["x_opt"], rel=1.5e-5)
                    assert optima[budget]["loss_opt"] == pytest.approx(optimum["loss_opt"], abs=5e-6)


def test_isoflop_intervals_and_seed(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["isoflop", RUNS, "--architecture", "xlstm", "--context-length", "8192", "--bootstrap", "200"]
    first = run_json(capsys, *chosen, "--seed", "1")
    assert first == run_json(capsys, *chosen, "--seed", "1")
    assert first["intervals"] != run_json(capsys, *chosen, "--seed", "2")["intervals"]
    for kind in ("student_t", "bootstrap"):
        low, high = first["intervals"]["exponent"][kind]
        assert low < first["exponent"] < high
    wide = run_json(capsys, *chosen, "--seed", "1", "--level", "0.99")
    assert wide["intervals"]["exponent"]["student_t"][0] < first["intervals"]["exponent"]["student_t"][0]
    assert run_json(capsys, *chosen, "--bootstrap", "0")["intervals"]["exponent"]["bootstrap"] == [None, None]


def test_isoflop_of_a_table_with_five_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = load_paper_runs()
    chosen = runs[
        (runs["architecture"] == "xlstm") & (runs["context_length"] == 8192) & (runs["experiment"] == "isoflop")
    ]
    path = tmp_path / "mine.csv"
    chosen[["architecture", "num_params", "num_tokens", "train_flops", "val_loss"]].to_csv(path, index=False)
    mine = run_json(capsys, "isoflop", str(path))
    full = run_json(capsys, "isoflop", RUNS, "--architecture", "xlstm", "--context-length", "8192")
    assert mine["exponent"] == pytest.approx(full["exponent"], rel=1e-9)
    assert any("budgets" in note and "gaps in train_flops" in note for note in mine["warnings"])


def test_isoflop_warnings_reach_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["isoflop", RUNS, "--architecture", "transformer", "--context-length", "8192"]
    result = run_json(capsys, *chosen, "--where", "num_params < 5e8")
    assert any(
        "outside the sampled" in note or "one side" in note or "curvature" in note for note in result["warnings"]
    )
    assert cli.main([*chosen, "--where", "num_params < 5e8"]) == 0
    assert "warning: budget 1e+20" in capsys.readouterr().out


# ---- ledger and data ----------------------------------------------------------------------------


def test_ledger_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "ledger", "--verdict", "differs")
    assert {row["section"] for row in result["rows"]} == {
        "inference_model_sizes",
        "parametric_fits",
    }
    assert {entry["section"] for entry in result["summary"]} >= {"isoflop_optima", "parametric_fits"}


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["nothing"], "nothing"),
        (["flops"], "--architecture"),
        (["flops", "--architecture", "mamba"], "mamba"),
        (["flops", "--architecture", "xlstm", "--context-length", "64"], "--d-model, --n-layers, --n-heads"),
        (["flops", *SHAPES, "--context-length", "32"], "shorter than one chunk of 64"),
        (["flops", *SHAPES, "--context-length", "0"], "0 is not a positive whole number"),
        (["flops", *SHAPES, "--context-length", "many"], "'many' is not a number"),
        (["flops", *SHAPES, "--context-length", "nan"], "nan"),
        (["flops", *SHAPES, "--context-length", "64", "--size", "7b"], "leave out --d-model"),
        (["flops", *SHAPES, "--context-length", "64", "--convention", "kaplan"], "kaplan"),
        (
            ["params", "--architecture", "xlstm", "--d-model", "100", "--n-layers", "2", "--n-heads", "3"],
            "not divisible",
        ),
        (["isoflop", "missing.csv"], "missing.csv"),
        (["isoflop", RUNS], "several architecture values are mixed"),
        (["isoflop", RUNS, "--architecture", "mamba"], "no runs with architecture mamba"),
        (["isoflop", RUNS, "--architecture", "xlstm", "--context-length", "4096"], "2048, 8192, 16384"),
        (["isoflop", RUNS, "--x", "d_model"], "d_model"),
        (["isoflop", RUNS, "--budgets", "6e18,many"], "6e18,many"),
        (["isoflop", RUNS, "--budgets", "6e18,-1"], "not positive"),
        (["isoflop", RUNS, "--level", "95"], "95 is not between 0 and 1"),
        (["isoflop", RUNS, "--bootstrap", "-1"], "-1"),
        (["isoflop", RUNS, "--where", "__import__('os')"], "__import__"),
        (
            ["isoflop", RUNS, "--architecture", "xlstm", "--context-length", "2048", "--weights", "times"],
            "no column 'times'",
        ),
        (["ledger", "--section", "nothing"], "no section nothing"),
        (["data", "check", "missing.csv"], "missing.csv"),
        (["book", "--parameters", "seed"], "write NAME=VALUE"),
        (["book", "--parameters", "no_such_parameter=1"], "no_such_parameter"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert words in error_line(capsys, *arguments)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "companion" in out
    assert command == ["data"] or "examples:" in out


def test_installed_command_and_a_reader_that_stops_reading() -> None:
    script = Path(sys.executable).with_name("companion")
    done = subprocess.run([script, "params", "--architecture", "xlstm", "--size", "7b", "--json"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["num_params"] == 6865424896
    piped = subprocess.run(f"{script} ledger | head -1", shell=True, capture_output=True, text=True)
    assert piped.stderr == ""


def test_core_needs_neither_torch_nor_the_book_tools() -> None:
    code = (
        "import sys, companion.cli.dispatch; "
        "heavy = {'torch', 'triton', 'matplotlib', 'seaborn', 'sympy', 'papermill', 'sphinx'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_undefined_numbers_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--architecture", "xlstm", "--context-length", "2048", "--budgets", "6e18,3e19", "--bootstrap", "10"]
    result = run_json(capsys, "isoflop", RUNS, *options)
    assert result["exponent_standard_error"] is None
    assert np.isfinite(result["exponent"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # the released checkpoints of Llama 3 8B (arXiv 2407.21783) and Qwen3 0.6B (arXiv 2505.09388)
        ("--d-model 4096 --n-layers 32 --n-heads 32 --n-kv-heads 8 --d-ff 14336 --vocab-size 128256", 8_030_261_248),
        (
            "--d-model 1024 --n-layers 28 --n-heads 16 --n-kv-heads 8 --d-qk 128 --d-hv 128 --d-ff 3072 "
            "--vocab-size 151936 --tied-embeddings --qk-norm",
            596_049_920,
        ),
    ],
)
def test_params_of_published_models(options: str, expected: int, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["params"], ["flops", "--context-length", "4096"], ["inference", "count", "--context-length", "8"]):
        assert cli.main([*command, "--architecture", "transformer", *options.split(), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["num_params"] == expected


def test_an_xlstm_has_no_grouped_heads(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["params", "--architecture", "xlstm", "--size", "7b", "--n-kv-heads", "2", "--qk-norm"]) == 2
    assert "--n-kv-heads, --qk-norm: this xlstm has no keys and values" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["99999999999999999999", "9007199254740993"])
def test_whole_numbers_that_float64_rounds_are_read(number: str) -> None:
    assert options.whole(number) == options.count(number) == int(number)
