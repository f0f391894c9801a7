"""The package as a wheel, built without a network, for tests that run it far from the checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build_wheel(folder: Path) -> Path:
    """A wheel of the sources, made in an empty folder."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "data"):
        ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "--quiet",
        str(source),
        "-w",
        str(folder),
    ]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--no-index"], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path
