"""What a section of chapter 6 concludes, and the summary of all sections."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from companion.chapters.ch06.shown import shifts_figure
from companion.formatting import number_word, plural
from companion.plotting import Html, show_table

Facts = dict[str, str]
#: In the summary of a pitfall that a table cannot show.
NOT_SEEN, NOT_SHOWN = "This table cannot show it", "–"
#: What the top of the page shows until the last section fills it.
PENDING = Html("<p>The overview appears here once every section has been run.</p>")
#: Most cases that the overview lists one by one.
_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Pitfall:
    """One mistake and what it does to the runs of the chapter.

    Attributes
    ----------
    key
        of the glued sentence: `c6_verdict_KEY`.
    name, changes, here, notice
        the row of the summary: what it is called, what it changes, by how much here, how to notice it.
    sentence
        the section's verdict, without the last period.
    shifts
        by case: how far it moves the exponent a; empty if it does not, or if the table cannot show it.
    """

    key: str
    name: str
    changes: str
    here: str
    notice: str
    sentence: str
    shifts: Mapping[str, float] = field(default_factory=dict)

    @property
    def silent(self) -> bool:
        """Whether it misleads without moving a."""
        return not self.shifts and self.here != NOT_SHOWN


class Summary:
    """All pitfalls of the chapter on one yardstick.

    Parameters
    ----------
    a, bounds
        the exponent of the right fit and its 95 % interval.
    """

    def __init__(self, a: float, bounds: tuple[float, float]) -> None:
        self.a, self.bounds = a, bounds
        self.pitfalls: list[Pitfall] = []

    def add(self, pitfall: Pitfall) -> Facts:
        """Keep a pitfall; its sentence by the name under which it is glued."""
        self.pitfalls.append(pitfall)
        return {f"c6_verdict_{pitfall.key}": pitfall.sentence}

    @property
    def shifts(self) -> dict[str, float]:
        """How far every case of every pitfall moves a."""
        return {case: shift for pitfall in self.pitfalls for case, shift in pitfall.shifts.items()}

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Cases and their shifts of a, the largest first."""
        return sorted(self.shifts.items(), key=lambda item: -abs(item[1]))

    @property
    def outside(self) -> list[tuple[str, float]]:
        """Those of `ranked` that leave the interval."""
        low, high = (bound - self.a for bound in self.bounds)
        return [(case, shift) for case, shift in self.ranked if not low <= shift <= high]

    @property
    def silent(self) -> list[Pitfall]:
        """Pitfalls that mislead without moving a."""
        return [each for each in self.pitfalls if each.silent]

    def overview(self, num_runs: int, architecture: str) -> Html:
        """The figure of all shifts and the table under it: what the top of the page shows."""
        figure = shifts_figure(self.shifts, self.a, self.bounds, num_runs, architecture)
        return Html(figure.markup + self.overview_table().markup)

    def overview_table(self) -> Html:
        """The cases that leave the interval one by one; the others, and what leaves a alone, in one row each."""
        notices = {case: each.notice for each in self.pitfalls for case in each.shifts}
        rows = [(case, f"{shift:+.3f}", notices[case]) for case, shift in self.outside[:_LISTED]]
        if more := self.outside[_LISTED:]:
            rows.append((f"{plural(len(more), 'other case')} outside", _span(more), "see the sections below"))
        if inside := [item for item in self.ranked if item not in self.outside]:
            rows.append((f"{plural(len(inside), 'case')} inside the interval", _span(inside), "see the sections below"))
        rows += [(each.name, "none", each.notice) for each in self.silent]
        return show_table(
            pd.DataFrame(rows, columns=["mistake", "shift of a", "how to notice it"]),
            name="pitfalls-overview",
            caption="Mistakes that move a out of its interval, the others, and those that mislead without moving a.",
        )

    def cases_table(self) -> Html:
        """Every measured case, its shift of a, and whether it stays in the interval."""
        outside = {case for case, _ in self.outside}
        rows = [
            {"case": case, "shift": shift, "interval": "outside" if case in outside else "inside"}
            for case, shift in self.ranked
        ]
        return show_table(
            pd.DataFrame(rows, columns=["case", "shift", "interval"]),
            name="pitfalls-cases",
            caption="Every measured case, the largest shift first: a with the mistake minus a without it.",
            formats={"shift": "{:+.4f}"},
            labels={"shift": "shift of a", "interval": "95 % interval"},
        )

    def table(self) -> Html:
        """One row for every pitfall."""
        rows = [
            {"pitfall": each.name, "what it changes": each.changes, "here": each.here, "how to notice it": each.notice}
            for each in self.pitfalls
        ]
        caption = f"The {len(rows)} pitfalls. The sections above explain the numbers."
        return show_table(pd.DataFrame(rows), caption=caption, name="pitfalls-summary")

    def facts(self) -> Facts:
        """Values of the answer and of the last section: how many cases leave the interval, and the largest shift."""
        (largest, shift), number = self.ranked[0] if self.ranked else ("no case", 0.0), len(self.outside)
        return {
            "c6_a": f"{self.a:.3f}",
            "c6_num_pitfalls": str(len(self.pitfalls)),
            "c6_num_moving": number_word(len(self.pitfalls) - len(self.silent), "none"),
            "c6_num_cases": str(len(self.ranked)),
            "c6_outside": f"{number_word(number, 'none')} {'move' if number > 1 else 'moves'}",
            "c6_largest": largest,
            "c6_largest_shift": f"{shift:+.3f}",
            "c6_silent": ", ".join(f"{each.name} ({each.changes})" for each in self.silent) or "none of them",
        }


def _span(cases: list[tuple[str, float]]) -> str:
    shifts = [shift for _, shift in cases]
    return f"{min(shifts):+.3f}" if len(shifts) == 1 else f"{min(shifts):+.3f} to {max(shifts):+.3f}"
