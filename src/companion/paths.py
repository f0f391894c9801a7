"""Where the project's own tables are."""

import os
from pathlib import Path

from companion.errors import InputError

DATA_VARIABLE = "COMPANION_DATA"


def data_dir() -> Path:
    """Folder of the project's tables: `$COMPANION_DATA` if set, else `data/` of the checkout this package runs from.

    Raises
    ------
    InputError
        if that folder does not hold the tables (the package was installed without its checkout).
    """
    override = os.environ.get(DATA_VARIABLE)
    folder = Path(override) if override else Path(__file__).resolve().parents[2] / "data"
    if not (folder / "runs.csv").is_file():
        raise InputError(f"{folder}: no runs.csv there; set {DATA_VARIABLE} to the data/ folder of a checkout")
    return folder
