"""Each pitfall on data whose answer is known, and on the paper's runs."""

import math

import numpy as np
import pandas as pd
import pytest
from foreign import table as foreign_table

from companion.chapters.ch06 import designs, mistakes
from companion.errors import InputError
from companion.fitting.fit import Fit, fit
from companion.fitting.isoflop.bias import SizeGrid
from companion.fitting.overtraining.exponents import fit_overtraining_slopes
from companion.laws import LossSurface
from companion.ledger.entries import load_published
from companion.runs.load import load_paper_runs, load_runs
from companion.runs.select import subset

LAW = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
COUPLED = LossSurface(E=1.5, A=2e5, B=2e6, alpha=0.6, beta=0.65, gamma=0.5)


def simulated(law: LossSurface = LAW, noise: float = 0.003, num_runs: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n, d = 10 ** rng.uniform(8, 10, num_runs), 10 ** rng.uniform(9.5, 11.5, num_runs)
    loss = law.predict(n, d) * np.exp(rng.normal(0, noise, num_runs))
    return pd.DataFrame({"num_params": n, "num_tokens": d, "val_loss": loss})


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return subset(load_paper_runs(), architecture="transformer", context_length=8192)


@pytest.fixture(scope="module")
def iso(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["experiment"] == "isoflop"]


@pytest.fixture(scope="module")
def fitted(iso: pd.DataFrame) -> Fit:
    return fit(LossSurface, iso)


# ---- designs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [LAW, COUPLED])
def test_parametric_fit_has_no_bias_where_parabolas_have(law: LossSurface) -> None:
    grids = {"above": SizeGrid(lower=0.0, upper=1.0), "drifting": SizeGrid(lower=-0.5, upper=0.5, drift=0.25)}
    table = designs.noise_free_comparison(law, [1e19, 1e20, 1e21], grids)
    assert table["parametric_error"].abs().max() < 1e-6
    assert abs(table["bias_lowest"].iloc[0]) > 1e-3
    assert abs(table["exponent_bias"].iloc[1]) > 1e-4


def test_symmetric_law_has_a_symmetric_valley() -> None:
    law = LossSurface(E=1.7, A=400.0, B=400.0, alpha=0.3, beta=0.3)
    table = designs.noise_free_comparison(law, [1e19, 1e20], {"s": SizeGrid(lower=-0.5, upper=0.5)})
    assert table["bias_lowest"].iloc[0] == pytest.approx(0, abs=1e-9)


def test_design_precision_agrees_with_simulation() -> None:
    places = simulated(num_runs=100)
    n, d = places["num_params"].to_numpy(), places["num_tokens"].to_numpy()
    expected = designs.design_precision(LAW, n, d, gamma_free=False, noise=0.002, off_design=(3e10, 6e11))
    found, losses = [], []
    for seed in range(60):
        scatter = np.exp(np.random.default_rng(seed).normal(0, 0.002, n.size))
        table = places.assign(val_loss=LAW.predict(n, d) * scatter)
        law = fit(LossSurface, table, gamma=1.0, huber_delta=math.inf, num_starts=4).law
        found.append(designs.size_exponent(law))
        losses.append(np.log(law.predict(3e10, 6e11)))
    assert np.std(found) == pytest.approx(expected["exponent_standard_error"], rel=0.3)
    assert np.std(losses) == pytest.approx(expected["loss_standard_error"], rel=0.3)


def test_condition_number_agrees_with_that_of_a_fit(fitted: Fit) -> None:
    data = fit(LossSurface, fitted.data, huber_delta=math.inf)
    n, d = data.data["num_params"], data.data["num_tokens"]
    found = designs.design_precision(data.law, n, d)
    assert found["condition_number"] == pytest.approx(data.conditioning, rel=1e-6)


def test_single_ratio_is_ill_conditioned() -> None:
    n = np.geomspace(1e8, 1e10, 12)
    wide = designs.design_precision(LAW, np.repeat(n, 3), np.outer(n, [5, 50, 500]).ravel(), gamma_free=False)
    single = designs.design_precision(LAW, n, 20 * n, gamma_free=False)
    assert single["condition_number"] > 30 * wide["condition_number"]
    assert single["exponent_standard_error"] > 30 * wide["exponent_standard_error"]
    few = designs.design_precision(LAW, n[:3], 20 * n[:3], off_design=(1e9, 1e10))
    assert math.isinf(few["condition_number"])
    assert math.isinf(few["loss_standard_error"])


def test_design_table_and_spread(runs: pd.DataFrame) -> None:
    law = fit(LossSurface, runs).law
    table = designs.compare_designs(runs, law).set_index("design")
    assert set(table.index) == {"all runs", "isoflop", "tokenparam", "only M = 44"}
    assert table["condition_number"].idxmax() == "only M = 44"
    curve = designs.spread_of_ratios(law, [1e8, 1e9, 1e10], 50.0, [0.05, 0.5, 2.0])
    assert (np.diff(curve["gamma_free"]) < 0).all()
    assert (curve["gamma_fixed"] < curve["gamma_free"]).all()


def test_designs_of_a_bare_table() -> None:
    assert next(iter(designs.designs_of(simulated()[["num_params", "num_tokens"]]))) == "all runs"


# ---- bookkeeping ---------------------------------------------------------------------------------


def test_exact_optimum_is_6nd_where_6nd_is_exact() -> None:
    rows = []
    for budget in (1e19, 1e20, 1e21):
        n = LAW.optimum(budget)[0] * np.geomspace(0.2, 5, 11)
        rows.append(pd.DataFrame({"isoflop_budget": budget, "num_params": n, "num_tokens": budget / 6 / n}))
    table = pd.concat(rows, ignore_index=True)
    table["train_flops"] = 6 * table["num_params"] * table["num_tokens"]
    optima = designs.exact_optima(table, LAW)
    assert optima["exact"].to_numpy() == pytest.approx(optima["approximate"].to_numpy(), rel=2e-3)
    assert optima["excess_loss"].max() < 1e-6
    assert (optima["moved"] == 0).all()
    assert designs.exact_exponent(optima) == pytest.approx(designs.size_exponent(LAW), abs=1e-3)
    assert math.isnan(designs.exact_exponent(optima.assign(exact=np.nan)))


def test_6nd_moves_the_paper_optimum(iso: pd.DataFrame, fitted: Fit) -> None:
    optima = designs.exact_optima(iso, fitted.law)
    assert len(optima) == 4
    assert optima["highest_share"].max() < 1
    assert (optima["approximate"] > optima["exact"]).all()
    assert (optima["excess_loss"] > 0).all()


def test_embedding(iso: pd.DataFrame) -> None:
    embedding = designs.embedding_params(iso)
    assert (embedding == 2 * 50304 * iso["d_model"]).all()
    table = designs.embedding_effect(iso).set_index("definition")
    assert table.loc["without embedding, exact C", "isoflop_exponent"] > table["isoflop_exponent"].iloc[0]
    assert table["alpha"].iloc[1] == table["alpha"].iloc[2]
    with pytest.raises(InputError, match="embedding cannot be counted"):
        designs.embedding_params(iso.drop(columns="d_model"))


# ---- fits ----------------------------------------------------------------------------------------


def test_evaluate_agrees_with_the_fit(fitted: Fit) -> None:
    found = mistakes.evaluate(fitted.law, fitted)
    assert found.objective == pytest.approx(fitted.objective, rel=1e-9)
    assert found.rms == pytest.approx(np.sqrt(np.mean(fitted.residuals**2)), rel=1e-9)
    assert found.mean == pytest.approx(np.mean(fitted.residuals), rel=1e-6)


def test_rounding(fitted: Fit) -> None:
    table = mistakes.rounded_laws(fitted, 1e20, [2, 4, 8])
    assert list(table["law"]) == ["all digits", "2 decimals", "4 decimals", "8 decimals"]
    assert table["objective_ratio"].iloc[0] == pytest.approx(1)
    assert (table["objective_ratio"] >= 1 - 1e-9).all()
    assert table["objective_ratio"].iloc[1] > 1.01 > table["objective_ratio"].iloc[3]
    law = mistakes.rounded(fitted.law, 2)
    assert law.alpha == round(fitted.law.alpha, 2)
    assert math.log(law.A) == pytest.approx(round(math.log(fitted.law.A), 2))
    with pytest.raises(InputError, match="must be positive"):
        mistakes.rounded(LossSurface(E=1.0, A=1.0, B=1.0, alpha=0.04, beta=0.3), 1)


def test_printed_headline_is_worse_than_the_fit(runs: pd.DataFrame) -> None:
    headline = fit(LossSurface, runs[runs["experiment"] == "tokenparam"])
    entry = load_published()["parametric_fits"][0]
    table = mistakes.compare_laws(headline, mistakes.printed_laws(entry), 1e20)
    assert len(table) == 2
    assert (table["objective_ratio"] > 2).all()


def test_stopping(fitted: Fit) -> None:
    searches = mistakes.stopping_early(fitted, 8)
    table = mistakes.compare_searches(fitted, searches).set_index("setting")
    assert (table["lowest_excess"] > -1e-9).all()
    assert table.loc["published", "lowest_excess"] < table.loc["scipy default", "lowest_excess"]
    reached = mistakes.reached_by_start(fitted, searches["published"])
    assert reached.groupby("parameter")["starts"].sum().eq(8).all()
    assert reached["reached"].between(0, 1).all()
    assert set(reached["parameter"]) == {"log A", "log B", "log E", "alpha", "beta", "gamma"}


def test_repeated_rows_shrink_intervals_and_keep_the_fit() -> None:
    table = simulated().assign(times=1)
    found = mistakes.repeated_rows(table, "times", num_resamples=300)
    assert list(found["counted"]) == ["every run once", "every run twice"]
    assert found["size_exponent"].iloc[1] == pytest.approx(found["size_exponent"].iloc[0], rel=1e-6)
    assert found["width"].iloc[1] == pytest.approx(1 / math.sqrt(2), rel=0.25)
    some = mistakes.repeated_rows(table.assign(times=[3] * 10 + [1] * 50), "times", num_resamples=50)
    assert list(some["num_rows"]) == [60, 80, 120]
    assert len(mistakes.repeated_rows(table, "no such column", num_resamples=50)) == 2


def test_metric_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(3, 0.4, 50)
    p = y + rng.normal(0, 0.01, 50)
    wrong, right = mistakes.all_pairs_metrics(y, p), mistakes.paired_metrics(y, p[:, None])
    assert wrong["mse"] == pytest.approx(y.var() + p.var() + (y.mean() - p.mean()) ** 2)
    assert wrong["mse"] == pytest.approx(np.mean((y - p[:, None]) ** 2))
    assert right["mse"] == pytest.approx(np.mean((y - p) ** 2))
    assert right["r2"] > 0.99 > 0 > wrong["r2"]
    assert mistakes.all_pairs_metrics(y, p[::-1])["mse"] == pytest.approx(wrong["mse"])
    assert mistakes.all_pairs_metrics(y, np.full(50, y.mean()))["mse"] < wrong["mse"]


def test_judged(fitted: Fit) -> None:
    samples = fitted.bootstrap(60).samples
    samples.loc[0, "alpha"] = np.nan
    samples.loc[1, "alpha"] = -1.0
    table = mistakes.judged(fitted, samples, within=0.1)
    assert table["excess"].iloc[0] == pytest.approx(0, abs=1e-9)
    assert table["excess"].max() <= 0.1
    assert 2 < len(table) <= 59
    chosen = table.loc[table["mse_all_pairs"].idxmin()]
    assert chosen["mse_paired"] > table["mse_paired"].min()
    assert len(mistakes.judged(fitted, samples, within=1e-12)) == 1


def test_variance_as_error(runs: pd.DataFrame) -> None:
    table = mistakes.variance_as_error(fit_overtraining_slopes(runs))
    assert table["eta_variance"].to_numpy() == pytest.approx(table["eta_standard_error"].to_numpy() ** 2)
    assert (table["variances_away"] > 100 * table["errors_away"]).all()


def test_product_has_no_optimum_and_a_sum_has(iso: pd.DataFrame) -> None:
    forms = mistakes.fit_forms(iso)
    table = mistakes.compare_forms(iso, forms).set_index("form")
    assert math.isnan(table.loc["product", "optimum"])
    assert table.loc["sum, gamma free", "optimum"] > 0
    assert table.loc["sum, gamma free", "rms"] <= table.loc["sum, gamma 1", "rms"] < table.loc["product", "rms"]


def test_delta_path() -> None:
    table = mistakes.delta_path(simulated(), [1e-4, 1e-2, 10.0, math.inf], gamma=1.0)
    assert (np.diff(table["linear"]) <= 0).all()
    assert table["linear"].iloc[-1] == 0
    assert table["alpha"].iloc[-1] == pytest.approx(table["alpha"].iloc[-2], rel=1e-6)
    assert (table["gamma"] == 1).all()
    # no residual reaches the larger deltas, so they fit alike, and none fits better: least squares has the least rms
    assert table["rms"].iloc[-1] <= table["rms"].min() * (1 + 1e-9)


def test_exponent_interval_holds_the_exponent() -> None:
    fitted = fit(LossSurface, simulated(), gamma=1.0)
    low, high = mistakes.exponent_interval(fitted.bootstrap(100))
    assert low < designs.size_exponent(fitted.law) < high


def test_the_design_of_one_ratio_keeps_its_value() -> None:
    """`designs_of` compares the runs of the commonest ratio with the whole table."""
    found = designs.designs_of(load_runs(foreign_table("overtraining_rpj")))
    assert [name for name in found if name.startswith("only")] == ["only M = 20"]
    assert len(found["only M = 20"]) == 6
    assert list(designs.designs_of(load_runs(foreign_table("isoflop_comma")))) == ["all runs", "isoflop"]
