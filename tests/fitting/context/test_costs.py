"""Shares of the mixer and extrapolated optima: against the accounting, limits, flags, bad input."""

import numpy as np
import pytest

from companion.accounting import count_flops
from companion.architectures import preset
from companion.errors import InputError
from companion.fitting.context.costs import (
    FAR_CONTEXTS,
    equal_loss_by_context,
    mixer_shares,
    optimum_by_context,
    shares_at_optima,
)
from companion.fitting.context.prediction import Explanation, explain
from companion.fitting.context.scaling import fit_context_optima
from companion.laws import compute_for_loss, optimum
from companion.runs.load import load_paper_runs
from companion.runs.shape_family import FamilyScale, paper_family

BUDGET = 3e19


@pytest.fixture(scope="module")
def papers() -> dict[str, Explanation]:
    runs = load_paper_runs()
    fits = {name: fit_context_optima(runs, name, num_resamples=60) for name in ("transformer", "xlstm")}
    return {name: explain(fit) for name, fit in fits.items()}


def test_shares_against_the_count_of_a_real_model() -> None:
    # the mLSTM's core depends on the width of its heads, and the preset's heads are wider than the family's
    for name, tolerance in (("transformer", 0.1), ("xlstm", 0.4)):
        model = preset(name, "400m")
        flops = count_flops(model, 8192)
        core, mixer = mixer_shares(paper_family(name), 400e6, 8192)
        assert core == pytest.approx(flops.share("mixer_core"), rel=tolerance)
        whole = sum(flops.share(part) for part in ("mixer_core", "mixer_projections", "output_gate"))
        assert mixer == pytest.approx(whole, rel=0.1)


def test_share_of_attention_rises_to_one_and_that_of_the_mlstm_stays() -> None:
    family = paper_family("transformer")
    core = np.array([mixer_shares(family, 1e9, context)[0] for context in (1024, 8192, 2**17, 2**23)])
    assert (np.diff(core) > 0).all()
    assert core[-1] > 0.99
    constant = [mixer_shares(paper_family("xlstm"), 1e9, context)[0] for context in (64, 8192, 2**20)]
    np.testing.assert_allclose(constant, constant[0], rtol=1e-12)


def test_shares_at_optima(papers: dict[str, Explanation]) -> None:
    for name, explanation in papers.items():
        table = shares_at_optima(explanation.measured, explanation.family)
        assert len(table) == 9
        assert ((table["core_share_low"] <= table["core_share"]) & (table["core_share"] < table["mixer_share"])).all()
        far = table[table["context_length"] == 16384]["core_share"]
        assert (far > 0.5).all() if name == "transformer" else (far < 0.03).all()


def test_optimum_by_context(papers: dict[str, Explanation]) -> None:
    tables = {name: optimum_by_context(each, BUDGET) for name, each in papers.items()}
    for name, table in tables.items():
        assert table["context_length"].tolist() == list(FAR_CONTEXTS)
        assert table["beyond_contexts"].tolist() == [False] * 4 + [True] * 6
        scale = FamilyScale(family=papers[name].family, context_length=131072)
        best = optimum(papers[name].law_fit.law, scale, BUDGET)
        row = table.set_index("context_length").loc[131072]
        assert row["num_params"] == pytest.approx(best.num_params[0], rel=1e-9)
        assert row["loss"] == pytest.approx(best.loss[0], rel=1e-9)
        assert row["num_params_low"] < row["num_params"] < row["num_params_high"]
        assert not table["beyond_compute"].any()
    transformer, xlstm = tables["transformer"], tables["xlstm"]
    assert (np.diff(transformer["num_params"]) < 0).all()
    assert (np.diff(transformer["core_share"]) > 0).all()
    np.testing.assert_allclose(xlstm["num_params"], xlstm["num_params"].iloc[0], rtol=1e-9)
    # at a million tokens the best Transformer is smaller than any that was trained
    smallest = papers["transformer"].measured.runs["num_params"].min()
    assert (transformer["beyond_sizes"] == (transformer["num_params"] < smallest)).all()
    assert transformer["beyond_sizes"].iloc[-1]
    assert not xlstm["beyond_sizes"].any()
    assert optimum_by_context(papers["transformer"], 1e24, [8192])["beyond_compute"].all()


def test_convention_without_attention_moves_nothing(papers: dict[str, Explanation]) -> None:
    table = optimum_by_context(papers["transformer"], BUDGET, [2048, 16384], convention="6ND")
    assert table["num_params"].iloc[0] == pytest.approx(table["num_params"].iloc[1], rel=1e-9)


def test_equal_loss(papers: dict[str, Explanation]) -> None:
    contexts = [2048, 16384, 2**20]
    table = equal_loss_by_context(papers["xlstm"], papers["transformer"], BUDGET, contexts)
    assert (np.diff(table["factor"]) > 0).all()
    assert table["beyond_contexts"].tolist() == [False, False, True]
    for row in table.to_dict("records"):
        scales = {
            name: FamilyScale(family=each.family, context_length=row["context_length"]) for name, each in papers.items()
        }
        loss = float(optimum(papers["xlstm"].law_fit.law, scales["xlstm"], BUDGET).loss[0])
        needed = compute_for_loss(papers["transformer"].law_fit.law, scales["transformer"], loss)
        assert row["loss"] == pytest.approx(loss, rel=1e-12)
        assert row["factor"] == pytest.approx(needed.train_flops[0] / BUDGET, rel=1e-6)
        assert row["num_params"] == pytest.approx(needed.num_params[0], rel=1e-6)
        assert row["factor_low"] <= row["factor"] <= row["factor_high"]


def test_equal_loss_with_itself_costs_the_same(papers: dict[str, Explanation]) -> None:
    table = equal_loss_by_context(papers["xlstm"], papers["xlstm"], BUDGET, [8192])
    for column in ("factor", "factor_low", "factor_high"):
        assert table[column].iloc[0] == pytest.approx(1, rel=1e-6)


def test_resamples_must_pair_up(papers: dict[str, Explanation]) -> None:
    other = explain(fit_context_optima(load_paper_runs(), "xlstm", num_resamples=3))
    with pytest.raises(InputError, match="60 and 3 resamples do not pair up"):
        equal_loss_by_context(papers["transformer"], other, BUDGET)


def test_bad_context(papers: dict[str, Explanation]) -> None:
    with pytest.raises(InputError, match="shorter than one chunk"):
        optimum_by_context(papers["xlstm"], BUDGET, [32])
