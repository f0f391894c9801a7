"""`companion slides`: decks from the chapters of a built book."""

import argparse
from collections.abc import Callable
from pathlib import Path

from companion.errors import InputError


def add_slides(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Register `companion slides`."""
    parser = command(
        "slides",
        run,
        "write slides with the figures of a built book",
        "  companion book && companion slides\n"
        "  companion slides --html my_book/html --output my_slides\n"
        "\n"
        "A deck a chapter: question and answer, a slide for each figure, what to take away. Open index.html of the\n"
        "folder; arrows move, N shows the captions as notes, printing gives all slides with notes. No network needed.",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FOLDER", help="html of a built book (default: _build/html of the checkout)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="folder of the decks (default: slides beside the html)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the decks; say where they are."""
    try:
        from companion.book.notebooks import ROOT
        from companion.book.slides import write_slides
    except ImportError as error:
        raise InputError(f"slides need the extra 'book' ({error})") from error
    built = arguments.html or ROOT / "_build" / "html"
    written = write_slides(built, arguments.output or built.parent / "slides")
    print(*written, sep="\n")
    return 0
