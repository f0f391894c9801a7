"""The claims of the front page: values computed another way, and every verdict flips with what goes in."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from companion.book.notebooks import ROOT
from companion.chapters.front import (
    HOLDS,
    HOLDS_IN_PART,
    HOLDS_NOT,
    Claim,
    claim_facts,
    constants_claim,
    context_claim,
    dominance_claim,
    overtraining_claim,
    paper_claims,
    serving_claim,
    show_claims,
    size_claim,
)
from companion.fitting.context import fit_context_optima
from companion.fitting.context.scaling import ContextFit
from companion.fitting.pareto import compare_fronts, fit_front
from companion.inference import load_paper_inference
from companion.runs import load_paper_runs, subset


@pytest.fixture(scope="module")
def claims() -> list[Claim]:
    return paper_claims()


@pytest.fixture(scope="module")
def context_fits() -> dict[str, ContextFit]:
    runs = load_paper_runs()
    return {name: fit_context_optima(runs, name) for name in ("xlstm", "transformer")}


def test_verdicts_of_the_paper(claims: list[Claim]) -> None:
    assert [claim.verdict for claim in claims] == [
        HOLDS_IN_PART,
        HOLDS_IN_PART,
        HOLDS,
        HOLDS_IN_PART,
        HOLDS,
        HOLDS_NOT,
    ]


def test_found_in_the_tables(claims: list[Claim]) -> None:
    """Ranges and ratios without fronts, fits or the chapters' functions."""
    runs = load_paper_runs()
    flops = runs[runs["context_length"] == 8192].groupby("architecture")["train_flops"]
    assert f"{np.log10(flops.max().min() / flops.min().max()):.1f} orders of magnitude" in claims[0].found
    single = load_paper_inference().query("batch_size == 1 and prefill_length == 16384").set_index("model_size")
    times = {name: part["ttft_s"] for name, part in single.groupby("architecture")}
    earlier = (1 - times["xlstm"] / times["transformer"]).round(2)
    assert claims[4].found.startswith(f"{100 * earlier.min():.0f} to {100 * earlier.max():.0f} % earlier at 6 sizes")
    steps = load_paper_inference().query("batch_size == 1 and architecture == 'xlstm'").groupby("model_size")
    swing = (steps["step_time_s"].max() / steps["step_time_s"].min()).max() - 1
    assert f"changes by {100 * swing:.2g} % at most" in claims[4].found


def fronts(decades: float, gaps: tuple[float, float]) -> Claim:
    """Two straight fronts over a range; the second lies above the first by `gaps` at its ends."""
    flops = np.array([1e18, 10 ** (18 + decades)])
    loss = np.array([4.0, 2.0])
    return dominance_claim(compare_fronts(fit_front(flops, loss), fit_front(flops, loss + np.array(gaps))))


def test_dominance_flips() -> None:
    assert fronts(4.6, (0.1, 0.1)).verdict == HOLDS
    assert "but" not in fronts(4.6, (0.1, 0.1)).found
    assert fronts(4.4, (0.1, 0.1)).verdict == HOLDS_IN_PART
    assert "but both cover only 4.4" in fronts(4.4, (0.1, 0.1)).found
    assert fronts(4.6, (0.3, -0.1)).verdict == HOLDS_IN_PART
    assert fronts(4.6, (0.3, -0.1)).found.startswith("Lower over 75 % of the compute")
    assert fronts(4.6, (0.1, -0.3)).verdict == HOLDS_NOT


def p_values(straight: tuple[float, float], by_size: tuple[float, float]) -> Mapping[str, pd.DataFrame]:
    names = ("xlstm", "transformer")
    return {
        name: pd.DataFrame({"shape": ["straight", "bent", "by size"], "p_value": [straight[i], 0.5, by_size[i]]})
        for i, name in enumerate(names)
    }


def test_overtraining_flips() -> None:
    assert overtraining_claim(p_values((0.6, 0.06), (0.4, 0.3))).verdict == HOLDS
    doubted = overtraining_claim(p_values((0.6, 0.06), (0.4, 0.003)))
    assert doubted.verdict == HOLDS_IN_PART
    assert doubted.found.endswith("a sharper test rejects them for the Transformer (0.003).")
    rejected = overtraining_claim(p_values((0.04, 0.06), (0.4, 0.3)))
    assert rejected.verdict == HOLDS_NOT
    assert "rejected for xLSTM" in rejected.found


