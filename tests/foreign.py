"""The run tables of `tests/foreign_tables/`, by name."""

from pathlib import Path

FOLDER = Path(__file__).parent / "foreign_tables"
#: Names of all tables, without `.csv`.
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.csv")))


def table(name: str) -> Path:
    """Path of one table; its source is in the folder's README."""
    path = FOLDER / f"{name}.csv"
    assert path.is_file(), f"no table {name!r}; there are {', '.join(NAMES)}"
    return path
