"""Profiles, pairs, rates, contexts and claims: on the recorded runs, and on runs whose law is known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from html_tables import text_of

from companion.chapters import ch15
from companion.chapters.ch15 import judged, lessons, pairs, seeds, settings
from companion.chapters.ch15.study import OwnStudy
from companion.errors import NotApplicable
from companion.study.claims import CANNOT_TELL, DOES_NOT_HOLD, HOLDS, StudyClaim, study_claims

NOISE = 0.004


def claims_of(study: OwnStudy) -> list[StudyClaim]:
    return study_claims(study.runs, *study.pair, context_length=study.context_length, num_resamples=200)


@pytest.mark.parametrize("which", ["earlier", "whole"])
def test_every_figure_and_table_has_something_to_show(which: str, request: pytest.FixtureRequest) -> None:
    study: OwnStudy = request.getfixturevalue(which)
    found = study.profiles(100)
    paired, scatter = ch15.pairs_of(study), ch15.seed_scatter(study.at_context)
    sweep, slopes = ch15.rate_sweep(study), ch15.slopes_of(study)
    contexts = ch15.context_profiles(study, 100)
    pages = [
        ch15.show_profiles(study, found),
        ch15.show_optima(study, found),
        ch15.show_pairs(study, paired, scatter),
        ch15.show_seeds(scatter),
        ch15.show_rates(study, sweep),
        ch15.show_best_rates(sweep),
        ch15.show_contexts(study, contexts),
        ch15.show_context_losses(study),
        ch15.show_lines(study, slopes),
        ch15.show_slopes(slopes),
        ch15.show_claims(claims_of(study), 0.95),
        ch15.show_rules(claims_of(study)),
        ch15.show_fronts(study, ch15.front_rows(study)),
    ]
    assert all(len(text_of(page)) > 100 for page in pages)
    facts: dict[str, Any] = ch15.answer_facts(study, claims_of(study)) | ch15.exponent_facts(found)
    facts |= (
        ch15.pair_facts(study, paired)
        | ch15.seed_facts(study, paired, scatter)
        | ch15.rate_facts(study, sweep)
        | ch15.context_facts(study)
    )
    facts |= ch15.slope_facts(slopes) | ch15.front_facts(study, ch15.front_rows(study))
    assert all(str(value) and "nan" not in str(value) for value in facts.values()), facts


# ---- a study whose law is known --------------------------------------------------------------------


def test_the_whole_study_finds_the_exponent_of_its_law(whole: OwnStudy) -> None:
    found = whole.profiles(400)
    assert all(len(fits.optima) == len(fits.profiles) == 4 for fits in found.values())
    facts = ch15.exponent_facts(found)
    assert facts["c15_num_optima"] == "all twelve"
    low, high = found["xlstm"].interval("exponent")
    assert low - 0.05 < 0.4 / 0.7 < high + 0.05


def test_seeds_scatter_as_they_were_made_to(whole: OwnStudy) -> None:
    scatter = ch15.seed_scatter(whole.at_context)
    assert (scatter["seeds"] == 3).all()
    assert seeds.pooled(scatter) == pytest.approx(NOISE, rel=0.4)
    assert seeds.difference_noise(scatter, whole.pair) == pytest.approx(np.sqrt(2) * NOISE, rel=0.4)
    assert seeds.seed_text(scatter).count("(6 configurations)") == 2
    with pytest.raises(NotApplicable, match="no configuration was trained from two seeds"):
        ch15.show_seeds(scatter[:0])
    assert np.isnan(seeds.pooled(scatter[:0]))


def test_seeds_of_one_architecture_judge_no_difference(whole: OwnStudy) -> None:
    scatter = ch15.seed_scatter(whole.at_context)
    one = scatter[scatter["architecture"] == "xlstm"]
    noise = seeds.difference_noise(one, whole.pair)
    assert np.isnan(noise)
    assert seeds.noise_verdict(ch15.pairs_of(whole), noise).startswith("Only one of the two architectures")


def test_the_most_and_the_least_scattered_are_named() -> None:
    rows = [("xlstm", 1e6, 0.02), ("transformer", 3e6, 0.005), ("xlstm", 5e6, 0.01)]
    scatter = pd.DataFrame(rows, columns=["architecture", "num_params", "deviation"])
    text = "It is least for the Transformer of 3.0M (0.0050) and most for the xLSTM of 1.0M (0.0200)"
    assert seeds.span_verdict(scatter) == text
    assert seeds.span_verdict(scatter[:1]) == "One configuration says nothing of others"


def test_curves_of_seeds_are_those_that_end_farthest_apart(study: OwnStudy) -> None:
    scatter = ch15.seed_scatter(study.at_context)
    curves = ch15.seed_curves(study, scatter)
    assert "seed" in text_of(ch15.show_seed_curves(curves))
    for name, lines in zip(study.pair, curves.values(), strict=True):
        own = scatter[scatter["architecture"] == name]
        assert list(lines.index) == [0, 1, 2]
        assert lines.loc[:, 1.0].std() == pytest.approx(own["deviation"].max(), rel=0.2)
    with pytest.raises(NotApplicable, match="does not name its runs"):
        ch15.seed_curves(replace(study, runs=study.runs.drop(columns="run")), scatter)
    assert study.logs is not None
    with pytest.raises(NotApplicable, match="no configuration has curves of two seeds"):
        ch15.seed_curves(replace(study, logs=study.logs[:1]), scatter)
    with pytest.raises(NotApplicable, match="no curves are given"):
        ch15.seed_curves(replace(study, curves=None), scatter)
    with pytest.raises(NotApplicable, match="trained from two seeds"):
        ch15.seed_curves(study, scatter[:0])


def test_a_fall_is_found_where_it_was_made() -> None:
    at = np.arange(5, 101) / 100
    slow = 4 - 0.2 * at
    lines = pd.DataFrame([slow, slow - 0.3 * (at > 0.455)], columns=at)
    begin, most, least = seeds.sudden_fall(lines)
    assert 0.355 < begin < 0.455
    assert (most, least) == pytest.approx((0.32, 0.02))
    late = lines.mask(np.tile(at < 0.35, (2, 1)))
    assert seeds.sudden_fall(late)[1:] == pytest.approx((0.32, 0.02))
    assert np.isnan(seeds.sudden_fall(lines.mask(np.tile(at < 0.95, (2, 1))))).all()
    assert "one seed (a) falls by 0.320 nats/token and another by 0.020" in seeds.fall_verdict({"a": lines})
    assert (
        seeds.fall_verdict({"a": lines.iloc[[0, 0]]}) == "The curves of the seeds part slowly: none falls all at once"
    )


def test_signs_of_pairs_by_budget() -> None:
    table = pd.DataFrame({"isoflop_budget": [1e15, 1e15, 1e16], "loss_gap": [0.1, -0.1, 0.1]})
    by_budget = ": 1 of 2 at 1×10¹⁵ FLOP and 1 of 1 at 1×10¹⁶ FLOP"
    assert (
        pairs.sign_verdict(table, "the xLSTM") == f"The xLSTM has the lower loss in two of the three pairs{by_budget}"
    )
    assert pairs.sign_verdict(table[::2], "the xLSTM") == "The xLSTM has the lower loss in both pairs"


def test_pairs_of_the_whole_study(whole: OwnStudy) -> None:
    assert len(ch15.pairs_of(whole)) == 6 * 4 + 6 * 2, "every size at every budget, and two more seeds of one"
    none = replace(whole, runs=whole.runs[whole.runs["architecture"] != "xlstm"], pair=("hybrid", "gpt"))
    assert ch15.pairs_of(none).empty


def test_the_usual_rate_is_the_best_where_it_was_made_so(whole: OwnStudy) -> None:
    sweep = ch15.rate_sweep(whole)
    assert sorted(sweep["factor"].unique()) == pytest.approx([0.5, 1, 2, 4])
    best = settings.best_rates(sweep)
    assert (best["best"] == 1).all()
    assert (best["cost"] == 0).all()
    gaps = settings.rate_gaps(whole, best)
    assert len(gaps) == 3
    none = ch15.seed_scatter(whole.at_context)[:0]
    assert (
        settings.rate_verdict(best, none)
        == "At every size the usual rate is within 0.01 nats/token of the best one tried"
    )
    moved = sweep.assign(val_loss=sweep["val_loss"] - 0.2 * (sweep["factor"] == 2))
    moved["excess"] = moved["val_loss"] - moved.groupby(["architecture", "num_params"])["val_loss"].transform("min")
    worse = settings.best_rates(moved)
    text = settings.rate_verdict(worse, none)
    assert text.startswith("The usual rate costs more than 0.01 nats/token for")
    assert "seeds" not in text
    noisy = worse[["architecture", "num_params"]].assign(seeds=3, deviation=0.1)
    assert settings.rate_verdict(worse, noisy) == f"{text}; two of their seeds may differ by as much"
    assert settings.rate_verdict(worse, noisy[:1]).endswith(
        "; two seeds of the Transformer of 470k may differ by as much"
    )
    with pytest.raises(NotApplicable, match="no size was trained at three learning rates"):
        ch15.rate_sweep(replace(whole, runs=whole.at_context))


def test_prices_of_tokens_do_not_overflow() -> None:
    runs = pd.DataFrame(
        {"num_params": [7_000_000_000, 10], "num_tokens": [10**13, 10], "train_flops": [4.2e23, 1200.0]}
    )
    assert settings.prices(runs) == pytest.approx([1.0, 2.0])
    assert settings.prices(runs[:0]) == []


def test_contexts_need_two(whole: OwnStudy) -> None:
    found = ch15.context_profiles(whole, 50)
    assert set(found["xlstm"]) == {256, 1024, 4096}
    assert len(settings.budgets_of(found)) == 2, "those that were trained at several contexts"
    with pytest.raises(NotApplicable, match="one context length"):
        ch15.context_profiles(replace(whole, runs=whole.at_context), 50)
    assert "−0.100 nats/token" in settings.fall_verdict(pd.Series({256: 3.9, 4096: 3.8}), 256, 4096).replace("-", "−")
    assert settings.fall_verdict(pd.Series(dtype=float), 256, 4096).startswith("How much more")


# ---- claims and the pitfall ------------------------------------------------------------------------


def claim(verdict: str, name: str = "loss") -> StudyClaim:
    numbers = {"value": 1.0, "low": 0.5, "high": 1.5, "num_runs": 3}
    words = {"statement": "a", "quantity": "b", "unit": "", "judged": "c", "needed": ""}
    return StudyClaim(claim=name, verdict=verdict, **numbers, **words)  # type: ignore[arg-type]


def test_verdicts_of_the_answer() -> None:
    def answer(*verdicts: str) -> str:
        return judged.answer_verdict([claim(each) for each in verdicts])

    assert answer(CANNOT_TELL, CANNOT_TELL) == "These runs decide none of the paper's two claims about training"
    assert answer(HOLDS, HOLDS) == "All of the paper's two claims about training hold on these runs"
    mixed = answer(HOLDS, HOLDS, DOES_NOT_HOLD, CANNOT_TELL)
    assert mixed == "Of the paper's four claims about training two hold, one does not hold and one stays open"
    assert judged.decided_verdict([claim(CANNOT_TELL)]) == "These runs decide none of the claims yet"
    both = judged.decided_verdict([claim(HOLDS, "size"), claim(DOES_NOT_HOLD)])
    assert both == 'These hold: "size"; these do not hold: "loss"'


def test_claims_stand_beside_those_of_the_papers_runs(study: OwnStudy) -> None:
    found = claims_of(study)
    assert {each.verdict for each in judged.paper_claims(found, 0.95) if each} == {HOLDS}
    page = text_of(ch15.show_claims(found, 0.95))
    assert "xLSTM" in page
    assert "xlstm" not in page
    assert judged.paper_claims([claim(HOLDS, "over-training, gpt")], 0.95) == [None]


def test_so_far(study: OwnStudy, whole: OwnStudy) -> None:
    assert judged.so_far_verdict(whole) == f"All {len(whole.runs)} planned runs are trained"
    assert judged.so_far_verdict(replace(study, plan=None)) == f"The table has {len(study.runs)} runs"
    assert study.plan is not None
    part = replace(study, plan=study.plan.assign(trained=np.arange(len(study.plan)) < 5))
    assert judged.so_far_verdict(part) == f"So far 5 of {len(study.plan)} planned runs are trained"


def test_fronts_of_parts(whole: OwnStudy) -> None:
    fronts = ch15.front_rows(whole)
    assert list(fronts["runs"]) == ["all", "IsoFLOP", "Token/Param"]
    assert fronts["share"].between(0, 1).all()
    agree, differ = pd.Series({"all": 0.9, "IsoFLOP": 0.95}), pd.Series({"all": 0.6, "IsoFLOP": 0.9})
    assert lessons.front_verdict(whole, agree).endswith("so the parts agree")
    assert lessons.front_verdict(whole, differ).endswith("so the answer depends on which runs are taken")
    with pytest.raises(NotApplicable, match="share no range"):
        ch15.front_rows(replace(whole, runs=whole.runs[whole.runs["architecture"] == "hybrid"]))


# ---- exercises -----------------------------------------------------------------------------------


def test_half_the_difference_takes_about_four_times_the_seeds() -> None:
    table = ch15.seeds_needed(0.005, [0.004, 0.002, 1e-6])
    first, second = (int(text) for text in table["seeds"][:2])
    assert second / first == pytest.approx(4, rel=0.2)
    assert table["seeds"].iloc[2] == "more than 10,000"


def test_thinned_profiles_have_few_sizes(whole: OwnStudy) -> None:
    thin = lessons.thinned(whole.runs, 3, np.random.default_rng(0))
    iso = thin[thin["isoflop_budget"].notna()]
    keys = ["architecture", "context_length", "isoflop_budget"]
    assert set(iso.groupby(keys)["num_params"].nunique()) == {3}
    assert len(thin[thin["isoflop_budget"].isna()]) == whole.runs["isoflop_budget"].isna().sum()
    table = ch15.verdicts_by_sizes(whole.runs, [3], num_draws=1)
    assert table[[HOLDS, CANNOT_TELL, DOES_NOT_HOLD]].sum(axis=1).tolist() == [1.0] * 4
    assert "3" in text_of(ch15.show_verdicts(table))
