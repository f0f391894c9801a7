"""The page of the ledger: nothing is dropped, and the markup says what the rows say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from companion.book.building import ROOT, read
from companion.chapters.ch90 import (
    SECTION_TITLES,
    alterations_text,
    closest_text,
    counts_text,
    differing_table,
    differs_verdict,
    independent_text,
    ledger_facts,
    open_numbers_table,
    open_table,
    open_verdict,
    ours_text,
    rows_table,
    section_table,
    sections_without_heading,
    summary_table,
    tolerance_figure,
    tolerance_use,
    used_tolerance,
)
from companion.ledger.entries import _INPUTS, DIFFERS, NOT_ATTEMPTED, REPRODUCED, LedgerRow, to_frame

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
        assert f'section_table(ledger, "{section}", box_height)' in code


def test_rows_of_a_section(ledger: pd.DataFrame) -> None:
    table = section_table(ledger, "isoflop_power_laws", 20)
    heading, done, wrong, note = cells(table.markup)
    assert heading == ["xlstm <T=8192> notebook cell 5; 6 decimals"]
    assert done[:3] == ["exponent", "reproduced not independent", "0.547123"]
    assert done[3:] == ["0.5471234", "4.0e-07", "5.0e-07", "half a unit"]
    assert wrong[1] == "differs"
    assert note == ["a & b"]
    assert "max-height:20rem" in table.markup
    counts = "2 published numbers: 1 reproduced (1 of them from losses rebuilt with published fits), 1 differ."
    assert counts in table.markup


def test_a_note_that_all_numbers_share_is_written_once(ledger: pd.DataFrame) -> None:
    shared = cells(rows_table(ledger[ledger["verdict"] == DIFFERS], "differ").markup)
    assert len(shared) == 2
    assert shared[0] == ["IsoFLOP power laws: xlstm <T=8192> notebook cell 5; 6 decimals a & b"]


def test_what_is_not_attempted(ledger: pd.DataFrame) -> None:
    rows = cells(section_table(ledger, "inference_fits").markup)
    assert rows[0][0].startswith("all")
    assert rows[1][:6] == ["eps_s", "not attempted", "0.547123", "–", "–", "–"]
    assert open_table(ledger).to_numpy().tolist() == [["Inference fits", "eps_s", 2]]
    assert counts_text(ledger).startswith("4 published numbers")
    assert counts_text(ledger).endswith("2 not attempted")
    assert open_table(ledger[:2]).empty


def test_sections_and_rows_that_are_not_there(ledger: pd.DataFrame) -> None:
    assert "has no section parametric_fits" in section_table(ledger, "parametric_fits").markup
    assert rows_table(ledger[:0], "none").markup == "<p>None.</p>"


@pytest.mark.parametrize(
    ("value", "tolerance", "text"),
    [(0.5471234, 5e-7, "0.5471234"), (3.2407731e18, 5.1e15, "3.2408e+18"), (640.0, 1e-9, "640"), (0.0, 1.0, "0")],
)
def test_digits_of_ours(value: float, tolerance: float, text: str) -> None:
    assert ours_text(value, tolerance) == text


def test_figure(ledger: pd.DataFrame) -> None:
    [ax] = tolerance_use(ledger).axes
    reproduced, differs, limit = ax.get_lines()
    assert ax.get_xscale() == "log"
    assert np.asarray(reproduced.get_xdata()) == pytest.approx([0.8])
    assert np.asarray(differs.get_xdata()) == pytest.approx([100.0])  # at the edge
    assert list(limit.get_xdata()) == [1.0, 1.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["IsoFLOP power laws"]


def test_facts(ledger: pd.DataFrame) -> None:
    facts = ledger_facts(ledger)
    assert facts["c90_counts"] == counts_text(ledger)
    assert facts["c90_independent"] == "0"
    assert facts["c90_differs"] == "Of the 1 that differ, 1 have an explanation."
    assert facts["c90_use"] == facts["c90_use_most"] == "0.8"
    assert facts["c90_open"] == "2 numbers, 50 % of the ledger, are not attempted"
    assert used_tolerance(ledger).tolist() == pytest.approx([0.8])


def test_verdicts_without_differences_or_open_numbers(ledger: pd.DataFrame) -> None:
    assert differs_verdict(0, 0) == "None differs."
    assert open_verdict(0, 640).startswith("Nothing: every number")
    assert open_numbers_table(ledger[:2]) is None
    left = open_numbers_table(ledger)
    assert left is not None
    assert "Inference fits" in left.markup


def test_tables_of_the_whole_ledger(ledger: pd.DataFrame) -> None:
    summary = cells(summary_table([DONE, WRONG, OPEN, OPEN]).markup)
    assert summary[0] == ["IsoFLOP power laws", "1", "1", "1", "0"]
    assert "1 numbers that differ." in differing_table(ledger).markup
    assert "fig-ledger-tolerance" in tolerance_figure(ledger).markup
    assert sections_without_heading(ledger).endswith("none")
    assert sections_without_heading(ledger.assign(section="new")).endswith(": new")


def test_solutions(ledger: pd.DataFrame) -> None:
    row = ledger.iloc[0]
    assert closest_text(row, 0.8, 5e-7).splitlines()[-1] == "yes."
    assert closest_text(row, 0.8, 1e-7).splitlines()[-1].startswith("no, the rounding")
    lines = alterations_text({0: DONE, 10: WRONG}, 1e-6).splitlines()
    assert lines[0] == "0 units of the last digit: reproduced (tolerance 0.5 units)"
    assert lines[1].startswith("10 units of the last digit: differs")
    both = pd.concat([ledger, to_frame([replace(DONE, independent=True)])])
    assert independent_text(both, "isoflop_power_laws") == "xlstm: 1 of 2"
