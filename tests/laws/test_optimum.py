"""The best model under exact accounting: limits, brute force, inverses, many laws at once, bad input."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.accounting import CONVENTIONS
from companion.errors import InputError
from companion.fitting.fit import fit
from companion.laws import FlopsPerParamAndToken, LossSurface, compute_for_loss, optimum, optimum_where
from companion.runs.load import load_paper_runs
from companion.runs.select import subset
from companion.runs.shape_family import FamilyScale, paper_family

LAW = LossSurface(E=1.7, A=400.0, B=410.0, alpha=0.34, beta=0.28)
COUPLED = LossSurface(E=2.0, A=1.1e5, B=4.5e6, alpha=0.62, beta=0.71, gamma=0.55)


def stacked(*laws: LossSurface) -> LossSurface:
    return LossSurface(**{name: np.array([getattr(law, name) for law in laws]) for name in LossSurface.PARAMETERS})


@st.composite
def laws(draw: st.DrawFn) -> LossSurface:
    """Laws whose optimum at 1e21 FLOP has 0.3B to 3B parameters."""
    alpha, beta, size = draw(st.floats(0.25, 0.5)), draw(st.floats(0.25, 0.5)), draw(st.floats(3e8, 3e9))
    coefficient = draw(st.floats(100, 1000))
    balance = alpha * coefficient * size**-alpha / (beta * (1e21 / (6 * size)) ** -beta)
    return LossSurface(
        E=draw(st.floats(0.5, 2.5)), A=coefficient, B=balance, alpha=alpha, beta=beta, gamma=draw(st.floats(0.4, 1.2))
    )


def scale(name: str = "transformer", context: int = 8192, convention: str = "paper") -> FamilyScale:
    return FamilyScale(family=paper_family(name), context_length=context, convention=CONVENTIONS[convention])


@settings(max_examples=40)
@given(laws(), st.floats(19, 24))
def test_constant_price_gives_the_closed_form(law: LossSurface, log_flops: float) -> None:
    """C = 6·N·D: the optimum of arXiv 2203.15556, equation 4."""
    flops = 10**log_flops
    num_params, num_tokens = law.optimum(flops)
    found = optimum(law, scale(convention="6ND"), flops)
    assert found.num_params[0] == pytest.approx(num_params, rel=1e-4)
    assert found.num_tokens[0] == pytest.approx(num_tokens, rel=1e-4)
    assert found.loss[0] == pytest.approx(law.predict(num_params, num_tokens), rel=1e-7)
    assert found.tokens_per_param[0] == pytest.approx(num_tokens / num_params, rel=1e-4)


@pytest.mark.parametrize("name", ["transformer", "xlstm"])
@pytest.mark.parametrize("context", [2048, 16384, 2**20])
@pytest.mark.parametrize("law", [LAW, COUPLED])
def test_no_member_of_the_family_is_better(law: LossSurface, name: str, context: int) -> None:
    flops = 1e21
    found = optimum(law, scale(name, context), flops)
    family = paper_family(name)
    widths = found.d_model[0] * np.exp(np.linspace(-1, 1, 2001))
    tokens = flops / family.flops_per_token(widths, context)
    losses = law.predict(family.num_params(widths), tokens)
    assert found.loss[0] <= losses.min() * (1 + 1e-12)
    assert widths[np.argmin(losses)] == pytest.approx(found.d_model[0], rel=2e-3)


@settings(max_examples=40)
@given(laws(), st.floats(19, 23), st.sampled_from(["transformer", "xlstm"]), st.sampled_from([2048, 131072]))
def test_compute_is_spent_and_loss_is_that_of_the_law(
    law: LossSurface, log_flops: float, name: str, context: int
) -> None:
    chosen = scale(name, context)
    found = optimum(law, chosen, 10**log_flops)
    assert chosen.train_flops(found.num_params, found.tokens_per_param)[0] == pytest.approx(10**log_flops, rel=1e-9)
    assert found.loss[0] == pytest.approx(law.predict(found.num_params[0], found.num_tokens[0]), rel=1e-12)
    assert found.num_params[0] == pytest.approx(paper_family(name).num_params(found.d_model[0]), rel=1e-12)


@settings(max_examples=40)
@given(laws(), st.floats(19, 23), st.sampled_from(["transformer", "xlstm"]), st.sampled_from([2048, 131072]))
def test_compute_for_loss_inverts_compute_optimal(law: LossSurface, log_flops: float, name: str, context: int) -> None:
    chosen = scale(name, context)
    best = optimum(law, chosen, 10**log_flops)
    back = compute_for_loss(law, chosen, float(best.loss[0]))
    assert back.train_flops[0] == pytest.approx(10**log_flops, rel=1e-5)
    assert back.num_params[0] == pytest.approx(best.num_params[0], rel=1e-5)
    assert back.num_tokens[0] == pytest.approx(best.num_tokens[0], rel=1e-5)


@settings(max_examples=20)
@given(laws(), st.floats(16, 24), st.floats(-0.5, 1.0))
def test_a_compute_that_grows_with_the_size_is_spent_best(law: LossSurface, log_budget: float, power: float) -> None:
    """With C = b·N^q, the model is the one that the closed form gives for its own C."""
    best = optimum_where(law, FlopsPerParamAndToken(6.0), lambda size, b: b * size**power, 10**log_budget)
    flops = float(best.train_flops[0])
    assert flops == pytest.approx(10**log_budget * float(best.num_params[0]) ** power, rel=1e-9)
    size, tokens = law.optimum(flops, 6.0)
    assert float(best.num_params[0]) == pytest.approx(float(size), rel=1e-6)
    assert float(best.num_tokens[0]) == pytest.approx(float(tokens), rel=1e-6)


def test_no_cheaper_training_reaches_the_loss() -> None:
    chosen, family = scale(context=16384), paper_family("transformer")
    found = compute_for_loss(COUPLED, chosen, 2.6)
    widths = found.d_model[0] * np.exp(np.linspace(-0.7, 0.7, 2001))
    tokens = COUPLED.tokens_for(2.6, family.num_params(widths))
    flops = family.flops_per_token(widths, 16384) * tokens
    assert found.train_flops[0] <= np.nanmin(flops) * (1 + 1e-12)
    assert COUPLED.predict(found.num_params[0], found.num_tokens[0]) == pytest.approx(2.6, rel=1e-10)


def test_xlstm_optimum_does_not_depend_on_the_context() -> None:
    found = [optimum(COUPLED, scale("xlstm", context), 1e21) for context in (64, 2048, 8192, 2**20)]
    np.testing.assert_allclose([f.num_params[0] for f in found], found[0].num_params[0], rtol=1e-12)
    np.testing.assert_allclose([f.loss[0] for f in found], found[0].loss[0], rtol=1e-12)


def test_transformer_optimum_shrinks_with_the_context() -> None:
    found = [optimum(COUPLED, scale(context=context), 1e21) for context in (2048, 8192, 32768, 2**20)]
    assert (np.diff([f.num_params[0] for f in found]) < 0).all()
    assert (np.diff([f.num_tokens[0] for f in found]) < 0).all()
    assert (np.diff([f.loss[0] for f in found]) > 0).all()


def test_many_laws_are_single_laws_side_by_side() -> None:
    runs = subset(load_paper_runs(), architecture="xlstm", context_length=8192, experiment="isoflop")
    bootstrap = fit(LossSurface, runs).bootstrap(20)
    together = optimum(bootstrap.laws, scale("xlstm"), 1e21)
    needed = compute_for_loss(bootstrap.laws, scale("xlstm"), 2.5)
    assert together.num_params.shape == (20,)
    for at, law in enumerate(bootstrap.laws):
        assert together.num_params[at] == pytest.approx(optimum(law, scale("xlstm"), 1e21).num_params[0])
        assert needed.train_flops[at] == pytest.approx(compute_for_loss(law, scale("xlstm"), 2.5).train_flops[0])


def test_one_compute_per_law() -> None:
    both = stacked(LAW, COUPLED)
    assert len(both) == 2
    assert list(both) == [LAW, COUPLED]
    found = optimum(both, scale(), np.array([1e20, 1e22]))
    for at, (law, flops) in enumerate(((LAW, 1e20), (COUPLED, 1e22))):
        assert found.num_params[at] == pytest.approx(optimum(law, scale(), flops).num_params[0])
        assert both.predict(1e9, 1e10)[at] == pytest.approx(law.predict(1e9, 1e10))


@settings(max_examples=40)
@given(laws(), st.floats(1e8, 1e11), st.floats(1e9, 1e13))
def test_tokens_for_inverts_predict(law: LossSurface, num_params: float, num_tokens: float) -> None:
    loss = law.predict(num_params, num_tokens)
    assert law.tokens_for(loss, num_params) == pytest.approx(num_tokens, rel=1e-4)
    limit = law.E + (law.A * num_params**-law.alpha) ** law.gamma
    assert np.isinf(law.tokens_for(limit * (1 - 1e-9), num_params))


def test_laws_without_an_optimum_or_a_way_are_nan() -> None:
    tiny = replace(LAW, B=1e-30)  # tokens are all but free: the largest model wins
    both = stacked(LAW, tiny)
    found = optimum(both, scale(), 1e21)
    assert np.isfinite(found.num_params[0])
    assert np.isnan(found.num_params[1])
    high = replace(LAW, E=5.0)
    both = stacked(LAW, high)
    needed = compute_for_loss(both, scale(), 2.5)
    assert np.isfinite(needed.train_flops[0])
    assert np.isnan([needed.train_flops[1], needed.num_params[1], needed.loss[1]]).all()


@pytest.mark.parametrize("flops", [0.0, -1e20, float("nan"), float("inf")])
def test_compute_must_be_positive(flops: float) -> None:
    with pytest.raises(InputError, match="is not positive and finite"):
        optimum(LAW, scale(), flops)


def test_bad_input() -> None:
    with pytest.raises(InputError, match=r"loss 1\.5 is never reached, the law's floor E is 1\.7"):
        compute_for_loss(LAW, scale(), 1.5)
    with pytest.raises(InputError, match="needs a d_model outside"):
        compute_for_loss(LAW, scale(), LAW.E + 1e-9)
    with pytest.raises(InputError, match="the law has no optimum"):
        optimum(replace(LAW, B=1e-30), scale(), 1e21)
