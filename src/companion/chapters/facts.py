"""Values of a chapter's prose: computed in the chapter's module, glued into Markdown by name."""

from collections.abc import Mapping

from companion.formatting import together, true_minus


def glue_facts(facts: Mapping[str, object]) -> None:
    """Glue every value as text under its name, without showing it: the prose then says `{glue:text}` and the name.

    A line does not break between a number and its percent sign, and a negative number has a true minus sign.
    """
    from myst_nb import glue

    for name, value in facts.items():
        glue(name, together(true_minus(str(value))), display=False)