def test_size_flips() -> None:
    ratios = pd.DataFrame({"ratio": [1.5, 1.2], "low": [1.4, 1.1], "high": [1.6, 1.3]})
    assert size_claim(ratios).verdict == HOLDS
    assert "1.20 to 1.50 times" in size_claim(ratios).found
    some = ratios.assign(low=[1.4, 0.9])
    assert size_claim(some).verdict == HOLDS_IN_PART
    assert "1 of 2 95 % intervals" in size_claim(some).found
    assert size_claim(ratios.assign(ratio=[1.5, 0.8], low=[1.4, 0.7], high=[1.6, 0.9])).verdict == HOLDS_NOT
    assert size_claim(ratios.assign(low=[0.9, 0.9])).verdict == HOLDS_NOT


def test_context_flips(context_fits: dict[str, ContextFit]) -> None:
    assert context_claim(context_fits).verdict == HOLDS_IN_PART
    swapped = {"xlstm": context_fits["transformer"], "transformer": context_fits["xlstm"]}
    assert context_claim(swapped).verdict == HOLDS_NOT
    runs = subset(load_paper_runs(), "xlstm")
    short = runs[runs["context_length"] == 2048]
    still = fit_context_optima(pd.concat([short, short.assign(context_length=16384)], ignore_index=True), "xlstm")
    same = context_claim({**context_fits, "xlstm": still})
    assert same.verdict == HOLDS
    assert "includes zero" in same.found


def test_serving_flips() -> None:
    timings = load_paper_inference()
    of_xlstm = timings["architecture"] == "xlstm"
    sooner = timings.assign(ttft_s=timings["ttft_s"].where(~of_xlstm, timings["ttft_s"] / 2))
    assert serving_claim(sooner, 16384).verdict == HOLDS_IN_PART
    growing = sooner.assign(step_time_s=timings["step_time_s"] * (1 + timings["prefill_length"] / 1e5))
    assert serving_claim(growing, 16384).verdict == HOLDS_NOT
    assert serving_claim(growing.assign(ttft_s=timings["ttft_s"]), 16384).verdict == HOLDS_IN_PART
    assert serving_claim(timings, 16384).verdict == HOLDS


def test_constants_flip() -> None:
    shifts = {"quantity": "ttft", "parameter": ["eps_s", "eps_s", "eps_s", "alpha_eff_flops_per_s"]}
    effects = pd.DataFrame(shifts)
    assert constants_claim(effects.assign(shift=[0.05, -0.1, 0.0, 0.3])).verdict == HOLDS
    assert constants_claim(effects.assign(shift=[0.05, -0.2, 0.0, 0.3])).verdict == HOLDS_IN_PART
    worst = constants_claim(effects.assign(shift=[0.5, -0.2, 0.0, 0.03]))
    assert worst.verdict == HOLDS_NOT
    assert "2 of 3 constants change by more than 10 % (the rates by at most 3.0 %)" in worst.found


def test_markup(claims: list[Claim]) -> None:
    markup = show_claims(claims).markup
    assert markup.count("<li>") == markup.count("companion-verdict ") == len(claims)
    for claim in claims:
        assert (ROOT / "notebooks" / f"{claim.chapter}.md").is_file()
        assert f'href="chapters/{claim.chapter}.html"' in markup
    odd = Claim(says="a < b", place="p", found="5 % & more", verdict=HOLDS_NOT, chapter="03_isoflop")
    markup = show_claims([odd]).markup
    assert "a &lt; b" in markup
    assert "5\u00a0% &amp; more" in markup
    assert "companion-verdict-not" in markup
    assert ">chapter 3</a>" in markup


def test_facts(claims: list[Claim]) -> None:
    facts = claim_facts(claims)
    counted = [int(facts[f"front_{name}"]) for name in ("holds", "in_part", "holds_not")]
    assert sum(counted) == len(claims)
    assert counted == [2, 3, 1]
    assert facts["front_earlier"] == "30 to 50 %"
    page = Path(ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in facts)
