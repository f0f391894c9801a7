"""Chapter 6: the summary of the pitfalls, and what each section concludes from tables of known content."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from companion.chapters import ch06
from companion.chapters.ch06.mistakes import (
    COUNTED,
    Repeats,
    compare_metrics,
    ends_of_search,
    most_repeated,
)
from companion.errors import InputError
from companion.fitting.fit import fit
from companion.fitting.overtraining import fit_overtraining_slopes
from companion.laws import LossSurface
from companion.ledger import build_ledger, to_frame
from companion.plotting import Html
from companion.runs.load import load_paper_runs
from companion.runs.select import subset

LAW = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)


def pitfall(key: str, here: str = "a 0.5", **shifts: float) -> ch06.Pitfall:
    return ch06.Pitfall(
        key=key, name=key, changes="all", here=here, notice="look", sentence=f"About {key}", shifts=shifts
    )


def rows_of(table: Html) -> list[list[str]]:
    """The cells of a table's body, row by row."""
    bodies = re.findall(r"<tr>(.*?)</tr>", table.markup)[1:]
    return [[re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td.*?</td>", body)] for body in bodies]


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
    assert (facts["c6_a"], facts["c6_outside"], facts["c6_silent"]) == ("0.500", "two move", "third (all)")
    assert [facts[f"c6_num_{key}"] for key in ("pitfalls", "moving", "cases")] == ["4", "three", "3"]
    assert (facts["c6_largest"], facts["c6_largest_shift"]) == ("large", "-0.100")
    assert summary.table().markup.count("<tr") == 5
    assert [row[-1] for row in rows_of(summary.cases_table())] == ["outside", "outside", "inside"]
    assert [row[:2] for row in rows_of(summary.overview_table())] == [
        ["large", "−0.100"],
        ["upper", "+0.031"],
        ["1 case inside the interval", "+0.020"],
        ["third", "none"],
    ]


def test_the_overview_stays_short() -> None:
    summary = ch06.Summary(0.5, (0.48, 0.53))
    summary.add(pitfall("many", **{f"case {number}": number / 10 for number in range(1, 9)}))
    rows = rows_of(summary.overview_table())
    assert len(rows) == 6
    assert rows[-1][:2] == ["3 other cases outside", "+0.100 to +0.300"]
    markup = summary.overview(7, "xlstm").markup
    assert markup.index('id="fig-pitfalls-shifts"') < markup.index('id="tbl-pitfalls-overview"')
    assert "[0.480, 0.530], from 7 IsoFLOP runs (xLSTM)" in markup


def test_summary_without_a_case() -> None:
    summary = ch06.Summary(0.5, (0.48, 0.53))
    summary.add(pitfall("none", here="–"))
    facts = summary.facts()
    assert (facts["c6_outside"], facts["c6_silent"]) == ("none moves", "none of them")
    assert (facts["c6_largest"], facts["c6_largest_shift"]) == ("no case", "+0.000")


def test_parabolas() -> None:
    biases = pd.DataFrame({"grid": ["fixed", "drifting"], "exponent_bias": [0.0, 0.02], "parametric_error": -1e-9})
    biases = biases.assign(bias_lowest=np.log10([1.1, 1.0]), bias_highest=np.log10([1.2, 0.9]))
    found = ch06.pitfall_skewed(biases, 0.01)
    assert found.here == "N* −10.0 to +20.0 %"
    assert "off by +0.0200 on the drifting grid and by +0.0100" in found.sentence
    assert found.shifts == {"parabolas, trained sizes": 0.01}


def test_designs_of_a_table_with_and_without_another_experiment() -> None:
    table = simulated()
    designs = pd.DataFrame({"exponent_standard_error": [0.01, 0.2]})
    curve = pd.DataFrame({"decades": [0.01, 3.0], "gamma_free": [1e6, 50.0]})
    alone = ch06.pitfall_one_ratio(designs, curve, table, 0.4)
    assert alone.shifts == {}
    assert alone.here == "condition number 50.0 to 1000000"
    assert alone.sentence.endswith("lies between 0.010 and 0.20")
    both = pd.concat([table.assign(experiment="isoflop"), table.assign(experiment="other")])
    found = ch06.pitfall_one_ratio(designs, curve, both, 0.4)
    law = fit(LossSurface, table).law
    assert found.shifts == pytest.approx({"other design (other)": law.beta / (law.alpha + law.beta) - 0.4})


def test_rounding_names_the_laws_as_printed() -> None:
    fitted = fit(LossSurface, simulated())
    rounding = ch06.rounded(fitted, [], 1e21, [1, 3])
    assert rounding["law"].tolist() == ["all digits", "1 decimal", "3 decimals"]
    ratio = rounding["objective_ratio"].iloc[1]
    assert "prints" not in ch06.pitfall_rounding(rounding, [1, 3]).sentence
    printed = pd.concat([rounding, rounding.tail(1).assign(law="as printed", objective_ratio=2.0)])
    found = ch06.pitfall_rounding(printed, [1, 3])
    assert found.here == f"objective × {ratio:.1f}"
    assert found.sentence.endswith("For the law as the paper prints it, the objective is 2.0 times the best")


def test_published_rounding_is_found_for_the_headline_fit_only() -> None:
    assert len(ch06.printed_entries("transformer", 8192)) == 1
    assert ch06.printed_entries("gpt", 8192) == []


def test_repeats() -> None:
    rows = [{"counted": "every run once", "size_exponent": 0.5, "width": 1.0}]
    rows.append({"counted": "every run twice", "size_exponent": 0.51, "width": 0.7})
    twice = pd.DataFrame(rows)
    runs = pd.DataFrame(index=range(40))
    none = ch06.pitfall_repeated(twice, Repeats("xlstm", runs, 0))
    assert none.shifts == {}
    assert none.sentence.startswith("If every run of xLSTM is listed twice, a moves by +0.0100")
    some = ch06.pitfall_repeated(twice, Repeats("xlstm", runs, 3))
    assert some.sentence.startswith("In the published fits, 3 of 40 xLSTM runs count more than once: a moves")
    assert some.shifts == pytest.approx({"repeated rows (xLSTM)": 0.01})


def test_a_metric_over_pairs() -> None:
    observed = np.array([2.0, 2.5, 3.0])
    metrics = compare_metrics(observed, observed[:, None])
    candidates = pd.DataFrame({"mse_paired": [1.0, 3.0], "mse_all_pairs": [5.0, 4.0], "size_exponent": [0.5, 0.6]})
    found = ch06.pitfall_pairs(metrics, candidates, 0.5)
    assert found.here == "mse × 3.0; r² -1.00, not 1.00"
    assert found.shifts == pytest.approx({"metric over all pairs": 0.1})
    assert ch06.near_facts(candidates, 0.5) == {"c6_num_near": "1", "c6_start_move": "by +1×10⁻¹"}
    assert ch06.near_facts(candidates.head(1), 0.5)["c6_start_move"] == "not at all"


def test_metrics_of_a_fit_shuffled_and_of_a_constant() -> None:
    observed = np.geomspace(2, 4, 9)
    metrics = compare_metrics(observed, observed[:, None])
    assert list(metrics) == ["the fit", "the fit, shuffled", "a constant"]
    (fit_runs, fit_pairs), (shuffled_runs, shuffled_pairs), (constant_runs, constant_pairs) = metrics.values()
    assert (fit_runs["mse"], fit_runs["r2"]) == (0, 1)
    assert shuffled_runs["mse"] > 0
    assert shuffled_pairs["mse"] == pytest.approx(fit_pairs["mse"]) == pytest.approx(2 * observed.var())
    assert constant_pairs["mse"] == pytest.approx(constant_runs["mse"]) == pytest.approx(observed.var())


def test_the_architecture_with_the_most_repeats() -> None:
    columns = ["architecture", "num_params", "num_tokens", "val_loss", "train_flops", "isoflop_budget"]
    tables = {
        name: pd.DataFrame([[name, 1e8, 1e9, 3.0, 6e17, 6e17]] * 3, columns=columns).assign(experiment="isoflop")
        for name in ("gpt", "mamba")
    }
    none = most_repeated(tables, "mamba")
    assert (none.name, none.number, len(none.runs)) == ("mamba", 0, 3)
    tables["gpt"][COUNTED] = [1, 2, 4]
    some = most_repeated(tables, "mamba")
    assert (some.name, some.number) == ("gpt", 2)
    assert "IsoFLOP runs of gpt, 2 of which count more than once" in ch06.repeats_table(repeats_of_two(), some).markup


def repeats_of_two() -> pd.DataFrame:
    rows = {"counted": ["every run once", "every run twice"], "num_rows": [3, 6], "low": 0.4, "high": 0.6, "width": 1.0}
    return pd.DataFrame(rows).assign(E=1.0, alpha=0.3, beta=0.3, gamma=1.0, size_exponent=0.5)


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
    assert found.here == f"errors {1 / errors.max():.0f} to {1 / errors.min():.0f} times too small"
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
    assert (
        f"differs from the sum by {product(n.min(), d.max()) - LAW.predict(n.min(), d.max()):+.2f} and"
        in found.sentence
    )


def test_a_resample_that_determines_no_law() -> None:
    table = pd.DataFrame({"drawn": ["once", "seed 0"], "distinct": [9, 5], "most": [1, 3]})
    open_ = ch06.pitfall_resample(table.assign(size_exponent=[0.5, np.nan]), 9)
    assert open_.sentence == "The resample holds 5 of the 9 runs, one of them 3 times; it determines no law"
    assert (open_.here, dict(open_.shifts)) == ("–", {})
    known = ch06.pitfall_resample(table.assign(size_exponent=[0.5, 0.6]), 9)
    assert known.shifts == pytest.approx({"one resample, seed 0": 0.1})


def test_a_table_turned() -> None:
    table = pd.DataFrame(
        {"objective": ["squares", "fourth"], "E": [2.0, np.nan], "alpha": [0.31, 0.32], "half": [9, 5]}
    )
    table = table.assign(beta=0.3, gamma=1.0, size_exponent=0.5, rms=0.01, largest=0.02)
    rows = rows_of(ch06.squares_table(table))
    assert [cell.strip() for cell in rows[0]] == ["E", "2.0000", "–"]
    assert rows[1] == ["α", "0.3100", "0.3200"]
    assert rows[-1] == ["runs behind half of the objective", "9", "5"]


def test_delta_tables_say_what_did_not_converge() -> None:
    path = pd.DataFrame({"huber_delta": [1e-5, np.inf], "status": ["out of iterations", "converged"], "linear": 0.5})
    path = path.assign(E=1.0, alpha=0.3, beta=0.3, gamma=1.0, size_exponent=0.5, rms=0.01)
    markup = ch06.delta_tables({"some": path, "others": path.assign(status="converged")}).markup
    assert markup.count("residual. δ\u00a0=\u00a010⁻⁵: out of iterations.") == 2  # caption and label of one table
    assert [row[0] for row in rows_of(Html(markup)) if row] == ["10⁻⁵", "∞"] * 2


def test_published_numbers_are_counted() -> None:
    ledger = to_frame(build_ledger(sections=["overtraining_slopes"]))
    facts = ch06.ledger_facts(ledger)
    assert facts["c6_published"] == str(len(ledger))
    dependent = ch06.ledger_facts(
        ledger.assign(verdict="reproduced", independent=[False] * 3 + [True] * (len(ledger) - 3))
    )
    assert (dependent["c6_reproduced"], dependent["c6_dependent"]) == (str(len(ledger)), "three")


def test_the_gap_of_exponents() -> None:
    gaps = np.array([0.2, 0.1, 0.05])
    markup = ch06.gaps_table([(gap, 1 / gap, 1 / gap**3) for gap in gaps]).markup
    assert markup.count("−1.00") == 3
    assert markup.count("−3.00") == 3
