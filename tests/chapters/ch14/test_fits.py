"""Runtime models of the made-up records: what made them comes back; the authors' beside them; verdicts."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from html_tables import rows_of, text_of
from model_records import LAYER, SHARES, STEP_LAYER

from companion.chapters.ch14 import fits, size_fits
from companion.chapters.ch14.measured import Measured
from companion.hardware import get_hardware
from companion.inference.compare import measured_crossovers
from companion.inference.one_size import fit_inference
from companion.inference.runtime_model import RuntimeModel
from companion.inference.timings import load_paper_inference

H100 = get_hardware("h100-sxm")


@pytest.fixture(scope="module")
def ours(measured: Measured) -> fits.Models:
    models, notes = fits.fit_ours(measured, num_resamples=5)
    assert not notes
    return models


@pytest.fixture(scope="module")
def theirs() -> fits.Models:
    return fits.their_models(load_paper_inference(), H100, num_resamples=5)


def changed(models: fits.Models, name: str, quantity: str, term: str, factor: float) -> fits.Models:
    """The same models with one coefficient multiplied."""
    model: RuntimeModel = models[name, quantity]  # type: ignore[index]
    at = [each.name for each in model.terms].index(term)
    scale = np.where(np.arange(len(model.terms)) == at, factor, 1.0)
    return {**models, (name, quantity): replace(model, coefficients=model.coefficients * scale)}  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["transformer", "grouped", "xlstm", "hybrid"])
def test_what_made_the_times_comes_back(ours: fits.Models, measured: Measured, name: str) -> None:
    step = fits.coefficients(ours[name, "step_time"], measured.peaks).set_index("term")
    moved = [term for term in ("weight_bytes", "cache_bytes", "state_bytes") if term in step.index]
    assert step.loc[moved, "value"].to_numpy(dtype=float) == pytest.approx(SHARES["copy"], rel=1e-3)
    assert set(step.loc[moved, "unit"]) == {"%"}
    assert step.loc[["layers", "batched_layers"], "value"].to_numpy(dtype=float) == pytest.approx(
        1e6 * STEP_LAYER, rel=1e-2
    )
    first = fits.coefficients(ours[name, "ttft"], measured.peaks).set_index("term")
    products = "flops" if name == "xlstm" else "product_flops"
    assert first.loc[products, "value"] == pytest.approx(SHARES["products"], rel=0.02)
    assert first.loc["layers", "value"] == pytest.approx(1e6 * LAYER, rel=0.3)


def test_intervals_hold_their_values(ours: fits.Models, measured: Measured) -> None:
    for model in ours.values():
        table = fits.coefficients(model, measured.peaks).dropna()
        assert (table["low"] <= table["high"]).all()
        assert table["share"].sum() == pytest.approx(1)


def test_both_tables_side_by_side(ours: fits.Models, theirs: fits.Models, measured: Measured) -> None:
    for quantity, terms in (("ttft", 5 + 4), ("step_time", 5 + 5)):
        table = fits.show_terms(ours, theirs, measured, H100, quantity, ["transformer", "xlstm"])  # type: ignore[arg-type]
        rows = rows_of(table)
        assert len(rows) == terms, "the cache of waves and that of bytes share a row"
        assert list(rows[0]) == ["model", "term", "authors", "ours, of stated peaks", "ours, of measured peaks"]
    cache = next(row for row in rows if row["term"] == "cache")
    assert cache["authors"].endswith("ns")
    assert cache["ours, of measured peaks"].startswith("90 [")
    found = theirs["transformer", "step_time"].table().set_index("term").loc["weight_bytes", "rate"]
    weights = next(row for row in rows if row["term"] == "weights")
    assert weights["authors"].startswith(f"{100 * found / H100.peak_bytes_per_s:.0f} [")
    alone = fits.show_terms(ours, {}, measured, H100, "ttft", ["grouped", "hybrid"])
    assert "authors" not in text_of(alone).lower()


def test_a_device_without_stated_peaks(slower: Measured, theirs: fits.Models) -> None:
    models, notes = fits.fit_ours(slower, num_resamples=0)
    assert ("xlstm", "ttft") in models, "six pairs of size and batch are enough for its four terms"
    rows = rows_of(fits.show_terms(models, theirs, slower, H100, "ttft", ["xlstm"]))
    assert list(rows[0]) == ["model", "term", "authors", "ours, of measured peaks"]
    assert rows[-1]["ours, of measured peaks"].endswith("µs")
    assert "hybrid 7:1, step" in notes
    facts = fits.fit_facts(models, theirs, slower, H100, notes)
    assert str(facts["c14_fit_notes"]).startswith("Too few timings for a fit: ")
    assert "measured on ours" in str(facts["c14_whose_peaks"])


def test_crossovers_of_both(measured: Measured) -> None:
    authors = load_paper_inference()
    rows = rows_of(fits.show_both_crossovers(measured, authors))
    assert len(rows) == 8, "two quantities, and the sizes of both"
    table = measured_crossovers(authors, "ttft").set_index(["model_size", "batch_size"])
    crossing = float(table.loc[("7b", 1), "crossover"])  # type: ignore[arg-type]
    row = next(row for row in rows if (row["what"], row["size"]) == ("first token", "7b"))
    assert float(row["authors, B = 1"].replace(",", "")) == pytest.approx(crossing, rel=0.05)


class TestVerdicts:
    def test_gains(self, ours: fits.Models, theirs: fits.Models, measured: Measured) -> None:
        facts = fits.fit_facts(ours, theirs, measured, H100, [])
        share = SHARES["products"] * measured.peaks.peak_flops_per_s / H100.peak_flops_per_s
        assert float(str(facts["c14_products_ours"]).removesuffix(" %")) == pytest.approx(100 * share, abs=1)
        assert "larger share of the peak for the Transformer's products" in str(facts["c14_gain"])
        assert "smaller" not in str(facts["c14_gain"])
        assert facts["c14_cache_theirs"] == "not fitted", "its term is a latency"

    def test_losses(self, ours: fits.Models, theirs: fits.Models) -> None:
        slow = changed(ours, "xlstm", "ttft", "flops", 10.0)
        words = fits.gain_verdict(slow, theirs, H100, H100)
        assert "and a smaller one for the xLSTM's FLOPs" in words
        alone: Mapping = {("xlstm", "ttft"): slow["xlstm", "ttft"]}
        assert "ours reach a smaller share" in fits.gain_verdict(alone, theirs, H100, H100)
        assert fits.gain_verdict({}, theirs, H100, H100) == "Prefills cannot be compared"

    def test_overheads(self, ours: fits.Models, theirs: fits.Models) -> None:
        assert "avoid most of that" in fits.overhead_verdict(ours, theirs, H100)
        slow = changed(ours, "xlstm", "step_time", "layers", 10.0)
        assert "do not avoid most" in fits.overhead_verdict(slow, theirs, H100)
        assert "cannot be compared" in fits.overhead_verdict({}, theirs, H100)

    def test_bytes_or_waves(self, ours: fits.Models, measured: Measured, slower: Measured) -> None:
        assert fits.waves_verdict(ours, measured).startswith("Indeed the error of our fit is")
        poor = {
            **ours,
            ("transformer", "step_time"): replace(ours["transformer", "step_time"], log_residuals=np.ones(3)),
        }
        assert "bytes do not describe our steps better" in fits.waves_verdict(poor, measured)
        assert "cannot be said" in fits.waves_verdict(ours, slower)


class TestSizeFits:
    """The paper's form of single sizes."""

    @pytest.fixture(scope="class")
    @classmethod
    def found(cls, measured: Measured) -> size_fits.SizeFits:
        return size_fits.fit_sizes(measured, load_paper_inference(), num_resamples=5)

    def test_what_made_the_times_comes_back(self, found: size_fits.SizeFits, measured: Measured) -> None:
        # the made-up cache is read at 0.9 of the copy; steps of several sequences have no cost per sequence
        cell = size_fits.share_text(found["ours", "transformer", "step_time", "7b"], "step_time", measured.peaks)
        assert cell.startswith("90 [")
        prefill = size_fits.share_text(found["ours", "xlstm", "ttft", "7b"], "ttft", measured.peaks)
        assert abs(float(prefill.split()[0]) - 100 * SHARES["products"]) < 2

    def test_table_and_facts(self, found: size_fits.SizeFits, measured: Measured) -> None:
        rows = rows_of(size_fits.show_size_fits(found, measured, H100))
        assert len(rows) == 3 * 4
        facts = size_fits.size_fit_facts(found, measured, H100, "7b")
        row = next(row for row in rows if (row["model"], row["size"]) == ("xLSTM", "7b"))
        assert facts["c14_one_xlstm_ttft_theirs"] == row["authors"]
        theirs = fit_inference(load_paper_inference(), "xlstm", "7b", "ttft", num_resamples=0)
        share = theirs.parameters["alpha_eff_flops_per_s"] / H100.peak_flops_per_s
        assert row["authors"].startswith(f"{100 * share:.0f} [")

    def test_what_was_not_timed_is_a_dash(self, measured: Measured) -> None:
        assert size_fits.share_text(None, "ttft", H100) == "–"
        alone = replace(measured, architectures={("xlstm", "7b"): measured.architectures["xlstm", "7b"]})
        found = size_fits.fit_sizes(alone, load_paper_inference(), num_resamples=0)
        assert {name for _, name, _, _ in found} == {"xlstm"}
        assert len(rows_of(size_fits.show_size_fits(found, alone, H100))) == 1
