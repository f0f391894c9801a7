"""Names and counts as the chapter writes them."""

_WORDS = {"ffn": "feed-forward"}


def component_word(component: str) -> str:
    """A component of a count as the page calls it: `mixer core`, `feed-forward`."""
    return _WORDS.get(component, component.replace("_", " "))
