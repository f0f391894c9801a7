"""Chapter 2: values in its sentences computed another way, and tables that name no contexts, budgets or rates."""

import re

import numpy as np
import pandas as pd
import pytest
from foreign import table

from companion.chapters import ch02
from companion.chapters.ch02.overview import deviation_of_pair
from companion.chapters.ch02.tables import share_of_range
from companion.errors import NotApplicable
from companion.fitting.isoflop import fit_isoflop, fit_profile
from companion.fitting.pareto import READINGS, ParetoFront, compare_architectures, fit_front, matched_pairs
from companion.formatting import interval, percent, power_of_ten, significant
from companion.runs.load import load_paper_runs, load_runs
from companion.runs.select import subset


@pytest.fixture(scope="module")
def paper() -> pd.DataFrame:
    return load_paper_runs()


@pytest.fixture(scope="module")
def at_8192(paper: pd.DataFrame) -> pd.DataFrame:
    return subset(paper, context_length=8192)


@pytest.fixture(scope="module")
def plain() -> pd.DataFrame:
    """Five columns, two architectures that the book does not know."""
    return load_runs(table("two_other_architectures"))


class TestFacts:
    def test_table(self, paper: pd.DataFrame, plain: pd.DataFrame) -> None:
        facts = ch02.table_facts(plain, paper)
        assert (facts["c2_num_runs"], facts["c2_by_architecture"]) == ("40", "20 gpt and 20 mamba2")
        assert facts["c2_sum_flops"] == power_of_ten(sum(plain["train_flops"]), 3)
        assert ch02.table_facts(paper, paper)["c2_by_architecture"] == "292 Transformer and 348 xLSTM"

    def test_losses(self, paper: pd.DataFrame) -> None:
        facts = ch02.loss_facts(paper)
        assert facts["c2_num_imposed"] == f"{sum(paper['imposed_published_fit'] == 1)}"
        more = int(facts["c2_paper_count"]) - int(facts["c2_paper_runs"])
        assert more == int(facts["c2_num_twice"]) > 0, "every run counts once, or twice"
        assert facts["c2_imposed_where"] == "2048 and 8192"

    def test_pair(self, paper: pd.DataFrame) -> None:
        pair = ch02.repeated_runs(paper)
        losses = paper.loc[pair.index, "val_loss"]
        facts = ch02.pair_facts(pair, *deviation_of_pair(losses.diff().iloc[-1]), paper)
        assert float(facts["c2_pair_difference"]) == pytest.approx(abs(losses.diff().iloc[-1]), rel=0.05)
        assert facts["c2_deviation"] == significant(np.std(losses, ddof=1), 2)
        low, high = map(float, facts["c2_between"].split(" to "))
        assert low < float(facts["c2_deviation"]) < high

    def test_swap(self, paper: pd.DataFrame) -> None:
        runs = paper[paper["isoflop_budget"] == 6e20]
        rows = runs.index[runs["num_params"].isin([3_724_524_056, 3_726_640_848])]
        versions = {"stored": runs, "exchanged": ch02.exchanged(runs, *rows)}
        profiles = {
            name: fit_profile(6e20, part["num_params"], part["val_loss"], part["train_flops"])
            for name, part in versions.items()
        }
        facts = ch02.swap_facts(versions, profiles, rows)
        optima = [
            np.exp(-b / (2 * a))
            for a, b, _ in (np.polyfit(np.log(part["num_params"]), part["val_loss"], 2) for part in versions.values())
        ]
        assert facts["c2_swap_moves"] == percent(abs(optima[1] / optima[0] - 1))
        assert facts["c2_swap_step"] == f"{2.51071 - 2.49590:.4f}"
        assert "step at width 2816" in ch02.show_swap(versions, profiles, rows).markup

    def test_flops(self, paper: pd.DataFrame, plain: pd.DataFrame) -> None:
        facts = ch02.flops_facts(ch02.flops_table(paper))
        assert facts["c2_recount"].endswith("5×10⁻⁶, which is the rounding of the column's six digits.")
        off = paper.assign(train_flops=paper["train_flops"] * 1.01)
        assert ch02.flops_facts(ch02.flops_table(off))["c2_recount"].endswith("1×10⁻², which is not rounding.")
        ratio = paper["train_flops"] / paper["num_params"] / paper["num_tokens"] / 6
        assert facts["c2_six"] == f"{significant(min(ratio), 2)} to {significant(max(ratio), 2)}"
        assert ch02.flops_facts(ch02.flops_table(plain))["c2_recount"].startswith("This table does not hold the shapes")

    def test_rates(self, paper: pd.DataFrame, plain: pd.DataFrame) -> None:
        same = ch02.rates_verdict(paper, "xlstm", "xlstm")
        (widths,) = map(int, re.findall(r"at (\d+) combinations", same))
        assert widths == len(subset(paper, "xlstm")[["context_length", "d_model"]].drop_duplicates())
        assert same.endswith(", always with the same learning rates.")
        both, equal = map(int, re.findall(r"\d+", ch02.rates_verdict(paper, "xlstm", "transformer")))
        assert 0 < equal < both
        assert ch02.rates_verdict(plain, "gpt", "mamba2") == "This table does not say how learning rates were chosen."

    def test_runs_on_fronts(self, at_8192: pd.DataFrame, plain: pd.DataFrame) -> None:
        def fronts(runs: pd.DataFrame, *names: str) -> dict[str, ParetoFront]:
            parts = {name: subset(runs, name) for name in names}
            return {name: fit_front(part["train_flops"], part["val_loss"]) for name, part in parts.items()}

        two = fronts(at_8192, "transformer", "xlstm")
        assert ch02.front_facts(at_8192, two)["c2_front_runs"] == (
            "32 Transformer runs (14 IsoFLOP and 18 Token/Param) and 41 xLSTM runs (24 IsoFLOP and 17 Token/Param)"
        )
        [one] = fronts(plain, "gpt").values()
        assert ch02.front_facts(plain, {"gpt": one})["c2_front_runs"] == f"{one.rows.size} gpt runs"

    def test_all_contexts(self, at_8192: pd.DataFrame, paper: pd.DataFrame) -> None:
        by_context = ch02.front_table(paper, "xlstm", "transformer")
        facts = ch02.gap_facts(compare_architectures(at_8192, "xlstm", "transformer"), by_context, 8192)
        every = by_context[["share_lower", "median_gap"]].to_numpy()
        assert facts["c2_share_least"] == percent(every[:, 0].min(), 3)
        ends = float(facts["c2_median_low"]), float(facts["c2_median_high"])
        assert ends == pytest.approx((every[:, 1].min(), every[:, 1].max()), abs=5e-4)

    def test_gap(self, at_8192: pd.DataFrame, paper: pd.DataFrame) -> None:
        found = compare_architectures(at_8192, "xlstm", "transformer")
        by_context = ch02.front_table(paper, "xlstm", "transformer")
        facts = ch02.gap_facts(found, by_context, 8192)
        assert facts["c2_at_context"] == "At a context of 8192 tokens"
        assert (facts["c2_beaten"], facts["c2_beaten_back"]) == ("31 of the 32", "none of the 41")
        assert facts["c2_where_lower"] == "at every compute that both cover"
        assert facts["c2_unbeaten"].startswith("One, with ")
        assert facts["c2_signs"] == "two of the nine rows"
        ends = [subset(at_8192, name)["train_flops"].agg(["min", "max"]) for name in ("xlstm", "transformer")]
        assert float(facts["c2_decades"]) < float(facts["c2_decades_all"])
        low, high = max(end["min"] for end in ends), min(end["max"] for end in ends)
        assert (facts["c2_flops_low"], facts["c2_flops_high"]) == (power_of_ten(low), power_of_ten(high))
        grid = np.geomspace(low, high, 2001)[1:-1]
        gap = found.second.loss_at(grid) - found.first.loss_at(grid)
        assert float(facts["c2_median_gap"]) == pytest.approx(np.median(gap), abs=2e-3)

    def test_gap_without_contexts(self, plain: pd.DataFrame) -> None:
        found = compare_architectures(plain, "gpt", "mamba2")
        facts = ch02.gap_facts(found, ch02.front_table(plain, "gpt", "mamba2"), None)
        assert facts["c2_at_context"] == "Over all runs"
        assert facts["c2_signs"].endswith("three rows")

    def test_no_run_is_unbeaten(self) -> None:
        runs = pd.DataFrame({"architecture": ["a", "a", "b", "b"], "train_flops": [1e18, 1e19, 2e18, 1e19]})
        runs["val_loss"] = [3.0, 2.5, 3.0, 2.6]
        facts = ch02.gap_facts(compare_architectures(runs, "a", "b"), ch02.front_table(runs, "a", "b"), None)
        assert (facts["c2_unbeaten"], facts["c2_beaten"]) == ("None", "both")
        assert facts["c2_beaten_back"] == "neither of the two"

    def test_ledger(self) -> None:
        ledger = pd.DataFrame({"verdict": ["reproduced", "differs", "reproduced"], "independent": [True, False, True]})
        facts = ch02.ledger_facts(ledger)
        assert facts == {"c2_ledger": "2 of 3", "c2_ledger_dependent": "none of them depends"}
        circular = ch02.ledger_facts(ledger.assign(independent=False))
        assert circular["c2_ledger_dependent"] == "two of them depend"

    def test_foreign(self, paper: pd.DataFrame) -> None:
        runs = subset(paper, "xlstm", 8192, "isoflop")
        fits = {name: fit_isoflop(runs, num_resamples=20) for name in ("labels", "read off")}
        facts = ch02.foreign_facts(runs, fits)
        optima = [(optimum.mean_train_flops, optimum.x_opt) for optimum in fits["labels"].optima]
        slope = np.polyfit(*np.log(np.array(optima).T), 1)[0]
        assert facts["c2_foreign_before"] == facts["c2_foreign_after"]
        assert float(facts["c2_foreign_before"]) == pytest.approx(slope, abs=6e-4)
        markup = ch02.show_exponents(fits).markup
        assert interval(fits["labels"].interval("exponent")).replace(", ", ",\u00a0") in markup

    def test_equal_size(self, at_8192: pd.DataFrame) -> None:
        found = compare_architectures(at_8192, "xlstm", "transformer")
        pairs = matched_pairs(subset(at_8192, "xlstm"), subset(at_8192, "transformer"))
        facts = ch02.size_facts(pairs, at_8192, found, 0.02)
        lower = [
            row
            for row in pairs.itertuples()
            if at_8192.loc[row.second_row, "val_loss"] < at_8192.loc[row.first_row, "val_loss"]
        ]
        assert facts["c2_ratio_second"] == significant(np.median([row.tokens_per_param for row in lower]), 2)
        hull = fit_front(*(subset(at_8192, "transformer")[name] for name in ("train_flops", "val_loss")))
        above = [at_8192.loc[row.second_row, "val_loss"] - hull.loss_at(row.train_flops) for row in lower]
        assert facts["c2_excess_second"] == significant(np.nanmedian(above), 2)
        assert facts["c2_tolerance"] == "2 %"


