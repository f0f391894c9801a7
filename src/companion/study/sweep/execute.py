"""Runs of a plan, trained here one by one, on several GPUs of this machine, or on a Dask cluster. Needs torch.

A run that has a record is never trained again, and a run that was interrupted goes on from its checkpoint. Dask shares
the runs among workers; each worker takes one run at a time, and several workers may share a GPU. SIGINT and SIGTERM end
a sweep; runs that are being trained write a checkpoint before.
"""

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from companion.errors import InputError
from companion.formatting import plural
from companion.study.sweep.plan import Plan, PlannedRun
from companion.study.sweep.status import RunState, run_states
from companion.study.train import record_path, records, train
from companion.study.train.interrupts import exit_on_sigterm, ignore_signals, stop_runs
from companion.study.train.recipe import Recipe

#: How a run can end: with a loss, without one, not at all, or with a checkpoint to go on from.
FINISHED, DIVERGED, FAILED, STOPPED = "finished", "diverged", "failed", "stopped"
#: How long a sweep that is to end waits for checkpoints: a run that is being compiled has none yet.
STOP_SECONDS = 60.0
#: Resource that workers of a Dask cluster declare for each GPU: `dask worker --resources GPU=1`.
GPU = "GPU"


@dataclass(frozen=True)
class Ended:
    """How one run ended: `finished`, `diverged`, `stopped`, or `failed` with the reason."""

    run_id: str
    status: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who trains.

    Parameters
    ----------
    device
        `cuda` or `cpu`.
    number
        processes on this machine; 1 trains in this process.
    num_gpus
        of this machine; processes share them in turn.
    scheduler
        address of a Dask scheduler (`tcp://host:8786`) whose workers train instead; they must see the same folder.

    Raises
    ------
    InputError
        if there is less than one process.
    """

    device: str
    number: int = 1
    num_gpus: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.number < 1:
            raise InputError(f"workers: {self.number} is less than one process")


def run_plan(
    plan: Plan, folder: Path, workers: Workers, *, max_seconds: float | None = None, progress: bool = True
) -> list[Ended]:
    """Train what a plan has and the folder lacks, cheapest first.

    Of runs whose compute differs by less than about two, those of equal shapes follow each other: they share compiled
    code.

    Parameters
    ----------
    folder
        of the study: records and checkpoints are there.
    max_seconds
        begin no run that is predicted to end later than this, seconds from now: by its predicted time, and by how much
        longer the runs of this call took than predicted.

    Returns
    -------
    list of Ended
        one per run that was trained; a run that failed is tried again by the next call.

    Raises
    ------
    InputError
        if Dask is missing or its scheduler does not answer.
    """
    states = run_states(plan, folder)
    set_aside(states, folder)
    waiting = sorted((each.run for each in states if each.state in ("damaged", "planned")), key=_turn)
    if not waiting:
        return []
    if workers.scheduler is None and workers.number == 1:
        ended = _one_by_one(waiting, folder, workers.device, max_seconds, progress)
    else:
        ended = _shared(waiting, folder, workers, max_seconds)
    return list(_shown(ended, waiting, progress))


def _turn(run: PlannedRun) -> tuple[int, str, int, int, float, str]:
    """Where a run stands in the queue."""
    recipe = run.recipe
    shapes = (repr(recipe.architecture), recipe.context_length, recipe.batch_size_seqs)
    return (round(math.log2(recipe.train_flops)), *shapes, recipe.train_flops, run.run_id)


def set_aside(states: Sequence[RunState], folder: Path) -> list[Path]:
    """New names of records that cannot be read, `RUN_ID.json.damaged`: their runs are trained again."""
    moved = []
    for each in states:
        if each.state == "damaged":
            kept = records.set_aside(record_path(folder, each.run.run_id))
            moved.append(kept)
            warnings.warn(
                f"{each.reason.split('; delete')[0]}: kept as {kept.name}; its run is trained again", stacklevel=2
            )
    return moved


def train_run(
    recipe: dict[str, Any], folder: str, device: str, progress: bool = False, processes_per_gpu: int | None = 1
) -> Ended:
    """Train one run, in whatever process: what goes wrong with it is a result, not an end of the sweep."""
    found = Recipe.from_dict(recipe)
    try:
        record = train(found, Path(folder), device=device, progress=progress, processes_per_gpu=processes_per_gpu)
    except (InputError, RuntimeError, OSError) as error:
        return Ended(found.run_id, FAILED, " ".join(str(error).split())[:300] or type(error).__name__)
    return Ended(found.run_id, str(record["status"]))


def _one_by_one(
    runs: Sequence[PlannedRun], folder: Path, device: str, max_seconds: float | None, progress: bool
) -> Iterator[Ended]:
    pace = Pace(max_seconds)
    for run in runs:
        if pace.fits(run):
            pace.begins(run)
            ended = train_run(run.recipe.to_dict(), str(folder), device, progress)
            pace.ended(run, ended.status)
            yield ended


class Pace:
    """Whether a run would end in time, by how much longer than predicted the runs took that have ended.

    Parameters
    ----------
    max_seconds
        when the last run is to have ended, from now; None: there is no end.
    sharing
        processes that share a GPU: as many times longer a run is taken to last until one has ended.
    clock
        seconds, from any beginning.
    """

    def __init__(
        self, max_seconds: float | None, sharing: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._begin = clock, clock()
        self._max_seconds, self._sharing = max_seconds, sharing
        self._begun: dict[str, float] = {}
        self._predicted = self._measured = 0.0

    @property
    def ratio(self) -> float:
        """Seconds from the begin of a run to its end, over those predicted for it alone on a GPU."""
        return self._measured / self._predicted if self._predicted else float(self._sharing)

    def fits(self, run: PlannedRun) -> bool:
        """Whether the run, begun now, would end in time."""
        if self._max_seconds is None:
            return True
        return self._clock() - self._begin + self.ratio * run.seconds <= self._max_seconds

    def begins(self, run: PlannedRun) -> None:
        """Note that a run begins."""
        self._begun[run.run_id] = self._clock()

    def ended(self, run: PlannedRun, status: str) -> None:
        """Note that it has ended; one that failed says nothing about times."""
        took = self._clock() - self._begun.pop(run.run_id)
        if status != FAILED:
            self._predicted += run.seconds
            self._measured += took


def _shared(runs: Sequence[PlannedRun], folder: Path, workers: Workers, max_seconds: float | None) -> Iterator[Ended]:
    """By the workers of a Dask cluster, as they end."""
    with exit_on_sigterm(), _client(workers) as client:
        from distributed import as_completed

        resources = {GPU: 1} if workers.device == "cuda" else None
        sharing = None if workers.scheduler else -(-workers.number // workers.num_gpus)
        pace = Pace(max_seconds, sharing or 1)
        by_key: dict[str, tuple[PlannedRun, Any]] = {}
        todo = enumerate(runs)
        waiting = as_completed()

        def begin_next() -> bool:
            for place, run in todo:
                if pace.fits(run):
                    arguments = (run.recipe.to_dict(), str(folder.resolve()), workers.device, False, sharing)
                    # of tasks without a priority Dask takes the last that was sent
                    options = {"resources": resources, "key": run.run_id, "retries": 0, "priority": -place}
                    future = client.submit(train_run, *arguments, **options)
                    by_key[future.key] = run, future
                    pace.begins(run)
                    waiting.add(future)
                    return True
            return False

        try:
            # With an end, a run is sent when a worker is free for it: one that waited would end too late. Without,
            # Dask knows of all, and a cluster that grows with its work grows.
            slots = len(runs) if max_seconds is None else max(1, len(_resources(client)))
            while slots and begin_next():
                slots -= 1
            for future in waiting:
                run, _ = by_key.pop(future.key)
                ended = _seen(_ended(future, run), folder)
                pace.ended(run, ended.status)
                begin_next()
                yield ended
        except BaseException:
            _stop(client, {key: future for key, (_, future) in by_key.items()})
            raise


def _ended(future: Any, run: PlannedRun) -> Ended:
    """What a worker said of its run, or what went wrong with the worker."""
    if (error := future.exception()) is not None:
        return Ended(run.run_id, FAILED, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    result: Ended = future.result()
    return result


def _stop(client: Any, futures: dict[str, Any]) -> None:
    """Runs that wait are taken back, those that are being trained write a checkpoint and end."""
    if not futures:
        return
    tqdm.write("stopping: runs that are being trained write a checkpoint", file=sys.stderr)
    client.cancel(list(futures.values()))
    for worker, left in client.run(stop_runs, list(futures), STOP_SECONDS, on_error="return").items():
        if isinstance(left, BaseException):
            tqdm.write(f"worker {worker}: {left}", file=sys.stderr)
        elif left:
            tqdm.write(f"no checkpoint after {STOP_SECONDS:g} s: {', '.join(left)}", file=sys.stderr)


def _seen(ended: Ended, folder: Path) -> Ended:
    """A run whose record this machine sees; else the workers write somewhere else."""
    if ended.status in (FAILED, STOPPED) or (folder / f"{ended.run_id}.json").exists():
        return ended
    return Ended(ended.run_id, FAILED, f"its record is not in {folder}: the workers see another folder")


@contextmanager
def _client(workers: Workers) -> Iterator[Any]:
    try:
        import dask
        from distributed import Client, Nanny, Scheduler, SpecCluster
    except ImportError as error:
        raise InputError(f"several workers need dask: pip install 'dask[distributed]' ({error})") from error
    if workers.scheduler is not None:
        try:
            client = Client(workers.scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            raise InputError(f"scheduler {workers.scheduler}: {' '.join(str(error).split())}") from error
        with client:
            there = _resources(client)
            if workers.device == "cuda" and there and not any(each.get(GPU) for each in there):
                raise InputError(
                    f"scheduler {workers.scheduler}: no worker declares a GPU: start them with --resources {GPU}=1"
                )
            yield client
        return
    # no limit of memory: Dask would give each worker a share of the machine, and end one that compiles
    options: dict[str, Any] = {"nthreads": 1, "resources": {GPU: 1}, "memory_limit": 0}
    spec = {
        number: {
            "cls": Nanny,
            "options": {**options, "env": {"CUDA_VISIBLE_DEVICES": _visible(workers, number)}},
        }
        for number in range(workers.number)
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "dashboard_address": None}}
    quiet = dask.config.set({"distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "error"})
    with quiet, SpecCluster(workers=spec, scheduler=scheduler, silence_logs=40) as cluster, Client(cluster) as client:
        client.wait_for_workers(workers.number)
        client.run(ignore_signals)  # a terminal sends Ctrl-C to all processes
        yield client


def _resources(client: Any) -> list[dict[str, float]]:
    """What each worker of a cluster declares."""

    def found(dask_scheduler: Any) -> list[dict[str, float]]:
        return [dict(worker.resources) for worker in dask_scheduler.workers.values()]

    return list(client.run_on_scheduler(found))


def _visible(workers: Workers, number: int) -> str:
    """GPUs that one process may use: one, or none where a CPU trains."""
    return str(number % workers.num_gpus) if workers.device == "cuda" else ""


def _shown(ended: Iterator[Ended], runs: Sequence[PlannedRun], progress: bool) -> Iterator[Ended]:
    """The same, with a bar of the FLOPs that are trained: time left goes by them, not by the number of runs."""
    flops = {run.run_id: run.recipe.train_flops for run in runs}
    bar: Callable[..., Any] = tqdm
    with bar(total=sum(flops.values()), unit="FLOP", unit_scale=True, disable=not progress, file=sys.stderr) as shown:
        failed = 0
        for each in ended:
            failed += each.status == FAILED
            shown.set_postfix_str(f"{plural(failed, 'run')} failed" if failed else "")
            shown.update(flops[each.run_id])
            yield each
