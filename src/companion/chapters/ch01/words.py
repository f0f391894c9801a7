"""Names and counts as the chapter writes them."""

from companion.plotting.style import ARCHITECTURE_LABELS

_WORDS = {"ffn": "feed-forward"}


def component_word(component: str) -> str:
    """A component of a count as the page calls it: `mixer core`, `feed-forward`."""
    return _WORDS.get(component, component.replace("_", " "))


def the(architecture: str) -> str:
    """An architecture in a sentence: `the Transformer`; one that the book does not know by its own name alone."""
    return f"the {ARCHITECTURE_LABELS[architecture]}" if architecture in ARCHITECTURE_LABELS else architecture
