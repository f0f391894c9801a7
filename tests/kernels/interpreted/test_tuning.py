"""Tuning: every candidate is timed once, a wrong one never. The clock is a stand-in: there is no GPU here."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from companion.benchmarks.kernels import tuning
from companion.benchmarks.kernels.shapes import Shape
from companion.kernels.mlstm import configs

SHAPE = Shape(1, 24, 40, batch_size=1, context_length=20)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Launches that were timed, by configuration."""
    calls: list[str] = []

    def seconds(action: Callable[[int], Any], *, repeats: int, limit: float) -> dict[str, Any]:
        action(0)
        calls.append(str(repeats))
        return {"seconds_median": 1.0, "repeats": repeats}

    monkeypatch.setattr(tuning.timing, "seconds", seconds)
    return calls


def _tune(todo: Callable[[dict[str, Any]], bool] = lambda fields: True) -> list[dict[str, Any]]:
    return list(tuning.tune(SHAPE, repeats=3, todo=todo, chunk_size=32, dtype=torch.float32, device="cpu"))


def test_every_candidate_once(timed: list[str]) -> None:
    found = _tune()
    expected = [
        (kernel, config)
        for kernel in tuning.KERNELS
        for config in configs.candidates(kernel, d_qk=24, d_hv=40, chunk_size=32, dtype=torch.float32)
    ]
    assert [(x["kernel"], x["blocks"]) for x in found] == [(kernel, dict(config.blocks)) for kernel, config in expected]
    assert all(x["seconds_median"] == 1.0 and x["difference"] < 1e-4 for x in found)
    # the kernel of the states runs twice in a pass, forward and again backward
    states = sum(kernel == "states" for kernel, _ in expected)
    assert len(timed) == len(expected) + states


def test_only_what_is_wanted(timed: list[str]) -> None:
    found = _tune(lambda fields: fields["configuration"] == "outputs 0")
    assert [x["configuration"] for x in found] == ["outputs 0"]
    assert len(timed) == 1


def test_a_wrong_candidate_is_not_timed(timed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    right = tuning._pass

    def wrong(inputs: list[torch.Tensor], size: int) -> dict[str, torch.Tensor]:
        found = right(inputs, size)
        return {**found, "dq": found["dq"] * 1.1} if configs._forced.get("outputs") == 0 else found

    monkeypatch.setattr(tuning, "_pass", wrong)
    (found,) = _tune(lambda fields: fields["configuration"] == "outputs 0")
    assert found["skipped"].startswith("wrong: dq differs by 0.1")
    assert "seconds_median" not in found
    assert not timed
