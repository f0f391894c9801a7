"""Run notebooks in parallel, each in a kernel of this interpreter.

What is written is a function of the sources alone: cell ids come from the cells' text, and times, process ids, memory
addresses and interpreter versions are left out, so that a second run gives the same bytes.
"""

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from companion.book import forks
from companion.book.notebooks import KERNELSPEC, LANGUAGE, dump, name_cells, read, write
from companion.book.parameters import choose, defaults_of
from companion.book.sections import ERRORS, Parts
from companion.errors import InputError
from companion.paths import data_dir

_INJECTED = "injected-parameters"  # papermill's tag
# Single-threaded kernels (one per core), the same order of sets in every run, no message about frozen modules.
_KERNEL_ENVIRONMENT = {
    **{name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")},
    "PYTHONHASHSEED": "0",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
# What papermill logs of a dead kernel is in our error; without a handler Python would print it on stderr as well.
logging.getLogger("papermill").addHandler(logging.NullHandler())
#: Characters of a socket's path that every system takes (macOS: 103, and a number is added).
_LONGEST_SOCKET = 95
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_CELL_FILE = re.compile(r"\S*/ipykernel_\d+/\d+\.py")


class NotebookError(InputError):
    """A cell failed. The message is one line: notebook, cell, its first line, the exception.

    Attributes
    ----------
    notebook
        the source that was run.
    cell
        its cell, counted from 1 over text and code alike; None if no cell is to blame.
    exception
        name of the exception's class: `NotApplicable` where the chapter does not apply to the table.
    reason
        what the exception says, in one line.
    """

    def __init__(self, notebook: Path, cell: int | None, first_line: str, exception: str, reason: str) -> None:
        self.notebook, self.cell, self.exception, self.reason = notebook, cell, exception, reason
        where = notebook.name if cell is None else f"{notebook.name}: cell {cell} (`{first_line}`)"
        super().__init__(f"{where}: {exception}: {reason}")


@dataclass(frozen=True)
class Execution:
    """What became of one notebook: the file of the executed one, or why there is none."""

    source: Path
    parameters: dict[str, Any]  # that it was given
    path: Path | None
    failure: NotebookError | None
    left_out: tuple[tuple[str, str], ...] = ()  # title and reason of each section that the table cannot answer
    seconds: float = 0.0  # that it ran


def execute(
    notebooks: Iterable[Path],
    out_dir: Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    jobs: int | None = None,
    progress: bool | None = None,
) -> list[Path]:
    """Run notebooks in parallel, each in a kernel of this interpreter and in its own folder; return the files written.

    A notebook's file is replaced only once all of its cells have run, and only if its bytes change. Given parameters
    are injected as a folded cell behind the `parameters` cell; a notebook gets those that it has.

    Parameters
    ----------
    notebooks
        sources, .md (MyST) or .ipynb, each with one `parameters` cell.
    out_dir
        folder of the executed `NN_name.ipynb`; made if missing.
    parameters
        new values of parameters: strings, numbers, booleans, None, lists and dictionaries. A number is made whole
        where the default is (8e3 for 8192).
    jobs
        notebooks at a time; all cores by default.
    progress
        show a progress bar; by default on a terminal, and never where `CI` is set.

    Raises
    ------
    NotebookError
        a cell failed. The others are finished first; then the first failure in the order of the book is raised.
    InputError
        a notebook is missing, has no `parameters` cell, or no notebook has a given parameter.
    KeyboardInterrupt
        as soon as the kernels are killed; no notebook is finished first.

    Examples
    --------
    >>> execute([Path("notebooks/90_ledger.md")], Path("out"), {"box_height": 20})  # doctest: +SKIP
    [PosixPath('out/90_ledger.ipynb')]
    """
    done = try_all(notebooks, out_dir, parameters, jobs=jobs, progress=progress)
    for failure in (execution.failure for execution in done if execution.failure):
        raise failure
    return [out_dir / f"{execution.source.stem}.ipynb" for execution in done]


def try_all(
    notebooks: Iterable[Path],
    out_dir: Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    jobs: int | None = None,
    progress: bool | None = None,
) -> list[Execution]:
    """Run notebooks as `execute` does; return what became of each, in their order, failures included.

    Raises
    ------
    InputError, KeyboardInterrupt
        as `execute`, but for cells that fail.
    """
    from tqdm import tqdm

    paths = [Path(path) for path in notebooks]
    own = choose(parameters or {}, {path: defaults_of(path) for path in paths})
    if progress is None:
        progress = sys.stderr.isatty() and not os.environ.get("CI")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    out_dir.mkdir(parents=True, exist_ok=True)
    done: dict[Path, Execution] = {}
    kernels = _Kernels()
    pool = ThreadPoolExecutor(max_workers=max(1, min(jobs or cores, len(paths))))
    bar = tqdm(total=len(paths), desc="notebooks", unit="notebook", disable=not progress, file=sys.stderr)
    # the longest first, as far as their text shows it: none is begun while the other cores already wait
    begun = sorted(paths, key=lambda path: path.stat().st_size, reverse=True)
    runs = {pool.submit(_timed, _execute_one, path, own[path], kernels): path for path in begun}
    try:
        for run in as_completed(runs):
            path = runs[run]
            written = out_dir / f"{path.stem}.ipynb"
            try:
                (text, left_out), seconds = run.result()
                write(written, text)
                done[path] = Execution(path, own[path], written, None, left_out, seconds)
            except NotebookError as error:
                done[path] = Execution(path, own[path], None, error)
            bar.set_postfix_str(path.stem)
            bar.update()
    finally:  # after an interrupt no notebook is begun, and those that run lose their kernels
        pool.shutdown(wait=False, cancel_futures=True)
        while not all(run.done() for run in runs):
            kernels.kill()
            wait(runs, timeout=0.1)
        bar.close()
    return [done[path] for path in paths]


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function returns, and the seconds that it took."""
    start = time.monotonic()
    return function(*arguments), time.monotonic() - start


class _Kernels:
    """Kernels of one call, so that an interrupt can kill them: each is a session that no Ctrl-C reaches."""

    def __init__(self) -> None:
        self.killed = threading.Event()
        self._managers: list[Any] = []

    def add(self, manager: Any) -> None:
        """A kernel that is about to start; refused after `kill`."""
        if self.killed.is_set():
            raise RuntimeError("interrupted")
        self._managers.append(manager)

    def kill(self) -> None:
        """Kill the processes of all kernels, and let no other start."""
        self.killed.set()
        for manager in list(self._managers):
            process = getattr(manager.provisioner, "process", None)
            if process is not None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):  # it ended just now
                    os.killpg(process.pid, signal.SIGKILL)


def _execute_one(
    source: Path, parameters: dict[str, Any], kernels: _Kernels
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Run one notebook; return the text of the executed .ipynb, and the sections left out with their reasons."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    unexecuted = read(source)
    own_table = any(name.endswith("_file") and value is not None for name, value in parameters.items())
    parts = Parts(unexecuted.cells, own_table=own_table)
    begun: list[tuple[int, str]] = []
    with tempfile.TemporaryDirectory(prefix="companion-") as folder:
        try:
            notebook = papermill.execute_notebook(
                unexecuted,
                None,  # a file would be written twice for every cell, with all outputs so far
                parameters=parameters,
                kernel_name=KERNELSPEC["name"],
                kernel_manager_class=_kernel_manager(Path(folder), kernels),
                progress_bar=False,
                shutdown_kernel="immediate",  # one kernel in four does not end when it is asked to
                resources={"metadata": {"path": str(source.resolve().parent)}},
                allow_error_names=list(ERRORS),
                **_hooks(parts, begun),
            )
        except PapermillExecutionError as error:
            raised = (error.ename, error.evalue)
            raise _failure(source, error.cell_index, error.source, raised, bool(parameters)) from None
        except Exception as error:  # the kernel died or could not start
            death = (type(error).__name__, str(error))
            if not begun:
                raise NotebookError(source, None, "", *death) from error
            raise _failure(source, *begun[-1], death, bool(parameters)) from error
    sources = {cell.id: cell.source for cell in unexecuted.cells}
    for cell in notebook.cells:  # of a left-out cell only a part was run
        cell.source = sources.get(cell.id, cell.source)
    notebook.cells = parts.finish(notebook.cells)
    return dump(_without_noise(notebook)), tuple(parts.reasons)


def _hooks(parts: Parts, begun: list[tuple[int, str]]) -> dict[str, Callable[..., None]]:
    """Callbacks of nbclient that leave out what `parts` says: of a left-out cell only imports and functions run.

    Places and code of the cells that are begun go to `begun`.
    """
    from nbclient.exceptions import CellExecutionError

    def on_cell_execute(cell: Any, cell_index: int) -> None:
        begun.append((cell_index, cell.source))
        cell.source = parts.source_to_run(cell.id, cell.source)

    def on_cell_error(cell: Any, cell_index: int, execute_reply: Any) -> None:
        content = execute_reply["content"]
        if not parts.accepts(cell.id, content["ename"], _ANSI.sub("", content["evalue"])):
            raise CellExecutionError.from_cell_and_msg(cell, content)
        cell.outputs = []

    return {"on_cell_execute": on_cell_execute, "on_cell_error": on_cell_error}


def _failure(source: Path, index: int, code: str, raised: tuple[str, str], injected: bool) -> NotebookError:
    """The error for the cell at `index` of the executed notebook, its number counted in the source."""
    tagged = next(i for i, cell in enumerate(read(source).cells) if "parameters" in cell.metadata.get("tags", []))
    number = index + 1 - (injected and index > tagged)
    first = next((line.strip() for line in code.splitlines() if line.strip()), "")
    name, message = (" ".join(_ANSI.sub("", text).split()) for text in raised)
    return NotebookError(source, number, first, name, message)


def _kernel_manager(folder: Path, kernels: _Kernels) -> type:
    """A kernel manager that starts this very interpreter, whatever kernelspecs the machine has.

    Kernels are reached by sockets in their own folder where the system has such. Ports are found free, given up, and
    bound again by the kernel: now and then another process takes one in between, and the kernel does not answer.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning import LocalProvisioner

    class ForkingProvisioner(LocalProvisioner):
        async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
            forked: Any = forks.start(cmd, options["cwd"], options["env"])
            if forked is None:
                return await super().launch_kernel(cmd, **options)
            self.process, self.cwd = forked, options["cwd"]
            self.pid = self.pgid = forked.pid
            return self.connection_info

    sockets = str(folder / "kernel")

    class InterpreterKernelManager(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if os.name == "posix" and len(sockets) < _LONGEST_SOCKET:
                self.transport, self.ip = "ipc", sockets

        async def _async_pre_start_kernel(self, **options: Any) -> Any:
            kernels.add(self)
            self.provisioner = ForkingProvisioner(kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self)
            return await super()._async_pre_start_kernel(**options)

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(
                argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                env={**_KERNEL_ENVIRONMENT, "IPYTHONDIR": str(folder / "ipython")},  # no history, no start-up files
                **{key: KERNELSPEC[key] for key in ("display_name", "language")},
            )

    return InterpreterKernelManager


def _without_noise(notebook: Any) -> Any:
    """Remove what differs from run to run: times, versions, process ids, addresses, the chunks a stream came in."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.language_info = dict(LANGUAGE)
    for cell in notebook.cells:
        for key in ("papermill", "execution", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if _INJECTED in cell.metadata.get("tags", []):
            cell.metadata.tags = [_INJECTED, "hide-input"]
        elif not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)  # papermill adds an empty list
        if cell.cell_type == "code":
            cell.outputs = _merge_streams(cell.outputs)
    return name_cells(notebook)


def _merge_streams(outputs: Sequence[Any]) -> list[Any]:
    """One stdout and one stderr text per run of stream outputs; addresses, kernel files and folders made anonymous."""
    merged: list[Any] = []
    block: dict[str, Any] = {}
    for output in [*outputs, None]:
        if output is not None and output.output_type == "stream":
            text = _CELL_FILE.sub("<cell>", _ADDRESS.sub(" at 0x...", output.text)).replace(f"{data_dir()}/", "data/")
            if output.name in block:
                block[output.name].text += text
            else:
                block[output.name] = output
                output.text = text
            continue
        merged += [block[name] for name in sorted(block, reverse=True)]  # stdout before stderr
        block = {}
        if output is not None:
            if plain := output.get("data", {}).get("text/plain"):
                output.data["text/plain"] = _ADDRESS.sub(" at 0x...", plain)
            merged.append(output)
    return merged
