"""Ratios of the authors' timings and of ours, for chapter 8."""

import numpy as np
import pytest
from html_tables import text_of

from companion.chapters.ch14 import ratios
from companion.chapters.ch14.measured import Measured
from companion.errors import NotApplicable
from companion.inference.timings import load_paper_inference


def test_the_authors_ratio_by_hand() -> None:
    authors = load_paper_inference()
    rows = authors[(authors["model_size"] == "7b") & (authors["batch_size"] == 1) & (authors["prefill_length"] == 4096)]
    times = rows.groupby("architecture")["ttft_s"].mean()
    ratio = ratios.authors_ratio(authors, "ttft", "7b", 1)
    assert ratio[4096] == pytest.approx(times["transformer"] / times["xlstm"])
    assert ratio.index.is_monotonic_increasing
    assert ratios.authors_ratio(authors, "ttft", "13b", 1).empty


def test_our_ratio_and_facts(measured: Measured) -> None:
    sides = [measured.at("step", model, "7b", 16384) for model in ("grouped", "xlstm")]
    expected = sides[0]["seconds_median"] / sides[1]["seconds_median"]  # type: ignore[index]
    assert ratios.own_ratio(measured, "step_time", "7b", 1, "grouped")[16384] == expected
    assert 0 not in ratios.own_ratio(measured, "step_time", "7b", 1).index
    facts = ratios.own_ratio_facts(measured, load_paper_inference(), "7b")
    assert facts["c8_own_step_grouped"] == f"{expected:.2f}"
    theirs = ratios.authors_ratio(load_paper_inference(), "ttft", "7b", 1)
    low, high = theirs[theirs.index <= 16384].iloc[-1], theirs[theirs.index >= 16384].iloc[0]
    assert min(low, high) - 0.01 <= float(str(facts["c8_own_first_theirs"])) <= max(low, high) + 0.01
    assert np.isfinite(float(str(facts["c8_own_step_ours"])))


def test_figure_and_a_size_that_was_not_timed(measured: Measured) -> None:
    authors = load_paper_inference()
    assert "ours, grouped heads" in text_of(ratios.show_own_ratios(measured, authors, "7b"))
    with pytest.raises(NotApplicable, match=r"our records have no 2\.7b; there are 160m, 400m, 1\.4b, 7b"):
        ratios.show_own_ratios(measured, authors, "2.7b")
