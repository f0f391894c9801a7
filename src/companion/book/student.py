"""Student copies of notebooks: no solutions, no marked answers, an empty cell below every exercise.

Numbers in the text come from a run of the chapters, so that the copies read like the pages; their cells have no
outputs.
"""

import ast
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from companion.book.execution import try_all
from companion.book.notebooks import ROOT, dump, name_cells, sources, write
from companion.book.quizzes import read_quiz
from companion.errors import InputError

ANSWER = "# Your answer"

_FENCE = re.compile(r"(`{3,}|:{3,})\{([\w-]+)\}[ \t]*(.*)$")
_OPTION = re.compile(r":([\w-]+):[ \t]*(.*)$")
_GLUE = re.compile(r"\{glue(?::\w+)?\}`([^`:]+)[^`]*`")
_TERM = re.compile(r"\{term\}`([^`<]+?)(?:\s*<[^`>]*>)?`")


def write_student_copies(
    folder: Path,
    *,
    root: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    progress: bool | None = None,
) -> tuple[list[Path], dict[str, str]]:
    """Run the chapters, write the student copy of each; return the files, and reasons by chapter that has none.

    Parameters
    ----------
    folder
        a new or empty folder.
    root
        checkout whose `notebooks/` are read, by default the one that this package runs from.
    parameters, jobs, progress
        as in `companion.book.execute`. With parameters, chapters that do not apply to the table get no copy.

    Raises
    ------
    NotebookError
        a cell failed, and no parameters were given.
    InputError
        the folder holds files, no chapter could be run, or a copy would not be free of solutions or would not run.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: not an empty folder; student copies replace nothing")
    import nbformat

    with tempfile.TemporaryDirectory(prefix="companion-") as executed:
        chapters = sources((root or ROOT) / "notebooks")
        done = try_all(chapters, Path(executed), parameters, jobs=jobs, progress=progress)
        failures = {each.source.stem: each.failure for each in done if each.failure}
        paths = [execution.path for execution in done if execution.path]
        if failures and (not parameters or not paths):
            raise next(iter(failures.values()))
        copies = {folder / path.name: student_copy(nbformat.read(path, 4), path.stem) for path in paths}
    folder.mkdir(parents=True, exist_ok=True)
    for path, copy in copies.items():
        write(path, dump(copy))
    return list(copies), {name: failure.reason for name, failure in failures.items()}


def student_copy(notebook: Any, name: str) -> Any:
    """A notebook without solutions, marked answers and outputs; the given one is not changed.

    Exercises and quizzes become Markdown that every notebook shows, glued values become text.

    Parameters
    ----------
    notebook
        an executed chapter as an nbformat node.
    name
        of its file without ending, such as `09_planning`: exercises are numbered 9.1, 9.2, ...

    Raises
    ------
    InputError
        a solution without an end, code between an exercise and its solution (which may be a solution without marks),
        or a cell that uses what only a solution defines.
    """
    from nbformat import from_dict, v4

    pages = _Pages(name, _glued(notebook))
    cells: list[Any] = []
    removed: list[str] = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown":
            for text in pages.convert(cell.source):
                made = v4.new_code_cell(ANSWER) if text == ANSWER else v4.new_markdown_cell(text)
                cells += [made] if text.strip() else []
        elif pages.in_solution:
            removed.append(cell.source)
        else:
            if pages.unsolved and cell.cell_type == "code":
                raise InputError(f"{name}: cell {number}: code below an exercise, outside of its solution")
            kept = from_dict(cell)
            if cell.cell_type == "code":
                kept.update(outputs=[], execution_count=None)
            cells.append(kept)
    if pages.in_solution:
        raise InputError(f"{name}: a solution-start without its solution-end")
    _check_names(name, [cell.source for cell in cells if cell.cell_type == "code"], removed)
    made = from_dict({**notebook, "metadata": dict(notebook.metadata), "cells": cells})
    made.metadata.pop("jupytext", None)
    return name_cells(made)


class _Pages:
    """The texts of a notebook from its first to its last cell; knows whether an exercise or a solution is open."""

    def __init__(self, name: str, values: Mapping[str, str]) -> None:
        self.chapter = int(name.partition("_")[0]) if name.partition("_")[0].isdigit() else 0
        self.values, self.exercises, self.in_solution, self.unsolved = values, 0, False, False

    def convert(self, text: str) -> list[str]:
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
            elif kind == "exercise":
                self.exercises, self.unsolved = self.exercises + 1, True
                plain += self._exercise(title, lines)
            elif kind == "quiz":
                plain += _quiz(title, lines)
            else:
                plain += lines
        return [self._words(each) if each != ANSWER else each for each in [*made, "\n".join(plain).strip("\n")]]

    def _exercise(self, title: str, lines: list[str]) -> list[str]:
        options, body = options_of(lines)
        level = f" ({options['level']})" if "level" in options else ""
        return [f"**Exercise {self.chapter}.{self.exercises}{level}: {title}**", "", *body]

    def _words(self, text: str) -> str:
        text = _GLUE.sub(lambda match: self.values.get(match[1], match[0]), text)
        return _TERM.sub(r"\1", text)


def blocks(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """The directives of a MyST text as kind, argument and lines inside; what is between them has the kind `""`."""
    plain: list[str] = []
    fence, opened, inside = "", ("", ""), list[str]()
    for line in text.split("\n"):
        if fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                if opened[0] in ("quiz", "exercise", "solution", "solution-start", "solution-end"):
                    yield (*opened, inside)
                else:
                    yield "", "", [f"{fence}{{{opened[0]}}} {opened[1]}".rstrip(), *inside, line]
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


def _glued(notebook: Any) -> dict[str, str]:
    """Texts that the cells of an executed notebook glued, by name."""
    values = {}
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        record = output.get("metadata", {}).get("scrapbook", {})
        if "name" in record:
            text = output["data"][f"{record['mime_prefix']}text/plain"]
            try:
                values[record["name"]] = str(ast.literal_eval(text))
            except (ValueError, SyntaxError):  # an object without a literal: its text is what the page shows
                values[record["name"]] = text
    return values


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
