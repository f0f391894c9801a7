"""The page of the ledger: nothing is dropped, and the markup says what the rows say."""

import ast
import inspect
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from companion.book.building import ROOT, read
from companion.chapters import ch90
from companion.chapters.ch90.facts import counts_text, differs_verdict, open_verdict, section_verdict, used_tolerance
from companion.chapters.ch90.figure import tolerance_use
from companion.chapters.ch90.tables import open_table, rows_table
from companion.chapters.ch90.words import (
    _NOTES,
    SECTION_TITLES,
    entry_words,
    note_words,
    ours_text,
    published_text,
    quantity_words,
    small_text,
    source_words,
    tolerance_parts,
    value_text,
)
from companion.ledger import load_published, sections
from companion.ledger.entries import (
    _INPUTS,
    _UNNAMED,
    DIFFERS,
    NOT_ATTEMPTED,
    REPRODUCED,
    LedgerRow,
    _entries,
    _label,
    published_numbers,
    to_frame,
)

DONE = LedgerRow(
    section="isoflop_power_laws",
    entry="xlstm <T=8192>",
    quantity="exponent",
    source="notebook cell 5",
    printed_digits="6 decimals",
    published=0.547123,
    ours=0.5471234,
    difference=4e-7,
    tolerance=5e-7,
    tolerance_reason="half a unit",
    independent=False,
    verdict=REPRODUCED,
    note="",
)
WRONG = replace(DONE, quantity="prefactor", ours=0.6, difference=0.05, verdict=DIFFERS, independent=True, note="a & b")
OPEN = replace(
    DONE,
    section="inference_fits",
    entry="",
    quantity="eps_s",
    ours=None,
    difference=None,
    tolerance=None,
    tolerance_reason="",
    independent=True,
    verdict=NOT_ATTEMPTED,
)


@pytest.fixture(scope="module")
def ledger() -> pd.DataFrame:
    return to_frame([DONE, WRONG, OPEN, OPEN])


def cells(markup: str) -> list[list[str]]:
    rows = BeautifulSoup(markup, "html.parser").select("tbody tr")
    return [[cell.get_text(" ", strip=True) for cell in row.find_all(["td", "th"])] for row in rows]


def test_every_section_has_a_title_and_a_heading_on_the_page() -> None:
    assert set(SECTION_TITLES) == set(_INPUTS)
    page = read(ROOT / "notebooks" / "90_ledger.md")
    prose = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in page.cells if cell.cell_type == "code")
    for section, title in SECTION_TITLES.items():
        assert f"### {title}\n" in prose, section
        assert f'ch90.section_table(ledger, "{section}", box_height)' in code


def test_rows_of_a_section(ledger: pd.DataFrame) -> None:
    table = ch90.section_table(ledger, "isoflop_power_laws", 20)
    heading, done, wrong, note = cells(table.markup)
    assert heading == ["xLSTM <T=8192> notebook cell 5; 6 decimals"]
    assert done[:3] == ["exponent", "reproduced not independent", "0.547123"]
    assert done[3:] == ["0.5471234", "4×10⁻⁷", "5×10⁻⁷"]
    assert wrong[1] == "differs"
    assert note == ["A & b."]
    assert "max-height:20rem" in table.markup
    assert "<p>1 of 2 are reproduced, 1 of them not independently; 1 differs.</p>" in table.markup


def test_a_note_that_all_numbers_share_is_written_once(ledger: pd.DataFrame) -> None:
    shared = cells(rows_table(ledger[ledger["verdict"] == DIFFERS], "differ").markup)
    assert len(shared) == 2
    assert shared[0] == ["IsoFLOP power laws: xLSTM <T=8192> notebook cell 5; 6 decimals A & b."]


def test_what_is_not_attempted(ledger: pd.DataFrame) -> None:
    rows = cells(ch90.section_table(ledger, "inference_fits").markup)
    assert rows[0][0].startswith("all numbers")
    assert rows[1] == ["ε (s)", "not attempted", "0.547123", "–", "–", "–"]
    assert open_table(ledger).to_numpy().tolist() == [["Inference fits", "ε (s)", 2]]
    assert counts_text(ledger).startswith("4 published numbers")
    assert counts_text(ledger).endswith("2 not attempted")
    assert open_table(ledger[:2]).empty


def test_sections_and_rows_that_are_not_there(ledger: pd.DataFrame) -> None:
    assert "has no section parametric_fits" in ch90.section_table(ledger, "parametric_fits").markup
    assert rows_table(ledger[:0], "none").markup == "<p>None.</p>"


