"""The paper's runtime model: known coefficients come back, free directions are found, published rows are near."""

import numpy as np
import pandas as pd
import pytest

from companion.accounting import PAPER
from companion.accounting.flops import forward_flops
from companion.accounting.inference import cache_numbers
from companion.architectures import make_architecture
from companion.errors import InputError
from companion.inference.one_size import (
    PARAMETERS,
    design_of,
    fit_inference,
    free_columns,
    generation_bytes,
    prefill_flops,
    solve_times,
)
from companion.inference.timings import (
    load_paper_inference,
    measured,
    middle_context,
)
from companion.ledger.entries import load_published


@pytest.fixture(scope="module")
def timings() -> pd.DataFrame:
    return load_paper_inference()


def simulated(
    timings: pd.DataFrame, architecture: str, quantity: str, truth: list[float], noise: float
) -> pd.DataFrame:
    """The paper's 400M rows with times of known coefficients."""
    rows = measured(timings, architecture, quantity, "400m").copy()  # type: ignore[arg-type]
    times = design_of(rows, quantity) @ np.array(truth)  # type: ignore[arg-type]
    column = {"ttft": "ttft_s", "step_time": "step_time_s"}[quantity]
    return rows.assign(**{column: times * np.exp(np.random.default_rng(0).normal(0, noise, len(rows)))})


class TestDesign:
    def test_flops_and_bytes_by_hand(self, timings: pd.DataFrame) -> None:
        rows = timings[(timings["model_size"] == "160m") & (timings["batch_size"] == 4)]
        row = rows[(rows["architecture"] == "transformer") & (rows["prefill_length"] == 512)]
        model = make_architecture("transformer", d_model=768, n_layers=12, n_heads=12)
        forward = forward_flops(model, 512.0, PAPER)
        assert prefill_flops(row) == pytest.approx([4 * (forward.total - forward.unembedding)])
        # half-way through 101 tokens, 51 more than the prompt; the new token is written too
        assert middle_context(row).tolist() == [563]
        assert generation_bytes(row) == pytest.approx([4 * 2 * 12 * 2 * 768 * 564])
        row = rows[(rows["architecture"] == "xlstm") & (rows["prefill_length"] == 512)]
        state = cache_numbers(make_architecture("xlstm", d_model=768, n_layers=12, n_heads=6), 1)
        assert generation_bytes(row) == pytest.approx([4 * 2 * 4 * state])

    def test_no_prompt_no_prefill(self, timings: pd.DataFrame) -> None:
        flops = prefill_flops(timings)
        assert ((flops == 0) == (timings["prefill_length"] == 0)).all()

    def test_proportional_columns_are_free(self) -> None:
        one, two = np.ones(5), np.arange(1.0, 6)
        free, singular = free_columns(np.stack([two, one, 3 * two], axis=1))
        assert free.tolist() == [True, False, True]
        assert singular[-1] < 1e-12
        assert not free_columns(np.stack([two, one], axis=1))[0].any()
        assert free_columns(np.stack([two, 0 * one], axis=1))[0].tolist() == [False, True]


class TestKnownCoefficients:
    @pytest.mark.parametrize("objective", ["relative", "milliseconds"])
    def test_exact_times_to_first_token(self, timings: pd.DataFrame, objective: str) -> None:
        table = simulated(timings, "xlstm", "ttft", [1 / 3e14, 2e-3], 0)
        fit = fit_inference(table, "xlstm", "400m", "ttft", num_resamples=0, objective=objective)  # type: ignore[arg-type]
        assert fit.parameters == pytest.approx({"alpha_eff_flops_per_s": 3e14, "eps_s": 2e-3}, rel=1e-4)
        assert fit.rms_log_error < 1e-5
        assert fit.identified == {"alpha_eff_flops_per_s": True, "eps_s": True}

    def test_intervals_hold_the_truth(self, timings: pd.DataFrame) -> None:
        table = simulated(timings, "transformer", "step_time", [1 / 1e12, 2e-3, 3e-5], 0.03)
        fit = fit_inference(table, "transformer", "400m", "step_time", num_resamples=200)
        for name, value in zip(PARAMETERS["step_time"], (1e12, 2e-3, 3e-5), strict=True):
            low, high = fit.interval(name, 0.99)
            assert low < value < high
            assert high < 1.5 * low
        assert fit.rms_log_error == pytest.approx(0.03, rel=0.3)
        assert all(fit.identified.values())

    def test_same_seed_same_interval(self, timings: pd.DataFrame) -> None:
        fits = [fit_inference(timings, "xlstm", "160m", "ttft", num_resamples=20, seed=s) for s in (1, 1, 2)]
        bounds = [fit.interval("eps_s") for fit in fits]
        assert bounds[0] == bounds[1] != bounds[2]


