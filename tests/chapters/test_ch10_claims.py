"""Times that others report: as the source prints them, beside ours of as large a state, and never as a ranking."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from companion.benchmarks.kernels.other_cells import GATED_DELTA_RULE, GATED_DELTA_RULE_NAME
from companion.benchmarks.kernels.results import Timings, load_timings
from companion.chapters.ch10 import claims
from companion.errors import InputError
from companion.paths import data_dir


@pytest.fixture(scope="module")
def timings() -> Timings:
    return load_timings(data_dir() / "benchmarks" / "kernels.jsonl", "NVIDIA H200")


def plain(markup: str) -> str:
    return markup.replace("\N{NO-BREAK SPACE}", " ").replace("<wbr/>", "")


def test_the_claim_of_flashqla() -> None:
    """Its file prints 0.877 ms forward and 2.515 ms backward for one sequence of 32,768 tokens, 16 and 32 heads."""
    found = claims.load_claims()
    (one,) = found[(found["library"] == "FlashQLA") & (found["context_length"] == 32768)].to_dict("records")
    assert (one["forward"], one["backward"]) == (0.877e-3, 2.515e-3)
    assert (one["key_heads"], one["value_heads"], one["d_qk"], one["d_hv"]) == (16, 32, 128, 128)
    assert found["source"].str.startswith("https://github.com/QwenLM/FlashQLA/blob/").all()
    assert (found["reported_by"] == "authors of FlashQLA").all()
    words = claims.claims_facts(found)["c10_claim"]
    assert words == (
        "The authors of FlashQLA report 3.39 ms for both passes (0.877 ms forward and 2.515 ms backward) of 32,768 "
        "tokens on NVIDIA H200, with 16 heads of queries and keys and 32 of values, 128 wide"
    )
    assert claims.claims_facts(found, "nobody") == {"c10_claim": "No figure of nobody is on file"}


def test_beside_ours_of_as_large_a_state(timings: Timings) -> None:
    found = claims.load_claims()
    rows = claims.rows_beside(timings, found)
    assert set(rows["heads"]) == {"16 × (128, 256)"}, "as many numbers as 32 × (128, 128)"
    assert set(rows["context_length"]) == {8192, 32768}
    ours = rows[rows["name"] == "ours"]
    assert (ours["both"] > ours["forward"]).all()
    markup = plain(claims.show_claims(timings, found).markup)
    assert markup.index("FlashQLA 0.1.2, as reported") < markup.index("ours, timed here")
    assert "No ranking" in markup
    assert ">3.392<" in markup
    assert ">–<" in markup, "FlashInfer has no backward pass"


def test_the_other_cell_as_we_timed_it(timings: Timings) -> None:
    """With its own name and cell; a GPU that no claim is of has no rows of ours."""
    mine = timings.table[(timings.table["implementation"] == "companion") & (timings.table["context_length"] == 8192)]
    other = mine.assign(implementation=GATED_DELTA_RULE_NAME, computation=GATED_DELTA_RULE)
    both = replace(timings, table=pd.concat([mine, other], ignore_index=True))
    found = claims.load_claims()
    rows = claims.rows_beside(both, found)
    assert list(rows["cell"]) == ["mLSTM", "gated delta rule"]
    assert "gated_delta_rule (another cell), L = 64, timed here" in plain(claims.show_claims(both, found).markup)
    elsewhere = replace(timings, peaks=replace(timings.peaks, label="another GPU"))
    assert claims.rows_beside(elsewhere, found).empty
    markup = claims.show_claims(elsewhere, found).markup
    assert "timed here" not in markup
    assert "what we timed" not in markup


def test_files_that_are_no_claims(tmp_path: Path) -> None:
    path = tmp_path / "claims.csv"
    with pytest.raises(InputError, match=r"claims\.csv"):
        claims.load_claims(path)
    path.write_text("library,cell\na,b\n", encoding="utf-8")
    with pytest.raises(InputError, match="no column version, pass"):
        claims.load_claims(path)
