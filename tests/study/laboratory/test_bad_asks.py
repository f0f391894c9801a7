"""Asks and predictions that the rules do not allow, and fields that are none."""

from dataclasses import replace

import pytest
from small_laboratory import SMALL, target

from companion.errors import InputError
from companion.study.laboratory import (
    ask_from,
    practice_laboratory,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "mamba"}, "architecture 'mamba': the laboratory has transformer and xlstm"),
        ({"architecture": "hybrid"}, "architecture 'hybrid'"),
        ({"schedule": "linear"}, "schedule 'linear'"),
        ({"num_params": 10}, "num_params 10 is not between"),
        ({"num_tokens": 10**14}, "num_tokens 1e\\+14 is not between"),
        ({"learning_rate": 0.0}, "learning_rate 0 is not between"),
        ({"learning_rate": float("nan")}, "learning_rate nan"),
        ({"batch_size_seqs": 5000}, "batch_size_seqs 5000"),
        ({"num_tokens": 10**7}, "would take 76 steps"),
        ({"warmup_steps": 10**6}, "warmup_steps 1000000"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_asks_outside_the_rules(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        practice_laboratory("a key").ask([replace(SMALL, **change)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 2.75}, "must hold the loss"),
        ({"high": 2.65}, "must hold the loss"),
        ({"low": 2.7, "high": 2.7}, "must hold the loss"),
        ({"loss": float("nan")}, "must be above 0"),
        ({"high": float("inf")}, "must be above 0"),
        (
            {"ask": replace(SMALL, num_params=10**9, num_tokens=2 * 10**10, batch_size_seqs=128)},
            "the target is 1e\\+20",
        ),
        ({"ask": replace(SMALL, seed=-1)}, "seed"),
    ],
)
def test_predictions_outside_the_rules(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        practice_laboratory("a key").predict(replace(target(), **change))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_params": 1e7}, "here: architecture is missing"),
        ({"architecture": 3}, "architecture '?3'? is not text"),
        ({"optimizer": "adam"}, "no field 'optimizer'"),
        ({"num_params": 1.5}, "num_params 1.5 is not a whole number"),
        ({"num_params": "many"}, "num_params 'many' is not a number"),
        ({"num_params": True}, "num_params True is not a number"),
        ({"num_tokens": float("inf")}, "not finite"),
        ({"num_tokens": 10**400}, "is not a number"),
        ({"learning_rate": [1]}, "is not a number"),
    ],
)
def test_fields_that_are_no_ask(values: dict[str, object], message: str) -> None:
    known = {} if values == {"num_params": 1e7} else SMALL.as_dict()
    with pytest.raises(InputError, match=message):
        ask_from(known | values, "here")
