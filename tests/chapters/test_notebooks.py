"""Chapters are thin: opened in Jupyter a notebook reads as a lesson, and its plumbing lives in its chapter's module."""

import ast
import importlib
import re

import pytest

from companion.book.notebooks import ROOT

#: Every notebook by the name of its module in `companion.chapters`.
NOTEBOOKS = {f"ch{path.stem.split('_')[0]}": path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.md"))}
#: Lines count as they are in the cells: tags and blank lines too.
MOST_LINES, MOST_LINES_OF_A_CELL, MOST_LINES_OF_A_FUNCTION = 250, 15, 5
#: Words in a row that a text made in a notebook may have beside its values: a label, no sentence.
MOST_WORDS = 5


def cells_of(source: str) -> list[str]:
    """What is inside every code cell of a MyST notebook: its tags, blank lines and code."""
    return re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", source, re.DOTALL | re.MULTILINE)


def code_of(cell: str) -> str:
    """The code of a cell, without its tags."""
    return re.sub(r"\A(:[^\n]*\n)+\n?", "", cell)


def faults_of(cells: list[str]) -> list[str]:
    """What makes a notebook more than a lesson, in words."""
    lines = [len(cell.splitlines()) for cell in cells]
    faults = [f"{sum(lines)} lines in cells"] if sum(lines) > MOST_LINES else []
    faults += [f"a cell of {length} lines" for length in lines if length > MOST_LINES_OF_A_CELL]
    for node in (node for cell in cells for node in ast.walk(ast.parse(code_of(cell)))):
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_FUNCTION:
            faults.append(f"function {node.name} is long")
        if isinstance(node, ast.JoinedStr):
            texts = [str(part.value) for part in node.values if isinstance(part, ast.Constant)]
            if any(len(re.findall(r"[A-Za-z]{2,}", text)) > MOST_WORDS for text in texts):
                faults.append(f"a sentence: {ast.unparse(node)}")
    return faults


@pytest.mark.parametrize("module", sorted(NOTEBOOKS))
def test_notebook_is_thin(module: str) -> None:
    source = NOTEBOOKS[module].read_text("utf-8")
    assert not faults_of(cells_of(source))


@pytest.mark.parametrize("module", sorted(NOTEBOOKS))
def test_chapters_have_what_their_notebooks_call(module: str) -> None:
    chapter = importlib.import_module(f"companion.chapters.{module}")
    cells = cells_of(NOTEBOOKS[module].read_text("utf-8"))
    used = {name for cell in cells for name in re.findall(rf"(?<!\.)\b{module}\.(\w+)", cell)}
    assert used
    assert not [name for name in used if not hasattr(chapter, name)]


def test_faults_are_seen() -> None:
    first, second = ":tags: [hide-input]\n\nx = 1\n", "y = 2\nz = 3\n"
    tagged = "\ntext\n".join(f"```{{code-cell}} ipython3\n{cell}```" for cell in (first, second))
    assert cells_of(tagged) == [first, second]
    assert [code_of(cell) for cell in cells_of(tagged)] == ["x = 1\n", second]
    assert faults_of(cells_of(tagged)) == []
    assert faults_of(["x = 1\n" * 16]) == ["a cell of 16 lines"]
    tags = ":tags: [hide-input]\n\n"
    assert faults_of([tags + "x = 1\n" * 13]) == []
    assert faults_of([tags + "x = 1\n" * 14]) == ["a cell of 16 lines"]
    assert faults_of(["x = 1\n"] * 251) == ["251 lines in cells"]
    assert faults_of([tags + "x = 1\n"] * 84) == ["252 lines in cells"]
    assert faults_of(["f'{a}: {b} FLOP'", "f'the best size of the law is {c}'"]) == [
        "a sentence: f'the best size of the law is {c}'"
    ]
    assert faults_of(["def f():\n" + "    x = 1\n" * 5]) == ["function f is long"]
