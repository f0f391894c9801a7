"""Subprocesses of the suite: ended when they are stuck, not when they are slow."""

import sys

import pytest
from progress import StuckError, run


def test_what_a_process_wrote_and_how_it_ended() -> None:
    code = "import sys; print('out' * 100_000); print('err', file=sys.stderr); sys.exit(3)"
    found = run([sys.executable, "-c", code])
    assert (found.returncode, found.stdout, found.stderr) == (3, "out" * 100_000 + "\n", "err\n")


def test_a_silent_process_is_ended_with_what_it_wrote() -> None:
    code = "import signal; print('the last words', flush=True); signal.pause()"
    with pytest.raises(StuckError, match=r"no output for 3 s(?s:.)*the last words"):
        run([sys.executable, "-c", code], patience=3.0)


def test_output_is_what_resets_the_patience() -> None:
    """Takes longer in all than it may be silent: a limit by the clock would end it."""
    code = "import time\nfor _ in range(8): print('.', end='', flush=True); time.sleep(0.5)"
    assert run([sys.executable, "-c", code], patience=3.0).stdout == "." * 8