class TestFewTimings:
    """Fewer timings than parameters, tied columns, exact times: what can be known is given, the rest is named."""

    def few(self, timings: pd.DataFrame, number: int) -> pd.DataFrame:
        exact = simulated(timings, "transformer", "step_time", [1 / 1e12, 2e-3, 3e-5], 0)
        # prompts and batches that differ, in the first three rows already
        rows = exact[(exact["batch_size"] >= 8) & (exact["prefill_length"] > 0)].sort_values("prefill_length")
        return rows.iloc[[0, 20, -1, 7, 15]].iloc[:number]

    @pytest.mark.parametrize("number", [1, 2])
    def test_fewer_timings_than_parameters(self, timings: pd.DataFrame, number: int) -> None:
        fit = fit_inference(self.few(timings, number), "transformer", "400m", "step_time", num_resamples=20)
        assert not any(fit.identified.values())
        assert all(f"{number} timing" in reason and "3 parameters" in reason for reason in fit.reasons.values())
        assert fit.rms_log_error < 1e-8, "the times themselves are described"
        assert np.isnan(fit.interval("eps_s")).all()

    def test_as_many_timings_as_parameters(self, timings: pd.DataFrame) -> None:
        fit = fit_inference(self.few(timings, 3), "transformer", "400m", "step_time", num_resamples=20)
        assert all(fit.identified.values())
        assert list(fit.parameters.values()) == pytest.approx([1e12, 2e-3, 3e-5], rel=1e-6)
        assert np.isnan(fit.interval("eps_s")).all(), "no residuals, no intervals"

    def test_lost_resamples(self, timings: pd.DataFrame) -> None:
        """Only one of eleven timings has another batch: a third of the resamples leave it out."""
        rows = simulated(timings, "transformer", "step_time", [1 / 1e12, 2e-3, 3e-5], 0.01)
        rows = rows[rows["prefill_length"] > 0]
        table = pd.concat([rows[rows["batch_size"] == 8].iloc[:10], rows[rows["batch_size"] == 16].iloc[:1]])
        fit = fit_inference(table, "transformer", "400m", "step_time", num_resamples=200)
        assert fit.num_lost / 200 == pytest.approx((1 - 1 / len(table)) ** len(table), abs=0.1)
        assert np.isfinite(fit.interval("eps_s")).all()
        few = table.iloc[[0, 0, 0, 1, -1]]  # 58 % of the resamples leave out one of the last two
        lost = fit_inference(few, "transformer", "400m", "step_time", num_resamples=200)
        assert lost.num_lost > 100
        assert np.isnan(lost.interval("eps_s")).all(), "most resamples lost: no interval"

    def test_one_prompt_and_one_batch(self, timings: pd.DataFrame) -> None:
        rows = measured(timings, "xlstm", "ttft", "400m")
        rows = rows[(rows["prefill_length"] == 1024) & (rows["batch_size"] == 1)]
        table = pd.concat([rows.assign(ttft_s=rows["ttft_s"] * factor) for factor in (1, 1.01, 1.02, 0.99)])
        fit = fit_inference(table, "xlstm", "400m", "ttft", num_resamples=20)
        assert fit.identified == {"alpha_eff_flops_per_s": False, "eps_s": False}
        assert "trades off exactly with eps_s" in fit.reasons["alpha_eff_flops_per_s"]

    def test_one_batch_leaves_its_constant_free(self, timings: pd.DataFrame) -> None:
        rows = measured(timings, "transformer", "step_time", "400m")
        fit = fit_inference(rows[rows["batch_size"] == 8], "transformer", "400m", "step_time", num_resamples=20)
        assert fit.identified == {"beta_eff_bytes_per_s": True, "eps_s": False, "eps_bp_s": False}
        assert "trades off exactly with eps_bp_s" in fit.reasons["eps_s"]


