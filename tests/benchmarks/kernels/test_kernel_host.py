"""The host's time of calls: by a clock that the calls themselves move on, and in a process of its own."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed (extra 'kernels')")

import torch

from companion.benchmarks.kernels import host
from companion.benchmarks.kernels.benchmark import TIMED_PARTS, main, timed_shapes
from companion.benchmarks.kernels.implementations import Implementation, plain_torch
from companion.benchmarks.kernels.shapes import Shape
from companion.benchmarks.kernels.suites import Settings

SHAPE = Shape(2, 16, 16, batch_size=1, context_length=8)
FORWARD, BACKWARD, ONCE = 3e-4, 5e-4, 2e-3


class Clock:
    """Stands for the time: calls of the cell take what is written above."""

    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(host.time, "perf_counter", lambda: Clock.now)
    return Clock


class Slow(torch.autograd.Function):
    """h = v, for some time of the clock."""

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        Clock.now += FORWARD
        return v.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        Clock.now += BACKWARD
        return gradient


def call(q: Any, k: Any, v: Any, i: Any, f: Any, state: Any = None, return_state: bool = False) -> Any:
    return Slow.apply(v), None


def settings(implementation: Implementation) -> Settings:
    """On the CPU, where an implementation needs no check."""
    found = Settings(1, {}, device="cpu")
    found.gates[implementation.name, SHAPE.d_qk, SHAPE.d_hv, True] = {"verified": True, "reason": None}
    return found


def test_one_call_and_further_ones(clock: type[Clock], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a compiled function takes once is part of one call, and of no further one."""

    def compiled(chain: Any) -> Any:
        def run(*tensors: Any) -> Any:
            clock.now += ONCE
            return chain(*tensors)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    slow = Implementation(name="slow", library="torch", computation="exponential", layout="bthd", call=call)
    for launch, once in (("calls", 0.0), ("compiled", ONCE)):
        found = host._host(slow, SHAPE, launch, settings(slow))
        assert found["seconds_forward"] == pytest.approx(once + FORWARD, rel=1e-4)
        assert found["seconds_median"] == pytest.approx(once + FORWARD + BACKWARD, rel=1e-4)
        assert found["seconds_further"] == pytest.approx(FORWARD + BACKWARD, rel=1e-4)


def test_a_chain_hands_h_on_as_v() -> None:
    """Of the cell itself: two layers are two calls, and all gradients are there."""
    implementation = plain_torch(64)
    *tensors, _ = host.sequence_inputs(implementation, SHAPE, True, torch.Generator().manual_seed(0))
    q, k, v, i, f = tensors
    h = implementation.call(q, k, v, i, f, None, False)[0]
    expected = implementation.call(q, k, h, i, f, None, False)[0]
    assert torch.equal(host._chain(implementation, 2)(*tensors), expected)


@pytest.mark.parametrize("fault", ["refuses", "is not right"])
def test_what_cannot_be_timed_says_why(fault: str) -> None:
    def refuse(*tensors: Any) -> Any:
        raise RuntimeError("needs another GPU")

    cell = Implementation(name="cell", library="torch", computation="exponential", layout="bthd", call=refuse)
    found = settings(cell)
    if fault == "is not right":
        found.gates["cell", SHAPE.d_qk, SHAPE.d_hv, True] = {"verified": False, "reason": "wrong: dq"}
    skipped = host._host(cell, SHAPE, "calls", found)["skipped"]
    assert ("needs another GPU" if fault == "refuses" else "wrong: dq") in skipped


def test_a_missing_peer_is_named() -> None:
    cells = list(host.hosts(SHAPE, settings=Settings(1, {}, device="cpu"), todo=lambda x: "mlstm_ker" in str(x)))
    assert {x["skipped"] for x in cells} == {"mlstm_kernels is not installed"}
    assert [x["launch"] for x in cells] == ["calls", "compiled"]


def test_first_call_in_a_process_of_its_own() -> None:
    found = host._first_call(SHAPE, "cpu")
    assert set(found) == {"seconds_median", "seconds_second", "repeats"}, found
    assert found["seconds_median"] > 0 < found["seconds_second"]


@pytest.mark.parametrize("text", ["no room", ""])
def test_a_first_call_that_fails_gives_its_last_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho 'a traceback\n{text}' >&2\nexit 1\n" if text else "#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(host.sys, "executable", str(program))
    assert host._first_call(SHAPE, "cpu") == {"skipped": text or "no message"}


def test_shapes_and_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert [len(timed_shapes(part)) > 0 for part in TIMED_PARTS] == [True] * len(TIMED_PARTS)
    assert len(timed_shapes("first-call", quick=True)) == 1
    assert main(["--part", "host", "--device", "cpu"]) == 2
    assert "only checks run there" in capsys.readouterr().err
    assert main(["--list"]) == 0
    assert "4x32x64 - T1024" in capsys.readouterr().out
