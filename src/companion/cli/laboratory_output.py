"""What `companion lab` prints: runs, rules, what is left."""

from collections.abc import Sequence
from typing import Any

from companion.cli.output import say
from companion.formatting import count, level_text, power_of_ten, significant
from companion.study.laboratory.folder import Laboratory
from companion.study.laboratory.rules import LAWS
from companion.study.laboratory.state import Answer, State


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


def shown(answer: Answer) -> dict[str, str | int]:
    """A run as a line of a table."""
    ask, outcome = answer.ask, answer.outcome
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
        "GPU-hours": significant(outcome.gpu_hours),
    }


def left(lab: Laboratory, state: State) -> str:
    """What is left of the budget, in words."""
    return f"{lab.rules.amount(state.left)} of {lab.rules.amount(lab.rules.budget)} left"


def print_rules(lab: Laboratory) -> None:
    """The task in four lines."""
    rules = lab.rules
    print(f"budget: {rules.amount(rules.budget)}; architectures: {', '.join(rules.architectures)}")
    print(f"law: {LAWS[rules.law]}")
    print(
        f"task: choose a run of {power_of_ten(rules.target_flops)} FLOP (6 N D) of low loss, and predict its loss "
        f"with an interval at the {level_text(rules.level)} level"
    )
    steps = rules.limits["train_steps"]
    print(f"context length {rules.context_length}; from {steps[0]:,.0f} to {steps[1]:,.0f} steps")
