"""What a chapter holds for a reader, counted in its executed notebook."""

import json
from pathlib import Path

import pytest

from companion.book.reading import Reading, glued_value, measure
from companion.errors import InputError

TEXT = """(top)=
# A title

**What is
asked?**

Two words and {glue:text}`value` here: {term}`gates <gate>`.

$$
a + b
$$ (eq-x)

| a | b |
|:--|:--|
| c | d |

```{exercise} Name
:label: x
Do it.
```
"""


def executed(folder: Path, *texts: str) -> Path:
    glued = {
        "metadata": {"scrapbook": {"name": "value", "mime_prefix": "application/papermill.record/"}},
        "data": {"application/papermill.record/text/plain": "'three more words'"},
    }
    shown = {"data": {"text/html": '<figure class="companion-figure" id="f"></figure>', "text/plain": "<x>"}}
    table = {"data": {"text/html": ['<div class="companion-table-block"', "></div>"]}}
    cells = [{"cell_type": "markdown", "source": text} for text in texts]
    cells.append({"cell_type": "code", "source": "1 + 1  # words", "outputs": [glued, shown, table, table]})  # type: ignore[dict-item]
    path = folder / "01_x.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    return path


def test_counts(tmp_path: Path) -> None:
    found = measure(executed(tmp_path, TEXT))
    # A title, What is asked, Two words and, three more words, here, gates gate, a b c d, Do it
    assert found == Reading(title="A title", question="What is asked?", words=20, figures=1, tables=2)


def test_minutes() -> None:
    each = {"title": "", "question": "", "tables": 0}
    assert Reading(words=2000, figures=8, **each).minutes == 12  # type: ignore[arg-type]
    assert Reading(words=10, figures=0, **each).minutes == 1  # type: ignore[arg-type]


def test_no_question(tmp_path: Path) -> None:
    found = measure(executed(tmp_path, "# Left out\n\nBecause."))
    assert (found.title, found.question) == ("Left out", "")


def test_values(tmp_path: Path) -> None:
    path = executed(tmp_path, TEXT)
    assert glued_value(path, "value") == "three more words"
    with pytest.raises(InputError, match=r"01_x\.ipynb: glues no value other"):
        glued_value(path, "other")
    with pytest.raises(InputError, match=r"gone\.ipynb: not an executed notebook"):
        measure(tmp_path / "gone.ipynb")
