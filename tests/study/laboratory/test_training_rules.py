"""Rules of a laboratory that trains: sizes, defaults, and predicted hours beside measured ones."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_laboratory import TINY, tiny_rules

from companion.accounting import num_params
from companion.errors import InputError
from companion.hardware import get_hardware
from companion.paths import data_dir
from companion.study.laboratory import Rules, TrainingRules, training_rules
from companion.study.laboratory.rules import rules_from
from companion.study.laboratory.training_runs import GPU_STEP_SECONDS, GPU_UTILIZATION, cost_of, recipe_of
from companion.study.sweep import LADDER, study_architecture

RULES = TrainingRules(corpus="source", vocab_size=1024, corpus_digest="0" * 64, sizes=tuple(LADDER), device="cpu")


@given(kind=st.sampled_from(["transformer", "xlstm", "hybrid"]), wanted=st.floats(1e4, 1e9))
def test_the_nearest_size_has_the_smallest_ratio(kind: str, wanted: float) -> None:
    counts = {size: int(num_params(study_architecture(kind, size, 1024))) for size in RULES.sizes_of(kind)}
    distances = {size: abs(math.log(number / wanted)) for size, number in counts.items()}
    nearest = RULES.nearest(kind, wanted)
    assert distances[nearest] == min(distances.values())
    assert RULES.num_params(kind, wanted) == counts[nearest]
    assert RULES.nearest(kind, counts[nearest]) == nearest


def test_a_hybrid_has_attention_at_every_size() -> None:
    assert RULES.sizes_of("hybrid")[0] == "0.3m"
    for size in RULES.sizes_of("hybrid"):
        assert RULES.num_params("hybrid", 1) >= 300_000
        architecture = study_architecture("hybrid", size, 1024)
        assert all(number > 0 for _, number in architecture.layers)
        assert len(architecture.layers) == 2


def test_rules_survive_their_file() -> None:
    rules = tiny_rules()
    assert rules_from(rules.as_dict(), "lab.json") == rules
    assert rules_from(rules.as_dict(), "lab.json").fingerprint() == rules.fingerprint()
    assert "training" not in Rules().as_dict()


def test_a_checked_ask_stays_what_it_is() -> None:
    made = TINY.checked(tiny_rules())
    assert made != TINY
    assert made.checked(tiny_rules()) == made
    assert made.flops_by(tiny_rules()) == recipe_of(made, tiny_rules()).train_flops


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_defaults_suit_the_sizes(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size has about a token per parameter at the target, the smallest one four for a third of the budget."""
    pretend_to_have(device, monkeypatch)
    rules = training_rules()
    assert rules.training is not None
    assert rules.training.device == device
    assert rules.target_flops == 10 * rules.budget
    for kind in rules.architectures:
        for size in rules.training.sizes:
            model = int(num_params(study_architecture(kind, size, rules.training.vocab_size)))
            assert rules.target_flops / rules.flops_per_token(kind, model) > 0.8 * model
        smallest = rules.training.num_params(kind, 1)
        assert rules.budget / 3 / rules.flops_per_token(kind, smallest) > 4 * smallest


def pretend_to_have(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.study.laboratory.training_setup._device", lambda name: device)
    monkeypatch.setattr("companion.study.laboratory.training_setup._hardware", lambda device: "h200-sxm")


def test_predicted_hours_of_a_gpu_are_about_those_of_the_study() -> None:
    logs = pd.read_csv(data_dir() / "study_v1024_runs_logs.csv")
    peak = get_hardware("h200-sxm").peak_flops_per_s
    flops = logs["train_flops"] / logs["train_steps"]
    predicted = GPU_STEP_SECONDS + flops / (GPU_UTILIZATION * peak)
    ratios = np.log(predicted / logs["step_time_s"])
    assert abs(ratios.median()) < math.log(1.3)
    assert (ratios.abs() < math.log(2.5)).mean() > 0.9


def test_cost_of_a_simulated_run_is_none_of_training() -> None:
    with pytest.raises(InputError, match="backend 'simulator': it trains nothing"):
        cost_of(TINY, Rules())


def test_without_a_budget_hours_have_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_have("cuda", monkeypatch)
    with pytest.raises(InputError, match="budget: GPU-hours have no default"):
        training_rules(unit="gpu_hours")
    rules = training_rules(unit="gpu_hours", budget=0.5)
    assert rules.amount(rules.budget) == "0.500 GPU-hours"
    ask = replace(TINY, num_params=120_000, num_tokens=10**6).checked(rules)
    quoted = ask.flops_by(rules) / (GPU_UTILIZATION * 9.895e14) + GPU_STEP_SECONDS * ask.train_steps(1024)
    assert cost_of(ask, rules).gpu_hours == pytest.approx(quoted / 3600)
    with pytest.raises(InputError, match=r"budget 1e-06 pays for no run: the smallest costs 0\.0000\d+ GPU-hours"):
        training_rules(unit="gpu_hours", budget=1e-6)
