"""Names and counts as the chapter writes them."""

from companion.formatting import number_word
from companion.plotting.style import ARCHITECTURE_LABELS

_WORDS = {"ffn": "feed-forward"}


def component_word(component: str) -> str:
    """A component of a count as the page calls it: `mixer core`, `feed-forward`."""
    return _WORDS.get(component, component.replace("_", " "))


def some_of(number: int, total: int) -> str:
    """How many of a number of things: `all 640`, `638 of 640`, `none of 640`; words up to twelve: `four of seven`.

    Examples
    --------
    >>> some_of(640, 640), some_of(5, 12), some_of(0, 12)
    ('all 640', 'five of twelve', 'none of twelve')
    """
    if number == total and total:
        return f"all {number_word(total)}"
    if max(number, total) > 12:
        return f"{number or 'none'} of {total}"
    return f"{number_word(number, 'none')} of {number_word(total)}"


def the(architecture: str) -> str:
    """An architecture in a sentence: `the Transformer`; one that the book does not know by its own name alone."""
    return f"the {ARCHITECTURE_LABELS[architecture]}" if architecture in ARCHITECTURE_LABELS else architecture
