"""The explanation of the shift: exact on simulated tables, like for like on the paper's, honest about bad input."""

import numpy as np
import pandas as pd
import pytest
from context_tables import BUDGETS, CONTEXTS, LAW, simulated_contexts

from companion.errors import InputError
from companion.fitting.context.prediction import (
    FAMILY,
    INSIDE,
    METHODS,
    NOTHING_MOVES,
    OUTSIDE,
    OWN_SHAPES,
    SAME_RUNS,
    UNKNOWN,
    Explanation,
    explain,
    own_scale,
    paired_laws,
    parabola_optima,
)
from companion.fitting.context.scaling import fit_context_optima
from companion.laws import LossSurface
from companion.runs.load import load_paper_runs

RUNS = load_paper_runs()


@pytest.fixture(scope="module")
def simulated() -> Explanation:
    return explain(fit_context_optima(simulated_contexts(noise=1e-4), num_resamples=60))


@pytest.fixture(scope="module")
def papers() -> dict[str, Explanation]:
    fits = {name: fit_context_optima(RUNS, name, num_resamples=150) for name in ("transformer", "xlstm")}
    return {name: explain(fit) for name, fit in fits.items()}


def of(table: pd.DataFrame, method: str, quantity: str = "num_params") -> pd.DataFrame:
    return table[(table["method"] == method) & (table["quantity"] == quantity)]


def test_a_table_that_obeys_the_law_is_explained(simulated: Explanation) -> None:
    levels, shifts = simulated.levels(), simulated.shifts()
    assert set(levels["method"]) == set(METHODS)
    for quantity in ("num_params", "num_tokens"):
        np.testing.assert_allclose(of(levels, SAME_RUNS, quantity)["ratio"], 1, atol=5e-3)
        np.testing.assert_allclose(of(shifts, SAME_RUNS, quantity)["ratio"], 1, atol=5e-3)
        # a parabola is not a loss law: its optimum is off by percents, alike at every context
        np.testing.assert_allclose(of(shifts, FAMILY, quantity)["ratio"], 1, atol=0.02)
        np.testing.assert_allclose(of(shifts, OWN_SHAPES, quantity)["ratio"], 1, atol=0.03)
    assert (of(levels, SAME_RUNS)["verdict"] == INSIDE).mean() > 0.7


def test_the_null_hypothesis_is_rejected_where_attention_moves_the_optimum(simulated: Explanation) -> None:
    null = of(simulated.shifts(), NOTHING_MOVES)
    np.testing.assert_allclose(null["predicted"], 1, rtol=1e-9)  # the simulated budgets are exact
    assert (null["verdict"] == OUTSIDE).all()
    assert (null.loc[null["context_length"] > 8192, "ratio"] < 0.93).all()
    assert (null.loc[null["context_length"] < 8192, "ratio"] > 1.05).all()


def test_chosen_methods_give_the_same_as_all(simulated: Explanation) -> None:
    one = explain(simulated.measured, methods=[FAMILY])
    pd.testing.assert_frame_equal(
        one.levels(), simulated.levels().query("method == @FAMILY").reset_index(drop=True), check_exact=True
    )


def test_law_is_recovered(simulated: Explanation) -> None:
    assert simulated.law_fit.law.alpha == pytest.approx(LAW.alpha, rel=0.1)
    assert simulated.law_fit.num_rows == (simulated.measured.runs["context_length"] == 8192).sum()


def test_pooled_is_the_geometric_mean_and_better_known(papers: dict[str, Explanation]) -> None:
    for explanation in papers.values():
        shifts, pooled = explanation.shifts(), explanation.pooled_shifts()
        assert len(pooled) == 2 * 2 * len(METHODS)
        for row in pooled.to_dict("records"):
            part = of(shifts, row["method"], row["quantity"])
            part = part[part["context_length"] == row["context_length"]]
            assert row["num_budgets"] == len(part) == 3
            for column in ("measured", "predicted", "ratio"):
                assert row[column] == pytest.approx(np.exp(np.log(part[column]).mean()), rel=1e-9)
            assert row["ratio_high"] - row["ratio_low"] < (part["ratio_high"] - part["ratio_low"]).mean()


def test_accounting_explains_the_transformer_and_not_the_xlstm(papers: dict[str, Explanation]) -> None:
    for quantity in ("num_params", "num_tokens"):
        table = of(papers["transformer"].pooled_shifts(), SAME_RUNS, quantity)
        assert (table["verdict"] == INSIDE).all()
        assert (of(papers["transformer"].pooled_shifts(), NOTHING_MOVES, quantity)["verdict"] == OUTSIDE).all()
        table = of(papers["xlstm"].pooled_shifts(), SAME_RUNS, quantity).set_index("context_length")
        assert table.loc[16384, "verdict"] == OUTSIDE
    family = of(papers["xlstm"].shifts(), FAMILY)
    np.testing.assert_allclose(family["predicted"], 1, atol=0.01)  # whole chunks: the price does not depend on T


