"""Chapter 12: sentences equal the tables they describe and turn with them; a reader's logs give what they can."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from html_tables import rows_of, text_of

from companion.chapters import ch12
from companion.chapters.ch12 import facts, figures
from companion.chapters.ch12.study import Study, find_twins, study_of
from companion.errors import NotApplicable
from companion.training import load_training_logs
from companion.training.batch import fit_step_trend, mean_difference
from companion.training.batch_effects import (
    fit_critical_batch,
    implied_critical_batch,
    optimum_shift,
    shifts_by_window,
)
from companion.training.budgets import CHINCHILLA_GROUP, CHINCHILLA_LOOK_UP, count_constancy, counted_profiles


@pytest.fixture(scope="module")
def study() -> Study:
    return ch12.load_study()


def made(study: Study, **changes: object) -> Study:
    return replace(study, **changes)  # type: ignore[arg-type]


# ---- what the chapter works on -----------------------------------------------------------------------------


def test_the_papers_study(study: Study) -> None:
    assert study.of_paper
    assert study.batches == (128, 256)
    assert study.pairs is not None
    assert len(study.pairs) == 28
    assert {batches: len(pairs) for batches, pairs in study.other_pairs.items()} == {(64, 128): 12}
    assert study.twins == ("104", "105")
    iso, budget, budgets = ch12.iso_of_pairs(study)
    assert (budget, budgets) == (1e20, [6e18, 1e19, 3e19, 1e20])
    assert set(iso["architecture"]) == {"xlstm"}
    assert ch12.larger_batch_budget(study)["isoflop_budget"].unique().tolist() == [6e20]
    noise, repeated = ch12.scatter_of_repeats(study.runs)
    # the configuration that was trained twice differs by 1.7e-3 (data/README.md)
    assert (round(noise * np.sqrt(2), 4), repeated) == (0.0017, 1)
    assert ch12.isoflop_logs(study).groupby(["architecture", "context_length"])["isoflop_budget"].nunique().sum() == 13


def test_a_table_of_final_losses_alone_is_not_enough(study: Study, tmp_path: Path) -> None:
    study.runs.head(30).to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(NotApplicable, match="a run table holds final losses only; this chapter needs training logs"):
        ch12.load_study(tmp_path / "runs.csv")


@pytest.mark.filterwarnings("ignore:.*1 run without a value has no place in comparisons of loss:UserWarning")
def test_logs_of_a_reader(study: Study, tmp_path: Path) -> None:
    """Their own logs alone: pairs and twins come from them, curves are missing, the paper's parts are left out."""
    own = load_training_logs()
    own = own[own["architecture"] == "transformer"].drop(columns=["group", "in_runs_csv"])
    own.to_csv(tmp_path / "logs.csv", index=False)
    mine = ch12.load_study(logs_file=tmp_path / "logs.csv")
    assert not mine.of_paper
    assert mine.curves is None
    assert mine.batches == (64, 128)
    assert mine.twins == study.twins
    assert len(mine.runs) == (own["status"] == "finished").sum()
    assert "their curves" not in ch12.answer_facts(mine)["c12_answer_twins"]
    assert [row["hidden"] for row in rows_of(ch12.answer_table(mine))] == [
        "batch 128 instead of 64",
        "another training of the same",
        "runs that failed",
    ]
    assert "Points: loss at batch 128" in text_of(ch12.answer_figure(mine))
    with pytest.raises(NotApplicable, match="this part is about the paper's runs"):
        ch12.larger_batch_budget(mine)


def test_logs_with_nothing_to_compare(study: Study) -> None:
    logs = study.logs[study.logs["run"].isin(["0", "1", "2"])]
    bare = study_of(logs, logs, None, of_paper=False, runs_given=False)
    assert bare.pairs is None
    assert bare.twins is None
    said = ch12.answer_facts(bare)
    assert said["c12_answer_batch"].startswith("These runs do not show what another batch would have done")
    assert said["c12_answer_twins"].startswith("No configuration was trained twice here")
    assert "can be compared" in ch12.answer_figure(bare).markup
    assert np.isnan(ch12.scatter_of_repeats(logs)[0])


def test_the_widest_twins_are_found() -> None:
    logs = pd.DataFrame(
        {
            "run": list("abcdef"), "architecture": "x", "num_params": [1, 1, 2, 2, 2, 3], "num_tokens": 9,
            "val_loss": [3.0, 3.1, 2.0, 2.5, 2.2, 1.0], "status": ["finished"] * 5 + ["stopped"],
        }
    )  # fmt: skip
    assert find_twins(logs) == ("d", "c")
    assert find_twins(logs[logs["num_params"] == 1]) == ("b", "a")
    assert find_twins(logs.drop_duplicates("num_params")) is None
    assert find_twins(logs.assign(learning_rate=range(6))) is None


# ---- batch size ------------------------------------------------------------------------------------------


