"""How the IsoFLOP chapter writes p-values and published numbers."""

from companion.formatting import power_of_ten, significant

_PREFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"))
#: From here on a number is printed as a power of ten, not with a letter.
_LARGE = 1e15
#: p-values below this are printed as powers of ten.
_SMALL_P = 0.001


def p_value(p: float) -> str:
    """A p-value with two digits; as a power of ten below 0.001: 0.10, 0.021, 9.4×10⁻⁹."""
    return significant(p, 2) if p >= _SMALL_P else power_of_ten(p)


def full_number(value: float) -> str:
    """A number with up to seven digits and the field's letters: 1.069456B, 1.78×10²⁰, 0.574909."""
    if abs(value) >= _LARGE:
        mantissa, exponent = f"{value:.6e}".split("e")
        return power_of_ten(float(f"1e{exponent}")).replace("1×", f"{float(mantissa):.7g}×", 1)
    for size, letter in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.7g}{letter}"
    return f"{value:.7g}"
