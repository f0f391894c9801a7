"""Training logs from what people have: the authors' pickles, wandb's exports, TensorBoard, any CSV or JSON.

`import_logs` reads them and makes the two tables of `companion.training.logs`: one row a run, and curves. Only columns
of these tables pass; names of people, machines, jobs and folders are never read. Nothing that a file holds is executed.
"""

import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from companion.errors import InputError
from companion.formatting import plural, quoted
from companion.runs.import_ import check_target
from companion.training.import_.authors import RELEASED, read_authors, released_as
from companion.training.import_.cells import Cells, read_cells
from companion.training.import_.compare import by_source, loss_report, update_runs
from companion.training.import_.events import read_scalars
from companion.training.import_.files import KINDS, LogFile, check_digests, find_files, read_file
from companion.training.import_.mapping import NO_RUN, check_mapping, logs_of_cells
from companion.training.import_.run_log import HISTORY, RunLog, join
from companion.training.import_.summarize import POINTS, SKIPPED_STEPS, summarize, table_of
from companion.training.logs import load_training_curves, load_training_logs

__all__ = ["PRESETS", "ImportedLogs", "by_source", "import_logs", "loss_report", "update_runs"]

#: Mappings of well-known trainers: column of a log -> name or expression. What a log lacks is passed over.
PRESETS: dict[str, dict[str, str]] = {
    # github.com/karpathy/nanoGPT, its log in wandb
    "nanogpt": {"step": "iter", "train_loss": "train/loss", "val_loss": "val/loss", "learning_rate": "lr"},
    # github.com/NVIDIA/Megatron-LM, its log in TensorBoard
    "megatron": {
        "train_loss": "lm loss",
        "val_loss": "lm loss validation",
        "grad_norm": "grad-norm",
        "step_time_s": "iteration-time",
        "learning_rate": "learning-rate",
    },
    # trainer_state.json of github.com/huggingface/transformers
    "hf-trainer": {"step": "step", "train_loss": "loss", "val_loss": "eval_loss", "train_steps": "max_steps"},
    # github.com/allenai/OLMo
    "olmo": {
        "train_loss": "train/CrossEntropyLoss",
        "grad_norm": "optim/total_grad_norm",
        "step_time_s": "1 / `throughput/device/batches_per_second`",
        "learning_rate": "optim/learning_rate_group0",
    },
}
#: Seconds after which a progress bar appears.
_BAR_AFTER = 2.0


@dataclass(frozen=True, kw_only=True)
class ImportedLogs:
    """Two tables and how they came about.

    `logs` has a row a run and `curves` the records along the runs, with the columns of `LOG_SCHEMA` and `CURVE_SCHEMA`;
    `mapping` says what a column was read from; `notes` are sentences; `files` has a mapping for each file read: `file`,
    `sha256` and `released` (whether it is the file that the authors released; None for others).
    """

    source: str
    logs: pd.DataFrame
    curves: pd.DataFrame
    mapping: dict[str, str]
    notes: tuple[str, ...]
    files: tuple[dict[str, Any], ...]

    def write(self, folder: str | os.PathLike[str], name: str, overwrite: bool = False) -> tuple[Path, Path]:
        """Write `NAME_logs.csv` and `NAME_curves.csv.gz`, after the loaders of this package have accepted both.

        Each appears whole or not at all; the curves come first, so that a table of logs never lacks its curves.

        Raises
        ------
        InputError
            if one exists and may not be overwritten, cannot be written, or is not a valid table.
        """
        targets = output_paths(Path(folder), name, overwrite)
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as parts:
                logs, curves = (Path(parts) / target.name for target in targets)
                self.logs.to_csv(logs, index=False)
                self.curves.to_csv(curves, index=False, compression={"method": "gzip", "mtime": 0})
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # said already, in `notes`
                    try:
                        load_training_logs(logs)
                        load_training_curves(curves)
                    except InputError as error:
                        problem = str(error).replace(f"{logs}: ", "").replace(f"{curves}: ", "curves: ")
                        raise InputError(f"{self.source}: the imported table is not valid: {problem}") from None
                os.replace(curves, targets[1])
                os.replace(logs, targets[0])
        except OSError as error:
            raise InputError(f"{targets[0]}: cannot be written: {error.strerror}") from None
        return targets