class TestSolutions:
    def test_circular(self, at_8192: pd.DataFrame) -> None:
        measured = at_8192[at_8192["imposed_published_fit"] == 0]
        tables = {"all": at_8192, "measured": measured}
        results = {name: compare_architectures(part, "xlstm", "transformer") for name, part in tables.items()}
        facts = ch02.circular_facts(tables, results)
        assert facts["c2_circular_left"] == f"{len(measured)} of the {len(at_8192)}"
        assert 0 < float(facts["c2_circular_after"]) < float(facts["c2_circular_before"])
        assert f"{results['all'].loss_gap.quantile(0.5):+.4f}" in (
            ch02.show_comparisons(results, "runs used", "xlstm", "transformer").markup
        )

    def test_coarse(self) -> None:
        coarse = pd.DataFrame({"isoflop_budget": [1e19, 1e20], "best_min": [10, 20], "best_max": [20, 25]})
        coarse = coarse.assign(optimum_min=[10.0, 20.0], optimum_max=[11.0, 30.0], excess=[0.001, 0.0123])
        assert ch02.coarse_facts(coarse) == {
            "c2_coarse_best": "2.0",
            "c2_coarse_optimum": "1.5",
            "c2_coarse_excess": "0.0123",
        }
        markup = ch02.show_coarse(coarse).markup
        assert "0.0010" in markup
        assert "10.0–11.0" in markup

    def test_coarse_table(self) -> None:
        runs = pd.DataFrame({"isoflop_budget": [1e19] * 3 + [1e20], "val_loss": [3.0, 3.2, 2.9, 2.5]})
        studies = [
            {"isoflop_budget": 1e20, "num_params": 9.0, "val_loss": 2.5, "optimum": 8.0},
            {"isoflop_budget": 1e19, "num_params": 4.0, "val_loss": 3.2, "optimum": 5.0},
            {"isoflop_budget": 1e19, "num_params": 7.0, "val_loss": 2.9, "optimum": 2.0},
        ]
        first, second = ch02.coarse_table(studies, runs).to_dict("records")
        assert first.pop("excess") == pytest.approx(0.3)
        names = ("isoflop_budget", "best_min", "best_max", "optimum_min", "optimum_max")
        assert first == dict(zip(names, (1e19, 4.0, 7.0, 2.0, 5.0), strict=True))
        assert second == dict(zip((*names, "excess"), (1e20, 9.0, 9.0, 8.0, 8.0, 0.0), strict=True))

    def test_six(self, at_8192: pd.DataFrame) -> None:
        results = {name: compare_architectures(at_8192, "xlstm", "transformer", name) for name in READINGS}
        rows = re.findall(r"<tr>(.*?)</tr>", ch02.show_comparisons(results, "reading", "xlstm", "transformer").markup)
        assert [re.search(r"<td>(\w+)", row)[1] for row in rows[1:]] == list(READINGS)  # type: ignore[index]
        assert all("31\u00a0of\u00a032" in row for row in rows[1:])


