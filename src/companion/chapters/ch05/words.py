"""How chapter 5 writes architectures, numbers and p-values inside sentences and tables."""

from collections.abc import Iterable, Mapping

import numpy as np

from companion.chapters.labels import label_of, the
from companion.formatting import listed, power_of_ten, significant

#: p-values below this are printed as powers of ten.
_SMALL_P = 1e-4
#: Smaller than any p-value that floating point can hold.
_NO_P = 1e-300
#: A p-value below this rejects.
LEVEL = 0.05


def each(texts: Mapping[str, str]) -> str:
    """A text for every architecture: `0.58 (Transformer) and 0.56 (xLSTM)`."""
    return listed(f"{text} ({label_of(name)})" for name, text in texts.items())


def p_text(p: float) -> str:
    """A p-value with two digits, a very small one as a power of ten: 0.78, 0.0042, 4.9×10⁻⁶."""
    if p < _NO_P:
        return "< 10⁻³⁰⁰"
    return significant(p, 2) if not p < _SMALL_P else power_of_ten(p)


def span(values: Iterable[float], style: str = "{:.4f}", unit: str = "") -> str:
    """Least and largest of some values: `0.0477 to 0.0482`; one value if both print alike."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "unknown"
    low, high = style.format(min(known)), style.format(max(known))
    return (low if low == high else f"{low} to {high}") + unit


def rejection(p_values: Mapping[str, float]) -> str:
    """For which architectures a test rejects equal slopes at 5 %, with the p-values, as part of a sentence."""
    known = {name: p for name, p in p_values.items() if np.isfinite(p)}
    if not known:
        return "equal slopes cannot be tested"

    def said(names: Iterable[str]) -> str:
        return listed(f"{the(name)} (p\u00a0=\u00a0{p_text(known[name])})" for name in names)

    rejected = [name for name, p in known.items() if p < LEVEL]
    kept = [name for name in known if name not in rejected]
    if not rejected:
        return f"equal slopes are not rejected for {said(kept)}"
    text = f"equal slopes are rejected for {said(rejected)}"
    return f"{text} but not for {said(kept)}" if kept else text
