"""`companion new-study` and `companion study-page`: a study of one's own, from an empty folder to a page."""

import argparse
from collections.abc import Callable
from pathlib import Path

from companion.cli.book import checked
from companion.errors import InputError


def add_study(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Register both commands."""
    parser = command(
        "new-study",
        new_study,
        "make a folder for a scaling study: a run table to fill, a notebook that fits it, the commands",
        "  companion new-study my_study\n"
        "  cd my_study; companion data check runs.csv; companion study-page\n"
        "\n"
        "The table comes with example rows of a stated law, so that everything runs before the first row is yours.\n"
        "A folder that exists is never changed.",
    )
    parser.add_argument("name", metavar="NAME", help="of the folder, made here: letters a to z, digits, - and _")
    parser = command(
        "study-page",
        study_page,
        "execute the notebook of a study and write it as one html file, page.html",
        "  companion study-page\n"
        "  companion study-page my_study\n"
        "  companion study-page my_study --parameters runs_file=other.csv --parameters budget=1e22\n"
        "\n"
        "The page needs no other file and no network. A section that the table cannot answer is left out, with the\n"
        "reason in its place. Files are looked for from the current folder.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="default: this one")
    parser.add_argument(
        "--parameters", action="append", default=[], metavar="NAME=VALUE", help="set a notebook parameter (repeatable)"
    )


def new_study(arguments: argparse.Namespace) -> None:
    """`companion new-study`: say which files there are now, and what comes next."""
    try:
        from companion.new_study import make_study

        made = make_study(arguments.name)
    except ImportError as error:
        raise InputError(f"a study needs the extra 'book' ({error})") from error
    for path in made:
        print(path)
    print(f"next: cd {made[0].parent}; companion study-page")


def study_page(arguments: argparse.Namespace) -> int:
    """`companion study-page`: say where the page is and what it leaves out; 1 if it leaves out anything."""
    try:
        from companion.book.parameters import read_parameters
        from companion.new_study import make_page

        given = {name: checked(name, value) for name, value in read_parameters(arguments.parameters).items()}
        page, left_out = make_page(arguments.folder, given)
    except ImportError as error:
        raise InputError(f"the page of a study needs the extra 'book' ({error})") from error
    for title, reason in left_out:
        print(f"without {title!r}: {reason}")
    print(page)
    return 1 if left_out else 0