class TestTables:
    def test_columns(self, plain: pd.DataFrame) -> None:
        markup = ch02.show_columns(plain.assign(note="x")).markup
        assert "The 5 known columns" in markup
        assert markup.count("<tr>") == 6
        assert markup.count(" *</td>") == 5
        assert f"<td>{plain['val_loss'].iloc[0]} nats per token</td>" in markup

    def test_a_bare_table_has_dashes(self, plain: pd.DataFrame) -> None:
        for markup in (ch02.show_counts(plain).markup, ch02.show_settings(plain).markup):
            assert "–</td>" in markup
            assert "mamba2" in markup

    def test_architectures_are_called_as_in_the_book(self, paper: pd.DataFrame) -> None:
        assert "xLSTM" in ch02.show_counts(paper).markup
        assert (
            "xLSTM against Transformer"
            in ch02.show_contexts(ch02.front_table(paper, "xlstm", "transformer"), "xlstm", "transformer").markup
        )

    def test_readings_of_every_context(self, paper: pd.DataFrame) -> None:
        by_context = ch02.front_table(paper, "xlstm", "transformer")
        common = ch02.show_common(by_context, "transformer").markup
        assert common.count("<tr>") == 1 + paper["context_length"].nunique()
        assert "31\u00a0of\u00a032" in common
        shown = ch02.show_contexts(by_context, "xlstm", "transformer").markup
        assert shown.count("<tr>") == 1 + len(by_context)
        assert len(re.findall(r">all\s*</td>", shown)) == (by_context["share_lower"] == 1).sum()

    def test_shares(self) -> None:
        assert [share_of_range(share) for share in (1.0, 0.0, 0.9474, 0.5)] == ["all", "none", "94.7 %", "50.0 %"]

    def test_ledger_by_kind(self) -> None:
        ledger = pd.DataFrame(
            [
                ("num_runs", "reproduced", 10, 10),
                ("by_set.a.xlstm", "differs", 10, 11),
                ("train_flops_quantiles.25", "reproduced", 1e18, 1.001e18),
                ("sum_train_flops", "reproduced", 3e23, 3e23 * (1 + 3e-16)),
            ],
            columns=["quantity", "verdict", "published", "ours"],
        )
        rows = re.findall(r"<tr>(.*?)</tr>", ch02.show_ledger(ledger).markup)[1:]
        cells = [[cell.replace("\u00a0", " ") for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]
        assert [row[:2] for row in cells] == [
            ["numbers of runs", "1 of 2"],
            ["smallest, quartiles and largest C", "1 of 1"],
            ["total compute", "1 of 1"],
        ]
        assert [row[2].strip() for row in cells][1:] == ["1×10⁻³", "0"]

    def test_rows_of_a_file_are_turned(self) -> None:
        rows = pd.DataFrame({"flops": ["1.80000200267e+20", "9e19"], "lr": ["3e-4", "1e-3"]})
        markup = ch02.show_first_rows(rows).markup
        assert re.findall(r"<t[dh](?: [^>]*)?>(.*?)</t[dh]>", markup) == [
            *("column", "row 1", "row 2"),
            *("flops", "1.80000200267e+20", "9e19"),
            *("lr", "3e-4", "1e-3"),
        ]

    def test_counted_twice(self, paper: pd.DataFrame) -> None:
        again = paper[paper["multiplicity_in_published_fits"] > 1]
        groups = again[["architecture", "context_length", "isoflop_budget"]].drop_duplicates()
        assert ch02.show_counted_twice(paper).markup.count("<tr>") == len(groups) + 1

    def test_pairs_are_needed(self, at_8192: pd.DataFrame) -> None:
        none = matched_pairs(subset(at_8192, "xlstm"), subset(at_8192, "transformer"), 1e-9)
        with pytest.raises(NotApplicable, match=r"^no two runs of xlstm and transformer agree in N and D within 2 %$"):
            ch02.need_pairs(none, "xlstm", "transformer", 0.02)
