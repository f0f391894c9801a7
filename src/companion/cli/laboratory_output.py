"""What `companion lab` prints: runs, rules, what is left."""

import math
from collections.abc import Sequence
from typing import Any

from companion.cli.output import say
from companion.formatting import count, level_text, percent, power_of_ten, significant
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.game import Laboratory
from companion.study.laboratory.rules import LAWS, Rules
from companion.study.laboratory.scoring import ACCURACY_POINTS, CHOICE_POINTS, INTERVAL_POINTS, WITHOUT_CHOICE, Score
from companion.study.laboratory.state import Answer, State
from companion.study.laboratory.training import Trainer


def state_with_notes(lab: Laboratory) -> State:
    """The state, its notes on stderr."""
    state = lab.state()
    for note in state.notes:
        say(f"note: {note}")
    return state


def summary(lab: Laboratory, state: State) -> dict[str, Any]:
    """Budget, spent, left and commitment, for JSON."""
    return {
        "unit": lab.rules.unit,
        "budget": lab.rules.budget,
        "spent": state.spent,
        "left": state.left,
        "unfinished": [ask.as_dict() for ask in state.unfinished],
        "commitment": state.commitment or None,
        "notes": list(state.notes),
    }


def lines(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Runs with their outcomes, for JSON."""
    return [
        {
            **answer.ask.as_dict(),
            **answer.outcome.as_dict(),
            "diverged": answer.outcome.diverged,
            "repeated": answer.repeated,
        }
        for answer in answers
    ]


def shown(answer: Answer, rules: Rules) -> dict[str, str | int]:
    """A run as a line of a table."""
    ask, outcome = answer.ask, answer.outcome
    on_cpu = rules.training is not None and rules.training.device == "cpu"
    return {
        "architecture": ask.architecture,
        "parameters": count(ask.num_params),
        "tokens": count(ask.num_tokens),
        "learning rate": f"{ask.learning_rate:.3g}",
        "batch": ask.batch_size_seqs,
        "schedule": ask.schedule,
        "seed": ask.seed,
        "loss": f"{outcome.val_loss:.4f}" if outcome.val_loss is not None else "diverged",
        "FLOP": power_of_ten(outcome.train_flops, 3),
        "CPU-hours" if on_cpu else "GPU-hours": significant(outcome.gpu_hours),
    }


def in_words(ask: Ask) -> str:
    """A run in one line."""
    return (
        f"{ask.architecture} of {count(ask.num_params)} parameters on {count(ask.num_tokens)} tokens, learning rate "
        f"{ask.learning_rate:.3g}, batch {ask.batch_size_seqs}, {ask.schedule}, seed {ask.seed}"
    )


def nearest_sizes(asks: Sequence[Ask], rules: Rules) -> list[str]:
    """Which size an ask gets, where it shows in three digits of N; a line per architecture and N."""
    low, high = rules.limits["num_params"]
    wanted = {(ask.architecture, ask.num_params) for ask in asks if low <= ask.num_params <= high}
    known = sorted(each for each in wanted if each[0] in rules.architectures)
    return [
        f"{architecture} of {num_params:,} parameters: the nearest size that is trained has {made:,}"
        for architecture, num_params in known
        if count(made := rules.model_size(architecture, num_params)) != count(num_params)
    ]


def duration(seconds: float) -> str:
    """A time with two digits: 40 s, 12 min, 3.0 h."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{significant(seconds / unit, 2)} {name}"
    return f"{significant(seconds / 3600, 2)} h"


def left(lab: Laboratory, state: State) -> str:
    """What is left of the budget, in words."""
    return f"{lab.rules.amount(state.left)} of {lab.rules.amount(lab.rules.budget)} left"


def print_rules(lab: Laboratory) -> None:
    """The task in a few lines."""
    rules = lab.rules
    print(f"budget: {rules.amount(rules.budget)}; architectures: {', '.join(rules.architectures)}")
    if rules.training is None:
        print(f"law: {LAWS[rules.law]}")
    else:
        print(f"runs are trained on {rules.training.device}; corpus {rules.training.corpus}")
        smallest, largest = (count(end) for end in rules.limits["num_params"])
        print(f"sizes: {', '.join(rules.training.sizes)}, {smallest} to {largest} parameters; others get the nearest")
    print(
        f"task: choose a run of {power_of_ten(rules.target_flops)} FLOP"
        f"{' (6 N D)' if rules.training is None else ''} of low loss, and predict its loss "
        f"with an interval at the {level_text(rules.level)} level"
    )
    steps = rules.limits["train_steps"]
    print(f"context length {rules.context_length}; from {steps[0]:,.0f} to {steps[1]:,.0f} steps")


def print_score(found: Score) -> None:
    """The total and its parts. Without a best run to compare with, the other parts make up the 100."""
    known = math.isfinite(found.choice_points)
    most = [part * (1 if known else WITHOUT_CHOICE) for part in (INTERVAL_POINTS, ACCURACY_POINTS)]
    print(f"total {found.total:.1f} of 100")
    print(
        f"  interval {found.interval_points:.1f} of {most[0]:.3g}: interval score {significant(found.interval_score)} "
        "in log loss"
    )
    print(
        f"  accuracy {found.accuracy_points:.1f} of {most[1]:.3g}: ln predicted - ln observed is {found.log_error:+.4f}"
    )
    if known:
        print(
            f"  choice   {found.choice_points:.1f} of {CHOICE_POINTS:g}: {found.regret_nats:.4f} nats behind the best "
            f"run, which {percent(found.compute_share)} of the compute would have matched"
        )
    else:
        print("  choice   not scored: nobody knows the best run")


def floor_of(lab: Laboratory, target: Ask) -> tuple[float, float] | None:
    """The loss floor of the target, nats per token, and its standard error; None where nobody knows it."""
    return lab.backend.loss_floor(target) if isinstance(lab.backend, Trainer) else None


def floor_fields(floor: tuple[float, float] | None) -> dict[str, float | None]:
    """The loss floor for JSON."""
    return dict(zip(("loss_floor", "loss_floor_stderr"), floor or (None, None), strict=True))


def print_floor(floor: tuple[float, float] | None, loss: float | None) -> None:
    """How far a loss is above the floor, where both are known."""
    if floor is not None and loss is not None:
        print(
            f"loss floor of the corpus: {floor[0]:.4f} ± {floor[1]:.4f} nats per token; the run ended "
            f"{loss - floor[0]:.4f} above it"
        )
