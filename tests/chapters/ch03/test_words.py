"""The p-values and published numbers as the IsoFLOP chapter writes them."""

import pytest

from companion.chapters.ch03.words import full_number, p_value


@pytest.mark.parametrize(
    ("p", "text"), [(0.1, "0.10"), (0.0078, "0.0078"), (0.89, "0.89"), (9.4e-9, "9.4×10⁻⁹"), (3.21e-5, "3.2×10⁻⁵")]
)
def test_p_value(p: float, text: str) -> None:
    assert p_value(p) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.069456e9, "1.069456B"),
        (2.28e10, "22.8B"),
        (1.78e20, "1.78×10²⁰"),
        (8.969232e19, "8.969232×10¹⁹"),
        (0.5749082, "0.5749082"),
        (2.685084, "2.685084"),
    ],
)
def test_full_number(value: float, text: str) -> None:
    assert full_number(value) == text
