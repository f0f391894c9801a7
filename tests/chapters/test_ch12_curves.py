"""Chapter 12: what is said of curves and failed runs turns with them; odd logs of a reader leave parts out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from html_tables import rows_of, text_of
from scipy import stats

from companion.chapters import ch12
from companion.chapters.ch12 import facts, facts_curves
from companion.chapters.ch12.study import Study, study_of
from companion.errors import NotApplicable
from companion.training.batch import mean_difference
from companion.training.curve_faults import failures, parting, spike_counts, spikes
from companion.training.early_loss import rank_correlation


@pytest.fixture(scope="module")
def study() -> Study:
    return ch12.load_study()


def made(study: Study, **changes: object) -> Study:
    return replace(study, **changes)  # type: ignore[arg-type]


# ---- curves ----------------------------------------------------------------------------------------------------


def made_errors(line: list[float], law: float) -> pd.DataFrame:
    fractions = np.array([0.25, 0.5, 1.0])
    rows = [("line", f, e) for f, e in zip(fractions, line, strict=True)]
    rows += [(name, f, 0.5) for name in ("last value", "line, steps and shape") for f in fractions]
    rows += [("law", np.nan, law), ("group mean", np.nan, 0.1)]
    errors = pd.DataFrame(rows, columns=["predictor", "fraction", "rms_error"])
    return errors.assign(num_runs=9, median_error=errors["rms_error"] / 2, bias=0.0, worst=1.0)


def test_early_losses_in_words() -> None:
    said = ch12.early_facts(made_errors([0.08, 0.04, 0.01], 0.05), 0.3)
    assert (said["c12_early_at"], said["c12_early_line"], said["c12_early_law"]) == ("25 %", "0.080", "0.050")
    assert said["c12_early_verdict"] == "is better than the law from 50 % of the run on"
    again = ch12.early_facts(made_errors([0.04, 0.08, 0.01], 0.05), 0.3)
    assert again["c12_early_verdict"] == "is better than the law from 100 % of the run on"
    never = ch12.early_facts(made_errors([0.08, 0.07, 0.06], 0.05), 0.3)
    assert never["c12_early_verdict"].startswith("is not even better than the law at the end")
    errors = made_errors([0.08, 0.07, 0.06], 0.05)
    with pytest.raises(NotApplicable, match="no law could be fitted"):
        ch12.early_facts(errors[errors["predictor"] != "law"], 0.3)
    with pytest.raises(NotApplicable, match="too few runs have a loss at 25 % of their steps"):
        ch12.early_facts(errors[errors["predictor"] != "line"], 0.3)


def test_rankings_in_words() -> None:
    ranking = pd.DataFrame(
        {
            "architecture": "xlstm", "context_length": 2048, "isoflop_budget": [1e18, 2e18] * 2, "num_runs": 7,
            "fraction": [0.2, 0.2, 1.0, 1.0], "same_best": [False, True, True, True], "rank_correlation": 0.9,
            "regret": [0.02, 0, 0, 0], "optimum_ratio": [0.6, 0.8, 1, 1],
        }
    )  # fmt: skip
    said = ch12.ranking_facts(ranking, 0.3)
    assert said["c12_kept"] == "one of the two profiles"
    assert said["c12_kept_earlier"] == ""
    assert ch12.ranking_facts(ranking, 1.0)["c12_kept_earlier"] == ", and at an earlier share in at most one"
    assert said["c12_early_optimum"] == "0.60 to 0.80"
    assert [row["same best size"] for row in rows_of(ch12.ranking_table(ranking, 0.3))] == ["no", "yes"]
    none = ch12.ranking_facts(ranking.assign(same_best=False), 1.0)
    assert none["c12_kept_earlier"] == ", and at no earlier share in any"
    assert ch12.safe_facts(ranking, 0.01)["c12_safe"] == "The early choice is safe from 100 % of the run on"
    assert ch12.safe_facts(ranking.assign(regret=1.0), 0.01)["c12_safe"].startswith("At none of these shares")


def test_spikes_in_words(study: Study) -> None:
    assert study.curves is not None
    finished = study.finished
    found = spikes(study.curves[study.curves["run"].isin(finished["run"])])
    own = ch12.own_design(finished)
    said = ch12.spike_facts(found, study.curves, finished, own)
    assert said["c12_num_spikes"] == "30 spikes"
    assert said["c12_spikes_warm_up"] == f"{(found['step'] <= 750).sum()} of the 30"
    assert said["c12_spiked"] == "22 of 264 (Transformer) and 0 of 81 (xLSTM)"
    assert said["c12_same_rate"].endswith("5 of 50 (Transformer) and 0 of 49 (xLSTM) spiked")
    assert (said["c12_same_rate_p"], said["c12_same_rate_verdict"]) == ("0.056", "these runs show no clear difference")
    assert float(said["c12_spike_gradient"]) > 2 > float(said["c12_spike_ahead"])
    none = ch12.spike_facts(found[:0], study.curves, finished, own)
    assert none["c12_num_spikes"] == "no spike"
    assert not {"c12_spikes_warm_up", "c12_spike_gradient"} & set(none)
    silent = finished.drop(columns="warmup_steps")
    assert "c12_spikes_warm_up" not in ch12.spike_facts(found, study.curves, silent, own)
    assert sum(int(row["spikes"]) for row in rows_of(ch12.spikes_table(spike_counts(found, finished)))) == 30
    assert "30 spikes of the runs that finished" in text_of(ch12.spikes_figure(found, finished))
    assert "No run has a spike" in ch12.spikes_figure(found[:0], finished).markup


def test_fishers_test_is_of_runs_at_one_rate() -> None:
    runs = pd.DataFrame({"run": [str(number) for number in range(80)], "architecture": ["a"] * 40 + ["b"] * 40})
    runs[["learning_rate", "context_length"]] = [1e-3, 2048]
    found = pd.DataFrame({"run": [str(number) for number in range(20)], "step": 10})
    said = ch12.spike_facts(found, found, runs, runs)
    expected = stats.fisher_exact([[20, 20], [0, 40]]).pvalue
    assert said["c12_same_rate"].endswith("20 of 40 (a) and 0 of 40 (b) spiked")
    assert said["c12_same_rate_p"] == f"{expected:.2g}"
    assert said["c12_same_rate_verdict"] == "chance alone is an unlikely reason"
    apart = runs.assign(learning_rate=[1e-3] * 40 + [2e-3] * 40)
    assert "c12_same_rate" not in ch12.spike_facts(found, found, apart, apart)
    assert "c12_same_rate" not in ch12.spike_facts(found, found, runs[:40], runs[:40])


def test_twins_in_words(study: Study) -> None:
    assert study.curves is not None
    assert study.twins is not None
    step, difference = parting(study.curves, *study.twins)
    said = ch12.twin_facts(study, step, difference, 0.99, 0.98)
    assert (said["c12_twin_gap"], said["c12_twin_step"]) == ("0.117", "step 600")
    assert float(said["c12_twin_peak"]) > 3.7
    assert float(said["c12_twin_before"]) < 0.11
    assert said["c12_twin_batches"].startswith("So both most likely saw the same batches")
    assert (said["c12_twin_course"], said["c12_twin_common"]) == ("It recovers, but never catches up", "0.98")
    never = ch12.twin_facts(study, None, difference, 0.1, None)
    assert never["c12_twin_batches"].startswith("So they did not see")
    assert not {"c12_twin_step", "c12_twin_course", "c12_twin_common"} & set(never)
    lasting = difference.assign(difference=0.5)
    assert ch12.twin_facts(study, step, lasting, 0.9, None)["c12_twin_course"] == "It does not recover"
    assert (ch12.design_noise(study, 1500) or 0) > 0.98


def test_failures_in_words(study: Study) -> None:
    assert study.curves is not None
    failed = failures(study.curves, study.logs, ch12.SIBLING_FACTOR)
    said = ch12.failure_facts(failed, study.curves)
    assert (said["c12_failed_where"], said["c12_failed_alike"]) == (", the first point of their curves", "four")
    later = failed.assign(loss_step=failed["loss_step"] + 50)
    assert ch12.failure_facts(later, study.curves)["c12_failed_where"] == ""
    assert (said["c12_failed"], said["c12_diverged"]) == ("five runs that", "three of them diverged")
    assert said["c12_failed_full"] == f"{['no', 'one', 'two', 'three'][_full(failed)]} of them"
    assert said["c12_failed_left"] == "all five"
    never = failed.assign(loss_step=np.nan, last_step=0, sibling_learning_rate=0.0)
    assert set(ch12.failure_facts(never, study.curves)) == {"c12_failed", "c12_diverged"}
    assert (said["c12_failed_first"], said["c12_failed_step"]) == ("four of the five", "50")
    assert said["c12_failed_rate"] == f"{['none', 'one', 'two', 'three', 'four'][_lower(failed)]} of the five"
    assert len(rows_of(ch12.failures_table(failed))) == 5
    assert ch12.bands_figure(study, failed).markup.count("<figure") == 1
    assert "No run that failed" in ch12.bands_figure(made(study, curves=None), failed).markup


def _full(failed: pd.DataFrame) -> int:
    return int((failed["last_step"] == failed["train_steps"]).sum())


def _lower(failed: pd.DataFrame) -> int:
    return int((failed["learning_rate"] < failed["sibling_learning_rate"]).sum())


def test_collapse_of_one_family_is_scored_and_a_small_one_is_not() -> None:
    logs = pd.DataFrame(
        {
            "run": [f"r{number}" for number in range(9)], "architecture": ["xlstm"] * 7 + ["transformer"] * 2,
            "context_length": 2048, "train_steps": np.arange(1, 10) * 1000, "num_params": np.arange(1, 10) * 1e8,
            "learning_rate": [3e-3] * 4 + [1e-3] * 5, "isoflop_budget": 1e18, "val_loss": np.arange(9) / 10 + 3,
        }
    )  # fmt: skip
    at = np.array([0.5, 0.75, 1.0])
    normalized = pd.DataFrame([at ** -(0.3 + 0.01 * n) for n in range(9)], index=logs["run"], columns=at)
    scores = ch12.collapse_scores(normalized, logs)
    assert scores["family"].tolist() == ["xLSTM, T = 2048"]
    assert scores["rate_and_size"].iloc[0] < -0.8
    assert ch12.collapse_facts(scores)["c12_collapse_rate"] == f"−{abs(scores['rate_and_size'].iloc[0]):.2f}"
    alike = ch12.collapse_scores(normalized, logs.assign(learning_rate=1e-3))
    assert np.isnan(alike["rate_and_size"].iloc[0])
    assert np.isnan(alike["near"].iloc[0])
    assert not {"c12_collapse_rate", "c12_collapse_near"} & set(ch12.collapse_facts(alike))
    assert ch12.collapse_facts(alike)["c12_collapse_verdict"] == "these curves do not collapse"
    assert ch12.collapse_facts(alike.assign(score=0.009))["c12_collapse_verdict"] == "these curves collapse"
    wide = ch12.collapse_facts(pd.concat([scores.assign(score=0.009), scores.assign(score=0.04, near=0.03)]))
    assert wide["c12_collapse_verdict"] == "one of the two families collapse"
    assert wide["c12_collapse_near"] == "3.0 %"
    with pytest.raises(NotApplicable, match="no architecture and context length has 6 runs"):
        ch12.collapse_scores(normalized, logs[5:])
    assert len(rows_of(ch12.collapse_table(scores))) == 1


def test_selection_in_words() -> None:
    table = pd.DataFrame(
        {"truth": 0.0, "first_bias": 0.01, "kept_bias": 0.002, "selection_bias": 0.0, "standard_error": 0.001}
        | {"spread": 0.05},
        index=list(facts_curves.QUANTITIES),
    )
    moved = table.copy()
    moved.loc[["loss", "log N*"], "selection_bias"] = [-0.01, 0.1]
    said = ch12.selection_facts({"all": table, "half": moved, "failed": table}, 0.001, 1, table)
    assert said["c12_all_moved"] == "nothing"
    assert said["c12_larger_moved"] == "Now the shape moves, too: N* of the largest budget"
    assert said["c12_larger_size"] == f"+{100 * np.expm1(0.1):.2f} %"
    still = ch12.selection_facts({"all": moved, "half": table, "failed": table}, 0.001, 2, table)
    assert still["c12_larger_moved"] == "The shape does not move clearly"
    assert still["c12_all_moved"] == "the mean loss and N* of the largest budget"
    assert (said["c12_noise_from"], still["c12_noise_from"]) == (
        "one repeated configuration",
        "two repeated configurations",
    )
    assert said["c12_larger_most"] == "2.0"
    assert (said["c12_fault_before"], said["c12_fault_after"]) == ("+0.0100", "+0.0020")
    assert len(rows_of(ch12.selection_table({"all": table, "half": moved}))) == len(facts_curves.QUANTITIES)


def test_the_worse_of_two_trainings_in_a_fit(study: Study) -> None:
    """The parabola of its budget moves; the law, whose Huber loss gives one far-off run little weight, does not."""
    choice = ch12.twin_choice(study, ch12.selection_runs(study))
    said = ch12.choice_facts(choice)
    # the least loss of a parabola through 36 runs, one of them 0.117 too high
    assert 0.117 / 36 < choice["least loss"]["worse"] - choice["least loss"]["better"] < 3 * 0.117 / 36
    assert said["c12_choice_law"] == "less than 0.0001"
    assert said["c12_choice_size"] == "−0.3 %"
    moved = choice.copy()
    moved.loc["worse", "alpha"] += 0.02
    assert ch12.choice_facts(moved)["c12_choice_law"] == "at most 0.0200"
    other = ch12.selection_runs(study).query("num_params > 1e9")
    with pytest.raises(NotApplicable, match="trained twice is in no budget of the design"):
        ch12.twin_choice(study, other)


# ---- tables of other people --------------------------------------------------------------------------------------


def test_pairs_of_two_families_are_not_mixed(study: Study) -> None:
    logs = study.logs[study.logs["group"] == "isoflop_budget_by_chinchilla_count"]
    both = pd.concat([logs, logs[:-1].assign(architecture="gpt", run="g" + logs["run"][:-1])], ignore_index=True)
    mine = study_of(both, both, None, of_paper=False, runs_given=False)
    assert mine.pairs is not None
    assert len(set(mine.pairs["architecture"])) == 1
    assert sum(map(len, mine.other_pairs.values())) > 0
    assert (
        ch12.pair_facts(mine, mean_difference(mine.pairs))["c12_rates"] == "The learning rates are equal in all pairs"
    )
    ch12.need_one_budget(mine.pairs)
    with pytest.raises(NotApplicable, match="the pairs belong to several budgets of compute"):
        ch12.need_one_budget(mine.pairs.assign(num_params=mine.pairs["num_params"] * ([1, 9] * 6)))


def test_rates_that_are_unknown_are_said_to_be(study: Study) -> None:
    assert study.pairs is not None
    bare = study.pairs.drop(columns=["first_learning_rate", "second_learning_rate"])
    assert facts.rate_words(bare).startswith("The learning rates of some pairs are unknown")
    spread = study.pairs.assign(second_schedule_share=np.linspace(0.1, 0.5, 28))
    assert (
        facts.schedule_words(spread)
        == "Warm-up and cool-down together take 10 to 50 % of the steps at the larger batch"
    )


def test_curves_that_are_too_short_leave_the_first_screen_whole(study: Study) -> None:
    assert study.curves is not None
    short = made(study, curves=study.curves[study.curves["step"] <= 100])
    assert ch12.answer_facts(short)["c12_answer_twins"].endswith("apart")
    assert "a spike on the way" not in [row["hidden"] for row in rows_of(ch12.answer_table(short))]
    assert "Points: loss" in text_of(ch12.answer_figure(short))
    assert ch12.both_losses_facts(study.curves.drop(columns="val_loss"), study.logs) == {}
    assert ch12.both_losses_facts(study.curves.assign(val_loss=np.nan), study.logs) == {}
    said = ch12.both_losses_facts(study.curves, study.logs)
    assert said["c12_both_points"] == f"{study.curves['val_loss'].notna().sum():,} points"


@pytest.mark.filterwarnings("error")
def test_differences_without_order_do_not_fall_with_steps(study: Study) -> None:
    assert study.pairs is not None
    assert not facts.falls_with_steps(study.pairs.assign(difference=0.01))
    assert not facts.falls_with_steps(study.pairs.assign(second_steps=500))
    assert facts.falls_with_steps(study.pairs.assign(difference=1 / study.pairs["second_steps"]))


def test_a_failed_run_beside_which_nothing_is_recorded_has_no_panel(study: Study) -> None:
    assert study.curves is not None
    ends = study.curves.groupby("run").tail(2)
    failed = failures(study.curves, study.logs)
    assert "with records along it" in ch12.bands_figure(made(study, curves=ends), failed).markup


@pytest.mark.filterwarnings("error")
def test_ranks_of_equal_losses_are_undefined() -> None:
    ranking = pd.DataFrame({"fraction": [0.5], "same_best": [True], "rank_correlation": [np.nan]})
    said = ch12.ranking_facts(ranking.assign(optimum_ratio=1.0, regret=0.0), 0.5)
    assert said["c12_rank"] == "undefined"
    same, rising = pd.Series([3.0, 3.0, 3.0]), pd.Series([1.0, 2.0, 5.0])
    assert np.isnan(rank_correlation(same, rising))
    assert rank_correlation(rising, rising**2) == pytest.approx(1.0)
