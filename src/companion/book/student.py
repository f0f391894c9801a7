"""Student copies of notebooks: no solutions, no marked answers, an empty cell below every exercise.

Numbers in the text come from the book's run, so that the copies read like the pages; their cells have no outputs.
"""

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from companion.book.notebooks import dump, name_cells, write
from companion.book.quizzes import read_quiz
from companion.book.standalone import read_site, standalone
from companion.errors import InputError

ANSWER = "# Your answer"

_FENCE = re.compile(r"(`{3,}|:{3,})\{([\w-]+)\}[ \t]*(.*)$")
_OPTION = re.compile(r":([\w-]+):[ \t]*(.*)$")


def check_folder(folder: Path) -> None:
    """Refuse a folder for student copies that holds anything.

    Raises
    ------
    InputError
        it is a file, or not empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: not an empty folder; student copies replace nothing")


def write_student_copies(folder: Path, pages: Path, html: Path, config: Path, names: Collection[str]) -> list[Path]:
    """Write the student copy of each chapter that was built; return the files.

    Parameters
    ----------
    folder
        a new or empty folder.
    pages, html, config
        executed and rendered book, as for `companion.book.standalone.write_standalone`.
    names
        of the chapters that were built, such as `09_planning`.

    Raises
    ------
    InputError
        the folder holds files, or a copy would not be free of solutions or would not run.
    """
    check_folder(folder)
    notebooks, site = read_site(pages, html, config)
    copies = {}
    for page, notebook in notebooks.items():
        name = page.rpartition("/")[2]
        if name in names:
            copy = standalone(without_solutions(notebook, name), page, site)
            copies[folder / f"{name}.ipynb"] = without_outputs(copy)
    folder.mkdir(parents=True, exist_ok=True)
    for path, copy in copies.items():
        write(path, dump(copy))
    return list(copies)


def without_outputs(notebook: Any) -> Any:
    """A notebook as if no cell had run; the given one is not changed."""
    from nbformat import from_dict

    made = from_dict(notebook)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return made


def without_solutions(notebook: Any, name: str) -> Any:
    """A notebook without solutions and marked answers; the given one is not changed.

    Quizzes become Markdown that every notebook shows; other directives and roles stay as they are.

    Parameters
    ----------
    notebook
        a chapter as an nbformat node.
    name
        of its file without ending, for messages.

    Raises
    ------
    InputError
        a solution without an end, code between an exercise and its solution (which may be a solution without marks),
        or a cell that uses what only a solution defines.
    """
    from nbformat import from_dict, v4

    text = _Text()
    cells: list[Any] = []
    removed: list[str] = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown":
            for part in text.parts(cell.source):
                made = v4.new_code_cell(ANSWER) if part == ANSWER else v4.new_markdown_cell(part)
                cells += [made] if part.strip() else []
        elif text.in_solution:
            removed.append(cell.source)
        elif text.unsolved and cell.cell_type == "code":
            raise InputError(f"{name}: cell {number}: code below an exercise, outside of its solution")
        else:
            cells.append(from_dict(cell))
    if text.in_solution:
        raise InputError(f"{name}: a solution-start without its solution-end")
    _check_names(name, [cell.source for cell in cells if cell.cell_type == "code"], removed)
    return name_cells(from_dict({**notebook, "metadata": dict(notebook.metadata), "cells": cells}))


class _Text:
    """The texts of a notebook from its first to its last cell; knows whether an exercise or a solution is open."""

    def __init__(self) -> None:
        self.in_solution, self.unsolved = False, False

    def parts(self, text: str) -> list[str]:
        """The Markdown cells that a text becomes, and `ANSWER` where an answer belongs."""
        made: list[str] = []
        plain: list[str] = []
        for kind, title, lines in blocks(text):
            if kind == "solution-end":
                self.in_solution = False
            elif self.in_solution:
                continue
            elif kind in ("solution-start", "solution"):
                made += ["\n".join(plain).strip("\n"), ANSWER]
                plain, self.in_solution, self.unsolved = [], kind == "solution-start", False
            elif kind == "quiz":
                plain += _quiz(title, lines)
            else:
                self.unsolved = self.unsolved or kind == "exercise"
                plain += lines
        return [*made, "\n".join(plain).strip("\n")]


def blocks(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """The directives of a MyST text as kind, argument and lines; what is between them has the kind `""`.

    The lines of an exercise include its fences, as a copy keeps it; those of the others are what is inside.
    """
    plain: list[str] = []
    fence, opened, inside = "", ("", ""), list[str]()
    for line in text.split("\n"):
        if fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                if opened[0] in ("quiz", "solution", "solution-start", "solution-end"):
                    yield (*opened, inside)
                else:
                    kind = opened if opened[0] == "exercise" else ("", "")
                    yield *kind, [f"{fence}{{{opened[0]}}} {opened[1]}".rstrip(), *inside, line]
                fence = ""
            else:
                inside.append(line)
        elif found := _FENCE.match(line):
            yield "", "", plain
            plain, inside = [], []
            fence, opened = found[1], (found[2], found[3].strip())
        else:
            plain.append(line)
    yield "", "", plain


def _quiz(title: str, lines: list[str]) -> list[str]:
    """A quiz without marks and feedback."""
    quiz = read_quiz(options_of(lines)[1])
    letters = [f"* ({letter}) {option.text}" for letter, option in zip("abcd", quiz.options, strict=False)]
    return [f"**Check: {title}**", "", *quiz.question, "", *letters]


def options_of(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options of a directive (`:name: value`) by name, and the lines below them."""
    options: dict[str, str] = {}
    for number, line in enumerate(lines):
        found = _OPTION.match(line.strip())
        if not found:
            return options, lines[number:]
        options[found[1]] = found[2].strip()
    return options, []


def _check_names(name: str, kept: list[str], removed: list[str]) -> None:
    """Refuse a copy with a cell that reads a variable which only a solution assigns."""
    assigned = {word for source in removed for word in _names(source, ast.Store)}
    known = {word for source in kept for word in _names(source, ast.Store)}
    for source in kept:
        if missing := sorted(set(_names(source, ast.Load)) & (assigned - known)):
            first = source.strip().split("\n")[0]
            raise InputError(f"{name}: the cell `{first}` uses {missing[0]}, which only a solution defines")


def _names(source: str, context: type[ast.expr_context]) -> list[str]:
    """Names that a cell assigns (imports too) or reads; none of a cell with a magic of IPython."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return []
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, context)]
    if context is ast.Store:
        imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        names += [(alias.asname or alias.name).partition(".")[0] for node in imports for alias in node.names]
        names += [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return names
