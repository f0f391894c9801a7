"""Execute the notebooks and build the html of the book.

Three functions, one per question: `sync` keeps `notebooks/NN_name.md` (the source) and `NN_name.ipynb` (for a reader
who opens it elsewhere) in step, `execute` runs notebooks in parallel, `build` executes them all and renders the book.

What is written is a function of the sources alone: cell ids come from the cells' text, and times, process ids, memory
addresses and interpreter versions are left out, so that a second run gives the same bytes.
"""

import ast
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from companion import book_sections
from companion.errors import InputError

ROOT = Path(__file__).resolve().parents[2]

_KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
_LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}
_INJECTED = "injected-parameters"  # papermill's tag
# Single-threaded kernels (one per core), the same order of sets in every run, no message about frozen modules.
_KERNEL_ENVIRONMENT = {
    **{name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")},
    "PYTHONHASHSEED": "0",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_CELL_FILE = re.compile(r"\S*/ipykernel_\d+/\d+\.py")
_COMPLAINT = re.compile(r"WARNING|ERROR|CRITICAL|Error\b|Exception\b", re.ASCII)


class NotebookError(InputError):
    """A cell failed. The message is one line: notebook, cell, its first line, the exception.

    Attributes
    ----------
    notebook
        the source that was run.
    cell
        its cell, counted from 1 over text and code alike; None if no cell is to blame.
    """

    def __init__(self, notebook: Path, cell: int | None, first_line: str, error: str) -> None:
        self.notebook, self.cell = notebook, cell
        where = notebook.name if cell is None else f"{notebook.name}: cell {cell} (`{first_line}`)"
        super().__init__(f"{where}: {error}")


def sync(notebooks: Path | None = None, *, check: bool = False) -> list[Path]:
    """Write the .ipynb beside every MyST notebook, without outputs; return those that were out of step.

    Parameters
    ----------
    notebooks
        folder of the notebooks, by default the checkout's `notebooks/`.
    check
        only say which are out of step, write nothing. An .ipynb without its .md counts too.

    Raises
    ------
    InputError
        the folder does not exist, or a source cannot be read as a notebook.
    """
    folder = ROOT / "notebooks" if notebooks is None else notebooks
    changed = []
    for source in sources(folder):
        pair, text = source.with_suffix(".ipynb"), _dump(read(source))
        if not pair.is_file() or pair.read_text(encoding="utf-8") != text:
            changed.append(pair)
            if not check:
                _write(pair, text)
    orphans = [path for path in sorted(folder.glob("*.ipynb")) if not path.with_suffix(".md").is_file()]
    return changed + (orphans if check else [])


def sources(folder: Path) -> list[Path]:
    """All MyST notebooks of a folder, in the order of the book.

    Raises
    ------
    InputError
        the folder does not exist.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of notebooks")
    return sorted(path for path in folder.glob("*.md") if path.name.lower() != "readme.md")


def read(source: Path) -> Any:
    """One notebook (.md or .ipynb) as an nbformat node: no outputs, cell ids made from the cells' text.

    Raises
    ------
    InputError
        there is no such file, or it is not a notebook.
    """
    import jupytext

    try:
        notebook = jupytext.read(source, fmt="md:myst" if source.suffix == ".md" else None)
    except Exception as error:  # jupytext, nbformat and yaml each raise their own
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{source}: not a notebook: {first}") from error
    metadata = {"kernelspec": dict(_KERNELSPEC), "language_info": dict(_LANGUAGE)}
    if formats := notebook.metadata.get("jupytext", {}).get("formats"):
        metadata["jupytext"] = {"formats": formats}
    notebook.metadata = type(notebook)(metadata)
    return _name_cells(notebook)


def parameters_of(source: Path) -> set[str]:
    """Names that the `parameters` cell of a notebook assigns: what `execute` can change.

    Raises
    ------
    InputError
        no code cell carries the tag `parameters`, or it does not parse.
    """
    cells = [c for c in read(source).cells if c.cell_type == "code" and "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"{source.name}: {len(cells) or 'no'} code cells tagged `parameters`; there must be one")
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise InputError(f"{source.name}: the `parameters` cell does not parse: {error.msg}") from error
    targets = [target for s in statements if isinstance(s, ast.Assign) for target in s.targets]
    targets += [s.target for s in statements if isinstance(s, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


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
        new values of parameters: strings, numbers, booleans, None, lists and dictionaries.
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
    """
    from tqdm import tqdm

    paths = [Path(path) for path in notebooks]
    given = dict(parameters or {})
    known = {path: parameters_of(path) for path in paths}
    if unknown := sorted(set(given) - set().union(*known.values())):
        raise InputError(f"no notebook has a parameter called {', '.join(unknown)}")
    if progress is None:
        progress = sys.stderr.isatty() and not os.environ.get("CI")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    out_dir.mkdir(parents=True, exist_ok=True)
    failures: dict[Path, NotebookError] = {}
    with (
        ThreadPoolExecutor(max_workers=max(1, min(jobs or cores, len(paths)))) as pool,
        tqdm(total=len(paths), desc="notebooks", unit="notebook", disable=not progress, file=sys.stderr) as bar,
    ):
        own = {path: {name: given[name] for name in known[path] & set(given)} for path in paths}
        runs = {pool.submit(_execute_one, path, own[path]): path for path in paths}
        for run in as_completed(runs):
            path = runs[run]
            try:
                _write(out_dir / f"{path.stem}.ipynb", run.result())
            except NotebookError as error:
                failures[path] = error
            bar.set_postfix_str(path.stem)
            bar.update()
    for failure in (failures[path] for path in paths if path in failures):
        raise failure
    return [out_dir / f"{path.stem}.ipynb" for path in paths]


def build(
    out: Path | None = None,
    *,
    root: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    progress: bool | None = None,
    report: Callable[[str], object] = print,
) -> Path:
    """Execute all notebooks and render the book; return the path of `index.html`.

    Executed notebooks go to `book/chapters/`, where nothing else is kept. The html of an earlier build is replaced
    only when the new one is whole. A Sphinx warning is an error.

    Parameters
    ----------
    out
        build folder, by default `_build` of the checkout; the html is its `html/`, the log its `sphinx.log`.
    root
        checkout to build: `_config.yml`, `book/` and `notebooks/`.
    parameters, jobs, progress
        as in `execute`.
    report
        gets one line that says where the html is and how long it took.

    Raises
    ------
    NotebookError
        a cell failed.
    InputError
        the folder is no checkout, the book tools are not installed, or Sphinx complained: its first lines are shown.
    """
    start = time.monotonic()
    root = ROOT if root is None else root.resolve()
    out = root / "_build" if out is None else out.resolve()
    if not (root / "_config.yml").is_file():
        raise InputError(f"{root}: no _config.yml there; the book is built from a checkout")
    notebooks = sources(root / "notebooks")
    chapters = root / "book" / "chapters"
    for path in chapters.glob("*"):
        if path.suffix != ".ipynb" or path.stem not in {notebook.stem for notebook in notebooks}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    execute(notebooks, chapters, parameters, jobs=jobs, progress=progress)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".stage-") as stage:
        _render(root, Path(stage), out / "sphinx.log")
        shutil.rmtree(out / "html", ignore_errors=True)
        os.replace(Path(stage) / "_build" / "html", out / "html")
    index = out / "html" / "index.html"
    report(f"{index} ({len(notebooks)} notebooks, {time.monotonic() - start:.0f} s)")
    return index


def _render(root: Path, stage: Path, log: Path) -> None:
    """Run jupyter-book from `root` into `stage`; on failure raise with the first complaints of Sphinx."""
    script = Path(sys.executable).with_name("jupyter-book")
    if not script.is_file():
        raise InputError(f"{script}: not installed; pip install -e .[book] -c constraints.txt")
    command = [str(script), "build", "book", "--config", "_config.yml", "--path-output", str(stage)]
    command += ["-W", "-n", "--keep-going"]
    run = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = _ANSI.sub("", run.stdout.decode(errors="replace")).replace(f"{root}{os.sep}", "")
    _write(log, text)
    if run.returncode != 0 or not (stage / "_build" / "html" / "index.html").is_file():
        lines = [line.strip() for line in text.splitlines()]
        complaints = list(dict.fromkeys(line for line in lines if _COMPLAINT.search(line))) or lines[-5:]
        more = f"\n  ... {len(complaints) - 8} more in {log}" if len(complaints) > 8 else ""
        raise InputError(f"Sphinx refused the book (all of its output: {log})\n  " + "\n  ".join(complaints[:8]) + more)


def _execute_one(source: Path, parameters: dict[str, Any]) -> str:
    """Run one notebook; return the text of the executed .ipynb."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    with tempfile.TemporaryDirectory(prefix="companion-") as folder:
        partial = Path(folder) / "notebook.ipynb"
        unexecuted = read(source)
        own_table = any(name.endswith("_file") and value is not None for name, value in parameters.items())
        parts = book_sections.Parts(unexecuted.cells, own_table=own_table)
        try:
            notebook = papermill.execute_notebook(
                unexecuted,
                partial,
                parameters=parameters,
                kernel_name=_KERNELSPEC["name"],
                kernel_manager_class=_kernel_manager(Path(folder) / "ipython"),
                progress_bar=False,
                resources={"metadata": {"path": str(source.resolve().parent)}},
                allow_error_names=list(book_sections.ERRORS),
                **_hooks(parts),
            )
        except PapermillExecutionError as error:
            exception = f"{error.ename}: {error.evalue}"
            raise _failure(source, error.cell_index, error.source, exception, bool(parameters)) from None
        except Exception as error:  # the kernel died or could not start: the file says which cell was being run
            cells = json.loads(partial.read_text(encoding="utf-8"))["cells"] if partial.is_file() else []
            death = f"{type(error).__name__}: {error}"
            begun = [i for i, cell in enumerate(cells) if cell["metadata"].get("papermill", {}).get("start_time")]
            if not begun:
                raise NotebookError(source, None, "", death) from error
            code = "".join(cells[begun[-1]]["source"])
            raise _failure(source, begun[-1], code, death, bool(parameters)) from error
    sources = {cell.id: cell.source for cell in unexecuted.cells}
    for cell in notebook.cells:
        cell.source = sources.get(cell.id, cell.source)
    notebook.cells = parts.finish(notebook.cells)
    return _dump(_without_noise(notebook))


def _hooks(parts: book_sections.Parts) -> dict[str, Callable[..., None]]:
    """Callbacks of nbclient that leave out what `parts` says: of left-out cells only imports and functions run."""
    from nbclient.exceptions import CellExecutionError

    def on_cell_execute(cell: Any, cell_index: int) -> None:
        cell.source = parts.source_to_run(cell.id, cell.source)

    def on_cell_error(cell: Any, cell_index: int, execute_reply: Any) -> None:
        content = execute_reply["content"]
        if not parts.accepts(cell.id, content["ename"], _ANSI.sub("", content["evalue"])):
            raise CellExecutionError.from_cell_and_msg(cell, content)
        cell.outputs = []

    return {"on_cell_execute": on_cell_execute, "on_cell_error": on_cell_error}


def _failure(source: Path, index: int, code: str, error: str, injected: bool) -> NotebookError:
    """The error for the cell at `index` of the executed notebook, its number counted in the source."""
    tagged = next(i for i, cell in enumerate(read(source).cells) if "parameters" in cell.metadata.get("tags", []))
    number = index + 1 - (injected and index > tagged)
    first = next((line.strip() for line in code.splitlines() if line.strip()), "")
    return NotebookError(source, number, first, " ".join(_ANSI.sub("", error).split()))


def _kernel_manager(ipython_dir: Path) -> type:
    """A kernel manager that starts this very interpreter, whatever kernelspecs the machine has."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class InterpreterKernelManager(AsyncKernelManager):
        shutdown_wait_time = 1.0  # one kernel in four does not end when it is asked to, which took 2.5 s

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(
                argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                env={**_KERNEL_ENVIRONMENT, "IPYTHONDIR": str(ipython_dir)},  # no history, no start-up files
                **{key: _KERNELSPEC[key] for key in ("display_name", "language")},
            )

    return InterpreterKernelManager


def _without_noise(notebook: Any) -> Any:
    """Remove what differs from run to run: times, versions, process ids, addresses, the chunks a stream came in."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.language_info = dict(_LANGUAGE)
    for cell in notebook.cells:
        for key in ("papermill", "execution", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if _INJECTED in cell.metadata.get("tags", []):
            cell.metadata.tags = [_INJECTED, "hide-input"]
        elif not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)  # papermill adds an empty list
        if cell.cell_type == "code":
            cell.outputs = _merge_streams(cell.outputs)
    return _name_cells(notebook)


def _merge_streams(outputs: Sequence[Any]) -> list[Any]:
    """One stdout and one stderr text per run of stream outputs; addresses and kernel files made anonymous."""
    merged: list[Any] = []
    block: dict[str, Any] = {}
    for output in [*outputs, None]:
        if output is not None and output.output_type == "stream":
            text = _CELL_FILE.sub("<cell>", _ADDRESS.sub(" at 0x...", output.text))
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


def _name_cells(notebook: Any) -> Any:
    """Give every cell an id made from its text, numbered where texts repeat."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return notebook


def _dump(notebook: Any) -> str:
    import nbformat

    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return str(nbformat.writes(notebook, version=nbformat.NO_CONVERT)).rstrip("\n") + "\n"


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, unless it holds this text already."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text(encoding="utf-8") == text:
            return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