def test_the_answer_is_that_of_the_pairs(study: Study) -> None:
    said = ch12.answer_facts(study)
    assert study.pairs is not None
    differences, same = study.pairs["difference"], study.pairs["same_learning_rate"]
    equal = differences[same]
    assert 4 < len(equal) < len(differences)
    assert "runs of equal N, D and learning rate end" in said["c12_answer_batch"]
    assert f"end {equal.mean():.3f} nats per token higher on average" in said["c12_answer_batch"]
    assert said["c12_answer_batch"].endswith(f"up to {equal.max():.3f} where the steps are few")
    unknown = made(study, pairs=study.pairs.assign(same_learning_rate=False))
    assert f"runs of equal N and D end {differences.mean():.3f}" in ch12.answer_facts(unknown)["c12_answer_batch"]
    assert [row["seen in"] for row in rows_of(ch12.answer_table(study))][:2] == ["28 pairs", "22 pairs"]
    assert [row["seen in"] for row in rows_of(ch12.answer_table(unknown))][:2] == ["28 pairs", "1 pair"]
    # the losses of both trainings as the logs have them (data/README.md)
    assert f"end {3.06800 - 2.95118:.3f} apart" in said["c12_answer_twins"]
    turned = made(study, pairs=study.pairs.assign(difference=-differences, second_steps=1.0 * study.pairs.index))
    assert "nats per token lower on average" in ch12.answer_facts(turned)["c12_answer_batch"]
    flat = made(study, pairs=study.pairs.assign(difference=[0.01, -0.02] * 14))
    assert "where the steps are few" not in ch12.answer_facts(flat)["c12_answer_batch"]
    assert "0.005 nats per token lower on average, and up to 0.020" in ch12.answer_facts(flat)["c12_answer_batch"]


def test_what_is_said_of_the_pairs(study: Study) -> None:
    pairs = study.pairs
    assert pairs is not None
    said = ch12.pair_facts(study, mean_difference(pairs))
    # 29 runs at batch 256, one without a partner, six pairs with other learning rates (data/README.md)
    assert said["c12_partners"] == "28 of the 29"
    assert said["c12_rates"].startswith(
        "In 6 of the 28 pairs the learning rates differ, too: they are lower at the larger"
    )
    assert "among the eight with the fewest steps" in said["c12_rates"]
    assert said["c12_range"] == "+0.004 to +0.116"
    assert said["c12_above"] == "all 28"
    assert said["c12_schedule"].startswith("Warm-up and cool-down together take 1,750 steps in every run")
    assert "70 % of the 2,500 steps of the shortest" in said["c12_schedule"]
    bare = made(study, pairs=pairs.drop(columns="second_schedule_share"))
    assert "c12_schedule" not in ch12.pair_facts(bare, mean_difference(pairs))
    same = pairs[pairs["same_learning_rate"]]
    trends = {"all": fit_step_trend(pairs, 50), "equal": fit_step_trend(same, 50)}
    found = ch12.trend_facts(trends)
    assert found["c12_trend_all"].startswith(f"{trends['all'].exponent:.2f} [")
    assert found["c12_trend_same"].startswith(f"{trends['equal'].exponent:.2f} [")
    assert found["c12_trend_verdict"] == "falls about as one over the steps"
    assert found["c12_trend_rates"] == "make the trend steeper"
    alone = ch12.trend_facts({"all": trends["all"]})
    assert alone["c12_trend_verdict"] == "falls faster than one over the steps"
    assert "c12_trend_all" not in alone
    others = ch12.other_pairs_facts(study)["c12_other_pairs"]
    assert others.startswith("12 pairs (Transformer, batch 128 instead of 64) differ by +0.035 to +0.233")
    assert ch12.other_pairs_facts(made(study, other_pairs={})) == {}


def test_what_is_said_of_the_optimum(study: Study) -> None:
    pairs = study.pairs
    assert pairs is not None
    shift = optimum_shift(pairs, 200)
    windows = shifts_by_window(pairs, [0.3, 9], 50)
    said = ch12.shift_facts(shift, None, windows)
    assert said["c12_shift"].startswith(facts.change_of_size(shift.ratio) + " (interval ")
    assert said["c12_shift_same"] == ""
    assert said["c12_shift_range"].startswith("−1")
    assert "c12_shift_range" not in ch12.shift_facts(shift, shift, windows[:1])
    rows = rows_of(ch12.windows_table(windows))
    assert [row["sizes"] for row in rows] == ["±0.3 decades", "all sizes"]
    assert "Stars: the lowest points" in text_of(ch12.profiles_figure(study, shift))
    # 11 to 17 % smaller, as measured before the chapter was written
    assert all(0.1 < 1 - ratio < 0.18 for ratio in windows["ratio"])


