"""Claims on tables whose truth is chosen: every verdict, its interval, and what is said where there is none."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from claimed_tables import CONTEXTS, claimed_table
from commands import error_line, run_json
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import cli
from companion.errors import InputError
from companion.paths import data_dir
from companion.runs import load_paper_runs, load_runs
from companion.study.claims import (
    CANNOT_TELL,
    DOES_NOT_HOLD,
    HOLDS,
    StudyClaim,
    claims_frame,
    equal_compute_pairs,
    study_claims,
)

NAMES = (
    "loss",
    "size",
    "size over context, transformer",
    "size over context, xlstm",
    "over-training, xlstm",
    "over-training, transformer",
)


def judged(**truth: Any) -> dict[str, StudyClaim]:
    claims = study_claims(claimed_table(**truth), context_length=1024, num_resamples=400)
    return {each.claim: each for each in claims}


def test_true_claims_hold_and_their_intervals_hold_the_truth() -> None:
    found = judged()
    assert tuple(found) == NAMES
    assert {each.verdict for each in found.values()} == {HOLDS}
    truths = dict(zip(NAMES, (0.05, 1.5, -0.2, 0.0, 0.0, 0.0), strict=True))
    for name, truth in truths.items():
        assert found[name].low - 0.01 < truth < found[name].high + 0.01, name
        assert found[name].needed == ""
    assert found["size"].num_runs == 3 * 2 * 7
    assert found["size over context, xlstm"].num_runs == 3 * 3 * 7


@pytest.mark.parametrize(
    ("truth", "name"),
    [
        ({"gap": -0.05}, "loss"),
        ({"ratio": 0.7}, "size"),
        ({"shrinks": 0.2}, "size over context, transformer"),
        ({"grows": 0.4}, "size over context, xlstm"),
        ({"grows": -0.4}, "size over context, xlstm"),
        ({"slope_change": 0.6}, "over-training, xlstm"),
        ({"slope_change": -0.6}, "over-training, transformer"),
    ],
)
def test_false_claims_do_not_hold(truth: dict[str, float], name: str) -> None:
    found = judged(**truth)
    assert found[name].verdict == DOES_NOT_HOLD
    assert found[name].needed == ""
    others = {"size over context, xlstm", "size", *(each for each in NAMES if each.startswith("over"))}
    assert {found[each].verdict for each in NAMES if each not in others | {name}} == {HOLDS}


def test_the_change_of_an_exponent_is_a_share_of_it() -> None:
    found = judged(slope_change=0.6, noise=1e-4)["over-training, xlstm"]
    assert found.value == pytest.approx(0.6, abs=0.05)
    assert found.low < 0.6 < found.high + 0.05


def test_one_crossing_refutes_a_loss_that_is_lower_at_every_budget() -> None:
    runs = claimed_table()
    crossed = (runs["architecture"] == "xlstm") & (runs["isoflop_budget"] == 1.6e16)
    runs.loc[crossed, "val_loss"] += 0.1
    found = study_claims(runs, context_length=1024)[0]
    assert found.verdict == DOES_NOT_HOLD
    assert found.value == pytest.approx(-0.05, abs=0.01)
    assert found.low < found.value < found.high < 0


def test_scatter_leaves_claims_open_and_says_how_many_runs_would_do() -> None:
    found = judged(noise=0.03, gap=0.01, ratio=1.02, shrinks=-0.01)
    for name in ("loss", "size", "size over context, transformer"):
        assert found[name].verdict == CANNOT_TELL
        assert "times as many runs" in found[name].needed
    times = int(found["size"].needed.split()[1])
    logs = [math.log(each) for each in (found["size"].low, found["size"].value, found["size"].high)]
    assert times == math.ceil(((logs[2] - logs[0]) / 2 / abs(logs[1])) ** 2)


def test_one_budget_is_no_range_of_compute() -> None:
    found = judged(budgets=(1e15,))
    assert found["loss"].verdict == CANNOT_TELL
    assert found["loss"].low > 0
    assert "at 2 budgets or more; there is 1" in found["loss"].needed
    assert found["size"].verdict == HOLDS


def test_what_a_table_lacks_is_said() -> None:
    runs = claimed_table(contexts=(1024,))
    found = {each.claim: each for each in study_claims(runs[runs["experiment"] == "isoflop"])}
    assert "at two context lengths of one budget" in found["size over context, xlstm"].needed
    assert "design isoflop" in found["over-training, xlstm"].needed
    assert math.isnan(found["over-training, xlstm"].value)
    only = study_claims(runs[runs["experiment"] == "tokenparam"])
    assert {each.verdict for each in only[:4]} == {CANNOT_TELL}
    assert "2 budgets or more" in only[0].needed
    nothing = study_claims(claimed_table(num_sizes=2))
    assert "no budget of xlstm has a profile with a minimum" in nothing[0].needed


def test_five_columns_are_enough() -> None:
    runs = claimed_table(contexts=(1024,))
    five = runs.loc[
        runs["experiment"] == "isoflop", ["architecture", "num_params", "num_tokens", "train_flops", "val_loss"]
    ]
    assert [each.verdict for each in study_claims(five)[:2]] == [HOLDS, HOLDS]


def test_the_paper_and_our_study() -> None:
    assert {each.verdict for each in study_claims(load_paper_runs())} == {HOLDS}
    ours = study_claims(load_runs(data_dir() / "study_runs.csv"), context_length=1024)
    assert tuple(each.claim for each in ours) == NAMES


def test_swapped_architectures_mirror_the_first_two_claims() -> None:
    runs = claimed_table()
    there, back = (study_claims(runs, *names, context_length=1024) for names in (NAMED, NAMED[::-1]))
    assert back[0].verdict == back[1].verdict == DOES_NOT_HOLD
    assert back[1].value == pytest.approx(1 / there[1].value)
    assert -back[0].value == pytest.approx(0.05, abs=0.01)


NAMED = ("xlstm", "transformer")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    noise=st.floats(0, 0.3),
    share=st.floats(0.15, 1.0),
    level=st.floats(0.5, 0.99),
)
def test_any_part_of_a_table_gets_six_verdicts(seed: int, noise: float, share: float, level: float) -> None:
    runs = claimed_table(noise=noise, seed=seed).sample(frac=share, random_state=seed)
    if set(runs["architecture"]) < set(NAMED):
        return
    claims = study_claims(runs, level=level, num_resamples=40, seed=seed)
    assert tuple(each.claim for each in claims) == NAMES
    for each in claims:
        assert each.verdict in (HOLDS, DOES_NOT_HOLD, CANNOT_TELL)
        assert (each.needed == "") == (each.verdict != CANNOT_TELL)
        assert math.isnan(each.low) == math.isnan(each.high)
        assert not each.low > each.high
        if each.verdict != CANNOT_TELL:
            assert np.isfinite([each.value, each.low, each.high]).all()
    assert len(claims_frame(claims)) == 6


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda runs: runs.drop(columns="val_loss"), {}, "column 'val_loss' is missing"),
        (
            lambda runs: runs[runs["architecture"] == "xlstm"],
            {},
            "no runs with architecture transformer; the table has",
        ),
        (lambda runs: runs, {"first": "mamba"}, "no runs with architecture mamba"),
        (lambda runs: runs, {"first": "transformer"}, "first and second are both transformer"),
        (
            lambda runs: runs,
            {"context_length": 8192},
            "no runs with context_length 8192; the table has 256, 1024, 4096",
        ),
        (lambda runs: runs, {"level": 1.0}, "level 1 of an interval is not between 0 and 1"),
        (lambda runs: runs, {"num_resamples": 0}, "0 resamples"),
    ],
)
def test_bad_input_is_named(change: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        study_claims(change(claimed_table()), **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# ---- pairs at equal compute ------------------------------------------------------------------------


def test_pairs_are_of_one_budget_context_and_seed() -> None:
    runs = claimed_table(ratio=1.0, noise=0.0, shrinks=0.0)
    pairs = equal_compute_pairs(runs, *NAMED, 1024)
    assert len(pairs) == 3 * 7
    assert pairs["size_ratio"].between(1 / 1.2, 1.2).all()
    assert pairs["loss_gap"].median() == pytest.approx(0.05, abs=0.01)
    both = pd.concat([runs.assign(seed=0), runs.assign(seed=1, val_loss=runs["val_loss"] + 1)])
    again = equal_compute_pairs(both, *NAMED, 1024)
    assert len(again) == 2 * len(pairs)
    assert again["loss_gap"].max() == pytest.approx(pairs["loss_gap"].max()), "seeds are not mixed"
    assert len(equal_compute_pairs(runs, *NAMED)) == len(CONTEXTS) * len(pairs)


def test_no_pair_is_an_error() -> None:
    runs = claimed_table()
    runs.loc[runs["architecture"] == "xlstm", "isoflop_budget"] *= 7
    with pytest.raises(InputError, match="no budget has runs of xlstm and transformer of nearly one size"):
        equal_compute_pairs(runs, *NAMED)


# ---- the command -----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Any) -> str:
    target = tmp_path / "runs.csv"
    whole = {"num_params": "int64", "num_tokens": "int64"}
    claimed_table(noise=0.003).round({"num_params": 0, "num_tokens": 0}).astype(whole).to_csv(target, index=False)
    return str(target)


def test_command(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "study", "claims", path, "--context-length", "1024", "--bootstrap", "200")
    assert [each["claim"] for each in result["claims"]] == list(NAMES)
    assert result["claims"][0]["verdict"] == HOLDS
    assert cli.main(["study", "claims", path, "--second", "xlstm", "--first", "transformer", "--bootstrap", "200"]) == 0
    out = capsys.readouterr().out
    assert "does not hold: at every budget, the best transformer has a lower loss than the best xlstm\n" in out
    assert "nats/token, interval [" in out


def test_command_on_a_table_that_lacks_one(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = error_line(capsys, "study", "claims", path, "--first", "mamba")
    assert "no runs with architecture mamba" in line
