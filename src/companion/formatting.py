"""Numbers as text, the same way in tables, captions, prose and on the command line."""

import math

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PREFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(value: float, digits: int = 3) -> str:
    """Parameters or tokens with the field's letters: 1.07B, 83.6M; below a thousand the plain number."""
    if not math.isfinite(value):
        return "undefined"
    for size, letter in _PREFIXES:
        # rounding first: 999.6M at three digits is 1.00B
        if float(f"{abs(value):.{digits - 1}e}") >= size:
            return f"{significant(value / size, digits)}{letter}"
    return significant(value, digits)


def power_of_ten(value: float, digits: int = 2) -> str:
    """FLOPs and other large numbers: 6.0×10¹⁸; whole mantissas without decimals: 6×10¹⁸."""
    if not math.isfinite(value):
        return "undefined"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if float(mantissa) == int(float(mantissa)):
        mantissa = str(int(float(mantissa)))
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def significant(value: float, digits: int = 3) -> str:
    """Fixed notation with that many significant digits, trailing zeros kept: 0.547, 12.0, 1230."""
    if not math.isfinite(value):
        return "undefined"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return f"{round(value, digits - 1 - magnitude):.{max(digits - 1 - magnitude, 0)}f}"


def percent(share: float, digits: int = 2) -> str:
    """A share between 0 and 1 as per cent: 12 %."""
    return f"{significant(100 * share, digits)} %"


def interval(bounds: tuple[float, float], decimals: int = 3) -> str:
    """A confidence interval: [0.538, 0.556]."""
    if not all(math.isfinite(bound) for bound in bounds):
        return "undefined"
    return f"[{bounds[0]:.{decimals}f}, {bounds[1]:.{decimals}f}]"