def output_paths(folder: Path, name: str, overwrite: bool) -> tuple[Path, Path]:
    """Where the two tables go; raises an InputError unless they can be written there."""
    if not name or Path(name).name != name:
        raise InputError(f"--name {name}: is not the beginning of a file name")
    if not folder.is_dir():
        raise InputError(f"--output {folder}: is not a folder")
    targets = (folder / f"{name}_logs.csv", folder / f"{name}_curves.csv.gz")
    for target in targets:
        check_target(target, overwrite)
    return targets


def import_logs(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    mapping: Mapping[str, str] | None = None,
    *,
    preset: str | None = None,
    settings: str | os.PathLike[str] | None = None,
    architecture: str | None = None,
    convention: str | None = None,
    file_format: str | None = None,
    distinguish: bool = False,
    skipped_steps: int = SKIPPED_STEPS,
    points: int | None = POINTS,
    sha256: Sequence[str] = (),
    progress: bool = False,
) -> ImportedLogs:
    """Read training logs of any of the known kinds.

    Parameters
    ----------
    paths
        files or folders: released pickles of the authors (or a clone of their repository), wandb's exports in CSV or
        JSON, JSON lines, TensorBoard event files, CSV or TSV. Several files may hold different quantities of one run.
    mapping
        column of a log (`run`, `step`, `train_loss`, `step_time_s`, `num_gpus`, ...) -> column of the file, number, or
        an expression such as `time ms / 1000`. What is not named is found by its usual names.
    preset
        a mapping of `PRESETS`.
    settings
        a table (CSV, JSON) with a row a run, for what the logs do not have: sizes, batch, GPUs.
    architecture
        of all runs.
    convention
        how a missing `train_flops` is counted; see `companion.runs.import_.import_runs`.
    file_format
        a value of `companion.training.import_.files.KINDS`; by default by the names.
    distinguish
        keep two runs of one key apart as `NAME` and `NAME#2`.
    skipped_steps, points
        see `companion.training.import_.summarize.summarize`.
    sha256
        checksums, `HEX` or `NAME=HEX`, with which the files must agree.
    progress
        show a bar on stderr if it takes more than two seconds.

    Raises
    ------
    InputError
        one line that names the file, and the row, column, run or value at fault.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files = find_files([Path(path) for path in given], file_format)
    if preset is not None and preset not in PRESETS:
        raise InputError(f"preset {preset!r} is not known; there are {', '.join(PRESETS)}")
    asked = dict(mapping or {})
    check_mapping(asked)
    reader = _Reader(asked, PRESETS.get(preset or "", {}), settings is not None)
    for file in tqdm(files, desc="files", unit="file", delay=_BAR_AFTER, disable=not progress):
        reader.read(file, [text for text in sha256 if len(files) == 1 or text.startswith(f"{file.path.name}=")])
    check_digests(sha256, reader.digests)
    logs = join(_attempts_of_one_folder(reader.logs), distinguish)
    source = os.fspath(given[0]) if len(given) == 1 else f"{given[0]} and {len(given) - 1} more"
    if settings is not None:
        reader.notes += _settle(logs, Path(settings), reader)
    if unused := [name for name in asked if name not in reader.said]:
        raise InputError(f"{source}: --map {unused[0]}={asked[unused[0]]}: no file has this column")
    if not logs:
        raise InputError(f"{source}: holds no run that logged a step")
    rows = [
        summarize(log, skipped_steps, points)
        for log in tqdm(logs, desc="runs", unit="run", delay=_BAR_AFTER, disable=not progress)
    ]
    table, notes = table_of(rows, source, architecture, convention)
    return ImportedLogs(
        source=source,
        logs=table,
        curves=pd.concat([row.curve for row in rows], ignore_index=True),
        mapping=reader.said,
        notes=(*reader.notes, *notes, *(note for row in rows for note in row.notes)),
        files=tuple(reader.files),
    )


class _Reader:
    """Reads file after file; collects runs, notes, checksums, and what columns were read from."""

    def __init__(self, asked: dict[str, str], usual: dict[str, str], with_settings: bool) -> None:
        self.asked, self.usual, self.with_settings = asked, usual, with_settings
        self.logs: list[tuple[LogFile, RunLog]] = []
        self.said: dict[str, str] = {}
        self.notes: list[str] = []
        self.files: list[dict[str, Any]] = []
        self.digests: dict[str, str] = {}

    def read(self, file: LogFile, wanted: Sequence[str]) -> None:
        """The runs of one file. Checksums that are meant for this file are compared before anything in it is read."""
        data, digest = read_file(file.path)
        self.digests[str(file.path)] = digest
        check_digests(wanted, {str(file.path): digest})
        released = released_as(file.path.name, data) if file.kind == "authors" else None
        self.files.append({"file": str(file.path), "sha256": digest, "released": released})
        if released is False:
            self.notes.append(f"{file.path}: differs from the file of this name that the authors released")
        if file.kind == "authors":
            logs, notes = read_authors(data, file.path)
            self.said.setdefault("(released logs)", "the fields that companion.training.import_.authors names")
            self.notes += notes
            self.logs += [(file, log) for log in logs]
            return
        tables = [_event_cells(data, file)] if file.kind == "events" else read_cells(data, file.path, file.kind)
        self.logs += [(file, log) for cells in tables for log in self._of_cells(cells, file, len(tables) > 1)]

    def _of_cells(self, cells: Cells, file: LogFile, several: bool) -> list[RunLog]:
        cells.key = cells.key or file.key
        mapping, optional = self.usual | self.asked, set(self.usual) - set(self.asked)
        if several or len(self.files) > 1 or self.with_settings:
            optional |= set(self.asked)
        return logs_of_cells(cells, str(file.path), mapping, self.said, optional=optional)


def _event_cells(data: bytes, file: LogFile) -> Cells:
    """Scalars of an event file as a table of records; its wall times become a column."""
    scalars, notes = read_scalars(data, str(file.path))
    if not scalars:
        raise InputError(f"{file.path}: holds no scalars")
    records: list[dict[str, str]] = []
    for wall, step, tag, value in scalars:
        if not records or records[-1]["step"] != str(step) or tag in records[-1]:
            records.append({"step": str(step), "wall_time": repr(wall)})
        records[-1][tag] = repr(value)
    table = pd.DataFrame(records, dtype=object)
    table.index += 1
    return Cells(table.where(table.notna(), None), notes, file.key)


def _attempts_of_one_folder(logs: Sequence[tuple[LogFile, RunLog]]) -> list[RunLog]:
    """The logs, those of several event files in one folder put behind each other: a run that was resumed."""
    found: list[RunLog] = []
    folders: dict[tuple[Path, str], RunLog] = {}
    for file, log in logs:
        first = folders.setdefault((file.path.parent, log.run), log) if file.kind == "events" else log
        if first is log:
            found.append(log)
            continue
        first.history = pd.concat([first.history, log.history], ignore_index=True)[list(HISTORY)]
        first.settings |= log.settings
        first.notes += log.notes
    return found


def _settle(logs: Sequence[RunLog], path: Path, reader: _Reader) -> list[str]:
    """Fill in the settings of runs from a table; what a log says itself stays. Returns notes."""
    file = find_files([path])[0]
    data, digest = read_file(path)
    reader.files.append({"file": str(path), "sha256": digest, "released": None})
    if file.kind not in ("csv", "tsv", "json", "jsonl"):
        raise InputError(f"{path}: settings are read from CSV or JSON")
    found: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for cells in read_cells(data, path, file.kind):
        named = logs_of_cells(
            cells, str(path), reader.asked, reader.said, optional=set(reader.asked), settings_only=True
        )
        for row in named:
            before = found.setdefault(row.run, {})
            clash = [name for name, value in row.settings.items() if before.get(name, value) != value]
            row.notes += [f"{name} is {before[name]} and {row.settings[name]}: the last one is kept" for name in clash]
            before |= row.settings
            whose = "" if row.run == NO_RUN else f" run {quoted(row.run)}:"
            notes += [f"{path}:{whose} {note}" for note in row.notes]
    if list(found) == [NO_RUN]:  # one row, of no run in particular
        found = {log.run: found[NO_RUN] for log in logs}
    without = [log.run for log in logs if log.run not in found]
    for log in logs:
        log.settings = found.get(log.run, {}) | log.settings
    unused = set(found) - {log.run for log in logs}
    if without:
        notes.append(f"{path}: no settings for {plural(len(without), 'run')} ({', '.join(without[:5])})")
    if unused:
        some = ", ".join(sorted(unused)[:5])
        notes.append(f"{path}: {plural(len(unused), 'row')} of settings without a log ({some})")
    return notes


def missing_releases(files: Sequence[dict[str, Any]]) -> list[str]:
    """Names of released files that are not among those read."""
    there = {Path(each["file"]).name for each in files}
    return [name for name in RELEASED if name not in there]


FORMATS = tuple(dict.fromkeys(KINDS.values()))
