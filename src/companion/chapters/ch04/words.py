"""Numbers of chapter 4 as its sentences and tables say them."""

from companion.chapters.ch04.figures import DESIGN_LABELS


def signed(share: float, decimals: int = 1) -> str:
    """A relative deviation in percent with its sign: +5.2 %; without a sign where it rounds to zero."""
    text = f"{100 * share:+.{decimals}f}"
    return f"{text.lstrip('+-') if float(text) == 0 else text} %"


def off_by(errors: list[float]) -> str:
    """Relative errors of a prediction in words: 7.8 to 11.7 % too high; 5.2 % too low; with signs where they differ."""
    ends = min(errors), max(errors)
    if ends[0] < 0 < ends[1]:
        return f"between {signed(ends[0])} and {signed(ends[1])} off"
    low, high = (f"{100 * size:.1f}" for size in sorted(abs(end) for end in ends))
    span = low if low == high else f"{low} to {high}"
    return f"{span} % too {'high' if ends[1] > 0 else 'low'}"


def design_name(design: str) -> str:
    """A design of runs as the page calls it: IsoFLOP, Token/Param; a reader's own as the table spells it."""
    return DESIGN_LABELS.get(design, design)


def runs_of(design: str) -> str:
    """The runs of a design: all runs, the IsoFLOP runs."""
    return "all runs" if design == "all" else f"the {design_name(design)} runs"