def test_family_and_own_shapes_agree(papers: dict[str, Explanation]) -> None:
    for explanation in papers.values():
        levels = explanation.levels()
        apart = of(levels, OWN_SHAPES)["predicted"].to_numpy() / of(levels, FAMILY)["predicted"].to_numpy() - 1
        assert np.abs(apart).max() < 0.05


def test_own_shapes_minimize_the_law_by_brute_force(papers: dict[str, Explanation]) -> None:
    explanation = papers["transformer"]
    scale, law = own_scale(explanation.measured, 16384), explanation.law_fit.law
    for each in explanation.predictions:
        optimum = each.measured
        if each.method != OWN_SHAPES or optimum.context_length != 16384 or optimum.quantity != "num_params":
            continue
        sizes = np.geomspace(0.2, 5, 4001) * each.predicted
        tokens = optimum.mean_train_flops / (scale.flops_per_param_and_token(sizes) * sizes)
        assert sizes[np.argmin(law.predict(sizes, tokens))] == pytest.approx(each.predicted, rel=2e-3)


def test_resamples_of_law_and_optima_are_paired(papers: dict[str, Explanation]) -> None:
    explanation = papers["transformer"]
    laws = paired_laws(explanation.bootstrap)
    assert len(laws) == 1 + len(explanation.measured.counts)
    assert {name: getattr(laws, name)[0] for name in LossSurface.PARAMETERS} == explanation.law_fit.parameters
    # the law of resample r saw the same runs as the optimum of resample r at T0: their errors go together
    at_start = [p for p in explanation.predictions if p.method == SAME_RUNS and p.measured.context_length == 8192]
    related = [
        np.corrcoef(np.log(p.predicted_resamples), np.log(p.measured.x_opt_resamples))[0, 1]
        for p in at_start
        if p.measured.quantity == "num_params"
    ]
    assert np.mean(related) > 0.1


def test_parabola_optima_are_those_of_single_fits(papers: dict[str, Explanation]) -> None:
    optimum = papers["xlstm"].measured.optima[0]
    losses = np.stack([optimum.profile.loss, 2 * optimum.profile.loss, -optimum.profile.loss], axis=1)
    losses = np.column_stack([losses, np.full(len(losses), np.nan)])
    found = parabola_optima(optimum, losses)
    assert found[:2] == pytest.approx([optimum.x_opt] * 2, rel=1e-9)
    assert np.isnan(found[2:]).all()


def test_no_shapes_leaves_out_one_method_and_says_so() -> None:
    bare = simulated_contexts(budgets=BUDGETS[:2]).drop(columns=["d_model", "d_ff"])
    explanation = explain(fit_context_optima(bare, num_resamples=3))
    assert set(explanation.levels()["method"]) == set(METHODS) - {OWN_SHAPES}
    assert any("no column 'd_model', 'd_ff'" in note for note in explanation.warnings)


def test_a_profile_without_an_optimum_is_unknown() -> None:
    runs = simulated_contexts(budgets=BUDGETS[:2])
    bent = (runs["context_length"] == 2048) & (runs["isoflop_budget"] == BUDGETS[0])
    runs.loc[bent, "val_loss"] = 6 - runs.loc[bent, "val_loss"]
    levels = explain(fit_context_optima(runs, num_resamples=3)).levels()
    lost = levels[(levels["context_length"] == 2048) & (levels["isoflop_budget"] == BUDGETS[0])]
    assert (lost["verdict"] == UNKNOWN).all()
    assert levels.loc[levels.index.difference(lost.index), "verdict"].isin([INSIDE, OUTSIDE]).all()


@pytest.mark.parametrize(
    ("resamples", "options", "message"),
    [
        (0, {}, "needs resamples"),
        (2, {"fit_context": 4096}, "no transformer runs at context_length 4096; there are 2048, 8192"),
        (2, {"convention": "kaplan"}, "kaplan"),
        (2, {"methods": ["magic"]}, "unknown method 'magic'; choose from same runs, family"),
    ],
)
def test_bad_input(resamples: int, options: dict[str, object], message: str) -> None:
    fit = fit_context_optima(simulated_contexts(contexts=CONTEXTS[:2]), num_resamples=resamples)
    with pytest.raises(InputError, match=message):
        explain(fit, **options)  # type: ignore[arg-type]


def test_an_architecture_without_a_count() -> None:
    runs = simulated_contexts().assign(architecture="mamba")
    with pytest.raises(InputError, match="no count for architecture 'mamba'"):
        explain(fit_context_optima(runs, num_resamples=2))