@pytest.mark.parametrize(
    ("ratio", "bounds", "words"),
    [
        (0.85, None, "15 % smaller"),
        (1.2, (1.1, 1.3), "20 % larger (interval 10 to 30 %)"),
        (0.95, (0.9, 1.02), "5.0 % smaller (interval of the ratio [0.90, 1.02])"),
    ],
)
def test_sizes_in_words(ratio: float, bounds: tuple[float, float] | None, words: str) -> None:
    assert facts.change_of_size(ratio, bounds) == words


def test_exponents_in_words() -> None:
    said = ch12.exponent_facts(1e20, 0.5473, [-0.02, -0.03, -0.01], [-0.06, -0.05, -0.07], 0.25)
    assert said["c12_exponent_change"].endswith("0.020 [-0.030, -0.010]")
    assert said["c12_exponent_growing"].endswith("0.060 [-0.070, -0.050]")
    assert (said["c12_exponent_before"], said["c12_budget"]) == ("0.547", "1×10²⁰")


def test_the_critical_batch_in_words(study: Study) -> None:
    pairs, law = study.pairs, ch12.first_batch_law(study).law
    assert pairs is not None
    found = fit_critical_batch(pairs, law, num_resamples=5)  # type: ignore[arg-type]
    implied = implied_critical_batch(pairs, law)  # type: ignore[arg-type]
    said = ch12.critical_facts(found, found, pairs, implied)
    assert "c12_critical_exponent_all" not in said
    assert said["c12_critical_batches"] == "1.0M and 2.1M"
    assert said["c12_critical_form"].endswith("the published exponent lies outside this interval")
    falling = replace(found, exponent=-0.5, exponent_resamples=-found.exponent_resamples)
    said = ch12.critical_facts(falling, found, pairs, implied)
    assert said["c12_critical_form"] == "By these pairs it falls with the tokens, against the published form"
    assert said["c12_longer"] == "more"
    assert said["c12_critical_exponent_all"].startswith(f"{found.exponent:.2f} [")
    rows = rows_of(ch12.critical_table(implied))
    assert sum(row["critical batch (tokens)"] == "none" for row in rows) == implied["critical_batch"].isna().sum()


# ---- budgets by another count --------------------------------------------------------------------------------


def test_the_count_of_the_budgets(study: Study) -> None:
    profiles = counted_profiles(study.logs, CHINCHILLA_LOOK_UP, CHINCHILLA_GROUP)
    constancy = count_constancy(profiles)
    said = ch12.count_facts(profiles, constancy, CHINCHILLA_LOOK_UP.name)
    assert (said["c12_count_runs"], said["c12_count_profiles"]) == ("52", "three")
    assert said["c12_count_flat"] == "all three profiles"
    assert said["c12_count_paper_trend"] == "all three profiles"
    assert said["c12_count_means"] == "6×10¹⁸ and 1×10¹⁹"
    assert len(rows_of(ch12.constancy_table(constancy))) == 12


def test_optima_and_the_pitfall_of_two_batches() -> None:
    """Optima on C^0.5 at one batch; the profile at half the batch lies where the line through both is flat."""
    optima = pd.DataFrame(
        {
            "batch_size_seqs": [64, 128, 128], "mean_count": [1e18, 1e18, 4e18], "measured": [2e8, 1e8, 2e8],
            "low": [1.9e8, 0.9e8, 1.9e8], "high": [2.1e8, 1.1e8, 2.1e8], "predicted": [1e8, 1e8, 1.98e8],
            "predicted_low": [0.9e8, 0.9e8, 1.9e8], "predicted_high": [1.1e8, 1.1e8, 2.1e8],
            "unaware": [1.2e8, 1.2e8, 2.4e8], "ratio": [2.0, 1.0, 1.01], "ratio_low": [1.9, 0.9, 1.001],
            "ratio_high": [2.1, 1.1, 1.1], "moved_predicted": 0.83, "outside": [True, True, False],
        }
    )  # fmt: skip
    said = ch12.optimum_facts(optima)
    assert (said["c12_slope_same"], said["c12_slope_mixed"]) == ("0.50", "0.00")
    assert said["c12_agree"] == "one of the two profiles"
    assert said["c12_half_ratio"] == "2.00 [1.90, 2.10]"
    assert said["c12_usual_ratios"] == "1.00 [0.90, 1.10] and 1.01 [1.00, 1.10]"
    # log half widths of 0.105 and 0.049 add up to 0.116, those of 0.095 and 0.051 to 0.108
    assert (said["c12_double_ratio"], said["c12_outside"]) == ("0.50 [0.45, 0.56]", "1×10¹⁸")
    assert (said["c12_usual_batch"], said["c12_half_batch"]) == ("128", "64")
    assert [row["law’s budgets"] for row in rows_of(ch12.optima_table(optima))] == ["outside", "outside", "inside"]
    assert len(figures.counted_optima(optima, list("abc")).axes[0].get_yticks()) == 3
