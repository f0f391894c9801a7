"""Which code a record of models belongs to: one identity of the models, their kernels, and what measures them."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from companion.benchmarks.kernels.identity import PACKAGE, definitions
from companion.errors import InputError

#: Folders below `companion` with the code that is measured.
MEASURED = ("models", "kernels/generation", "kernels/mlstm", "kernels/common")
#: Modules of this package that every suite measures with.
SHARED = ("launches", "models", "timed")
#: Modules whose MODULES decide what is measured, by the name of the benchmark in its records.
SUITES = {
    "model_inference": "inference",
    "model_training": "training",
    "model_profile": "profiles",
    "model_prefix": "prefix",
}


def code_identity(modules: Sequence[str], package: Path = PACKAGE) -> str:
    """16 hexadecimal digits for the models, their kernels, and the modules of this package that measure them.

    Comments, docstrings and the order of definitions do not count (see `companion.benchmarks.kernels.identity`).

    Parameters
    ----------
    modules
        of `companion.benchmarks.models`, besides `SHARED`; those that only choose cells need not be named.
    package
        folder of `companion`.

    Raises
    ------
    InputError
        if there is no such module.
    """
    files = [file for folder in MEASURED for file in (package / folder).glob("**/*.py")]
    for name in (*SHARED, *modules):
        file = package / "benchmarks" / "models" / f"{name}.py"
        if not file.exists():
            raise InputError(f"identity: companion.benchmarks.models has no module {name!r}")
        files.append(file)
    found = {text for file in files for text in definitions(file.read_text(encoding="utf-8"), package)}
    return hashlib.sha256("\0".join(sorted(found)).encode()).hexdigest()[:16]


@cache
def identity_today(benchmark: str) -> str:
    """The identity of a suite by the name of its benchmark, of the code of this package."""
    return code_identity(import_module(f"companion.benchmarks.models.{SUITES[benchmark]}").MODULES)


def is_of_earlier_code(record: Mapping[str, Any]) -> bool:
    """Whether models, kernels or the suite have changed since a record; False for one that names no identity."""
    known = record["parameters"].get("identity")
    return known is not None and known != identity_today(record["benchmark"])
