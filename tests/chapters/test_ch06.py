"""Chapter 6: the summary of the pitfalls, and what each section concludes from tables of known content."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from companion.chapters import ch06
from companion.chapters.ch06.mistakes import all_pairs_metrics, ends_of_search, paired_metrics
from companion.errors import InputError
from companion.fitting.fit import fit
from companion.fitting.overtraining import fit_overtraining_slopes
from companion.laws import LossSurface
from companion.runs.load import load_paper_runs
from companion.runs.select import subset

LAW = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)


def pitfall(key: str, here: str = "a 0.5", **shifts: float) -> ch06.Pitfall:
    return ch06.Pitfall(
        key=key, name=key, changes="all", here=here, notice="look", sentence=f"About {key}", shifts=shifts
    )


def simulated(num_runs: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(8, 10, num_runs), 10 ** rng.uniform(9.5, 11.5, num_runs)
    loss = LAW.predict(n, d) * np.exp(rng.normal(0, 0.003, num_runs))
    return pd.DataFrame({"num_params": n, "num_tokens": d, "val_loss": loss})


def test_summary_sorts_cases_by_the_interval() -> None:
    summary = ch06.Summary(0.5, (0.48, 0.53))
    assert summary.add(pitfall("first", small=0.02, large=-0.1)) == {"c6_verdict_first": "About first"}
    summary.add(pitfall("second", upper=0.031))
    summary.add(pitfall("third"))
    summary.add(pitfall("fourth", here="–"))  # the table cannot show it
    facts = summary.facts()
    assert (facts["c6_a"], facts["c6_interval"]) == ("0.500", "[0.480, 0.530]")
    assert facts["c6_outside"] == ": large (-0.100); upper (+0.031)"
    assert facts["c6_inside"] == "The other cases stay inside: small (+0.0200)"
    assert facts["c6_silent"] == "1 mislead without moving a: third (all)"
    assert [facts[f"c6_num_{key}"] for key in ("pitfalls", "moving", "cases", "outside")] == ["4", "3", "3", "2"]
    assert facts["c6_take_largest"] == "largest here: large"
    assert summary.table().markup.count("<tr") == 5


def test_summary_without_a_case() -> None:
    summary = ch06.Summary(0.5, (0.48, 0.53))
    summary.add(pitfall("none", here="–"))
    facts = summary.facts()
    assert (facts["c6_outside"], facts["c6_inside"]) == ("", "None stays inside")
    assert facts["c6_silent"] == "None misleads without moving a"
    assert facts["c6_take_largest"] == "none here leaves the interval"


def test_parabolas() -> None:
    biases = pd.DataFrame({"grid": ["fixed", "drifting"], "exponent_bias": [0.0, 0.02], "parametric_error": -1e-9})
    biases = biases.assign(bias_lowest=np.log10([1.1, 1.0]), bias_highest=np.log10([1.2, 0.9]))
    found = ch06.pitfall_skewed(biases, 0.01)
    assert found.here == "N* -10.0% to +20.0%"
    assert "a is off by +0.0200 on the drifting grid and by +0.0100" in found.sentence
    assert found.shifts == {"parabolas at the trained sizes": 0.01}


def test_designs_of_a_table_with_and_without_another_experiment() -> None:
    table = simulated()
    designs = pd.DataFrame({"exponent_standard_error": [0.01, 0.2]})
    curve = pd.DataFrame({"decades": [0.01, 3.0], "gamma_free": [1e6, 50.0]})
    alone = ch06.pitfall_one_ratio(designs, curve, table, 0.4)
    assert alone.shifts == {}
    assert alone.here == "condition 50.0 to 1000000"
    assert alone.sentence.endswith("designs: 0.010 to 0.20")
    both = pd.concat([table.assign(experiment="isoflop"), table.assign(experiment="other")])
    found = ch06.pitfall_one_ratio(designs, curve, both, 0.4)
    law = fit(LossSurface, table).law
    assert found.shifts == pytest.approx({"the other design (other)": law.beta / (law.alpha + law.beta) - 0.4})


def test_rounding_names_the_laws_as_printed() -> None:
    fitted = fit(LossSurface, simulated())
    rounding = ch06.rounded(fitted, [], 1e21, [1, 3])
    assert rounding["law"].tolist() == ["all digits", "1 decimals", "3 decimals"]
    ratio = rounding["objective_ratio"].iloc[1]
    assert ch06.pitfall_rounding(rounding, [1, 3]).sentence.count("(") == 0
    printed = pd.concat([rounding, rounding.tail(1).assign(law="as printed", objective_ratio=2.0)])
    found = ch06.pitfall_rounding(printed, [1, 3])
    assert found.here == f"objective × {ratio:.1f}"
    assert found.sentence.endswith("(as printed: 2.0 times)")


def test_published_rounding_is_found_for_the_headline_fit_only() -> None:
    assert len(ch06.printed_entries("transformer", 8192)) == 1
    assert ch06.printed_entries("gpt", 8192) == []


def test_repeats() -> None:
    rows = [{"counted": "every run once", "size_exponent": 0.5, "width": 1.0}]
    rows.append({"counted": "every run twice", "size_exponent": 0.51, "width": 0.7})
    twice = pd.DataFrame(rows)
    none = ch06.pitfall_repeated(twice, "xlstm", 0, 40)
    assert none.shifts == {}
    assert none.sentence.startswith("Every run twice: a moves by +0.0100 and its interval becomes 0.70 times as wide")
    assert ch06.pitfall_repeated(twice, "xlstm", 3, 40).shifts == pytest.approx({"repeated rows (xLSTM)": 0.01})


def test_a_metric_over_pairs() -> None:
    observed = np.array([2.0, 2.5, 3.0])
    metrics = {
        name: (paired_metrics(observed, values), all_pairs_metrics(observed, values))
        for name, values in {"the fit": observed, "a constant": np.full(3, 2.5)}.items()
    }
    candidates = pd.DataFrame({"mse_paired": [1.0, 3.0], "mse_all_pairs": [5.0, 4.0], "size_exponent": [0.5, 0.6]})
    found = ch06.pitfall_pairs(metrics, candidates, 0.5)
    assert found.here == "mse × 3.0; r² -1.00 for 1.00"
    assert found.shifts == pytest.approx({"selected by a metric over pairs": 0.1})
    assert ch06.near_facts(candidates, 0.5) == {"c6_num_near": "1", "c6_start_move": "+1e-01"}


def test_ends_of_a_search() -> None:
    theta = np.array([[1.0, 2.0, 0.5, 0.3, 0.4, 1.0], [5.0, 5.0, 5.0, 5.0, 5.0, 5.0]])
    search = SimpleNamespace(theta=theta, objective=np.array([1.0, 2.0]))
    [end] = ends_of_search(search, 1.5).to_dict("records")  # type: ignore[arg-type]
    assert end == pytest.approx({"A": np.e, "B": np.e**2, "E": np.e**0.5, "alpha": 0.3, "beta": 0.4, "gamma": 1.0})


def test_what_a_table_cannot_show() -> None:
    def refuses(_: pd.DataFrame) -> None:
        raise InputError("no ratio <has> three runs")

    slopes, reason = ch06.tried(refuses, simulated())
    assert slopes is None
    assert ch06.variance_table(slopes, reason).markup == "<p>Not on this table: no ratio &lt;has&gt; three runs.</p>"
    for found in (ch06.pitfall_variance(None), ch06.pitfall_embedding(None, simulated())):
        assert (found.here, found.sentence, found.silent) == ("–", "This table cannot show it", False)
    assert ch06.embedding_table(None).markup == ""
    assert "no column" in ch06.embedding_figure(None, "no column 'd_model'").markup


def test_variances_of_the_paper() -> None:
    runs = subset(load_paper_runs(), architecture="transformer", context_length=8192)
    slopes, reason = ch06.tried(fit_overtraining_slopes, runs)
    assert reason == ""
    errors = slopes.table()["eta_standard_error"]
    found = ch06.pitfall_variance(slopes)
    assert found.here == f"errors / {1 / errors.max():.0f} to {1 / errors.min():.0f}"
    assert found.silent


def test_a_product_without_an_optimum() -> None:
    runs = simulated()

    def product(n: float, d: float) -> float:
        return 1 + 10 * n**-0.1 * d**-0.05

    forms = {
        "sum, gamma free": SimpleNamespace(predict=LAW.predict, num_free=6, rms=0.01, E=1.69),
        "product": SimpleNamespace(predict=product, num_free=4, rms=0.05, E=1.0),
    }
    found = ch06.pitfall_product(runs, forms)  # type: ignore[arg-type]
    assert found.here == "no optimum"
    n, d = runs["num_params"], runs["num_tokens"]
    assert f"differs by {product(n.min(), d.max()) - LAW.predict(n.min(), d.max()):+.2f} and" in found.sentence


def test_a_resample_that_determines_no_law() -> None:
    table = pd.DataFrame({"drawn": ["once", "seed 0"], "distinct": [9, 5], "most": [1, 3]})
    open_ = ch06.pitfall_resample(table.assign(size_exponent=[0.5, np.nan]), 9)
    assert open_.sentence == "The resample holds 5 of 9 runs, one of them 3 times; they determine no law"
    assert (open_.here, dict(open_.shifts)) == ("–", {})
    known = ch06.pitfall_resample(table.assign(size_exponent=[0.5, 0.6]), 9)
    assert known.shifts == pytest.approx({"one resample (seed 0)": 0.1})


def test_the_gap_of_exponents() -> None:
    gaps = np.array([0.2, 0.1, 0.05])
    markup = ch06.gaps_table([(gap, 1 / gap, 1 / gap**3) for gap in gaps]).markup
    assert markup.count("-1.00") == 3
    assert markup.count("-3.00") == 3
