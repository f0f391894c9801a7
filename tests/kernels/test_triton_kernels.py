"""The Triton kernels without a GPU: all tests of `interpreted/`, in a process where Triton interprets its kernels."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from progress import run

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

HERE = Path(__file__).parent
INTERPRETED = HERE / "interpreted"
#: Files that share a process.
GROUPS = (
    ("against_oracle", "common"),
    ("cancelling_sums", "normalizer", "generation"),
    ("tuning", "hard_inputs", "kept_states"),
    ("sequences_and_layouts", "step_and_operators"),
)


def python(*arguments: str, interpret: bool) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments; pytest-xdist's variables stay behind, this process is none of its workers."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["TRITON_INTERPRET"] = str(int(interpret))
    return run([sys.executable, "-u", *arguments], env=environment, cwd=HERE.parents[1])


@pytest.mark.parametrize("files", GROUPS, ids=lambda files: files[0])
def test_kernels_under_the_interpreter(files: tuple[str, ...]) -> None:
    """Not one process for every test: Triton and torch take seconds to import. None may be skipped or left out."""
    paths = [str(INTERPRETED / f"test_{name}.py") for name in files]
    found = python("-m", "pytest", "-q", "-p", "no:cacheprovider", *paths, interpret=True)
    assert found.returncode == 0, found.stdout[-20_000:] + found.stderr[-2_000:]
    summary = found.stdout.splitlines()[-1]
    assert re.match(r"\d+ passed", summary), found.stdout[-2_000:]
    assert "skipped" not in summary


def test_every_interpreted_test_is_in_a_group() -> None:
    grouped = sorted(name for files in GROUPS for name in files)
    assert grouped == sorted(path.stem.removeprefix("test_") for path in INTERPRETED.glob("test_*.py"))


def test_import_gives_no_warning() -> None:
    """And needs no GPU: nothing is compiled or looked up before the first call."""
    found = python("-W", "error", "-c", "import companion.kernels.mlstm.ops", interpret=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


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
