"""What a reader meets in an executed chapter: its question, words, figures and tables, and the minutes they take."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from companion.errors import InputError

#: Words of prose that a reader takes in per minute, and minutes for a figure or a table.
WORDS_PER_MINUTE, MINUTES_PER_FIGURE = 200, 0.25

_TITLE = re.compile(r"^# +(.+?)\s*$", re.MULTILINE)
_QUESTION = re.compile(r"^\*\*(.+?)\*\*", re.MULTILINE | re.DOTALL)
_GLUE = re.compile(r"\{glue(?::\w+)?\}`([^`:]+)[^`]*`")
_DISPLAYED = re.compile(r"\$\$.*?\$\$(?: *\([\w-]+\))?", re.DOTALL)
#: Fences with the title of a directive, its options, the rule below the head of a table, labels, names of roles.
_MARKUP = re.compile(r"^ *(?:[`~:]{3,}|:\w+:).*$|^ *\|[ :|-]+\|$|^\([\w-]+\)=$|\{[\w:-]+\}(?=`)", re.MULTILINE)
_WORD = re.compile(r"[^\W_][\w’'.,-]*")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Of one page: its title, the question it opens with (empty if there is none), and what there is to read."""

    title: str
    question: str
    words: int
    figures: int
    tables: int

    @property
    def minutes(self) -> int:
        """Whole minutes at `WORDS_PER_MINUTE`, with `MINUTES_PER_FIGURE` for each figure and table; at least 1."""
        shown = MINUTES_PER_FIGURE * (self.figures + self.tables)
        return max(1, round(self.words / WORDS_PER_MINUTE + shown))


def measure(executed: Path) -> Reading:
    """What an executed chapter holds; values that are glued into its prose count as the words they are.

    Code, formulas on lines of their own, and printed output do not count as words.

    Raises
    ------
    InputError
        the file is no notebook.
    """
    cells = _cells(executed)
    values = _values(cells)
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    text = _GLUE.sub(lambda match: values.get(match[1], match[1]), text)
    shown = "".join(
        "".join(output.get("data", {}).get("text/html", ""))
        for cell in cells
        for output in cell.get("outputs", [])
        if "scrapbook" not in output.get("metadata", {})
    )
    title, question = _TITLE.search(text), _QUESTION.search(text)
    return Reading(
        title=title[1] if title else executed.stem,
        question=" ".join(question[1].split()) if question else "",
        words=len(_WORD.findall(_MARKUP.sub(" ", _DISPLAYED.sub(" ", text)))),
        figures=len(re.findall(r'<figure class="companion-figure', shown)),
        tables=len(re.findall(r'<div class="companion-table-block', shown)),
    )


def glued_value(executed: Path, name: str) -> str:
    """The value that an executed chapter glues under a name, as text.

    Raises
    ------
    InputError
        the file is no notebook, or glues nothing under this name.
    """
    values = _values(_cells(executed))
    if name not in values:
        raise InputError(f"{executed.name}: glues no value {name}")
    return values[name]


def _cells(executed: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(executed.read_text(encoding="utf-8"))["cells"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{executed.name}: not an executed notebook: {error}") from error


def _values(cells: list[dict[str, Any]]) -> dict[str, str]:
    """Glued texts by name, without the quotes that `repr` puts around them."""
    outputs = (output for cell in cells for output in cell.get("outputs", []))
    found = {}
    for output in outputs:
        if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
            data = output.get("data", {})  # a value that is not shown has a prefix in front of its kind
            plain = "".join(next((text for kind, text in data.items() if kind.endswith("text/plain")), ""))
            found[str(name)] = plain[1:-1] if plain[:1] in "'\"" and plain[:1] == plain[-1:] else plain
    return found
