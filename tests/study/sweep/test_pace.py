"""Which runs begin when a sweep has an end, and what is left of those that are trained when it is told to stop."""

import heapq
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.hardware import get_hardware
from companion.study.sweep.design import Design
from companion.study.sweep.execute import DIVERGED, FAILED, FINISHED, Pace, Workers, _client, _shared, run_plan
from companion.study.sweep.plan import Plan, PlannedRun, make_plan, write_plan
from companion.study.train import record_path
from companion.study.train.checkpoint import checkpoint_path

Times = st.lists(st.floats(0.5, 50), min_size=1, max_size=40)


def planned(seconds: list[float]) -> list[Any]:
    return [SimpleNamespace(run_id=str(number), seconds=each) for number, each in enumerate(seconds)]


def simulated(
    runs: list[Any], most: float, workers: int, slower: float, sharing: int
) -> tuple[dict[str, float], set[str]]:
    """Ends of runs that `workers` take one after the other, each `slower` than predicted, and which failed at once."""
    now = [0.0]
    pace = Pace(most, sharing, lambda: now[0])
    todo, ends, failed = iter(runs), dict[str, float](), set[str]()
    busy: list[tuple[float, int, Any]] = []

    def begin() -> None:
        for run in todo:
            if pace.fits(run):
                pace.begins(run)
                fails = int(run.run_id) % 7 == 3
                heapq.heappush(busy, (now[0] + (0.0 if fails else slower * run.seconds), int(run.run_id), run))
                return

    for _ in range(workers):
        begin()
    while busy:
        now[0], number, run = heapq.heappop(busy)
        if number % 7 == 3:
            failed.add(run.run_id)
        else:
            ends[run.run_id] = now[0]
        pace.ended(run, FAILED if run.run_id in failed else DIVERGED if number % 2 else FINISHED)
        begin()
    return ends, failed


@given(seconds=Times, most=st.floats(1, 300), workers=st.integers(1, 6), slower=st.floats(0.2, 6))
def test_no_run_ends_after_the_end(seconds: list[float], most: float, workers: int, slower: float) -> None:
    """However many share a GPU, and whether their number is known or not: what a run takes is what others took."""
    ends, _ = simulated(planned(seconds), most, workers, slower, sharing=6)
    assert all(end <= most * (1 + 1e-9) for end in ends.values())


@given(seconds=Times, workers=st.integers(1, 6), slower=st.floats(0.2, 6))
def test_all_runs_are_trained_where_there_is_time(seconds: list[float], workers: int, slower: float) -> None:
    ends, failed = simulated(planned(seconds), 6.1 * sum(seconds) + 1, workers, slower, sharing=1)
    assert len(ends) + len(failed) == len(seconds)


def test_a_long_run_is_passed_over_for_a_short_one() -> None:
    ends, _ = simulated(planned([10.0, 80.0, 20.0]), 50.0, workers=1, slower=1.0, sharing=1)
    assert ends == {"0": 10.0, "2": 30.0}


def test_without_an_end_every_run_fits() -> None:
    assert Pace(None).fits(planned([1e30])[0])


def test_with_an_end_no_run_waits_in_a_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that waited for a worker would end later than its time from begin to end says."""
    most = [0]

    class Counted(Pace):
        def begins(self, run: PlannedRun) -> None:
            super().begins(run)
            most[0] = max(most[0], len(self._begun))

    monkeypatch.setattr("companion.study.sweep.execute.Pace", Counted)
    plan = Plan(tuple(run for steps in (2, 3) for run in long_plan(steps).runs))
    ended = run_plan(plan, tmp_path, Workers(device="cpu", number=2), max_seconds=1e6, progress=False)
    assert [each.status for each in ended] == [FINISHED] * 4
    assert most == [2]


def test_workers_take_runs_in_the_order_of_the_plan(tmp_path: Path) -> None:
    """The cheapest first, although Dask knows of all from the beginning."""
    plan = Plan(tuple(run for steps in (2, 3, 4) for run in long_plan(steps).runs))
    ended = _shared(plan.runs, tmp_path, Workers(device="cpu", number=1), None)
    assert [each.run_id for each in ended] == [run.run_id for run in plan.runs]


# ---- stopped -------------------------------------------------------------------------------------


def long_plan(steps: int) -> Plan:
    """Two runs of about so many small steps."""
    grid = {"architectures": ["transformer", "xlstm"], "sizes": ["0.1m"], "context_lengths": [16]}
    grid |= {"tokens_per_param": [steps * 64 / 53_000], "tokens_per_step": 64}
    study = {"corpus": "source:vocab_size=64", "held_out_sequences": 4, "evaluations": 1}
    return make_plan(Design.from_dict({"study": study, "grid": [grid]}), get_hardware("h200-sxm"))


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_workers_leave_signals_to_the_process_that_began_them() -> None:
    with _client(Workers(device="cpu", number=1)) as client:
        for number in (signal.SIGINT, signal.SIGTERM):
            assert list(client.run(signal.getsignal, number).values()) == [signal.SIG_IGN]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_sweep_that_is_stopped_leaves_checkpoints(tmp_path: Path) -> None:
    """Ctrl-C in a terminal reaches all processes: the one that shares out the runs, and its workers."""
    plan = long_plan(100_000)
    write_plan(plan, tmp_path)
    paths = [checkpoint_path(tmp_path, run.run_id) for run in plan.runs]
    command = [sys.executable, "-m", "companion.study.sweep", str(tmp_path), "--device", "cpu", "--workers", "2"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not all(path.with_suffix(".lock").exists() for path in paths):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "write a checkpoint" in said
    assert all(path.exists() for path in paths), said
    assert not any(record_path(tmp_path, run.run_id).exists() for run in plan.runs)
