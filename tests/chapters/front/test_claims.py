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
    cubic_ratio,
    dominance_claim,
    loss_facts,
    overtraining_claim,
    paper_claims,
    serving_claim,
    show_claims,
    size_claim,
)
from companion.fitting.context import fit_context_optima
from companion.fitting.context.scaling import ContextFit
from companion.fitting.isoflop import fit_isoflop, isoflop_runs
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
        HOLDS_IN_PART,
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
    found = claims[4].found
    range_of = f"{100 * earlier.min():.0f} to {100 * earlier.max():.0f} % earlier at 6 sizes"
    assert found.startswith(f"For one sequence: {range_of}")
    steps = load_paper_inference().query("architecture == 'xlstm'")
    by_size = steps[steps["batch_size"] == 1].groupby("model_size")["step_time_s"]
    assert f"changes by {100 * ((by_size.max() / by_size.min()).max() - 1):.2g} % at most" in found
    worst = max(
        (part["step_time_s"].max() / part["step_time_s"].min() - 1, size, batch)
        for (size, batch), part in steps.groupby(["model_size", "batch_size"])
    )
    assert f"by up to {100 * worst[0]:.2g} % ({worst[1].upper()}, {worst[2]} sequences)" in found


def fronts(decades: float, gaps: tuple[float, float]) -> Claim:
    """Two straight fronts over a range; the second lies above the first by `gaps` at its ends."""
    flops = np.array([1e18, 10 ** (18 + decades)])
    loss = np.array([4.0, 2.0])
    return dominance_claim(compare_fronts(fit_front(flops, loss), fit_front(flops, loss + np.array(gaps))))


def test_dominance_flips() -> None:
    assert fronts(4.6, (0.1, 0.1)).verdict == HOLDS
    assert "but" not in fronts(4.6, (0.1, 0.1)).found
    assert fronts(4.4, (0.1, 0.1)).verdict == HOLDS_IN_PART
    assert "but that range spans only 4.4" in fronts(4.4, (0.1, 0.1)).found
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
    assert doubted.found.endswith("rejects it for the Transformer (p = 0.003).")
    rejected = overtraining_claim(p_values((0.04, 0.06), (0.4, 0.3)))
    assert rejected.verdict == HOLDS_NOT
    assert "rejected for xLSTM" in rejected.found


def test_size_flips() -> None:
    ratios = pd.DataFrame({"ratio": [1.5, 1.2], "low": [1.4, 1.1], "high": [1.6, 1.3]})
    cubics = pd.Series([1.7, 1.05])
    assert size_claim(ratios, cubics).verdict == HOLDS
    assert "1.20 to 1.50 times" in size_claim(ratios, cubics).found
    assert size_claim(ratios, cubics).found.endswith("above 1 (with cubics for parabolas: 1.05 to 1.70).")
    assert size_claim(ratios, pd.Series([1.7, 0.95])).verdict == HOLDS_IN_PART
    assert size_claim(ratios, pd.Series([1.7, np.nan])).verdict == HOLDS_IN_PART
    some = ratios.assign(low=[1.4, 0.9])
    assert size_claim(some, cubics).verdict == HOLDS_IN_PART
    assert "1 of 2 95 % intervals" in size_claim(some, cubics).found
    below = ratios.assign(ratio=[1.5, 0.8], low=[1.4, 0.7], high=[1.6, 0.9])
    assert size_claim(below, cubics).verdict == HOLDS_NOT
    assert size_claim(ratios.assign(low=[0.9, 0.9]), cubics).verdict == HOLDS_NOT


