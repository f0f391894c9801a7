"""Values of a chapter's prose: computed in the chapter's module, glued into Markdown by name."""

from collections.abc import Mapping

from companion.formatting import page_text, true_minus


def glue_facts(facts: Mapping[str, object]) -> None:
    """Glue every value as text under its name, without showing it: the prose then says `{glue:text}` and the name.

    A line does not break between a number and its unit, a negative number has a true minus sign, and apostrophes are
    those of a book.
    """
    from myst_nb import glue

    for name, value in facts.items():
        glue(name, page_text(true_minus(str(value))), display=False)
