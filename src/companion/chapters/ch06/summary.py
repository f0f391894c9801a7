"""What a section of chapter 6 concludes, and the summary of all sections."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from companion.formatting import interval
from companion.plotting import Html, show_table

Facts = dict[str, str]
#: In the summary of a pitfall that a table cannot show.
NOT_SEEN, NOT_SHOWN = "This table cannot show it", "–"


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
        the section's verdict.
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

    def table(self) -> Html:
        """One row for every pitfall."""
        rows = [
            {"pitfall": each.name, "what it changes": each.changes, "here": each.here, "how to notice": each.notice}
            for each in self.pitfalls
        ]
        caption = f"The {len(rows)} pitfalls; the sections above say what the numbers are."
        return show_table(pd.DataFrame(rows), caption=caption)

    def facts(self) -> Facts:
        """How many pitfalls move a, and which cases leave its interval, the largest shift first."""
        low, high = (bound - self.a for bound in self.bounds)
        ranked = sorted(self.shifts.items(), key=lambda item: -abs(item[1]))
        outside = [(case, shift) for case, shift in ranked if not low <= shift <= high]
        inside = [f"{case} ({shift:+.4f})" for case, shift in ranked if low <= shift <= high]
        silent = [f"{each.name} ({each.changes})" for each in self.pitfalls if each.silent]
        cases = "; ".join(f"{case} ({shift:+.3f})" for case, shift in outside)
        return {
            "c6_a": f"{self.a:.3f}",
            "c6_interval": interval(self.bounds),
            "c6_num_pitfalls": str(len(self.pitfalls)),
            "c6_num_moving": str(len(self.pitfalls) - len(silent)),
            "c6_num_cases": str(len(ranked)),
            "c6_num_outside": str(len(outside)),
            "c6_outside": f": {cases}" if cases else "",
            "c6_inside": f"The other cases stay inside: {'; '.join(inside)}" if inside else "None stays inside",
            "c6_silent": f"{len(silent)} mislead without moving a: {', '.join(silent)}"
            if silent
            else "None misleads without moving a",
            "c6_take_largest": f"largest here: {outside[0][0]}" if outside else "none here leaves the interval",
        }
