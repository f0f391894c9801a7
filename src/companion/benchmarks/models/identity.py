"""Which code a record of models belongs to: one identity of the models, their kernels, and what measures them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from companion.benchmarks.kernels.identity import PACKAGE, definitions
from companion.errors import InputError

#: Folders below `companion` with the code that is measured.
MEASURED = ("models", "kernels/generation", "kernels/mlstm", "kernels/common")
#: Modules of this package that every suite measures with.
SHARED = ("launches", "models", "timed")


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
