"""The claims of the front page as HTML: a list whose entries stack on a phone, and the counts in its sentences."""

import html
from collections.abc import Sequence

from companion.chapters.front.claims import (
    ALMOST_FIVE,
    EARLIER,
    HOLDS,
    HOLDS_IN_PART,
    HOLDS_NOT,
    SAME,
    SIGNIFICANT,
    STEADY,
    Claim,
)
from companion.formatting import number_word, page_text, percent, plural, span_text
from companion.plotting import Html

#: Part of the class of a verdict's badge; its sign comes from the style sheet.
_CLASSES = {HOLDS: "holds", HOLDS_IN_PART: "in-part", HOLDS_NOT: "not"}


def show_claims(claims: Sequence[Claim]) -> Html:
    """What the paper says and where, what was found, the verdict as a badge, and a link to the chapter.

    Links are relative to the front page.
    """
    return Html(f'<ol class="companion-claims">{"".join(map(_entry, claims))}</ol>')


def claim_facts(claims: Sequence[Claim]) -> dict[str, str]:
    """How many claims there are, how many have each verdict, and the limits in the rules of the verdicts."""
    number = {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in _CLASSES}
    return {
        "front_claims": plural(len(claims), "claim"),
        "front_holds": _verb(number[HOLDS], "holds", "hold"),
        "front_in_part": _verb(number[HOLDS_IN_PART], "holds", "hold"),
        "front_holds_not": _verb(number[HOLDS_NOT], "does", "do"),
        "front_decades": f"{ALMOST_FIVE:g}",
        "front_level": percent(SIGNIFICANT, 1),
        "front_earlier": span_text(EARLIER),
        "front_steady": percent(STEADY, 1),
        "front_same": percent(SAME),
    }


def _verb(number: int, one: str, several: str) -> str:
    """A count with its verb: one holds, four hold."""
    return f"{number_word(number, 'none')} {one if number == 1 else several}"


def _text(words: str) -> str:
    """Escaped, with the spaces and apostrophes of a page."""
    return html.escape(page_text(words))


def _entry(claim: Claim) -> str:
    number = int(claim.chapter.partition("_")[0])
    return (
        f'<li><p class="companion-claim">{_text(claim.says)} '
        f'<span class="companion-claim-place">paper: {_text(claim.place)}</span></p>'
        f'<p class="companion-claim-found">{_text(claim.found)}</p>'
        f'<p class="companion-claim-verdict">'
        f'<span class="companion-verdict companion-verdict-{_CLASSES[claim.verdict]}">{claim.verdict}</span> '
        f'<a href="chapters/{claim.chapter}.html">chapter {number}</a></p></li>'
    )
