"""The source of a quiz: what `{quiz}` says in a page's text, read for the page and for student copies."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_OPTIONS, MOST_OPTIONS = 2, 4
_OPTION = re.compile(r"[-*+] \[([ xX])\]\s+(.*)")
_SEPARATOR = re.compile(r"\s::(?:\s|$)")


@dataclass(frozen=True)
class Option:
    """An option of a quiz: Markdown of one paragraph each."""

    text: str
    feedback: str
    is_right: bool


@dataclass(frozen=True)
class Quiz:
    """The lines of a question, and its options."""

    question: tuple[str, ...]
    options: tuple[Option, ...]

    @property
    def right(self) -> int:
        """The number of the right option, counted from 1."""
        return next(number for number, option in enumerate(self.options, 1) if option.is_right)


def read_quiz(lines: Sequence[str]) -> Quiz:
    """The quiz that the lines below a `{quiz}` directive's options describe.

    >>> read_quiz(["One or two?", "", "- [ ] one :: More.", "- [x] two :: Yes."]).right
    2

    Raises
    ------
    ValueError
        no question, fewer than two or more than four options, not exactly one right option, or an option without
        feedback; the message says which.
    """
    starts = [number for number, line in enumerate(lines) if _OPTION.match(line)]
    question = tuple(lines[: starts[0]] if starts else lines)
    if not any(line.strip() for line in question):
        raise ValueError("no question above the options")
    blocks = [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
    options = tuple(_option(number, block) for number, block in enumerate(blocks, 1))
    if not FEWEST_OPTIONS <= len(options) <= MOST_OPTIONS:
        raise ValueError(f"{len(options)} options; a quiz has {FEWEST_OPTIONS} to {MOST_OPTIONS}")
    if (right := sum(option.is_right for option in options)) != 1:
        raise ValueError(f"{right} right options; mark exactly one with [x]")
    return Quiz(question, options)


def _option(number: int, lines: Sequence[str]) -> Option:
    mark, first = _OPTION.match(lines[0]).groups()  # type: ignore[union-attr]
    text, *feedback = _SEPARATOR.split(" ".join(" ".join([first, *lines[1:]]).split()), maxsplit=1)
    if not text.strip() or not (feedback and feedback[0].strip()):
        raise ValueError(f"option {number} has no feedback; write: option text :: why")
    return Option(text.strip(), feedback[0].strip(), mark in "xX")
