"""The Triton kernels without a GPU: all tests of `interpreted/`, in a process where Triton interprets its kernels."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

HERE = Path(__file__).parent


def python(*arguments: str, interpret: bool) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments; pytest-xdist's variables stay behind, this process is none of its workers."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["TRITON_INTERPRET"] = str(int(interpret))
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, timeout=900, check=False
    )


def test_kernels_under_the_interpreter() -> None:
    """Not one process for every test: Triton and torch take seconds to import. None may be skipped or left out."""
    run = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "interpreted"), interpret=True)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
    summary = run.stdout.splitlines()[-1]
    assert re.match(r"\d{2,} passed", summary), run.stdout[-2_000:]
    assert "skipped" not in summary


def test_import_gives_no_warning() -> None:
    """And needs no GPU: nothing is compiled or looked up before the first call."""
    run = python("-W", "error", "-c", "import companion.kernels.ops", interpret=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_torch_forms_do_without_triton() -> None:
    """Triton is imported by its first use only."""
    code = (
        "import sys, torch; sys.modules['triton'] = None\n"
        "from companion.kernels import mlstm\n"
        "x = torch.ones(1, 5, 1, 16)\n"
        "print(tuple(mlstm(x, x, x, x[..., 0], x[..., 0]).shape))"
    )
    run = python("-c", code, interpret=False)
    assert run.stdout == "(1, 5, 1, 16)\n", run.stderr