@pytest.mark.parametrize(
    ("value", "tolerance", "text"),
    [(0.5471234, 5e-7, "0.5471234"), (3.2407731e18, 5.1e15, "3.2408×10¹⁸"), (640.0, 1e-9, "640"), (0.0, 1.0, "0")],
)
def test_digits_of_ours(value: float, tolerance: float, text: str) -> None:
    assert ours_text(value, tolerance) == text


@pytest.mark.parametrize(
    ("value", "ours", "text"),
    [
        (1890000.0, "1.8798×10⁶", "1.89×10⁶"),
        (235033896.0, "2.35035×10⁸", "2.35033896×10⁸"),
        (162340752.0, "164110224", "162340752"),
        (3.24e18, "3.2408×10¹⁸", "3.24×10¹⁸"),
        (-0.00025, "−2.5×10⁻⁴", "−2.5×10⁻⁴"),
    ],
)
def test_published_as_ours(value: float, ours: str, text: str) -> None:
    assert published_text(value, ours) == text


def test_numbers_as_text() -> None:
    assert value_text(1.07133934e10, 9) == "1.07133934×10¹⁰"
    assert value_text(-9.033738849) == "−9.033738849"
    assert [small_text(x) for x in (0.0, 0.00664, -3.14e-6, 10200.0)] == ["0", "0.0066", "−3.1×10⁻⁶", "10000"]


def test_parts_of_a_tolerance() -> None:
    assert tolerance_parts(0.547123, "6 decimals", 5e-7 + 4 * 3e-6 + 1e-12 * 0.547123) == "5×10⁻⁷ + 4 × 3×10⁻⁶"
    assert tolerance_parts(0.547123, "6 decimals", 5e-7 + 1e-12 * 0.547123) == ""
    assert tolerance_parts(162340752, "", 1e-12 * 162340752) == "exact"


def test_words_for_entries_and_numbers() -> None:
    """No identifier of the file is left where the page has a word."""
    for label, words in {
        "xlstm T=2048 isoflop_budget=6e+18 num_params": "xLSTM, T = 2048, 6×10¹⁸ FLOP, over N",
        "transformer T=8192 tokenparam (all ratios) huber_delta=0.001 fit_gamma=False": "Transformer, T = 8192, "
        "Token/Param runs (all ratios), δ = 0.001, γ = 1",
        "token_param_ratio=22 table_of_the_paper=True": "M = 22, in the table of the paper",
        "xlstm 2.7b ttft": "xLSTM 2.7B, time to first token",
        "num_params=1.4e+10": "N = 14.0B",
        "a reader's own": "a reader's own",
    }.items():
        assert entry_words(label) == words
    assert quantity_words("parabola_b_std") == "standard error of b"
    assert quantity_words("by_set.isoflop_ctx2048.xlstm") == "xLSTM runs, IsoFLOP, T = 2048"
    assert quantity_words("num_tokens_quantiles.25") == "D, 25th percentile"
    assert quantity_words("transformer.ttft_valid") == "Transformer, times to first token"
    assert quantity_words("new_number") == "new_number"
    assert source_words("notebooks/paper_plots/a-b.ipynb cell 8", "7 significant (copy)") == (
        "authors' notebook a-b, cell 8; 7 significant digits"
    )
    assert source_words("", "7-17") == "7–17 digits"
    assert (
        source_words("notebooks/a-1-2.ipynb cells 3-5", "2 decimals") == "authors' notebook a-1-2, cell 3–5; 2 decimals"
    )
    assert note_words("") == ""


def test_the_ledger_itself_is_in_words() -> None:
    """Labels and names as the ledger makes them, without computing any value."""
    names = set()
    for section, content in load_published().items():
        for _, entry in _entries(content) if section in _INPUTS else ():
            label = [_label(name, entry[name]) for name in _INPUTS[section] if name in entry and name not in _UNNAMED]
            names.add(entry_words(" ".join(label)))
            names |= {quantity_words(name) for name, _ in published_numbers(section, entry)}
    assert len(names) > 100
    allowed = re.compile("d_model|d_ff|distill_scaling")
    assert not {name for name in names if re.search(r"\w_\w|=\S|\*\*", allowed.sub("", name))}


