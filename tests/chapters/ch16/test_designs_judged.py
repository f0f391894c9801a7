"""Designs judged on the paper's runs and in simulation: what is counted, and verdicts that can flip."""

import math
from typing import Any

import pandas as pd
import pytest
from html_tables import rows_of, text_of

from companion.chapters.ch16 import records as kept
from companion.chapters.ch16 import replayed, simulated
from companion.chapters.ch16.records import LOSS, RIGHT, WRONG, Records
from companion.formatting import percent


def row(strategy: str, number: int, low: float, high: float, **more: Any) -> dict[str, Any]:
    """A row of a made-up replay whose fit of all runs says 2.2, and whose largest run had 2.0."""
    middle = math.sqrt(low * high)
    return {
        "architecture": "xlstm", "law": "gamma = 1", "strategy": strategy, "follow": None, "seed": 0, "round": number,
        "quantity": LOSS, "value": middle, "reference": 2.2, "observed": 2.0, "share_of_compute": 10.0 ** (number - 2),
        "error": math.log(middle / 2.2), "error_observed": math.log(middle / 2.0), "low": low, "high": high,
        "bootstrap_low": math.nan, "bootstrap_high": math.nan, **more,
    }  # fmt: skip


@pytest.fixture
def replay() -> pd.DataFrame:
    rows = [row(name, number, 2.0, 2.4) for name in ("V-optimal", "random") for number in (0, 2)]
    rows += [row("V-optimal", 1, 2.3, 2.32), row("random", 1, 1.9, 2.3)]
    for each in rows:
        each["follow"] = LOSS if each["strategy"] == "V-optimal" else None
    rows.append(row("V-optimal", 1, 1.0, 9.0, follow="size exponent"))
    return kept.judged(pd.DataFrame(rows))


class TestRecords:
    def test_what_is_compared(self, replay: pd.DataFrame) -> None:
        assert len(replay) == 6, "V-optimal design for another quantity is no rival"
        found = kept.named(kept.by_strategy(replay))
        assert {name: each["num_rows"] for name, each in found.items()} == {"V-optimal": 1, "random": 1}, (
            "neither the start, which all share, nor the end"
        )
        assert found["V-optimal"]["half_width"] == pytest.approx(math.log(2.32 / 2.3) / 2)
        assert (found["V-optimal"]["held_reference"], found["V-optimal"]["held_observed"]) == (0, 0)
        assert (found["random"]["held_reference"], found["random"]["held_observed"]) == (1, 1)
        assert found["V-optimal"]["error_observed"] == pytest.approx(math.log(math.sqrt(2.3 * 2.32) / 2.0))
        assert kept.share_narrowest(replay) == {"V-optimal": 1.0}

    def test_a_fit_that_is_not_identified_counts_nowhere(self, replay: pd.DataFrame) -> None:
        lost = replay["strategy"].eq("V-optimal") & replay["round"].eq(1)
        empty = replay.assign(**{name: replay[name].mask(lost) for name in ("value", "low", "high", "error")})
        assert list(kept.named(kept.by_strategy(kept.judged(empty)))) == ["random"]
        assert kept.judged(empty).loc[lost, "held_reference"].isna().all()

    def test_half_widths_of_exponents_are_differences(self, replay: pd.DataFrame) -> None:
        other = replay.assign(quantity="size exponent", follow=None, strategy="random", low=0.5, high=0.6)
        assert kept.judged(other)["half_width"].to_list() == pytest.approx([0.05] * len(other))

    def test_rounds_in_order(self, replay: pd.DataFrame) -> None:
        rows = kept.over_compute(replay, "xlstm", "gamma = 1")
        own = rows[rows["strategy"] == "random"].sort_values("round")
        assert own["share_of_compute"].to_list() == pytest.approx([0.01, 0.1, 1.0])
        assert kept.end_error(replay, "xlstm", "gamma = 1") == pytest.approx(math.log(1.1))

    def test_settings_of_the_simulation(self, records: Records) -> None:
        pairs = set(map(tuple, records.simulated[["truth", "law"]].drop_duplicates().to_numpy()))
        assert pairs == {*RIGHT, *WRONG}
        assert kept.multiples_of(records.simulated) == [1.0, 10.0]
        rows = kept.setting(records.simulated, "product", "gamma = 1", 1.0)
        assert set(rows) == set(kept.SIMULATED)
        changed = records.simulated.assign(rmse=records.simulated["strategy"].ne("random").astype(float))
        assert set(kept.best_of_right(changed, "rmse")) == {"random"}


