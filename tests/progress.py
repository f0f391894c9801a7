"""Subprocesses that are ended for silence, not for the time they take: on a busy machine everything takes long."""

import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Seconds without a byte of output after which a process counts as stuck. A machine with five times as much work as
#: cores keeps a test of the slowest kind silent for two minutes.
PATIENCE = 1800.0


class StuckError(AssertionError):
    """A process wrote nothing for too long and was ended."""


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    patience: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, however long it takes, as long as it keeps writing to stdout or stderr.

    Raises
    ------
    StuckError
        after `patience` seconds without output; the process is killed, the message holds the end of what it wrote.
    """
    written: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    with (
        subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        for name in written:
            selector.register(getattr(process, name), selectors.EVENT_READ, name)
        last = time.monotonic()
        while selector.get_map():
            ready = selector.select(timeout=max(0.0, last + patience - time.monotonic()))
            for key, _ in ready:
                if part := os.read(key.fd, 65536):
                    written[key.data] += part
                else:
                    selector.unregister(key.fileobj)
                last = time.monotonic()
            if not ready and time.monotonic() >= last + patience:
                process.kill()
                process.wait()
                end = (written["stdout"] + written["stderr"])[-2000:].decode(errors="replace")
                raise StuckError(f"{' '.join(command)[:200]}: no output for {patience:g} s; the end of it:\n{end}")
        status = process.wait()
    stdout, stderr = (text.decode(errors="replace") for text in written.values())
    return subprocess.CompletedProcess(list(command), status, stdout, stderr)
