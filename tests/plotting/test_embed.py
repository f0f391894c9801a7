"""Figures and tables as HTML: what a page and a screen reader get."""

import re
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from matplotlib.figure import Figure

from companion.plotting import show, show_table, subplots


def drawing() -> Figure:
    figure, (left, right) = subplots(1, 2)
    left.loglog([1, 10], [2, 30], label="a < b")
    left.legend()
    right.scatter([1, 2], [3, 4])
    return figure


def test_figure_is_well_formed_and_described() -> None:
    markup = show(drawing(), name="two-panels", alt='Left "rises"', caption="A & B").markup
    root = ElementTree.fromstring(markup)
    assert root.get("id") == "fig-two-panels"
    svg = next(element for element in root.iter() if element.tag.endswith("svg"))
    assert svg.get("aria-label") == 'Left "rises"'
    assert svg.get("role") == "img"
    assert root.find("figcaption").text == "A & B"


def test_ink_follows_the_page_and_ids_stay_apart() -> None:
    first, second = (show(drawing(), name=name, alt="x", caption="y").markup for name in ("one", "two"))
    assert "currentColor" in first
    assert "#010203" not in first
    ids = re.findall(r'\bid="([^"]+)"', first)
    assert len(ids) == len(set(ids))
    assert not set(ids) & set(re.findall(r'\bid="([^"]+)"', second))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', first):
        assert target in ids
    assert "*{stroke-linejoin" not in first.replace("#fig-one *{stroke-linejoin", "")


def test_same_figure_same_bytes() -> None:
    assert (
        show(drawing(), name="n", alt="x", caption="y").markup == show(drawing(), name="n", alt="x", caption="y").markup
    )


def test_names_are_anchors() -> None:
    with pytest.raises(ValueError, match="lower-case letters"):
        show(drawing(), name="Two panels", alt="x", caption="y")


def test_table() -> None:
    table = pd.DataFrame({"name": ["<a>", None], "loss": [2.5, float("nan")], "verdict": ["not attempted", "differs"]})
    markup = show_table(
        table, caption="Caption", formats={"loss": "{:.3f}"}, labels={"loss": "loss (nats/token)"}
    ).markup
    root = ElementTree.fromstring(markup)
    cells = [cell.text or cell[0].text for cell in root.iter("td")]
    assert cells == ["<a>", "2.500", "not attempted", "–", "–", "differs"]
    assert [head.text for head in root.iter("th")] == ["name", "loss (nats/token)", "verdict"]
    assert root.find("p").text == "Caption"
    scrolling = root.find("div")
    assert (scrolling.get("tabindex"), scrolling.get("role"), scrolling.get("aria-label")) == ("0", "region", "Caption")
    assert "companion-verdict-not-attempted" in markup
    with pytest.raises(ValueError, match="no column los"):
        show_table(table, caption="x", formats={"los": "{}"})


def test_sentences_in_cells_may_break_and_names_not() -> None:
    table = pd.DataFrame(
        {"name": ["short", "x" * 30], "why": ["a sentence of more than forty characters, for once", "no"]}
    )
    markup = show_table(table, caption="c").markup
    assert markup.count('<td class="wrap">') == 1
