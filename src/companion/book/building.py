"""Build the html of the book: execute its notebooks, render the pages, say what was left out.

`sync` keeps `notebooks/NN_name.md` (the source) and `NN_name.ipynb` (for a reader who opens it elsewhere) in step,
`execute` runs notebooks in parallel, `build` executes them all and renders the book.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from companion.book.costs import Costs, fill, measure
from companion.book.execution import Execution, NotebookError, execute, try_all
from companion.book.left_out import stand_in
from companion.book.notebooks import ROOT, dump, pages_with_code, read, sources, sync, write
from companion.book.output import LOG, LOG_HEAD, SUMMARY, check_output, publish, staging
from companion.book.parameters import choose, defaults_of, parameters_of
from companion.book.record import build_record
from companion.book.standalone import write_standalone
from companion.book.student import check_folder, write_student_copies
from companion.errors import InputError

__all__ = [
    "BUILT", "FAILED", "LEFT_OUT", "ROOT", "Build", "Chapter", "NotebookError", "build", "execute", "parameters_of",
    "read", "sources", "sync",
]  # fmt: skip

#: What became of a chapter.
BUILT, LEFT_OUT, FAILED = "built", "left out", "failed"

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_COMPLAINT = re.compile(r"WARNING|ERROR|CRITICAL|Error\b|Exception\b", re.ASCII)


@dataclass(frozen=True)
class Chapter:
    """A chapter in a build: its name, what became of it (`BUILT`, `LEFT_OUT` or `FAILED`), and why it is missing."""

    name: str
    status: str
    reason: str | None = None
    #: title and reason of each section that a built chapter leaves out.
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Build:
    """A finished build: the path of `index.html`, and what became of every chapter."""

    index: Path
    chapters: tuple[Chapter, ...]
    seconds: float
    costs: Costs

    @property
    def complete(self) -> bool:
        """Whether every chapter was built."""
        return all(chapter.status == BUILT for chapter in self.chapters)

    def lines(self) -> list[str]:
        """What was built, a line a chapter, then where the time went, and at last the path of the html."""
        width = max((len(chapter.name) for chapter in self.chapters), default=0)
        lines = []
        for chapter in self.chapters:
            lines.append(
                f"{chapter.name:{width}}  {chapter.status}" + (f": {chapter.reason}" if chapter.reason else "")
            )
            lines += [f"{'':{width}}    without {title!r}: {reason}" for title, reason in chapter.left_out]
        built = sum(chapter.status == BUILT for chapter in self.chapters)
        share = f"{built}" if self.complete else f"{built} of {len(self.chapters)}"
        return [*lines, self.costs.line(), f"{self.index} ({share} notebooks, {self.seconds:.0f} s)"]


def build(
    out: Path | None = None,
    *,
    root: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    progress: bool | None = None,
    report: Callable[[str], object] = print,
    student: Path | None = None,
) -> Build:
    """Execute all notebooks and render the book; return where it is and what became of every chapter.

    A page of `book/` with code cells is executed too, and keeps its address.

    Nothing is written outside the build folder, so that builds into several folders may run at once. The html of an
    earlier build is replaced only when the new one is whole. A Sphinx warning is an error.

    With `parameters` (a reader's own table) a chapter that does not apply is left out: a page with its title and the
    reason stands in for it, and the others are built. So is a chapter that failed for a fault of its own.

    Parameters
    ----------
    out
        build folder, by default `_build` of the checkout; the html is its `html/`, the log its `sphinx.log`, and
        `summary.json` says what became of each chapter.
    root
        checkout to build: `_config.yml`, `book/` and `notebooks/`. By default the one that this package runs from, else
        the current folder.
    parameters, jobs, progress
        as in `execute`.
    report
        gets one line a chapter if parameters were given, then one that says where the time went, and one that says
        where the html is and how long it took.
    student
        a new or empty folder that gets a copy of every chapter without solutions, marked answers and outputs.

    Raises
    ------
    NotebookError
        a cell failed, and no parameters were given.
    InputError
        the folder is not a checkout, `out` or `student` may not be written, no notebook has a given parameter, the book
        tools are not installed, or Sphinx complained: its first lines are shown.

    Examples
    --------
    >>> build(Path("my_book"), parameters={"runs_file": "my_runs.csv"}).complete  # doctest: +SKIP
    True
    """
    start = time.monotonic()
    root = _checkout(root)
    out = check_output(root / "_build" if out is None else out, root)
    if student is not None:
        check_folder(student)
    code_pages = pages_with_code(root / "book")
    notebooks = [*code_pages, *sources(root / "notebooks")]
    choose(parameters or {}, {source: defaults_of(source) for source in notebooks})  # refused before any work
    with staging(out) as stage:
        shutil.copy(root / "_config.yml", stage)
        # a checkout may still hold chapters that an earlier version executed there
        shutil.copytree(root / "book", stage / "book", ignore=shutil.ignore_patterns("chapters"))
        _copy_tables(root / "data", stage / "book" / "data")
        pages = stage / "book" / "chapters"
        done = try_all(notebooks, pages, parameters, jobs=jobs, progress=progress)
        chapters = [_chapter(execution) for execution in done]
        for execution, chapter in zip(done, chapters, strict=True):
            if execution.failure and not parameters:
                raise execution.failure
            if execution.failure:
                _stand_in(execution, chapter, pages, [*notebooks, *sorted((root / "book").glob("*.md"))])
        run_times = {execution.source.stem: execution.seconds for execution in done if execution.path}
        record = build_record(root, [execution.path for execution in done if execution.path], run_times)
        write(stage / "book" / "build_record.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        for page in code_pages:
            os.replace(pages / f"{page.stem}.ipynb", stage / "book" / f"{page.stem}.ipynb")
            (stage / "book" / page.name).unlink()
        rendered = time.monotonic()
        html = _render(stage, out / LOG)
        write_standalone(stage / "book", html, stage / "_config.yml")
        if student is not None:
            write_student_copies(student, stage / "book", html, stage / "_config.yml", list(run_times))
        costs = measure(html, run_times, time.monotonic() - rendered)
        fill(html, costs)
        index = publish(html, out)
    built = Build(index, tuple(chapters), time.monotonic() - start, costs)
    _write_summary(built, record, out / SUMMARY, parameters or {})
    for line in built.lines() if parameters else built.lines()[-2:]:
        report(line)
    return built


def _checkout(root: Path | None) -> Path:
    """The folder to build: an installed package has no sources of the book, but the current folder may have them."""
    for folder in [root] if root else [ROOT, Path.cwd()]:
        if (folder / "_config.yml").is_file() and (folder / "notebooks").is_dir():
            return folder.resolve()
    raise InputError(f"{root or Path.cwd()}: no _config.yml there; the book is built in a checkout of the project")


def _chapter(execution: Execution) -> Chapter:
    """What became of a chapter: an error that a reader's input explains leaves it out, any other is a failure."""
    failure, name = execution.failure, execution.source.stem
    if failure is None:
        return Chapter(name, BUILT, left_out=execution.left_out)
    if failure.exception == "NotApplicable":
        return Chapter(name, LEFT_OUT, failure.reason)
    if failure.exception == "InputError" and execution.parameters:
        return Chapter(name, LEFT_OUT, f"cannot be built from this table: {failure.reason}")
    where = "" if failure.cell is None else f"cell {failure.cell}: "
    return Chapter(name, FAILED, f"{where}{failure.exception}: {failure.reason}")


def _copy_tables(data: Path, target: Path) -> None:
    """Put the tables where the pages can offer them: Sphinx reads nothing outside of `book/`."""
    if data.is_dir():
        target.mkdir()
        for path in [*data.glob("*.csv"), *data.glob("*.csv.gz"), *data.glob("README.md")]:
            shutil.copy(path, target)


def _stand_in(execution: Execution, chapter: Chapter, pages: Path, all_sources: list[Path]) -> None:
    """Write the page that says why a chapter is missing."""
    others = "\n".join(path.read_text(encoding="utf-8") for path in all_sources if path != execution.source)
    page = stand_in(read(execution.source), chapter.reason or "", failed=chapter.status == FAILED, others=others)
    write(pages / f"{chapter.name}.ipynb", dump(page))


def _render(stage: Path, log: Path) -> Path:
    """Run jupyter-book in `stage`; return the folder of html, or raise with the first complaints of Sphinx."""
    script = Path(sys.executable).with_name("jupyter-book")
    if not script.is_file():
        raise InputError(f"{script}: not installed; pip install -e .[book] -c constraints.txt")
    command = [str(script), "build", "book", "--config", "_config.yml", "--path-output", str(stage)]
    command += ["-W", "-n", "--keep-going"]
    run = subprocess.run(command, cwd=stage, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = _ANSI.sub("", run.stdout.decode(errors="replace")).replace(f"{stage}{os.sep}", "")
    write(log, LOG_HEAD + text)
    html = stage / "_build" / "html"
    if run.returncode != 0 or not (html / "index.html").is_file():
        lines = [line.strip() for line in text.splitlines()]
        complaints = list(dict.fromkeys(line for line in lines if _COMPLAINT.search(line))) or lines[-5:]
        more = f"\n  ... {len(complaints) - 8} more in {log}" if len(complaints) > 8 else ""
        raise InputError(f"Sphinx refused the book (all of its output: {log})\n  " + "\n  ".join(complaints[:8]) + more)
    return html


def _write_summary(built: Build, record: Mapping[str, Any], path: Path, parameters: Mapping[str, Any]) -> None:
    """Keep beside the html what became of every chapter, with which parameters, at which cost, on what."""
    result = {
        "made_by": "companion book",
        "complete": built.complete,
        "parameters": json.loads(json.dumps(dict(parameters)), parse_constant=str),  # JSON has no infinity
        "chapters": [asdict(chapter) for chapter in built.chapters],
        "costs": built.costs.as_dict(),
        "record": dict(record),
    }
    write(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