class TestIdentification:
    def test_state_is_proportional_to_the_batch(self, timings: pd.DataFrame) -> None:
        """Issue of the published form: bytes of the mLSTM state and batch size are one column."""
        for size in ("160m", "7b"):
            fit = fit_inference(timings, "xlstm", size, "step_time", num_resamples=10)
            assert fit.singular_values[2] < 1e-12 * fit.singular_values[0]
            assert fit.identified == {"beta_eff_bytes_per_s": False, "eps_s": True, "eps_bp_s": False}
            assert "trades off exactly with eps_bp_s" in fit.reasons["beta_eff_bytes_per_s"]
            assert np.isnan([fit.parameters["beta_eff_bytes_per_s"], *fit.interval("eps_bp_s")]).all()
            assert 0 < fit.interval("eps_s")[0] < fit.parameters["eps_s"] < fit.interval("eps_s")[1]

    def test_any_bandwidth_leaves_the_same_residuals(self, timings: pd.DataFrame) -> None:
        rows = measured(timings, "xlstm", "step_time", "7b")
        design, times = design_of(rows, "step_time"), rows["step_time_s"].to_numpy()
        residuals = []
        for bandwidth in (-1e12, 1e11, 3e12, np.inf):
            fixed = design[:, 0] / bandwidth
            rest = solve_times(design[:, 1:], times - fixed, np.array([5e-3, 1e-4]), "milliseconds")
            residuals.append(times - fixed - design[:, 1:] @ rest)
        for other in residuals[1:]:
            np.testing.assert_allclose(other, residuals[0], atol=1e-8)

    def test_transformer_is_identified(self, timings: pd.DataFrame) -> None:
        fit = fit_inference(timings, "transformer", "400m", "step_time", num_resamples=50)
        assert not fit.reasons
        low, high = fit.interval("beta_eff_bytes_per_s")
        assert low < fit.parameters["beta_eff_bytes_per_s"] < high

    @pytest.mark.parametrize("num_resamples", [0, 50])
    def test_a_negative_rate_is_not_identified(self, timings: pd.DataFrame, num_resamples: int) -> None:
        table = simulated(timings, "transformer", "ttft", [-1e-17, 1.0], 0)
        fit = fit_inference(table, "transformer", "400m", "ttft", num_resamples=num_resamples)
        assert fit.parameters["alpha_eff_flops_per_s"] < 0
        assert fit.identified["alpha_eff_flops_per_s"] is False
        assert "not above 0" in fit.reasons["alpha_eff_flops_per_s"]
        if num_resamples:
            low, high = fit.interval("alpha_eff_flops_per_s")
            assert np.isnan(low)
            assert np.isinf(high)

    def test_times_that_cannot_be(self, timings: pd.DataFrame) -> None:
        """In milliseconds large times decide, and the constant of a Transformer comes out negative, as published."""
        fit = fit_inference(timings, "transformer", "830m", "ttft", objective="milliseconds", num_resamples=0)
        assert fit.parameters["eps_s"] < 0
        assert fit.num_impossible > 0
        assert np.isnan(fit.rms_log_error)


def test_every_timing_once_comes_near_the_published_rates(timings: pd.DataFrame) -> None:
    """One resample, other counts and squares of Huber losses moved rates by up to an eighth (see the ledger)."""
    entries = load_published()["inference_fits"]
    assert len(entries) == 11
    for entry in entries:
        fit = fit_inference(
            timings, entry["architecture"], entry["model_size"], entry["quantity"], num_resamples=0,
            objective="milliseconds" if entry["objective"] == "milliseconds" else "relative",
        )  # fmt: skip
        name = PARAMETERS[entry["quantity"]][0]
        xlstm = entry["architecture"] == "xlstm"
        tolerance = 0.03 if entry["quantity"] == "step_time" else 0.005 if xlstm else 0.12
        assert fit.parameters[name] == pytest.approx(entry[name], rel=tolerance)


def test_bad_input(timings: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no rows with model_size 9b; there are 160m, 400m"):
        fit_inference(timings, "xlstm", "9b", "ttft")
    with pytest.raises(InputError, match="no rows with architecture mamba"):
        fit_inference(timings, "mamba", "7b", "ttft")
    with pytest.raises(InputError, match="quantity 'speed' is not one of ttft, step_time"):
        fit_inference(timings, "xlstm", "7b", "speed")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"0 step_time timings of xlstm 7b .* batch of at least 256"):
        fit_inference(timings, "xlstm", "7b", "step_time", smallest_batch=256)
    fit = fit_inference(timings, "xlstm", "7b", "ttft", num_resamples=5)
    with pytest.raises(InputError, match="ttft has no parameter 'beta'"):
        fit.interval("beta")
