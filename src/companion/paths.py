"""Where the project's own tables are."""

import os
from pathlib import Path

from companion.errors import InputError

DATA_VARIABLE = "COMPANION_DATA"


def data_dir() -> Path:
    """Folder of the project's tables: `$COMPANION_DATA` if set, else those of the package, else those of a checkout.

    In a checkout the tables of the package are a link to `data/`; an installed package has copies.

    Raises
    ------
    InputError
        if that folder does not hold the tables.
    """
    here = Path(__file__).resolve()
    override = os.environ.get(DATA_VARIABLE)
    # `_data` is missing in a checkout on a system without links
    folders = [Path(os.path.expanduser(override))] if override else [here.parent / "_data", here.parents[2] / "data"]
    for folder in folders:
        if (folder / "runs.csv").is_file():
            return folder.resolve()
    raise InputError(f"{folders[0]}: no runs.csv there; set {DATA_VARIABLE} to the data/ folder of a checkout")