def test_cubics_against_a_fit_in_logarithms() -> None:
    """N* by an ordinary cubic through the losses over log10 N, at one budget."""
    runs = load_paper_runs().query("context_length == 8192 and experiment == 'isoflop' and isoflop_budget == 1e20")
    best = {}
    for name, part in runs.groupby("architecture"):
        cubic = np.polynomial.Polynomial.fit(np.log10(part["num_params"]), part["val_loss"], 3)
        grid = np.linspace(*np.log10(part["num_params"].quantile([0.1, 0.9])), 20001)
        best[name] = 10 ** grid[np.argmin(cubic(grid))]
    fits = {name: fit_isoflop(isoflop_runs(load_paper_runs(), name, 8192)) for name in best}
    ratios = cubic_ratio(fits["xlstm"], fits["transformer"])
    assert ratios.to_dict()[1e20] == pytest.approx(best["xlstm"] / best["transformer"], rel=2e-3)


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
    assert serving_claim(timings, 16384).verdict == HOLDS_IN_PART
    single = timings[timings["batch_size"] == 1]
    of_xlstm = single["architecture"] == "xlstm"
    assert serving_claim(single, 16384).verdict == HOLDS, "one sequence at a time"
    assert "batches" not in serving_claim(single, 16384).found
    sooner = single.assign(ttft_s=single["ttft_s"].where(~of_xlstm, single["ttft_s"] / 2))
    assert serving_claim(sooner, 16384).verdict == HOLDS_IN_PART
    growing = sooner.assign(step_time_s=single["step_time_s"] * (1 + single["prefill_length"] / 1e5))
    assert serving_claim(growing, 16384).verdict == HOLDS_NOT
    assert serving_claim(growing.assign(ttft_s=single["ttft_s"]), 16384).verdict == HOLDS_IN_PART


def test_serving_looks_at_every_batch() -> None:
    timings = load_paper_inference()
    single = timings[timings["batch_size"] == 1]
    larger = single.assign(batch_size=8)
    assert serving_claim(pd.concat([single, larger]), 16384).verdict == HOLDS
    of_xlstm = larger["architecture"] == "xlstm"
    rising = larger.assign(step_time_s=larger["step_time_s"] * (1 + of_xlstm * larger["prefill_length"] / 1e5))
    claim = serving_claim(pd.concat([single, rising]), 16384)
    assert claim.verdict == HOLDS_IN_PART
    assert "a step changes by up to" in claim.found
    assert "8 sequences" in claim.found
    later = larger.assign(ttft_s=larger["ttft_s"].where(~of_xlstm, larger["ttft_s"] * 1.5))
    assert serving_claim(pd.concat([single, later]), 16384).verdict == HOLDS_IN_PART


def test_constants_flip() -> None:
    shifts = {"quantity": "ttft", "parameter": ["eps_s", "eps_s", "eps_s", "alpha_eff_flops_per_s"]}
    effects = pd.DataFrame(shifts)
    assert constants_claim(effects.assign(shift=[0.05, -0.1, 0.0, 0.3])).verdict == HOLDS
    assert constants_claim(effects.assign(shift=[0.05, -0.2, 0.0, 0.3])).verdict == HOLDS_IN_PART
    worst = constants_claim(effects.assign(shift=[0.5, -0.2, 0.0, 0.03]))
    assert worst.verdict == HOLDS_NOT
    assert "2 of 3 overheads change by more than 10 %, the rates by at most 3.0 %." in worst.found


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
    assert facts["front_claims"] == f"{len(claims)} claims"
    counted = [facts[f"front_{name}"] for name in ("holds", "in_part", "holds_not")]
    assert counted == ["one holds", "four hold", "one does"]
    assert facts["front_earlier"] == "30 to 50 %"
    page = Path(ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in facts | loss_facts(load_paper_runs()))


def test_losses_by_their_source() -> None:
    runs = load_paper_runs()
    facts = loss_facts(runs)
    number = {name: int(facts[f"front_{name}"]) for name in ("losses", "logged", "read", "rebuilt")}
    assert number["losses"] == len(runs) == number["logged"] + number["read"] + number["rebuilt"]
    assert number["logged"] == runs["source"].isin(["pickle", "notebook"]).sum()
    assert number["rebuilt"] == runs["imposed_published_fit"].sum()
    assert runs.loc[runs["imposed_published_fit"] == 0, "loss_uncertainty"].max() == 5e-6, "exact to 5 decimals"
    assert facts["front_rebuilt_budgets"] == "two of the four"
    assert facts["front_rebuilt_contexts"] == "two of the three"
    measured = loss_facts(runs.assign(imposed_published_fit=0))
    assert measured["front_rebuilt"] == "0"
    assert measured["front_rebuilt_budgets"] == "none of the four"
