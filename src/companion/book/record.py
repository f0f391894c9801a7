"""What a build ran with: versions, commit, data, machine, tests. The page *Reproducibility* shows it.

Nothing here names a host, a user or a folder.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from companion.benchmarks.records import git_commit, machine
from companion.paths import data_dir

#: Packages that numbers, figures or pages depend on.
PACKAGES = (
    "numpy", "scipy", "pandas", "pandera", "matplotlib", "seaborn", "sympy", "plotly", "torch", "triton",
    "papermill", "ipykernel", "jupytext", "jupyter-book", "Sphinx", "myst-nb", "sphinx-book-theme",
)  # fmt: skip
#: Left by `make test`, below the build folder of the checkout.
TESTS = "tests.json"
NO_CHECKOUT = "not a git checkout"


def build_record(root: Path, executed: Iterable[Path], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Everything that the page *Reproducibility* says before the pages are rendered, as plain values.

    Parameters
    ----------
    root
        checkout that is built.
    executed
        the executed notebooks; the ledger's summary is taken from what they show.
    seconds
        run time of every notebook by its name.
    """
    return {
        "versions": versions(),
        "commit": commit(root),
        "data": checksums(data_dir()),
        "machine": describe_machine(),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "ledger": next((text for path in executed if (text := glued(path, "c90_counts"))), None),
        "tests": last_tests(root),
    }


def versions() -> dict[str, str | None]:
    """Version of Python and of each package of `PACKAGES`, None where it is not installed."""
    found: dict[str, str | None] = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def commit(root: Path) -> str:
    """Commit of a checkout, with `+changes` if tracked files differ; `NO_CHECKOUT` if it is none."""
    found = git_commit(root) if (root / ".git").exists() else None
    return found or NO_CHECKOUT


def checksums(folder: Path) -> list[dict[str, Any]]:
    """Name, bytes and SHA-256 of every table below a folder, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    return [
        {
            "file": path.relative_to(folder).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in paths
    ]


def describe_machine() -> dict[str, str]:
    """Processor, cores this process may use, memory, GPU and system of this machine, without its name."""
    own = machine()
    pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}) else 0
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**30 if pages > 0 else 0.0
    return {
        "processor": str(own["cpu"]),
        "cores": str(own["cores"]),
        "memory": f"{memory:.0f} GiB" if memory else "unknown",
        "GPU": _gpu() or "none",
        "system": f"{own['system']}, {own['architecture']}",
    }


def _gpu() -> str:
    """Names of the NVIDIA GPUs; empty without any."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return ", ".join(asked.stdout.split("\n")[:-1]) if asked.returncode == 0 else ""


def glued(notebook: Path, name: str) -> str | None:
    """A text that an executed notebook glued, None if it did not."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
                # with `display=False` the type of what was glued has a prefix
                text = next("".join(data) for kind, data in output["data"].items() if kind.endswith("text/plain"))
                return text[1:-1] if text[:1] in {"'", '"'} else text
    return None


def last_tests(root: Path) -> dict[str, Any] | None:
    """The record that `make test` left in a checkout: counts and commit; None if there is none or it cannot be read."""
    path = root / "_build" / TESTS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in ("commit", "passed", "failed", "skipped", "whole")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
