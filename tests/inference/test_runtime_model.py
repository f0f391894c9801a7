"""One model of all sizes: known coefficients come back, waves jump, other hardware scales, doubts spread."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from companion.architectures import preset
from companion.errors import InputError
from companion.hardware import get_hardware
from companion.inference.features import features, features_of_rows, split_terms, terms_of
from companion.inference.runtime_model import RuntimeModel, fit_runtime_model, paper_runtime_model
from companion.inference.timings import COLUMNS, Quantity, load_paper_inference, model_of
from companion.runs.shape_family import paper_family

KINDS = [(name, quantity) for quantity in ("ttft", "step_time") for name in ("transformer", "xlstm")]
H100 = get_hardware("h100-sxm")


@pytest.fixture(scope="module")
def timings() -> pd.DataFrame:
    return load_paper_inference()


@pytest.fixture(scope="module")
def models(timings: pd.DataFrame) -> dict[tuple[str, str], RuntimeModel]:
    return {kind: fit_runtime_model(timings, *kind, num_resamples=100) for kind in KINDS}  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_known_coefficients_come_back(timings: pd.DataFrame, kind: tuple[str, str]) -> None:
    architecture, quantity = kind
    truth = {"compute": 1 / 4e14, "memory": 1 / 3e12, "latency": 4e-8, "fixed": 5e-5}
    rows = timings[(timings["architecture"] == architecture) & timings[COLUMNS[quantity]].notna()]
    rows = rows[rows["prefill_length"] > 0].copy()
    expected = []
    for i, term in enumerate(terms_of(*kind)):
        scale = 1e4 if term.unit == "token·layer" else 1.0
        expected.append(truth[term.kind] * scale * (1 + 0.1 * i))
    times = []
    for _, row in rows.iterrows():
        context = row["prefill_length"] + (0 if quantity == "ttft" else (row["generation_length"] + 1) // 2)
        sizes = features(quantity, model_of(row), context, row["batch_size"])  # type: ignore[arg-type]
        times.append(sum(c * sizes[term.name] for c, term in zip(expected, terms_of(*kind), strict=True)))
    rows[COLUMNS[quantity]] = times
    model = fit_runtime_model(rows, architecture, quantity, num_resamples=20)  # type: ignore[arg-type]
    np.testing.assert_allclose(model.coefficients, expected, rtol=1e-6)
    assert model.rms_log_error < 1e-8
    assert model.table()["identified"].all()


class TestPaperTimings:
    def test_terms_describe_the_times(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        for kind, model in models.items():
            assert model.rms_log_error < 0.11, kind
            table = model.table()
            assert table["share"].sum() == pytest.approx(1)
            assert list(table["term"]) == [term.name for term in terms_of(*kind)]
            ordered = table[table["identified"]]
            assert (ordered["rate_low"] <= ordered["rate"]).all()
            assert (ordered["rate"] <= ordered["rate_high"]).all()

    def test_without_waves_the_step_times_of_the_transformer_are_not_described(self, timings: pd.DataFrame) -> None:
        def rms(number: int) -> float:
            hardware = replace(H100, num_multiprocessors=number)
            return fit_runtime_model(
                timings, "transformer", "step_time", hardware=hardware, num_resamples=0
            ).rms_log_error

        assert rms(1) > 0.3, "one multiprocessor: time proportional to all heads, as bytes would be"
        assert rms(132) < 0.1
        assert min(rms(108), rms(114), rms(127)) > 0.13, "128 heads fit one wave"
        assert rms(192) > rms(132)

    def test_bandwidths_are_those_of_the_device(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        table = models["xlstm", "step_time"].table().set_index("term")
        assert 0.8 < table.loc["weight_bytes", "rate"] / H100.peak_bytes_per_s < 1

    def test_parts_add_up_to_the_prediction(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        for (architecture, _), model in models.items():
            shapes, contexts = preset(architecture, "1.4b"), np.array([128, 4096])
            parts = model.parts(shapes, contexts, 8)
            np.testing.assert_allclose(sum(parts.values()), model.predict(shapes, contexts, 8))
            assert all((np.asarray(value) >= 0).all() for value in parts.values())

    def test_xlstm_steps_do_not_know_the_context(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        model, shapes = models["xlstm", "step_time"], preset("xlstm", "7b")
        assert model.predict(shapes, 100, 8) == model.predict(shapes, 100_000, 8)


class TestHardware:
    def test_the_same_hardware_changes_nothing(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        for (architecture, _), model in models.items():
            shapes = preset(architecture, "400m")
            assert model.predict(shapes, 512, 4, "h100-sxm") == model.predict(shapes, 512, 4)

    def test_compute_and_memory_scale_with_their_peaks(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        fast = replace(H100, peak_flops_per_s=2 * H100.peak_flops_per_s, peak_bytes_per_s=4 * H100.peak_bytes_per_s)
        factor = {"compute": 0.5, "memory": 0.25, "latency": 1.0, "fixed": 1.0}
        for (architecture, _), model in models.items():
            shapes = preset(architecture, "400m")
            before, after = model.parts(shapes, 512, 4), model.parts(shapes, 512, 4, fast)
            for term in model.terms:
                assert after[term.name] == pytest.approx(factor[term.kind] * before[term.name])

    def test_fewer_multiprocessors_make_more_waves(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        model, shapes = models["transformer", "step_time"], preset("transformer", "400m")
        few = replace(H100, num_multiprocessors=66)
        ratio = model.parts(shapes, 4096, 8, few)["cache_waves"] / model.parts(shapes, 4096, 8)["cache_waves"]
        assert ratio == pytest.approx(2)


class TestSamples:
    def test_shape_center_and_spread(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        model, shapes = models["transformer", "ttft"], preset("transformer", "7b")
        contexts = np.array([512, 4096, 16384])
        plain, full = (model.samples(shapes, contexts, 1, scatter=scatter) for scatter in (False, True))
        assert plain.shape == full.shape == (100, 3)
        np.testing.assert_allclose(np.median(plain, axis=0), model.predict(shapes, contexts, 1), rtol=0.03)
        spread = np.log(full).std(axis=0)
        assert (spread > np.log(plain).std(axis=0)).all()
        np.testing.assert_allclose(spread, model.log_residuals.std(), rtol=0.35)

    def test_paired_is_the_diagonal(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        model = models["xlstm", "step_time"]
        shapes = paper_family("xlstm").shapes(np.geomspace(512, 4096, 100))
        full = model.samples(shapes, 2048, 4, scatter=False)
        assert full.shape == (100, 100)
        np.testing.assert_allclose(model.samples(shapes, 2048, 4, scatter=False, paired=True), np.diagonal(full))

    def test_most_measurements_lie_in_the_interval(self, timings: pd.DataFrame) -> None:
        model, inside = paper_runtime_model("xlstm", "step_time"), []
        rows = timings[(timings["architecture"] == "xlstm") & timings["step_time_s"].notna()]
        for _, row in rows[rows["prefill_length"] > 0].iloc[::10].iterrows():
            samples = model.samples(model_of(row), row["prefill_length"] + 51, row["batch_size"])
            low, high = np.quantile(samples, [0.025, 0.975])
            inside.append(low <= row["step_time_s"] <= high)
        assert 0.85 < np.mean(inside) <= 1


class TestOutside:
    def test_inside_says_nothing(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        assert models["transformer", "ttft"].outside(4e8, 4096, 8) == []

    def test_every_way_out_is_named(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        ttft, step = models["transformer", "ttft"], models["transformer", "step_time"]
        assert "num_params 7e+10 is outside the timed" in ttft.outside(7e10, 4096, 8)[0]
        assert [told.split(": ")[1].split(" is")[0] for told in ttft.outside(4e8, 131072, 16)] == [
            "prompt 1.311e+05", "tokens in a batch 2.097e+06",
        ]  # fmt: skip
        assert "context 1.311e+05" in step.outside(4e8, np.array([512, 131072]), 1)[0]
        assert any("batch_size 4096" in told for told in ttft.outside(4e8, 128, 4096))


class TestOwnTables:
    def test_without_num_params(self, timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
        model = fit_runtime_model(timings.drop(columns="num_params"), "xlstm", "ttft", num_resamples=0)
        np.testing.assert_allclose(model.coefficients, models["xlstm", "ttft"].coefficients)
        assert not model.table()["identified"].any(), "no resamples, no intervals"

    def test_a_term_that_never_occurs_is_zero(self, timings: pd.DataFrame) -> None:
        model = fit_runtime_model(timings[timings["batch_size"] == 1], "xlstm", "step_time", num_resamples=20)
        table = model.table().set_index("term")
        assert np.isinf(table.loc["batched_layers", "rate"])
        assert not table.loc["batched_layers", "identified"]
        assert np.isfinite(model.coefficients).all()

    def test_names_of_sizes_do_not_matter(
        self, timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]
    ) -> None:
        model = fit_runtime_model(timings.assign(model_size="mine"), "xlstm", "step_time", num_resamples=0)
        np.testing.assert_allclose(model.coefficients, models["xlstm", "step_time"].coefficients)

    def test_bad_input(self, timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
        few = timings[(timings["model_size"] == "7b") & (timings["batch_size"] < 4)]
        with pytest.raises(InputError, match="2 pairs of size and batch for 5 terms; at least 6 are needed"):
            fit_runtime_model(few, "transformer", "step_time")
        with pytest.raises(InputError, match="hardware 'tpu' is not known"):
            fit_runtime_model(timings, "xlstm", "ttft", hardware="tpu")
        with pytest.raises(InputError, match="runtime model of xlstm: the model is a transformer"):
            models["xlstm", "ttft"].predict(preset("transformer", "7b"), 128, 1)
        with pytest.raises(InputError, match="batch_size: 0 is not a positive whole number"):
            models["xlstm", "ttft"].predict(preset("xlstm", "7b"), 128, 0)


@pytest.mark.parametrize("quantity", ["ttft", "step_time"])
def test_known_coefficients_of_a_hybrid_come_back(quantity: Quantity) -> None:
    shapes = {"attention_every": 8, "attention_heads": 8, "n_kv_heads": 2}
    truth = {"compute": 1 / 4e14, "memory": 1 / 3e12, "fixed": 5e-5}
    rows = []
    for width, layers in ((256, 8), (512, 16), (512, 24), (1024, 16)):
        for batch in (1, 8, 64):
            for prompt in (512, 4096, 32768):
                rows.append({"architecture": "xlstm", "model_size": f"{width} {layers}", "d_model": width} | shapes)
                rows[-1] |= {"n_layers": layers, "n_heads": 4, "d_ff": 3 * width, "batch_size": batch}
                rows[-1] |= {"prefill_length": prompt, "generation_length": 1}
    table = pd.DataFrame(rows)
    terms = split_terms(model_of(table.iloc[0]), quantity)
    expected = [
        truth[term.kind] * (1e4 if term.unit == "token·layer" else 1.0) * (1 + 0.1 * i) for i, term in enumerate(terms)
    ]
    design = features_of_rows(table, terms, quantity, H100, split_cache=True)
    table[COLUMNS[quantity]] = design @ expected
    model = fit_runtime_model(table, "xlstm", quantity, num_resamples=20, split_cache=True)
    assert model.terms == terms
    np.testing.assert_allclose(model.coefficients, expected, rtol=1e-6)
    hybrid = model_of(table.iloc[-1])
    context = 32768 if quantity == "ttft" else 32769
    assert model.predict(hybrid, context, 64) == pytest.approx(table[COLUMNS[quantity]].iloc[-1])
