"""Figures and tables as HTML: what a page and a screen reader get."""

import re
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from matplotlib.figure import Figure

from companion.plotting import show, show_table, subplots
from companion.plotting.embed import breakable
from companion.plotting.svg import _stacked


def drawing() -> Figure:
    figure, (left, right) = subplots(1, 2)
    left.loglog([1, 10], [2, 30], label="a < b")
    left.legend()
    right.scatter([1, 2], [3, 4])
    return figure


def test_figure_is_well_formed_and_described() -> None:
    markup = show(drawing(), name="two-panels", alt='Left "rises"', caption="A & B's").markup
    root = ElementTree.fromstring(markup)
    assert root.get("id") == "fig-two-panels"
    svg = next(element for element in root.iter() if element.tag.endswith("svg"))
    assert svg.get("aria-label") == "Left “rises”"
    assert svg.get("role") == "img"
    assert root.find("figcaption").text == "A & B’s"


def test_ink_follows_the_page_and_ids_stay_apart() -> None:
    first, second = (show(drawing(), name=name, alt="x", caption="y").markup for name in ("one", "two"))
    assert "currentColor" in first
    assert "#010203" not in first
    ids = re.findall(r'\bid="([^"]+)"', first)
    assert len(ids) == len(set(ids))
    assert not set(ids) & set(re.findall(r'\bid="([^"]+)"', second))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', first):
        assert target in ids
    assert "<style" not in first  # it would reach the whole page


def test_same_figure_same_bytes() -> None:
    assert (
        show(drawing(), name="n", alt="x", caption="y").markup == show(drawing(), name="n", alt="x", caption="y").markup
    )


def test_labels_keep_their_digits() -> None:
    figure, [ax] = subplots()
    ax.plot([0, 1 / 3], [0, 1], label="a = 0.0010 of 2.500")
    ax.legend()
    markup = show(figure, name="x", alt="x", caption="x").markup
    assert markup.count("a = 0.0010 of 2.500<") == 2  # wide and narrow
    assert not re.search(r' d="[^"]*\.\d{3}', markup), "coordinates have two decimals"


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
    assert ["".join(head.itertext()) for head in root.iter("th")] == ["name", "loss (nats/token)", "verdict"]
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


def test_decimals_line_up_and_values_stay_together() -> None:
    table = pd.DataFrame({"loss": [2.5, 12.0], "exponent": ["0.578 [0.554, 0.601]", "3 of 5"], "share": ["12 %", "no"]})
    markup = show_table(table, caption="c", formats={"loss": lambda value: f"{value:g}"}, name="both").markup
    assert '<td class="number">2.5</td>' in markup
    assert '<td class="number">12\u2008\u2007</td>' in markup  # as wide as a point and a digit
    assert "<td>0.578 [0.554,\u00a00.601]</td>" in markup
    assert "<td>3\u00a0of\u00a05</td>" in markup
    assert "<td>12\u00a0%</td>" in markup
    assert 'id="tbl-both"' in markup


def forms(figure: Figure) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(show(figure, name="forms", alt="x", caption="y").markup)
    return [element for element in root.iter() if element.tag.endswith("svg")]


def test_narrow_form_has_its_panels_below_each_other() -> None:
    figure, (left, right) = subplots(1, 2, sharey=True)
    left.plot([1, 2], [3, 4], label="the first of two lines")
    right.plot([1, 2], [3, 5], label="the second of two lines")
    left.set(ylabel="loss", xlabel="left")
    right.set_xlabel("right")
    figure.legend(loc="outside lower center", ncols=2)
    places = [ax.get_subplotspec() for ax in (left, right)]
    wide, narrow = forms(figure)
    assert narrow.get("style").startswith("display:none")
    sizes = [[float(side) for side in svg.get("viewBox").split()[2:]] for svg in (wide, narrow)]
    assert sizes[0] == [7.2 * 72, 3.6 * 72]
    assert sizes[1][0] == pytest.approx(3.7 * 72)
    assert sizes[1][1] >= 2 * 2.5 * 72
    words = ["".join(text.itertext()) for text in narrow.iter() if text.tag.endswith("text")]
    assert words.count("loss") == 2  # each panel says what its axis is
    assert {"left", "right", "the first of two lines"} <= set(words)
    assert [ax.get_subplotspec() for ax in (left, right)] == places
    assert tuple(figure.get_size_inches()) == (7.2, 3.6)
    assert len(figure.legends) == 1


def test_panels_of_a_lower_row_keep_the_title_of_their_column_and_room() -> None:
    figure, axes = subplots(2, 2)
    axes[0].set_title("first column")
    axes[1].set_title("second column")
    padding = figure.get_layout_engine().get()["h_pad"]
    wide, narrow = ([text.text for text in svg.iter() if text.tag.endswith("text")] for svg in forms(figure))
    assert [wide.count(f"{name} column") for name in ("first", "second")] == [1, 1]
    assert [narrow.count(f"{name} column") for name in ("first", "second")] == [2, 2]
    assert [ax.get_title() for ax in axes] == ["first column", "second column", "", ""]
    assert figure.get_layout_engine().get()["h_pad"] == padding
    with _stacked(figure):
        assert figure.get_layout_engine().get()["h_pad"] > padding


def test_names_break_between_their_parts() -> None:
    """At seams, which count for nothing else: not for the width that makes a cell a sentence."""
    table = pd.DataFrame({"val_loss": ["limit_chunk/of_the_chunked/kernel_forms", "d_qk of 0.125"]})
    markup = show_table(table, caption="c").markup
    assert ">val_<wbr/>loss<" in markup
    assert "<td>limit_<wbr/>chunk/<wbr/>of_the_<wbr/>chunked/<wbr/>kernel_<wbr/>forms</td>" in markup
    assert "<td>d_qk of 0.125</td>" in markup
    assert breakable("a" * 40) == "<wbr/>".join(["a" * 8] * 5)


def test_figures_have_the_apostrophes_of_a_book() -> None:
    figure, (ax,) = subplots()
    ax.set_title("the runs' N and Student's t")
    markup = show(figure, name="a", alt="x", caption=r"The law's \(f'\).").markup
    assert markup.count("the runs’ N and Student’s t") == 2  # wide and narrow
    assert r"The law’s \(f&#x27;\)." in markup


def test_captions_break_inside_no_value() -> None:
    said = "A 95 % interval at T = 8192 and B = 1, where x = y."
    kept = "A 95\u00a0% interval at T\u00a0=\u00a08192 and B\u00a0=\u00a01, where x = y."
    assert f"<figcaption>{kept}<" in show(subplots()[0], name="a", alt="x", caption=said).markup
    assert show_table(pd.DataFrame({"x": [1]}), caption=said).markup.count(kept) == 2  # caption and label


def test_labels_that_would_meet_are_thinned_or_turned() -> None:
    figure, (ax,) = subplots()
    ax.plot([0, 1], [0, 1])
    ax.set_xticks(range(6), [f"a category {i}" for i in range(6)])
    turned = [text.get("transform", "") for text in forms(figure)[1].iter() if text.text and "category" in text.text]
    assert len(turned) == 6
    assert all("rotate(-40" in transform for transform in turned)
    figure, (ax,) = subplots()
    ax.set(xscale="log", xlim=(1, 1e12))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    wide, narrow = (sum(1 for text in svg.iter() if text.text and text.text.endswith("0")) for svg in forms(figure))
    assert narrow < wide
