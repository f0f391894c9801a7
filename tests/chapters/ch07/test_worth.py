"""The worth of a token by context: planted values come back, and move optima as they should."""

import numpy as np
import pytest
from context_tables import simulated_contexts

from companion.chapters.ch07.worth import (
    TOKEN_WORTH,
    loss_differences,
    losses_at_optima,
    token_worth,
    with_token_worth,
    worth_table,
)
from companion.errors import InputError
from companion.fitting.context.prediction import Explanation, explain
from companion.fitting.context.scaling import fit_context_optima
from companion.runs.load import load_paper_runs

PLANTED = {2048: 1.15, 8192: 1.0, 16384: 0.85}


@pytest.fixture(scope="module")
def planted() -> Explanation:
    runs = simulated_contexts("xlstm", worth=PLANTED, noise=2e-4)
    return explain(fit_context_optima(runs, num_resamples=80))


@pytest.fixture(scope="module")
def paper() -> Explanation:
    return explain(fit_context_optima(load_paper_runs(), "xlstm", num_resamples=150))


@pytest.mark.parametrize("floor_free", [False, True])
def test_planted_worth_comes_back(planted: Explanation, floor_free: bool) -> None:
    table = worth_table(token_worth(planted, floor_free=floor_free)).set_index("context_length")
    for context, kappa in PLANTED.items():
        row = table.loc[context]
        assert row["worth"] == pytest.approx(kappa, abs=0.02)
        assert row["worth_low"] < row["worth"] < row["worth_high"]
        assert abs(row["floor"]) < 4e-3 if floor_free else row["floor"] == 0
    assert (table["rms_after"] < 4e-4).all()
    assert (table.loc[[2048, 16384], "rms_before"] > 5 * table.loc[[2048, 16384], "rms_after"]).all()


def test_worth_moves_the_predicted_optimum(planted: Explanation) -> None:
    shifts = with_token_worth(planted, token_worth(planted)).pooled_shifts()
    sizes = shifts[shifts["quantity"] == "num_params"].set_index(["method", "context_length"])
    law = planted.law_fit.law
    for context, kappa in PLANTED.items():
        if context == 8192:
            continue
        moved = sizes.loc[(TOKEN_WORTH, context), "predicted"] / sizes.loc[("same runs", context), "predicted"]
        assert moved == pytest.approx(kappa ** (law.beta / (law.alpha + law.beta)), rel=0.02)
        assert sizes.loc[(TOKEN_WORTH, context), "ratio"] == pytest.approx(1, abs=0.01)
        assert abs(sizes.loc[("same runs", context), "ratio"] - 1) > 0.05


def test_loss_differences_are_those_planted(planted: Explanation) -> None:
    table = loss_differences(planted).set_index("context_length")
    runs, law = planted.measured.runs, planted.law_fit.law
    for context, kappa in PLANTED.items():
        part = runs[runs["context_length"] == context]
        sizes, tokens = part["num_params"].to_numpy(), part["num_tokens"].to_numpy()
        expected = (law.predict(sizes, kappa * tokens) - law.predict(sizes, tokens)).mean()
        assert table.loc[context, "difference"] == pytest.approx(expected, abs=1e-3)
    assert table.loc[2048, "difference_high"] < 0 < table.loc[16384, "difference_low"]


def test_paper_says_tokens_of_long_sequences_are_worth_less(paper: Explanation) -> None:
    for floor_free in (False, True):
        table = worth_table(token_worth(paper, floor_free=floor_free)).set_index("context_length")
        assert table.loc[16384, "worth_high"] < 1
    shifts = with_token_worth(paper, token_worth(paper)).pooled_shifts().set_index(
        ["method", "quantity", "context_length"]
    )  # fmt: skip
    assert shifts.loc[(TOKEN_WORTH, "num_params", 16384), "verdict"] == "inside"
    assert shifts.loc[("same runs", "num_params", 16384), "verdict"] == "outside"


def test_losses_at_optima(paper: Explanation) -> None:
    table = losses_at_optima(paper)
    assert len(table) == 9
    np.testing.assert_allclose(table["measured"] - table["law"], table["difference"])
    assert ((table["measured_low"] < table["measured"]) & (table["measured"] < table["measured_high"])).all()
    at_start = table[table["context_length"] == paper.fit_context]
    assert at_start["difference"].abs().max() < 0.015


def test_every_context_needs_a_worth(planted: Explanation) -> None:
    with pytest.raises(InputError, match="none at context_length 16384"):
        with_token_worth(planted, token_worth(planted)[:2])
