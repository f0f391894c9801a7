"""One function over many batches: here, in processes of this machine, or on a Dask cluster; results in order."""

from collections.abc import Callable, Iterator
from typing import Any

from companion.errors import InputError


def shared(
    function: Callable[[Any], Any], batches: Iterator[Any], num_jobs: int = 1, scheduler: str | None = None
) -> Iterator[Any]:
    """The function's results for all batches, in order.

    Parameters
    ----------
    function
        of one batch; must pickle where other processes take part.
    num_jobs
        processes on this machine (joblib). An interrupt ends them at once.
    scheduler
        address of a Dask scheduler that takes the batches instead.

    Raises
    ------
    InputError
        if dask is not installed, or the scheduler does not answer.
    """
    if scheduler is not None:
        yield from _on_a_cluster(function, list(batches), scheduler)
    elif num_jobs == 1:
        yield from map(function, batches)
    else:
        yield from _in_processes(function, batches, num_jobs)


def _in_processes(function: Callable[[Any], Any], batches: Iterator[Any], num_jobs: int) -> Iterator[Any]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    try:
        yield from Parallel(n_jobs=num_jobs, return_as="generator")(delayed(function)(batch) for batch in batches)
    except BaseException:
        # Ctrl-C above all: the processes would finish what they hold, which can take minutes
        get_reusable_executor().shutdown(wait=False, kill_workers=True)
        raise


def _on_a_cluster(function: Callable[[Any], Any], batches: list[Any], scheduler: str) -> list[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(f"a scheduler needs dask: pip install 'dask[distributed]' ({error})") from error
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler {scheduler}: {' '.join(str(error).split())}") from error
    with client:
        return list(client.gather(client.map(function, batches, pure=False)))
