"""What pip may choose: ranges in the extras, exact versions in the constraints; and one way to the command."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from companion.book.addresses import DOWNLOADS, PACKAGE

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
LINES = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] not in "#"]
PINS = {each.name.lower().replace("_", "-"): each.specifier for each in map(Requirement, LINES)}


def test_a_machine_keeps_its_own_torch() -> None:
    (torch,) = [each for each in EXTRAS["kernels"] if each.name == "torch"]
    assert all(torch.specifier.contains(version) for version in ("2.6.0", "2.11.0+cu130", "2.13.0", "3.0"))
    pinned = {name: str(each) for name in EXTRAS for each in EXTRAS[name] if "==" in str(each.specifier)}
    assert set(pinned) <= {"peers"}, "kernels of others are compared at one version"


def test_constraints_are_exact_and_fit() -> None:
    for name, specifier in PINS.items():
        assert re.fullmatch(r"==[\w.]+", str(specifier)), name
    assert str(PINS["torch"]) == "==2.13.0", "no local version: a CPU or a CUDA wheel"
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    wanted += [each for name, lines in EXTRAS.items() if name not in ("peers",) for each in lines]
    for each in wanted:
        pin = PINS.get(each.name.lower().replace("_", "-"))
        if pin is not None:
            assert each.specifier.contains(Version(str(pin).removeprefix("=="))), each
    assert {"torch", "triton", "numpy", "jupyter-book"} <= set(PINS)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "book/how_to_use.md"])
def test_one_way_to_the_command(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "source .venv/bin/activate" in text
    assert ".venv/bin/companion" not in text
    assert "source $(BIN)/activate" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_record_of_a_run_is_no_test_of_the_next() -> None:
    """A word of its own after an option of ours is a path to pytest, as soon as a first run has written that file."""
    (line,) = re.findall(r".*--record.*", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert re.search(r"--record=\S+$", line)


def test_colab_opens_the_branch_that_the_workflow_fills() -> None:
    workflow = (ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8")
    assert f"git init -q -b {DOWNLOADS}\n" in workflow
    assert re.search(rf"git push .* {DOWNLOADS}\n", workflow)
    assert PROJECT["name"] == PACKAGE
    assert "notebooks" in EXTRAS


def test_binder_installs_an_extra_that_exists() -> None:
    script = ROOT / ".binder" / "postBuild"
    assert os.access(script, os.X_OK)
    (extras,) = re.findall(r"'\.\[([\w,]+)\]' -c constraints\.txt", script.read_text(encoding="utf-8"))
    assert set(extras.split(",")) <= set(EXTRAS)
    version = (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)
