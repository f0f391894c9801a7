"""Make the folder of a new study: `runs.csv`, `study.ipynb`, `README.md`."""

import re
import shutil
from pathlib import Path
from string import Template
from typing import Any

from companion.errors import InputError
from companion.formatting import percent
from companion.new_study.example import LAW, SCATTER, SOURCE, example_runs
from companion.runs import COLUMNS

TEMPLATES = Path(__file__).parent / "template"
TABLE, NOTEBOOK, README = "runs.csv", "study.ipynb", "README.md"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
#: Columns that the README describes: those of the example, and the commonest others.
_OTHERS = ("num_active_params", "d_model", "n_layers", "n_heads", "seed")


class _Text(Template):
    """A template whose marks, `%%{name}`, do not meet the dollars of formulas."""

    delimiter = "%%"


def make_study(name: str, parent: Path | None = None) -> list[Path]:
    """Make the folder `name` with a table, a notebook and a README; return the files.

    Parameters
    ----------
    name
        of the folder and the study: letters a to z, digits, `-` and `_`.
    parent
        where to make it; by default the current folder.

    Raises
    ------
    InputError
        the name has other characters, something of that name exists, or the folder cannot be made.
    """
    from companion.book.notebooks import dump, read

    if not _NAME.fullmatch(name):
        raise InputError(f"name {name!r}: letters a to z, digits, - and _ only, a letter or digit first")
    folder = (parent or Path()) / name
    words = {"name": name, "title": re.sub(r"[-_]+", " ", name), "columns": _described_columns()} | _law_in_words()
    try:
        folder.mkdir()
    except FileExistsError:
        raise InputError(f"{folder}: exists already; nothing was changed") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    try:
        source = folder / "study.md"  # jupytext reads files
        source.write_text(_filled("study.md", words), encoding="utf-8")
        (folder / NOTEBOOK).write_text(dump(_without_pair(read(source))), encoding="utf-8")
        source.unlink()
        (folder / README).write_text(_filled("README.md", words), encoding="utf-8")
        example_runs().to_csv(folder / TABLE, index=False)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return [folder / file for file in (TABLE, NOTEBOOK, README)]


def _filled(template: str, words: dict[str, str]) -> str:
    return _Text((TEMPLATES / template).read_text(encoding="utf-8")).substitute(words)


def _without_pair(notebook: Any) -> Any:
    notebook.metadata.pop("jupytext", None)
    return notebook


def _law_in_words() -> dict[str, str]:
    law = f"L = {LAW.E:g} + {LAW.A:g}/N^{LAW.alpha:g} + {LAW.B:g}/D^{LAW.beta:g}"
    return {"law": law, "scatter": percent(SCATTER, decimals=1), "source": SOURCE}


def _described_columns() -> str:
    """Rows of a Markdown table: name, unit, meaning, and whether a table must have it."""
    shown = [*example_runs().columns, *_OTHERS]
    specs = sorted((COLUMNS[name] for name in shown if name in COLUMNS), key=lambda spec: not spec.required)
    return "\n".join(
        f"| `{spec.name}` | {spec.unit} | {spec.meaning} | {'yes' if spec.required else ''} |" for spec in specs
    )
