"""What the front page shows (`book/intro.md`): what the paper claims, what was found, and the figure of both."""

from companion.chapters.front.claims import (
    HOLDS,
    HOLDS_IN_PART,
    HOLDS_NOT,
    Claim,
    constants_claim,
    context_claim,
    dominance_claim,
    overtraining_claim,
    serving_claim,
    size_claim,
)
from companion.chapters.front.evidence import cubic_ratio, loss_facts, paper_claims
from companion.chapters.front.figure import Headline, fit_headline, show_headline
from companion.chapters.front.shown import claim_facts, show_claims

__all__ = [
    "HOLDS",
    "HOLDS_IN_PART",
    "HOLDS_NOT",
    "Claim",
    "Headline",
    "claim_facts",
    "constants_claim",
    "context_claim",
    "cubic_ratio",
    "dominance_claim",
    "fit_headline",
    "loss_facts",
    "overtraining_claim",
    "paper_claims",
    "serving_claim",
    "show_claims",
    "show_headline",
    "size_claim",
]
