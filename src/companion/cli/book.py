"""`companion book`: execute the notebooks and build the html, on the reader's own table if one is given."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from companion.cli.options import whole
from companion.errors import InputError
from companion.inference.timings import load_inference
from companion.ledger.entries import load_published
from companion.runs.load import load_runs
from companion.training.logs import load_training_logs

#: Parameters that name a table, and what reads it.
_TABLES: dict[str, Callable[[Path], object]] = {
    "runs_file": load_runs,
    "timings_file": load_inference,
    "inference_file": load_inference,
    "logs_file": load_training_logs,
    "published_file": load_published,
}


def add_book(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Register `companion book`."""
    parser = command(
        "book",
        run,
        "execute the notebooks and build the html of the book",
        "  companion book\n"
        "  companion book --jobs 4 --output /tmp/book\n"
        "  companion book --pdf --zip   (the pages also as one PDF and one zip file)\n"
        "  companion book --parameters runs_file=my_runs.csv --output my_book   (chapters on your own table)\n"
        "  companion book --parameters train_flops=1e22 --parameters 'losses=[2.6, 2.4]' --output my_book\n"
        "  companion book --student course   (also notebooks without solutions, for a class)\n"
        "\n"
        "values of parameters:\n"
        "  numbers as in all options (1e22, 8192, inf), true, false, None, lists such as [1e18, 2e18] or a,b,\n"
        "  dictionaries such as {num_params: 7e9, num_tokens: 2e12}; anything else is text, and so is what is in\n"
        "  quotes. Files and folders are looked for from the current folder.\n"
        "\n"
        "exit status:\n"
        "  0 every chapter was built; 1 some were left out, with --parameters, because they do not apply to the\n"
        "  table or failed (listed at the end and in summary.json); 2 bad input, or no book",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="build folder of its own (default: _build of the checkout)"
    )
    parser.add_argument("--jobs", type=whole, metavar="N", help="notebooks at a time (default: all cores)")
    parser.add_argument(
        "--parameters", action="append", default=[], metavar="NAME=VALUE", help="set a notebook parameter (repeatable)"
    )
    parser.add_argument(
        "--student",
        type=Path,
        metavar="FOLDER",
        help="also write a copy of every chapter without solutions and marked answers into an empty folder",
    )
    parser.add_argument(
        "--pdf", action="store_true", help="also print all pages into one PDF (needs a chromium; about two minutes)"
    )
    parser.add_argument("--zip", action="store_true", help="also pack the pages into one zip file")


def run(arguments: argparse.Namespace) -> int:
    """Execute and build; say where the files are and what was left out."""
    try:
        from companion.book.archive import write_zip
        from companion.book.building import build
        from companion.book.output import PDF, ZIP
        from companion.book.parameters import read_parameters
        from companion.book.pdf import check_pdf, write_pdf
    except ImportError as error:
        raise InputError(f"the book needs the extra 'book' ({error})") from error
    given = {name: checked(name, value) for name, value in read_parameters(arguments.parameters).items()}
    if arguments.pdf:
        check_pdf()
    built = build(arguments.output, parameters=given or None, jobs=arguments.jobs, student=arguments.student)
    html = built.index.parent
    if arguments.student is not None:
        print(arguments.student)
    if arguments.zip:
        print(write_zip(html, html.parent / ZIP))
    if arguments.pdf:
        print(write_pdf(html, html.parent / PDF, jobs=arguments.jobs))
    return 0 if built.complete else 1


def checked(name: str, value: Any) -> Any:
    """The value of a parameter; of a file or folder the absolute path, as notebooks run in a folder of their own.

    Raises
    ------
    InputError
        there is no such file or folder, or a table cannot be read: better now than in every chapter.
    """
    if value is None or not name.endswith(("_file", "_folder")):
        return value
    path = Path(os.path.expanduser(str(value))).absolute()
    if not path.exists():
        raise InputError(f"--parameters {name}={value}: no such {name.rpartition('_')[2]}")
    if name in _TABLES:
        _TABLES[name](path)
    return str(path)
