"""The command on any terminal: encodings that lack characters, streams that are closed or full."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import RUNS

FULL = Path("/dev/full")
ISOFLOP = ["isoflop", RUNS, "--architecture", "xlstm", "--context-length", "8192", "--bootstrap", "0"]
PARAMS = ["params", "--architecture", "xlstm", "--size", "7b"]
WRONG = ["params", "--architecture", "xlstm", "--size", "7b", "--d-model", "64"]

#: Runs the command once for each case in a fork, whose streams are made as Python makes them when it starts.
DRIVER = """
import io, json, os, sys
from companion import cli

def stream(number, path, encoding, buffered):
    if path is None:
        os.close(number)
        return None
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    raw = open(number, "wb", buffering=-1 if buffered else 0, closefd=False)
    return io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=not buffered)

statuses = []
for case in json.load(sys.stdin):
    process = os.fork()
    if process == 0:
        sys.stdout = sys.__stdout__ = stream(1, case["out"], case["encoding"], case["buffered"])
        sys.stderr = sys.__stderr__ = stream(2, case["err"], case["encoding"], case["buffered"])
        sys.exit(cli.main(case["arguments"]))
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
print(json.dumps(statuses))
"""


def run_cases(folder: Path, cases: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of each case; `out` and `err` may be other files than ours, or None for closed."""
    full = []
    for number, case in enumerate(cases):
        own = {name: str(folder / f"{number}.{name}") for name in ("out", "err")}
        full.append({"encoding": "utf-8", "buffered": True, **own, **case})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", DRIVER],
        input=json.dumps(full),
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr

    def text(path: str | None, encoding: str) -> str:
        return Path(path).read_text(encoding=encoding) if path and Path(path).is_file() else ""

    return [
        (status, text(case["out"], case["encoding"]), text(case["err"], case["encoding"]))
        for status, case in zip(json.loads(done.stdout), full, strict=True)
    ]


ENCODINGS = ("utf-8", "cp1252", "ascii")
CASES: dict[str, dict[str, Any]] = {
    **{f"text {name}": {"arguments": ISOFLOP, "encoding": name} for name in ENCODINGS},
    **{f"json {name}": {"arguments": [*ISOFLOP, "--json"], "encoding": name} for name in ENCODINGS},
    **{f"wrong {name}": {"arguments": ["params", "--size", "7β"], "encoding": name} for name in ENCODINGS},
    **{
        f"full {buffered} {number}": {"arguments": command, "out": str(FULL), "buffered": buffered}
        for buffered in (True, False)
        for number, command in enumerate([PARAMS, [*PARAMS, "--json"], ["--help"], ["params", "--help"], ["--version"]])
    },
    "out closed": {"arguments": PARAMS, "out": None},
    "out closed, help": {"arguments": ["--help"], "out": None},
    "err closed": {"arguments": PARAMS, "err": None},
    "err closed, wrong": {"arguments": WRONG, "err": None},
    "both closed": {"arguments": WRONG, "out": None, "err": None},
    "err full": {"arguments": WRONG, "err": str(FULL)},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """What came of each case."""
    done = run_cases(tmp_path_factory.mktemp("streams"), list(CASES.values()))
    return dict(zip(CASES, done, strict=True))


def test_encodings(results: dict[str, tuple[int, str, str]]) -> None:
    """Nothing stops halfway, no digit is lost, and JSON stays JSON with the same content."""
    whole = results["text utf-8"][1]
    assert "10¹⁸" in whole
    for name in ENCODINGS:
        status, out, err = results[f"text {name}"]
        assert (status, err) == (0, "")
        back = re.sub(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4}))", lambda m: chr(int(m[1] or m[2], 16)), out)
        assert back.split() == whole.split()
        status, out, err = results[f"json {name}"]
        assert (status, err) == (0, "")
        assert json.loads(out) == json.loads(results["json utf-8"][1])
        assert results[f"wrong {name}"][0] == 2
    assert "7β" in results["wrong utf-8"][2]
    assert r"7\u03b2" in results["wrong cp1252"][2]


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("full ")])
def test_stdout_that_is_full(results: dict[str, tuple[int, str, str]], case: str) -> None:
    status, _, err = results[case]
    assert (status, err) == (1, "companion: cannot write the output: No space left on device\n")


def test_streams_that_are_closed(results: dict[str, tuple[int, str, str]]) -> None:
    for case in ("out closed", "out closed, help"):
        said = "companion: standard output is closed; to see nothing, send it to /dev/null\n"
        assert results[case] == (1, "", said)
    status, out, _ = results["err closed"]
    assert status == 0
    assert "6865424896" in out
    assert results["err closed, wrong"][:2] == (2, ""), "what is meant for stderr does not go to stdout"
    assert results["both closed"][0] == 1
    assert results["err full"][0] == 2


def test_version() -> None:
    """In a process of its own, by the module's name."""
    done = subprocess.run([sys.executable, "-m", "companion", "--version"], capture_output=True, text=True)
    citation = (Path(__file__).parents[2] / "CITATION.cff").read_text()
    assert re.fullmatch(r"companion (\d+\.\d+\.\d+)\n", done.stdout)
    assert f"version: {done.stdout.split()[1]}\n" in citation
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "companion: interrupted"),
        (MemoryError("Unable to allocate 7.28 TiB"), 1, "companion: not enough memory (Unable to allocate 7.28 TiB): "),
        (PermissionError(13, "Permission denied", "my.csv"), 2, "companion: my.csv: Permission denied"),
        (IsADirectoryError(21, "Is a directory", "out"), 2, "companion: out: Is a directory"),
    ],
)
def test_errors_that_a_user_can_mend_are_one_line(
    error: BaseException, status: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from companion import cli
    from companion.cli import commands

    def fail(arguments: object) -> None:
        raise error

    monkeypatch.setattr(commands, "params", fail)
    assert cli.main(PARAMS) == status
    err = capsys.readouterr().err
    assert err.startswith(words)
    assert len(err.splitlines()) == 1


def test_faults_of_ours_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from companion import cli
    from companion.cli import commands

    for error in (ZeroDivisionError("x"), OSError(99, "no file and no stream")):
        monkeypatch.setattr(commands, "params", lambda arguments, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            cli.main(PARAMS)


def test_interrupt_while_the_command_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from companion import __main__ as command

    class Interrupted:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "companion.cli.dispatch":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "companion.cli.dispatch", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert command.main() == 130
    assert capsys.readouterr().err == "companion: interrupted\n"
