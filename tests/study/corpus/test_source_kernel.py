"""The kernel of the source without a GPU: interpreted, it gives the same tokens; and it compiles for GPUs."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

from progress import run

HERE = Path(__file__).parent


def lines(script: str, **variables: str) -> list[dict[str, Any]]:
    """What a script prints, in a process of its own: Triton decides between interpreter and compiler on import."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    paths = [str(HERE.parents[1] / "kernels"), environment.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(path for path in paths if path), **variables}
    found = run([sys.executable, "-u", "-W", "error", str(HERE / script)], env=environment)
    assert found.returncode == 0, found.stderr[-5_000:]
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_tokens_are_those_of_the_cpu() -> None:
    found = lines("interpret_source.py", TRITON_INTERPRET="1")
    assert len(found) == 6
    assert [record["case"] for record in found if not record["same"]] == []


def test_it_compiles(tmp_path: Path) -> None:
    found = lines("compile_source.py", TRITON_CACHE_DIR=str(tmp_path))
    assert [(x["capability"], x["vocab_size"]) for x in found] == [(80, 1024), (90, 1024), (90, 65536)]
    # what a program writes it reads back: never by the path for read-only data, and behind a barrier
    assert {x["read_only_loads"] for x in found} == {0}
    # two tokens and four classes: Triton once carried one value for all names that began as one
    assert {x["carried"] for x in found} == {6}
    assert all(x["barriers"] >= 1 and x["stores"] == 2 and x["shared_bytes"] == 0 for x in found)
