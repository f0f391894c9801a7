"""The look that figures share."""

import pytest

from companion.plotting.style import count_ticks, power_ticks, subplots


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(9e7, 2.2e9, ["100M", "200M", "500M", "1B", "2B"]), (9e6, 4e7, ["10M", "20M"])],
)
def test_ticks_are_counts(low: float, high: float, expected: list[str]) -> None:
    _, [ax] = subplots()
    ax.set(xscale="log", xlim=(low, high))
    count_ticks(ax.xaxis)
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert [ax.xaxis.get_major_formatter()(tick, None) for tick in ticks] == expected


@pytest.mark.parametrize(
    ("limits", "labels"),
    [
        ((5e14, 8e17), ["10¹⁵", "10¹⁶", "10¹⁷"]),
        ((5e14, 7e15), ["5×10¹⁴", "10¹⁵", "2×10¹⁵", "5×10¹⁵"]),
        ((1.1e15, 3.5e15), ["1.5×10¹⁵", "2×10¹⁵", "3×10¹⁵"]),
        ((2.1e15, 2.35e15), ["2.1×10¹⁵", "2.2×10¹⁵", "2.3×10¹⁵"]),
        ((3.01e15, 3.02e15), []),
    ],
)
def test_powers_of_ten_are_few(limits: tuple[float, float], labels: list[str]) -> None:
    _, [ax] = subplots()
    ax.set(xscale="log", xlim=limits)
    power_ticks(ax.xaxis)
    assert [ax.xaxis.get_major_formatter()(tick, None) for tick in ax.get_xticks()] == labels
    assert not ax.xaxis.get_minor_formatter()(2e15, None)


@pytest.mark.parametrize(("value", "label"), [(15, "15"), (1.5e8, "150M"), (2.5e9, "2.5B"), (300, "300"), (1e12, "1T")])
def test_a_label_says_where_its_tick_is(value: float, label: str) -> None:
    _, [ax] = subplots()
    ax.set(xscale="log")
    count_ticks(ax.xaxis)
    assert ax.xaxis.get_major_formatter()(value, None) == label
