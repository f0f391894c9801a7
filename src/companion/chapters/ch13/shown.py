"""Chapter 13: the records that the page shows, and its answer with them or without."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from IPython.display import Markdown

from companion.chapters.applicability import need
from companion.chapters.ch13.profile import Profile
from companion.chapters.ch13.records import PROFILE, TRAINING, load_suite
from companion.chapters.ch13.steps import Steps
from companion.chapters.ch13.training import answer_verdict, steps_figure, steps_table
from companion.errors import NotApplicable
from companion.formatting import significant
from companion.plotting import Html, show_table

NO_STEPS = "there are no records of training steps"


@dataclass(frozen=True)
class Shown:
    """What was recorded of training steps and profiles; None where nothing was."""

    steps: Steps | None
    profile: Profile | None

    @classmethod
    def of(cls, context_length: int) -> "Shown":
        """Our records, with single numbers at a context length."""
        return cls(
            _or_none(lambda: Steps(load_suite(TRAINING), context_length)),
            _or_none(lambda: Profile(load_suite(PROFILE))),
        )

    def need_steps(self) -> Steps:
        """The training steps.

        Raises
        ------
        NotApplicable
            if none was recorded.
        """
        need(self.steps is not None and self.steps.sizes, NO_STEPS)
        assert self.steps is not None
        return self.steps

    def need_profile(self) -> Profile:
        """The profiles.

        Raises
        ------
        NotApplicable
            if none was recorded.
        """
        need(self.profile is not None, "there are no records of profiles")
        assert self.profile is not None
        return self.profile


def _or_none(load: Any) -> Any:
    try:
        return load()
    except NotApplicable:
        return None


def answer_figure(shown: Shown) -> Html | Markdown:
    """The decisive figure: time of a training step over the context."""
    return Markdown(f"*No figure:* {NO_STEPS}.") if shown.steps is None else steps_figure(shown.steps)


def answer_table(shown: Shown) -> Html | Markdown:
    """Crossings, ratios and utilization by size."""
    return Markdown("") if shown.steps is None else steps_table(shown.steps)


def answer_facts(shown: Shown, counted: pd.DataFrame, parameters: pd.DataFrame) -> dict[str, object]:
    """Both sentences of the answer.

    Parameters
    ----------
    counted, parameters
        of `companion.chapters.ch13.counts.checks` and `parameter_checks`.
    """
    equal = all((table["module"] == table["accounting"]).all() for table in (counted, parameters))
    first = "It does: parameters, FLOPs of all products and kept bytes equal the accounting's to the last digit"
    second = "No training step was recorded" if shown.steps is None else answer_verdict(shown.steps)
    facts: dict[str, object] = {
        "c13_first": first if equal else "Not all counts of the models equal the accounting's",
        "c13_answer": second,
    }
    if shown.steps is not None:
        facts |= {"c13_tokens": f"{shown.steps.num_tokens:,}", "c13_context": f"{shown.steps.context_length}"}
    return facts


def values_table(values: Mapping[str, float], caption: str) -> Html:
    """Solution of an exercise: numbers by name."""
    return show_table(
        pd.DataFrame({"quantity": list(values), "value": list(values.values())}),
        caption=caption,
        formats={"value": lambda value: f"{value:,.0f}" if abs(value) >= 1000 else significant(value)},
    )
