"""The package as a wheel: its tables travel with it, and every command runs far from a checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from wheels import ROOT, build_wheel

COMMANDS = ("flops", "params", "isoflop", "fit", "overtraining", "extrapolate", "context", "plan", "ledger", "data")
COMMANDS += (
    "data check",
    "training",
    "inference",
    "inference fit",
    "inference count",
    "bench",
    "bench kernels",
    "book",
    "new-study",
    "study-page",
)  # type: ignore[assignment]

#: Runs commands one after the other; prints their status and what they wrote on stderr.
DRIVER = """
import contextlib, io, json, sys
from companion import cli, paths
import companion

results = {"package": companion.__file__, "data": str(paths.data_dir()), "runs": []}
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([argument.replace("DATA", results["data"]) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
    results["runs"].append({"status": status, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the sources."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installed wheel."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(site: Path, code: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """A process that sees the installed package before any other, in a folder that is not a checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "COMPANION_DATA"}
    environment |= {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    elsewhere = site.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, input=given, capture_output=True, text=True, env=environment, cwd=elsewhere)


def test_wheel_holds_every_module_and_table(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("companion/")}
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "companion").rglob("*.py")}
    tables = {
        f"companion/_data/{path.relative_to(ROOT / 'data').as_posix()}"
        for path in ROOT.glob("data/**/*")
        if path.is_file()
    }
    templates = {f"companion/new_study/template/{name}" for name in ("README.md", "page.css", "study.md")}
    assert names == modules | tables | templates | {"companion/py.typed"}
    assert len(tables) > 8


def test_every_command_runs_from_the_wheel(installed: Path) -> None:
    helps = [["--help"], *([*command.split(), "--help"] for command in COMMANDS)]
    chosen = ["--architecture", "xlstm", "--context-length", "8192"]
    runs = [
        ["--version"],
        ["flops", "--size", "7b", *chosen],
        ["params", "--architecture", "transformer", "--size", "400m"],
        ["data", "check", "DATA/runs.csv"],
        ["training", "DATA/training_logs.csv", "--context-length", "2048"],
        ["isoflop", "DATA/runs.csv", *chosen, "--bootstrap", "10"],
        ["fit", "DATA/runs.csv", *chosen, "--bootstrap", "2"],
        ["overtraining", "DATA/runs.csv", *chosen],
        ["extrapolate", "DATA/runs.csv", *chosen, "--cutoffs", "1e20"],
        ["plan", "--train-flops", "1e21", *chosen, "--bootstrap", "2"],
        ["ledger", "--section", "run_table_statistics"],
        ["ledger", "--section", "isoflop_power_laws"],
        [
            "inference",
            "fit",
            "DATA/inference.csv",
            "--architecture",
            "xlstm",
            "--model-size",
            "7b",
            "--quantity",
            "ttft",
        ],
    ]
    done = run(installed, DRIVER, json.dumps([*helps, *runs]))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert Path(results["package"]) == installed / "companion" / "__init__.py"
    assert Path(results["data"]) == installed / "companion" / "_data"
    for arguments, result in zip([*helps, *runs], results["runs"], strict=True):
        assert result["status"] == 0, (arguments, result["err"])
        assert result["out"], arguments


def test_help_reads_no_table(installed: Path) -> None:
    shutil.move(installed / "companion" / "_data", installed / "gone")
    try:
        asked = [["--help"], *([*command.split(), "--help"] for command in COMMANDS), ["ledger"]]
        code = DRIVER.replace("str(paths.data_dir())", "'nowhere'")
        done = run(installed, code, json.dumps(asked))
    finally:
        shutil.move(installed / "gone", installed / "companion" / "_data")
    assert done.returncode == 0, done.stderr
    *helps, ledger = json.loads(done.stdout)["runs"]
    assert [result["status"] for result in helps] == [0] * len(helps)
    assert ledger["status"] == 2
    assert ledger["err"].startswith(
        f"companion: {installed / 'companion' / '_data'}: no runs.csv there; set COMPANION_DATA"
    )


def test_book_needs_a_checkout(installed: Path) -> None:
    done = run(installed, "import sys; from companion.__main__ import main; sys.argv[1:] = ['book']; sys.exit(main())")
    assert done.returncode == 2
    assert "no _config.yml there; the book is built in a checkout" in done.stderr
    assert len(done.stderr.splitlines()) == 1
