"""Kernels forked from a process that has imported what chapters import: ready at once, where a new one takes seconds.

One such process serves all notebooks that this one executes. It ends with this process, however that ends, and takes
its kernels along. Whatever goes wrong in here costs only time: the kernel is then started as any other.
"""

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

#: What is imported before the first fork, as far as it is installed. Not torch: it takes as long as all of these, and
#: few chapters need it.
PRELOADED = (
    "ipykernel.kernelapp",
    "scipy.optimize",
    "scipy.stats",
    "matplotlib.pyplot",
    "seaborn",
    "sympy",
    "companion.runs",
    "companion.ledger",
    "companion.explorer",
    "companion.plotting",
)
#: Beginnings of the variables that an interpreter or a library reads when it is loaded, so never again after a fork.
_READ_ONCE = ("PYTHON", "LD_", "OMP_", "MKL_", "OPENBLAS_", "MPL", "HOME", "XDG_", "TRITON_", "LANG", "LC_", "TZ")
#: What the imports read: pyarrow's memory manager starts a thread otherwise, and a kernel has a parent to end with.
_SERVER_ENVIRONMENT = {"JE_ARROW_MALLOC_CONF": "background_thread:false", "JPY_PARENT_PID": "2"}
_PATIENCE = 120.0  # seconds for the imports, on a machine with much else to do
_LONGEST_REQUEST = 1 << 17
_KERNEL = [sys.executable, "-m", "ipykernel_launcher"]


class ForkedKernel:
    """A kernel that is no child of this process, with what `jupyter_client` uses of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._watched = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """None while it runs, 0 afterwards: only its parent learns how it ended."""
        if self.returncode is None and select.select([self._watched], [], [], 0.0)[0]:
            os.close(self._watched)
            self.returncode = 0
        return self.returncode

    def wait(self) -> int:
        """Wait for its end."""
        if self.returncode is None:
            select.select([self._watched], [], [])
        return self.poll() or 0

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that forks kernels, and the way to ask it for one.

    Parameters
    ----------
    environment
        of the kernels to come; what is read only once must not differ from kernel to kernel.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = _read_once(environment)
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(_PATIENCE)
        self._failed = False
        self._lock = threading.Lock()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main({theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**environment, **_SERVER_ENVIRONMENT},
                start_new_session=True,  # no Ctrl-C reaches it
            )

    def fork(self, arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> ForkedKernel | None:
        """A new kernel; None where the server cannot make one, now or ever again, or has other values read once."""
        if _read_once(environment) != self._environment:
            return None
        request = json.dumps([list(arguments), folder, dict(environment)]).encode()
        with self._lock:
            if self._failed:
                return None
            try:
                socket.send_fds(self._connection, [request], [1, 2])
                return ForkedKernel(int(self._connection.recv(32)))
            except (OSError, ValueError):  # it is silent, has ended, or could not; kernels that it has made go on
                self._failed = True
                return None

    def close(self) -> None:
        """End the server and all kernels that it forked."""
        self._connection.close()
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_server: ForkServer | None = None
_owner: int | None = None  # the process that started the server: a fork of it must not share the connection
_starting = threading.Lock()


def start(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> ForkedKernel | None:
    """Fork a kernel that does what a command would do; None where it has to be started instead.

    Parameters
    ----------
    command
        `python -m ipykernel_launcher` of this interpreter, and its arguments.
    folder
        where the kernel works.
    environment
        all variables of the kernel.
    """
    global _server, _owner
    if not hasattr(os, "pidfd_open") or list(command[:3]) != _KERNEL:
        return None
    with _starting:
        if _owner != os.getpid():
            _server, _owner = ForkServer(environment), os.getpid()
            atexit.register(_server.close)
    assert _server is not None
    return _server.fork(command[3:], folder, environment)


def _read_once(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_ONCE)}


# ---- in the server, and in the kernels that it forks -----------------------------------------------------------------


def main(connection: int) -> None:
    """Import, then fork a kernel for every request; in a kernel: run it.

    Parameters
    ----------
    connection
        file descriptor of a socket that keeps messages apart.
    """
    sys.path.remove("")  # a kernel adds its own folder
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as a kernel does
    for name in PRELOADED:
        if find_spec(name.split(".")[0]):
            import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        return  # no fork is safe
    gc.freeze()  # what is never freed need not be copied
    if request := _serve(socket.socket(fileno=connection)):
        arguments, folder, environment = json.loads(request)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        _run(arguments)


def _serve(connection: socket.socket) -> bytes:
    """The request in a forked kernel; nothing in the server, when the other side is gone."""
    forked: set[int] = set()
    with connection:
        while True:
            request, streams, _, _ = socket.recv_fds(connection, _LONGEST_REQUEST, 2)
            if not request:
                break
            forked -= _ended(forked)
            try:
                pid = os.fork()
            except OSError:
                connection.send(b"cannot")
                continue
            if pid == 0:
                os.setsid()
                for number, stream in enumerate(streams, start=1):
                    os.dup2(stream, number)
                    os.close(stream)
                connection.send(str(os.getpid()).encode())  # only now: its group is its own
                return request
            forked.add(pid)
            for stream in streams:
                os.close(stream)
    for pid in forked - _ended(forked):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return b""


def _ended(pids: set[int]) -> set[int]:
    """Those kernels that have ended; their numbers are free again."""
    return {pid for pid in pids if os.waitpid(pid, os.WNOHANG)[0]}


def _run(arguments: Sequence[str]) -> None:
    """Be a kernel to the end."""
    import ipykernel_launcher
    import numpy as np
    from ipykernel import kernelapp

    np.random.seed()  # noqa: NPY002 - each kernel its own, as when it imports numpy
    sys.argv[:] = [ipykernel_launcher.__file__, *arguments]
    kernelapp.launch_new_instance()