class TestReplay:
    def test_the_answer_is_that_of_the_records(self, records: Records) -> None:
        table = pd.read_csv(kept.data_dir() / "design_replay.csv")
        table = table[(table["quantity"] == LOSS) & table["value"].notna()]
        last = table.groupby(["architecture", "law"])["round"].transform("max")
        table = table[(table["round"] > 0) & (table["round"] < last)]
        own = table[(table["strategy"] == "V-optimal") & (table["follow"] == LOSS)]
        held = ((own["low"] <= own["reference"]) & (own["reference"] <= own["high"])).mean()
        facts = replayed.answer_facts(records)
        assert facts["c16_held_all"] == percent(held)
        assert held < 0.1, "the page says that these intervals are false"
        assert facts["c16_error_v"] == percent(own["error_observed"].abs().median())
        largest = table.loc[table["strategy"] == "largest affordable", "error_observed"].abs().median()
        assert facts["c16_error_largest"] == percent(largest)
        assert "comes nearer" in facts["c16_nearer"]

    def test_verdicts_flip(self, records: Records) -> None:
        assert "no nearer" in replayed.nearer_verdict(0.1, 0.2)
        assert replayed.right_verdict(records.simulated).startswith("the narrowest intervals and mostly")
        other = records.simulated.assign(rmse=records.simulated["strategy"].ne("random").astype(float))
        assert replayed.right_verdict(other) == "the narrowest intervals only"
        other = other.assign(half_width=other["rmse"])
        assert replayed.right_verdict(other).startswith("no better")
        best = records.simulated["strategy"].ne("V-optimal").astype(float)
        assert replayed.right_verdict(records.simulated.assign(rmse=best)).endswith("and the smallest errors")
        assert replayed.ends_verdict(0.02, 0.03).startswith("nearer")
        assert replayed.ends_verdict(0.04, 0.03).startswith("no nearer")
        assert replayed.misfit_verdict(0.1, 0.01).endswith("misfit the large one")
        assert replayed.misfit_verdict(0.01, 0.01).endswith("the larger part of it")
        rows = {"V-optimal": {"error": 0.1}, "largest affordable": {"error": 0.05}}
        assert replayed.exponent_verdict(rows).startswith("smaller")
        rows["V-optimal"]["error"] = 0.01
        assert replayed.exponent_verdict(rows).startswith("not smaller")
        assert replayed.next_narrowest({"V-optimal": 1.0}) == "no other strategy has it"

    def test_bootstraps_are_counted(self, replay: pd.DataFrame) -> None:
        some = replay.assign(bootstrap_low=2.1, bootstrap_high=[2.15, 2.3, 2.3, 2.3, 2.3, 2.3])
        assert replayed.bootstrap_held(some, "V-optimal") == "two of the three"

    @pytest.mark.parametrize("architecture", ["xlstm", "transformer"])
    def test_figures_and_tables(self, records: Records, architecture: str) -> None:
        figure = replayed.replay_panels(records.replay, architecture)
        assert len(figure.axes) == 4
        rows = kept.over_compute(records.replay, architecture, "gamma = 1")
        own = rows[rows["strategy"] == "largest affordable"]
        drawn = {line.get_label(): line.get_ydata() for line in figure.axes[2].get_lines()}
        assert list(drawn["largest affordable"]) == pytest.approx(own["error_observed"].to_list(), nan_ok=True)
        ends = rows_of(replayed.ends_table(records.replay, architecture, "gamma = 1"))
        assert ends[-1]["compute spent, at most"] == "100 %"
        assert ends[-1]["V-optimal, measured"] == ends[-1]["largest affordable, measured"], "all saw the same runs"
        facts = replayed.ends_facts(records.replay, architecture, "gamma = 1")
        assert facts["c16_ends_measured"] == ends[-2]["V-optimal, measured"]
        assert facts["c16_ends_fit"] == ends[-2]["V-optimal, fit of all"]

    def test_answer_and_folded_table(self, records: Records) -> None:
        left, right = replayed.answer_panels(records).axes
        points = [
            line.get_xdata()[0] for line in right.get_lines() if line.get_marker() == "o" and len(line.get_xdata())
        ]
        bars = [line.get_xdata()[1] for line in right.get_lines() if len(line.get_xdata()) == 2]
        assert all(point > bar for point, bar in zip(points, bars, strict=True)), "as the caption says"
        assert "half widths" in text_of(replayed.answer_figure(records))
        table = rows_of(replayed.strategies_table(records.replay))
        assert [each["strategy"] for each in table] == [*kept.REPLAYED, *kept.REPLAYED]
        facts = replayed.replay_facts(records.replay)
        assert facts["c16_one_v"] == table[0]["error, measured loss"]
        assert facts["c16_free_largest"] == table[8]["error, measured loss"]
        assert left.get_title().endswith("(simulated)")


