"""The training run of an ask, and what it costs: known before anything is trained. Needs no torch."""

from dataclasses import replace
from typing import Any

from companion.errors import InputError
from companion.hardware import get_hardware
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.backend import Cost
from companion.study.laboratory.chance import canonical, derived_key
from companion.study.laboratory.rules import Rules
from companion.study.laboratory.training_rules import TrainingRules
from companion.study.train.recipe import Recipe

#: Share of the peak that small models are taken to reach on a GPU, and seconds that a step takes besides: about what
#: the runs of `data/study_v1024_runs_logs.csv` took, several at a time on one H200.
GPU_UTILIZATION, GPU_STEP_SECONDS = 0.05, 5e-3
#: FLOP/s that a core of a CPU is taken to reach in float32: no more than a guess.
CPU_FLOPS_PER_S = 2e10
#: Seeds of targets begin here: those of asks end before it.
FIRST_FINAL_SEED = 2**31


def recipe_of(ask: Ask, rules: Rules, seed: int | None = None) -> Recipe:
    """The recipe of an ask that `Ask.checked` returned.

    Parameters
    ----------
    seed
        of the first weights, instead of that of the ask.

    Raises
    ------
    InputError
        if the rules are not those of a laboratory that trains, or the ask is not one of them.
    """
    training = trained(rules)
    schedule: dict[str, Any] = {"schedule": ask.schedule}
    if ask.schedule == "constant":  # a stable rate without an end
        schedule = {"schedule": "wsd", "cooldown_share": 0.0}
    return Recipe(
        architecture=training.architecture(ask.architecture, ask.num_params),
        corpus=training.corpus,
        context_length=rules.context_length,
        batch_size_seqs=ask.batch_size_seqs,
        train_steps=ask.train_steps(rules.context_length),
        learning_rate=ask.learning_rate,
        warmup_steps=ask.warmup_steps,  # type: ignore[arg-type]  # None is the default
        seed=ask.seed if seed is None else seed,
        held_out_sequences=training.held_out_sequences,
        **schedule,
    )


def cost_of(ask: Ask, rules: Rules) -> Cost:
    """What a run takes: FLOP are exact, hours of the device are predicted.

    Hours of a GPU are those of `GPU_UTILIZATION` of the peak of the rules' hardware and of `GPU_STEP_SECONDS` a step.
    """
    flops = ask.flops_by(rules)
    if trained(rules).device == "cpu":
        return Cost(train_flops=flops, gpu_hours=flops / CPU_FLOPS_PER_S / 3600)
    computing = flops / (GPU_UTILIZATION * get_hardware(rules.hardware).peak_flops_per_s)
    launching = GPU_STEP_SECONDS * ask.train_steps(rules.context_length)
    return Cost(train_flops=flops, gpu_hours=(computing + launching) / 3600)


def final_seed(ask: Ask, rules: Rules) -> int:
    """The seed of the target: one that no ask can have, and another one in every laboratory."""
    label = canonical(replace(ask, seed=0).as_dict())
    return FIRST_FINAL_SEED + int(derived_key(rules.identity, "final", label)[:7], 16)


def trained(rules: Rules) -> TrainingRules:
    """What is trained by the rules.

    Raises
    ------
    InputError
        if nothing is.
    """
    if rules.training is None:
        raise InputError(f"backend {rules.backend!r}: it trains nothing")
    return rules.training
