"""Parts of a chapter that a table cannot answer are left out with their reason, with all that depends on them."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from companion.book.sections import Parts, pieces, without_missing


class Cell(SimpleNamespace):
    """A cell as nbformat has it, as far as it is used."""

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)


class Metadata(dict[str, Any]):
    pass


def cell(source: str, kind: str = "code", *tags: str) -> Cell:
    made = Cell(cell_type=kind, source=source, metadata={"tags": list(tags)}, outputs=[])
    made.id = f"id-{abs(hash((source, kind)))}"
    return made


def glued(at: Cell, *names: str) -> None:
    at.outputs = [{"metadata": {"scrapbook": {"name": name}}} for name in names]


def run(cells: list[Cell], failing: dict[str, tuple[str, str]], *, own_table: bool = False) -> Parts:
    """Go through a notebook as the build does: `failing` gives the error of a cell by its source."""
    parts = Parts(cells, own_table=own_table)
    for each in cells:
        if each.cell_type != "code":
            continue
        source = parts.source_to_run(each.id, each.source)
        if source == each.source and source in failing and not parts.accepts(each.id, *failing[source]):
            raise AssertionError(f"{source} stopped the chapter")
    return parts


def text_of(cells: list[Any]) -> str:
    return "\n".join(each.source for each in cells)


SETUP = [cell("# Title\n\n* {glue:text}`a`.\n* {glue:text}`b`.", "markdown"), cell("n = 1", "code", "parameters")]
NOT = ("NotApplicable", "one architecture only")


def chapter() -> list[Cell]:
    return [
        *SETUP,
        cell("## First\n\nWhat it asks.", "markdown"),
        cell("import numpy as np\nx = need()"),
        cell("After {glue:text}`b`.\n\n(deep)=\n### Deeper\n\nText.\n\n## Second\n\nSee [above](deep).", "markdown"),
        cell("y = 2"),
        cell("z = [x + v for v in (1, 2)]"),
        cell("## Exercises\n\nTry.", "markdown"),
        cell("```{exercise} Hard\nDo.\n```", "markdown"),
        cell("print(x)"),
        cell("```{exercise} Easy\nDo.\n```", "markdown"),
        cell("print(y)"),
    ]


def test_a_section_is_left_out_with_all_that_depends_on_it() -> None:
    cells = chapter()
    glued(cells[5], "a")
    parts = run(cells, {"import numpy as np\nx = need()": NOT})
    assert parts.reasons == [("First", "one architecture only")]
    shown = text_of(parts.finish(cells))
    assert "What it asks." in shown  # what comes before the cell stays
    assert "*Left out:* one architecture only." in shown
    for gone in ("Deeper", "x = need()", "After", "z = [", "Hard", "print(x)", "`b`", "](deep)"):
        assert gone not in shown, gone
    for kept in ("## Second", "See above.", "y = 2", "Easy", "print(y)", "`a`"):
        assert kept in shown, kept
    assert shown.count("Left out") == 2  # in place of the section, and of the cell that uses its x


def test_imports_of_a_left_out_cell_are_run() -> None:
    cells = [*SETUP, cell("## A", "markdown"), cell("stop()"), cell("import re\ndef f(a):\n    return re\nq = f(1)")]
    parts = Parts(cells)
    assert parts.source_to_run(cells[3].id, "stop()") == "stop()"
    assert parts.accepts(cells[3].id, *NOT)
    assert parts.source_to_run(cells[4].id, cells[4].source) == "import re\ndef f(a):\n    return re"


def test_a_name_that_is_defined_again_is_there() -> None:
    cells = [*SETUP, cell("## A", "markdown"), cell("x = stop()"), cell("## B", "markdown"), cell("x = 3"), cell("x")]
    parts = run(cells, {"x = stop()": NOT})
    assert parts.source_to_run(cells[6].id, "x") == "x"


def test_the_setup_stops_the_chapter() -> None:
    cells = [*SETUP, cell("stop()"), cell("## A", "markdown"), cell("other()")]
    parts = Parts(cells, own_table=True)
    assert not parts.accepts(cells[2].id, *NOT)
    assert parts.accepts(cells[4].id, *NOT)


@pytest.mark.parametrize(("own_table", "accepted"), [(True, True), (False, False)])
def test_a_fit_may_refuse_only_a_table_of_ones_own(own_table: bool, accepted: bool) -> None:
    cells = [*SETUP, cell("## A", "markdown"), cell("stop()")]
    assert Parts(cells, own_table=own_table).accepts(cells[3].id, "InputError", "too few runs") is accepted
    assert not Parts(cells, own_table=own_table).accepts(cells[3].id, "ValueError", "a fault of ours")


def test_a_function_that_misses_a_variable() -> None:
    cells = [*SETUP, cell("## A", "markdown"), cell("x = stop()"), cell("## B", "markdown"), cell("f()")]
    parts = run(cells, {"x = stop()": NOT})
    assert parts.accepts(cells[5].id, "NameError", "name 'x' is not defined")
    assert not parts.accepts(cells[5].id, "NameError", "name 'never' is not defined")


def test_variables_of_comprehensions_and_lambdas_are_their_own() -> None:
    cells = [*SETUP, cell("## A", "markdown"), cell("value = row = stop()"), cell("## B", "markdown")]
    later = cell("[row for row in (1, 2)]\nf = lambda value: value")
    parts = run([*cells, later], {"value = row = stop()": NOT})
    assert parts.source_to_run(later.id, later.source) == later.source


def test_nothing_is_touched_where_nothing_is_left_out() -> None:
    cells = chapter()
    assert run(cells, {}).finish(cells) == cells


def test_the_reason_is_plain_text() -> None:
    cells = [*SETUP, cell("## A", "markdown"), cell("stop()")]
    parts = run(cells, {"stop()": ("NotApplicable", "my_runs.csv: <b> *no* {x}")})
    assert r"my\_runs.csv: \<b\> \*no\* \{x\}." in text_of(parts.finish(cells))


def test_pieces_join_to_the_text() -> None:
    text = "a\n\n(label)=\n## B\n\n```\n# no heading\n```\n\n```{exercise} One\n## nor this\n```\nc\n# D"
    assert "\n".join(pieces(text)) == text
    assert [piece.split("\n")[0] for piece in pieces(text)] == ["a", "(label)=", "```{exercise} One", "# D"]


def test_text_that_shows_what_is_missing_is_dropped() -> None:
    text = (
        "One {glue:text}`a:.2f`.\n\n* x {glue:text}`b`\n  goes on\n* y {glue:text}`a`\n\nTwo {glue:text}`b`.\n\nThree."
    )
    assert without_missing(text, {"a"}) == "One {glue:text}`a:.2f`.\n\n* y {glue:text}`a`\n\nThree."
    assert without_missing(text, {"a", "b"}) == text


def test_a_solution_goes_with_its_exercise() -> None:
    cells = [
        *SETUP,
        cell("## Exercises\n\n```{exercise} Hard\nDo.\n```\n\n```{solution-start} hard\n```\n\nIn words.", "markdown"),
        cell("x = need()"),
        cell("More {glue:text}`b`.", "markdown"),
        cell("x"),
        cell("```{solution-end}\n```\n\n```{exercise} Easy\nDo.\n```\n\n```{solution-start} easy\n```", "markdown"),
        cell("y = 2"),
        cell("```{solution-end}\n```", "markdown"),
    ]
    shown = text_of(run(cells, {"x = need()": NOT}).finish(cells))
    assert re.findall(r"Hard|In words|need|More|Easy|y = 2", shown) == ["Easy", "y = 2"]
    assert re.findall(r"\{solution-\w+\}", shown) == ["{solution-start}", "{solution-end}"]
