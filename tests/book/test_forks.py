"""Kernels forked from one process: the same notebooks as from kernels that are started, and nothing stays behind."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from small_book import source, texts

from companion.book import building as book
from companion.book import forks
from companion.book.execution import _KERNEL_ENVIRONMENT

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system has no pidfd")

ABOUT_ITSELF = (
    "import os, random, sys\nimport numpy as np\nprint(os.getcwd(), sys.argv[0], sys.path)",
    "print(list({'b', 'a', 'c'}), np.random.rand() == 0.5, __name__, sys.flags, os.environ['OMP_NUM_THREADS'])",
    "import matplotlib.pyplot as plt\nprint(plt.get_backend(), plt.isinteractive())\nplt.plot([1, 2]);",
    "print(*(name for name in sorted(os.environ) if not name.startswith(('JPY', 'IPYTHONDIR', 'LC_'))))",
    "import warnings\nwarnings.warn('careful')\nprint(os.getsid(0) == os.getpgid(0) == os.getpid())",
)
WHOSE = "import os\nprint(os.getppid(), os.getpid())"


def environment() -> dict[str, str]:
    return {**os.environ, **_KERNEL_ENVIRONMENT}


@pytest.fixture
def server(tmp_path: Path) -> forks.ForkServer:
    """That of this process, made by the first kernel; an earlier test may have been the first."""
    if forks._server is None:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", str(tmp_path / "kernel.json")]
        kernel = forks.start(command, "/", environment())
        assert kernel is not None
        kernel.kill()
    assert forks._server is not None
    return forks._server


def ended(*pids: int) -> bool:
    """Wait for the end of processes that are not ours; the test's own end is the only limit."""
    for pid in pids:
        try:
            watched = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        select.select([watched], [], [])
        os.close(watched)
    return True


def test_same_bytes_as_from_a_started_kernel(
    tmp_path: Path, server: forks.ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path, *ABOUT_ITSELF)
    (forked,) = book.execute([path], tmp_path / "forked")
    with monkeypatch.context() as patch:
        patch.setattr(forks, "start", lambda *_: None)
        (started,) = book.execute([path], tmp_path / "started")
    assert forked.read_text() == started.read_text()
    assert "image/png" in forked.read_text()


def test_kernels_are_forked_and_end(tmp_path: Path, server: forks.ForkServer) -> None:
    paths = [source(tmp_path, WHOSE, name=f"0{i}_test") for i in range(3)]
    pairs = [[int(number) for number in texts(made).split()] for made in book.execute(paths, tmp_path / "out")]
    assert {parent for parent, _ in pairs} == {server.process.pid}
    assert len({pid for _, pid in pairs}) == 3
    assert ended(*(pid for _, pid in pairs))
    assert server.process.poll() is None, "the server waits for more"


def test_another_interpreter_environment_is_not_forked(
    tmp_path: Path, server: forks.ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    (made,) = book.execute([source(tmp_path, WHOSE + "\nimport sys\nprint(sys.warnoptions)")], tmp_path / "out")
    assert texts(made).split()[0] == str(os.getpid())
    assert "['ignore']" in texts(made)


def test_a_server_that_has_ended_costs_only_time(
    tmp_path: Path, server: forks.ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = forks.ForkServer(environment())
    other.process.kill()
    other.process.wait()
    monkeypatch.setattr(forks, "_server", other)
    paths = [source(tmp_path, WHOSE, name=f"0{i}_test") for i in range(2)]
    parents = [texts(made).split()[0] for made in book.execute(paths, tmp_path / "out")]
    assert parents == [str(os.getpid())] * 2
    other.close()


def test_nothing_outlives_the_process(tmp_path: Path) -> None:
    """Killed, so that it can clean up nothing itself."""
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", str(tmp_path / "kernel.json")]
    code = f"""
import os, sys
from companion.book import forks
kernel = forks.start({command}, "/", os.environ)
print(kernel.pid, forks._server.process.pid, kernel.poll(), flush=True)
sys.stdin.read()
"""
    whole = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(whole, **pipes, text=True, env=environment()) as one:
        assert one.stdout is not None
        kernel, server, running = one.stdout.readline().split()
        assert running == "None"
        assert os.getpgid(int(kernel)) == int(kernel), "a group of its own"
        one.kill()
    assert ended(int(kernel), int(server))


def test_a_kernel_is_watched_and_killed(tmp_path: Path, server: forks.ForkServer) -> None:
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", str(tmp_path / "kernel.json")]
    kernel = forks.start(command, str(tmp_path), environment())
    assert kernel is not None
    assert kernel.poll() is None
    kernel.send_signal(0)
    kernel.terminate()
    assert (kernel.wait(), kernel.poll()) == (0, 0)
    kernel.kill()  # as of any process that has ended, nothing happens
    assert forks.start(["julia", *command[1:]], str(tmp_path), dict(os.environ)) is None, "another program"
