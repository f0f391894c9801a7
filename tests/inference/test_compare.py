"""Crossovers: known answers, limits, and consistency between what is compared and what it is made of."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.accounting.inference import count_prefill, count_step
from companion.architectures import preset
from companion.errors import InputError
from companion.fitting.fit import fit
from companion.inference.compare import (
    Comparison,
    Trained,
    at_equal_compute,
    at_equal_loss,
    compare_trained,
    crossover,
    measured_crossovers,
    seconds,
    size_crossovers,
)
from companion.inference.runtime_model import RuntimeModel, paper_runtime_model
from companion.inference.timings import load_paper_inference
from companion.laws import LossSurface
from companion.runs.load import load_paper_runs
from companion.runs.select import subset
from companion.runs.shape_family import FamilyScale, paper_family

NAMES = ("xlstm", "transformer")
CONTEXTS = [128, 1024, 8192, 65536]


@pytest.fixture(scope="module")
def timings() -> pd.DataFrame:
    return load_paper_inference()


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str], RuntimeModel]:
    return {(name, q): paper_runtime_model(name, q) for name in NAMES for q in ("ttft", "step_time")}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def laws() -> tuple[dict, dict, dict]:  # type: ignore[type-arg]
    runs = load_paper_runs()
    fits = {name: fit(LossSurface, subset(runs, name, 8192)) for name in NAMES}
    bootstraps = {name: fits[name].bootstrap(60) for name in NAMES}
    scales = {name: FamilyScale(family=paper_family(name), context_length=8192) for name in NAMES}
    return fits, bootstraps, scales


@pytest.fixture(scope="module")
def trained(laws: tuple) -> dict[str, Trained]:  # type: ignore[type-arg]
    return at_equal_loss(*laws, 2.5)


@pytest.fixture(scope="module")
def comparison(trained: dict[str, Trained], models: dict[tuple[str, str], RuntimeModel]) -> Comparison:
    return compare_trained(trained, models, CONTEXTS, 4)


class TestCrossover:
    def test_between_the_contexts_in_logarithms(self) -> None:
        assert crossover([100, 10_000], [0.5, 2.0]) == pytest.approx(1000)
        assert crossover([100, 10_000], [0.25, 2.0]) == pytest.approx(100 * 100 ** (2 / 3))

    def test_sentinels(self) -> None:
        assert crossover([100, 200], [1.5, 2.0]) == 0
        assert crossover([100, 200], [0.5, 0.9]) == np.inf
        assert crossover([100, 200], [2.0, 1.0]) == np.inf, "equal is not faster"
        assert np.isnan(crossover([100, 200], [np.nan, 2.0]))

    def test_the_last_crossing_counts(self) -> None:
        assert crossover([1, 10, 100, 1000], [0.5, 2.0, 0.5, 2.0]) == pytest.approx(10**2.5)

    @given(st.floats(10, 1e6), st.floats(0.1, 3))
    def test_power_laws_cross_where_they_do(self, at: float, slope: float) -> None:
        contexts = np.geomspace(1, 1e7, 15)
        assert crossover(contexts, (contexts / at) ** slope) == pytest.approx(at, rel=1e-9)

    def test_columns_are_independent(self) -> None:
        ratio = np.array([[0.5, 2.0, np.nan], [2.0, 3.0, 1.0]])
        found = crossover([100, 10_000], ratio)
        assert found[:2].tolist() == pytest.approx([1000, 0])
        assert np.isnan(found[2])

    @pytest.mark.parametrize("contexts", [[], [2, 1], [1, 1], [0, 1]])
    def test_contexts_must_rise(self, contexts: list[float]) -> None:
        with pytest.raises(InputError, match="do not rise from above 0"):
            crossover(contexts, np.ones(len(contexts)))


class TestMeasured:
    def test_by_hand(self, timings: pd.DataFrame) -> None:
        rows = timings[(timings["model_size"] == "7b") & (timings["batch_size"] == 1) & (timings["prefill_length"] > 0)]
        times = {name: part.set_index("prefill_length")["ttft_s"] for name, part in rows.groupby("architecture")}
        ratio = (times["transformer"] / times["xlstm"]).dropna()
        found = measured_crossovers(timings, "ttft").query("model_size == '7b' and batch_size == 1").iloc[0]
        assert found["num_contexts"] == len(ratio) == 9
        assert found["ratio_at_longest"] == pytest.approx(ratio[16384])
        below = ratio[ratio < 1].index[-1]
        above = ratio[ratio.index > below].index[0]
        assert below < found["crossover"] < above

    def test_the_paper_s_statement_at_16k(self, timings: pd.DataFrame) -> None:
        """arXiv 2510.02228: 30 to 50 % lower time to first token at a prompt of 16k and the same size."""
        found = measured_crossovers(timings, "ttft").query("batch_size == 1")
        assert (found["longest"] == 16384).all()
        lower = 1 - 1 / found["ratio_at_longest"]
        assert lower.between(0.3, 0.5).all()

    def test_steps_are_faster_at_every_timed_context(self, timings: pd.DataFrame) -> None:
        found = measured_crossovers(timings, "step_time")
        assert (found["crossover"] == 0).all()
        assert found["shortest"].min() == 51, "half-way through the generation, without a prompt"

    def test_one_context_is_no_curve(self, timings: pd.DataFrame) -> None:
        assert measured_crossovers(timings[timings["prefill_length"] == 128], "ttft").empty

    def test_the_other_way_round(self, timings: pd.DataFrame) -> None:
        there = measured_crossovers(timings, "ttft")
        back = measured_crossovers(timings, "ttft", first="transformer", second="xlstm")
        np.testing.assert_allclose(back["ratio_at_longest"], 1 / there["ratio_at_longest"])

    def test_missing_architecture(self, timings: pd.DataFrame) -> None:
        with pytest.raises(InputError, match="no rows with architecture mamba"):
            measured_crossovers(timings, "ttft", first="mamba")


class TestSeconds:
    def test_roofline_and_runtime_model(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        model = preset("transformer", "7b")
        assert seconds("ttft", model, 4096) == count_prefill(model, 4096).roofline("h100-sxm").seconds
        assert seconds("step_time", model, 4096, 8, hardware="h200-sxm") == (
            count_step(model, 4096, 8).roofline("h200-sxm").seconds
        )
        timed = seconds("step_time", model, 4096, 8, model=models["transformer", "step_time"])
        assert timed == models["transformer", "step_time"].predict(model, 4096, 8)

    def test_no_kernel_beats_the_roofline(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        for (name, quantity), model in models.items():
            for size in ("160m", "7b"):
                for batch in (1, 32):
                    shapes, contexts = preset(name, size), np.array([128, 2048, 16384])
                    fast = seconds(quantity, shapes, contexts, batch)  # type: ignore[arg-type]
                    assert (seconds(quantity, shapes, contexts, batch, model=model) > fast).all()  # type: ignore[arg-type]


def test_size_crossovers(timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
    contexts = np.geomspace(64, 2**17, 40).round()
    found = size_crossovers(timings, models, "step_time", [1, 8], contexts)
    assert len(found) == 6 * 2 * 2
    assert (found.loc[found["method"] == "measured", "crossover"] == 0).all()
    row = found.query("model_size == '7b' and batch_size == 8 and method == 'roofline'").iloc[0]
    at = round(row["crossover"])
    pair = {name: preset(name, "7b") for name in NAMES}  # the sizes that are timed
    before, after = (
        seconds("step_time", pair["transformer"], T, 8) / seconds("step_time", pair["xlstm"], T, 8)
        for T in (at // 2, at * 2)
    )
    assert before < 1 < after


class TestTrained:
    def test_equal_loss_is_equal(self, trained: dict[str, Trained], laws: tuple) -> None:  # type: ignore[type-arg]
        for name, model in trained.items():
            law = laws[0][name].law
            assert law.predict(model.best.num_params[0], model.best.num_tokens[0]) == pytest.approx(2.5, abs=1e-9)
            low, high = model.interval("num_params")
            assert low < model.best.num_params[0] < high
            assert not model.extrapolated

    def test_equal_compute_is_equal(self, laws: tuple) -> None:  # type: ignore[type-arg]
        models = at_equal_compute(*laws, 1e21)
        for model in models.values():
            cost = model.scale.train_flops(model.best.num_params, model.best.tokens_per_param)
            assert cost == pytest.approx(1e21, rel=1e-9)
        assert models["xlstm"].best.loss[0] < models["transformer"].best.loss[0]
        assert models["xlstm"].best.num_params[0] > models["transformer"].best.num_params[0]

    def test_far_models_are_extrapolated(self, laws: tuple) -> None:  # type: ignore[type-arg]
        assert at_equal_compute(*laws, 1e23)["xlstm"].extrapolated

    def test_loss_that_no_law_reaches(self, laws: tuple) -> None:  # type: ignore[type-arg]
        with pytest.raises(InputError, match="loss 1 is never reached"):
            at_equal_loss(*laws, 1.0)


class TestComparison:
    def test_rows(self, comparison: Comparison) -> None:
        kinds = comparison.table.groupby(["quantity", "method"], sort=False).size()
        assert kinds.to_dict() == {
            ("ttft", "measured"): 4,
            ("ttft", "roofline"): 4,
            ("step_time", "measured"): 4,
            ("step_time", "roofline"): 4,
            ("memory", "count"): 4,
        }
        assert (comparison.first, comparison.second) == NAMES

    def test_values_are_those_of_the_models(
        self, comparison: Comparison, trained: dict[str, Trained], models: dict[tuple[str, str], RuntimeModel]
    ) -> None:
        shapes = trained["transformer"].scale.family.shapes(trained["transformer"].best.d_model[0])
        row = comparison.table.query(
            "quantity == 'step_time' and method == 'measured' and context_length == 8192"
        ).iloc[0]
        assert row["second"] == pytest.approx(models["transformer", "step_time"].predict(shapes, 8192, 4))
        row = comparison.table.query("quantity == 'memory' and context_length == 8192").iloc[0]
        assert row["second"] == pytest.approx(count_step(shapes, 8192, 4).memory.total)
        np.testing.assert_allclose(comparison.table["ratio"], comparison.table["second"] / comparison.table["first"])

    def test_intervals_surround_the_values(self, comparison: Comparison) -> None:
        for name in ("first", "second", "ratio"):
            assert (comparison.table[f"{name}_low"] < comparison.table[f"{name}_high"]).all()
            inside = comparison.table[name].between(comparison.table[f"{name}_low"], comparison.table[f"{name}_high"])
            assert inside.mean() > 0.9

    def test_measured_ratios_are_less_certain_than_counted_ones(self, comparison: Comparison) -> None:
        """Counts vary with the laws only; runtime models add residuals, drawn independently for both architectures."""
        table = comparison.table.query("quantity == 'ttft'")
        width = np.log(table["ratio_high"] / table["ratio_low"]).groupby(table["method"]).mean()
        assert width["measured"] > width["roofline"] > 0

    def test_crossovers(self, comparison: Comparison) -> None:
        for row in comparison.crossovers.to_dict("records"):
            part = comparison.table.query("quantity == @row['quantity'] and method == @row['method']")
            assert row["crossover"] == pytest.approx(crossover(part["context_length"], part["ratio"]))
            assert row["crossover_low"] <= row["crossover"] <= row["crossover_high"]
            assert row["ratio_at_longest"] == part["ratio"].iloc[-1]

    def test_the_same_seed_gives_the_same(
        self, trained: dict[str, Trained], models: dict[tuple[str, str], RuntimeModel], comparison: Comparison
    ) -> None:
        again = compare_trained(trained, models, CONTEXTS, 4)
        pd.testing.assert_frame_equal(again.table, comparison.table)
        other = compare_trained(trained, models, CONTEXTS, 4, seed=1)
        assert not other.table["ratio_low"].equals(comparison.table["ratio_low"])
        assert other.table["ratio"].equals(comparison.table["ratio"])

    def test_bad_input(self, trained: dict[str, Trained], models: dict[tuple[str, str], RuntimeModel]) -> None:
        with pytest.raises(InputError, match="comparison: no model of transformer; there are xlstm"):
            compare_trained({"xlstm": trained["xlstm"]}, models, CONTEXTS)
        with pytest.raises(InputError, match="hardware 'tpu' is not known"):
            compare_trained(trained, models, CONTEXTS, hardware="tpu")
        with pytest.raises(InputError, match="batch_size: 0"):
            compare_trained(trained, models, CONTEXTS, 0)
        with pytest.raises(InputError, match="do not rise"):
            compare_trained(trained, models, [2048, 512])
