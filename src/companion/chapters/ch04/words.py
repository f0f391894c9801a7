"""Numbers of chapter 4 as its sentences and tables say them."""

from functools import partial

from companion.chapters.labels import design_name
from companion.formatting import percent, power_of_ten, signed_percent, span_text, true_minus


def power(value: float, digits: int = 6) -> str:
    """A number with up to that many digits, a very large or small one as a power of ten: 1.19344, −5.1×10⁻⁵.

    >>> power(1.89e6), power(0.000702797), power(-5.12e-5, 2)
    ('1.89×10⁶', '0.000702797', '−5.1×10⁻⁵')
    """
    mantissa, _, exponent = true_minus(f"{value:.{digits}g}").partition("e")
    return f"{mantissa}{power_of_ten(float(f'1e{exponent}')).removeprefix('1')}" if exponent else mantissa


def off_by(errors: list[float]) -> str:
    """Relative errors of a prediction in words: 7.8 to 11.7 % too high; 5.2 % too low; with signs where they differ."""
    ends = min(errors), max(errors)
    if ends[0] < 0 < ends[1]:
        return f"between {signed_percent(ends[0], 1)} and {signed_percent(ends[1], 1)} off"
    span = span_text([abs(end) for end in ends], partial(percent, decimals=1))
    return f"{span} too {'high' if ends[1] > 0 else 'low'}"


def runs_of(design: str) -> str:
    """The runs of a design: all runs, the IsoFLOP runs."""
    return "all runs" if design == "all" else f"the {design_name(design)} runs"