class TestSimulation:
    def test_what_the_page_says_of_both_laws(self, records: Records) -> None:
        """Words without a value: intervals are true under the right law, a free gamma helps and is not enough."""
        for pair in RIGHT:
            for multiple in kept.multiples_of(records.simulated):
                assert kept.setting(records.simulated, *pair, multiple)["V-optimal"]["coverage"] > 0.9
        found = kept.by_strategy(records.replay, by=("law",))
        one, free = (kept.named(found[found["law"] == law])["V-optimal"] for law in ("gamma = 1", "gamma free"))
        assert free["error_observed"] < one["error_observed"]
        assert free["held_observed"] < 0.5
        assert replayed.replay_facts(records.replay)["c16_misfit_verdict"].endswith("misfit the large one")

    def test_table_and_facts(self, records: Records) -> None:
        rows = rows_of(simulated.bias_table(records.simulated))
        assert len(rows) == 2 * 7
        wrong = next(each for each in rows if (each["truth"], each["fitted law"]) == ("γ free", "γ = 1"))
        facts = simulated.simulated_facts(records.simulated)
        assert wrong["V-optimal"] == f"{facts['c16_wrong_v']} [{facts['c16_wrong_v_held']}]"
        assert wrong["largest affordable"] == f"{facts['c16_wrong_largest']} [{facts['c16_wrong_largest_held']}]"
        product = next(each for each in rows if each["truth"] == "product")
        assert product["IsoFLOP grid"] == "not determined"
        assert facts["c16_product_found"] == "100 %"
        assert "IsoFLOP grid" in facts["c16_product_few_start"]
        assert facts["c16_sim_narrow"] == "all six"
        assert facts["c16_further"].startswith("does no harm")

    def test_verdicts_flip(self, records: Records) -> None:
        assert simulated.wrong_verdict(0.1, -0.05).startswith("the same order")
        assert simulated.wrong_verdict(-0.01, 0.05).startswith("another order")
        assert simulated.few_verdict([]).startswith("Every design")
        bad = records.simulated.assign(coverage=0.2)
        assert simulated.further_verdict(bad, [1.0]).startswith("does harm")
        assert "20 %" in simulated.further_verdict(bad, [1.0])

    def test_figure_leaves_out_what_is_not_determined(self, records: Records) -> None:
        figure = simulated.bias_panels(records.simulated)
        drawn = [len(ax.containers) for ax in figure.axes]
        assert drawn == [3 * 7 - 2, 3 * 7 - 1]
        assert "dotted line" in text_of(simulated.bias_figure(records.simulated))
