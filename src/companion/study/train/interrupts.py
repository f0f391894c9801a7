"""Requests that a run end, by a signal or another thread: it ends between two steps with a checkpoint. No torch."""

import asyncio
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Runs that this process trains, by their run_id.
_active: dict[str, "Interrupts"] = {}


class Interrupts:
    """Within, the first SIGINT or SIGTERM is noted in `received`; a second one acts as it did before.

    Outside of the main thread, where Python allows no handlers, signals do what they did. There and here, `stop_runs`
    asks the run to end.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.received: int | None = None
        self.asked = False
        self._before: dict[int, Any] = {}

    @property
    def stopping(self) -> bool:
        """Whether the run is to end now."""
        return self.asked or self.received is not None

    def __enter__(self) -> "Interrupts":
        _active[self.run_id] = self
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
        del _active[self.run_id]

    def leave(self) -> None:
        """Do what the signal asked for: a KeyboardInterrupt, or an exit with status 143."""
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if self.received is not None:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


async def stop_runs(run_ids: Collection[str], most_seconds: float) -> list[str]:
    """Ask runs of this process to end with a checkpoint, and wait for them; those that go on after `most_seconds`."""
    end = time.monotonic() + most_seconds

    def there() -> list[str]:
        return sorted(set(run_ids) & set(_active))

    for run_id in there():
        _active[run_id].asked = True
    while there() and time.monotonic() < end:
        await asyncio.sleep(0.05)
    return there()


def ignore_signals() -> None:
    """Leave SIGINT and SIGTERM to the process that began this one, which will say what to do. For the main thread."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Within, SIGTERM raises SystemExit with status 143, so that what is open is closed. In other threads: nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