def test_notes_in_other_words() -> None:
    """Every note that the page says in other words is one that the ledger writes."""
    strings = {
        node.value for node in ast.walk(ast.parse(inspect.getsource(sections))) if isinstance(node, ast.Constant)
    }
    written = "; ".join(value for value in strings if isinstance(value, str))
    assert _NOTES
    assert all(note in written for note in _NOTES)
    assert note_words("squares of Huber losses are summed") == "The squares of Huber losses are summed."


def test_figure(ledger: pd.DataFrame) -> None:
    [ax] = tolerance_use(ledger).axes
    alone, dependent, differs, limit = ax.get_lines()
    assert ax.get_xscale() == "log"
    assert len(np.asarray(alone.get_xdata())) == 0
    assert np.asarray(dependent.get_xdata()) == pytest.approx([0.8])
    assert dependent.get_markerfacecolor() == "none"
    assert np.asarray(differs.get_xdata()) == pytest.approx([100.0])  # at the edge
    assert list(limit.get_xdata()) == [1.0, 1.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["IsoFLOP power laws"]
    assert ax.xaxis.get_major_formatter()(100.0, 0) == "≥ 10²"


def test_facts(ledger: pd.DataFrame) -> None:
    facts = ch90.ledger_facts(ledger)
    assert facts["c90_counts"] == counts_text(ledger)
    assert (facts["c90_numbers"], facts["c90_reproduced"], facts["c90_independent"]) == ("4", "1", "0")
    assert facts["c90_differs"] == "One differs; for all of them the reason is known, and two are not attempted"
    assert facts["c90_use"] == facts["c90_use_most"] == "0.8"
    assert facts["c90_open"] == "2 numbers, 50 % of the ledger, are not attempted"
    assert used_tolerance(ledger).tolist() == pytest.approx([0.8])


def test_verdicts_without_differences_or_open_numbers(ledger: pd.DataFrame) -> None:
    assert differs_verdict(0, 0) == "None differs"
    assert differs_verdict(9, 7) == "Nine differ; for seven of them the reason is known"
    assert open_verdict(0, 640).startswith("No number is left: every number")
    assert section_verdict(ledger[:1]) == "All 1 numbers are reproduced, 1 of them not independently"
    assert section_verdict(ledger[2:]) == "0 of 2 are reproduced; 2 are not attempted"
    assert ch90.open_numbers_table(ledger[:2]) is None
    left = ch90.open_numbers_table(ledger)
    assert left is not None
    assert "Inference fits" in left.markup


def test_tables_of_the_whole_ledger(ledger: pd.DataFrame) -> None:
    summary = cells(ch90.summary_table([DONE, WRONG, OPEN, OPEN]).markup)
    assert summary[0] == ["IsoFLOP power laws", "2", "1", "0", "1", "0"]
    assert summary[-1] == ["all sections", "4", "1", "0", "1", "2"]
    assert "1 numbers that differ" in ch90.differing_table(ledger).markup
    assert "fig-ledger-tolerance" in ch90.tolerance_figure(ledger).markup
    assert ch90.sections_without_heading(ledger) is None
    assert str(ch90.sections_without_heading(ledger.assign(section="new"))).endswith(": new")


def test_counts_that_differ_are_exact(ledger: pd.DataFrame) -> None:
    size = replace(DONE, printed_digits="", published=162340752.0, ours=164110224.0, difference=1769472.0)
    [_, row] = cells(rows_table(to_frame([replace(size, tolerance=1.6e-4, verdict=DIFFERS)]), "sizes").markup)
    assert row[2:] == ["162340752", "164110224", "1769472", "exact"]


def test_solutions(ledger: pd.DataFrame) -> None:
    closest = dict(cells(ch90.closest_table(ledger).markup))
    assert closest["entry"] == "xLSTM <T=8192>"
    assert closest["difference over tolerance"] == "0.8"
    assert closest["reproduced with this half unit alone"] == "yes"
    coarse = ledger.assign(printed_digits="7 decimals")
    assert dict(cells(ch90.closest_table(coarse).markup))["reproduced with this half unit alone"] == "no"
    rows = cells(ch90.alterations_table({0: DONE, 10: WRONG}, 1e-6).markup)
    assert rows == [["0", "0.5", "reproduced"], ["10", "0.5", "differs"]]
    both = pd.concat([ledger, to_frame([replace(DONE, independent=True)])])
    assert cells(ch90.independent_table(both, "isoflop_power_laws").markup) == [["xLSTM", "2", "1"]]
