"""A laboratory that trains on a CPU, whose runs take a fraction of a second."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from companion.study.laboratory import Ask, Laboratory, Prediction, Rules, new_laboratory, training_rules
from companion.study.laboratory.predictions import target_tokens

#: Twenty steps of eight sequences of sixteen tokens.
TINY = Ask(architecture="xlstm", num_params=60_000, num_tokens=2560, learning_rate=1e-2, batch_size_seqs=8)


@cache
def tiny_rules(unit: str = "flops", budget: float = 1e10, sizes: Sequence[str] = ("0.1m", "0.2m")) -> Rules:
    """Two sizes of 50 and 100 thousand parameters, and a target of thirty steps."""
    return training_rules(
        "source:vocab_size=16",
        device="cpu",
        sizes=sizes,
        context_length=16,
        budget=budget,
        target_flops=1.5e9,
        unit=unit,
    )


def tiny_laboratory(folder: Path, rules: Rules | None = None) -> Laboratory:
    """Its folder, made."""
    return new_laboratory(folder, rules or tiny_rules())


def tiny_prediction(rules: Rules, **changes: Any) -> Prediction:
    """The target run with all tokens that it can have."""
    tokens = target_tokens(rules, "xlstm", TINY.num_params, TINY.batch_size_seqs)
    ask = Ask(**TINY.as_dict() | {"num_tokens": tokens} | changes)
    return Prediction(ask=ask, loss=2.7, low=2.5, high=2.9)


def records_in(lab: Laboratory) -> list[str]:
    """Names of the records of a laboratory."""
    return sorted(path.name for path in (Path(lab.name) / "training").glob("*.json"))
