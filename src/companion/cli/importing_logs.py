"""`companion import logs`: tables of training logs and curves from what people have."""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from companion.cli.commands import print_json, print_table
from companion.cli.options import add_json, count
from companion.cli.output import say_next
from companion.errors import InputError
from companion.formatting import plural
from companion.runs.import_ import check_target
from companion.runs.load import load_runs
from companion.training.import_ import (
    FORMATS,
    PRESETS,
    ImportedLogs,
    by_source,
    import_logs,
    loss_report,
    missing_releases,
    output_paths,
    update_runs,
)
from companion.training.import_.clone import COMMIT, REPOSITORY, clone
from companion.training.import_.files import find_files
from companion.training.import_.summarize import POINTS, SKIPPED_STEPS

#: Notes and differences that are printed; `--json` has all.
_MOST_LINES = 20


def add_import_logs(command: Callable[..., argparse.ArgumentParser], to: Any) -> None:
    """Register the command in the group `companion import`."""
    parser = command(
        "logs",
        logs,
        "write tables of training logs and curves from pickles of the authors, wandb, TensorBoard, CSV or JSON",
        "  companion import logs --from-authors --report data/runs.csv --update-runs my_runs.csv\n"
        "  companion import logs xlstm_scaling_laws/ --output logs\n"
        "  companion import logs wandb_loss.csv wandb_step_time.csv --settings wandb_runs.csv --architecture gpt\n"
        "  companion import logs runs/ --preset megatron --map num_gpus=8 context_length=4096 batch_size_seqs=256\n"
        "  companion import logs log.csv --map step_time_s='time ms / 1000' train_loss=loss num_params=124e6\n"
        "Only the columns of data/training_logs.csv and data/training_curves.csv.gz pass: names of people, machines,\n"
        "jobs and folders do not. Nothing in a file is executed. The book on the result:\n"
        "  companion book --parameters runs_file=my_runs.csv",
        to=to,
    )
    parser.add_argument("file", type=Path, nargs="*", metavar="FILE", help="logs, or folders of them")
    parser.add_argument("--from-authors", action="store_true", help="fetch the authors' released logs with git")
    parser.add_argument(
        "--clone", type=Path, metavar="DIR", help="keep what git fetches here, and use it the next time"
    )
    parser.add_argument("--address", default=REPOSITORY, help="of the authors' repository (default: %(default)s)")
    parser.add_argument("--commit", default=COMMIT, metavar="HASH", help="of the repository (default: %(default).10s)")
    parser.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="folder of the tables (default: here)"
    )
    parser.add_argument("--name", help="they are NAME_logs.csv and NAME_curves.csv.gz (default: after the file)")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    add_mapping(parser, "column of the log = column of the file, a number, or an expression of them")
    parser.add_argument("--preset", choices=tuple(PRESETS), help="mapping of a well-known trainer")
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="CSV or JSON with a row a run: sizes, batch, GPUs"
    )
    parser.add_argument("--architecture", metavar="NAME", help="of all runs (default: the log's, else 'model')")
    parser.add_argument("--convention", metavar="NAME", help="count of a missing train_flops (default: shapes, or 6ND)")
    parser.add_argument("--format", choices=FORMATS, help="of the files (default: by their names)")
    parser.add_argument("--distinguish", action="store_true", help="keep two runs of one key apart: NAME and NAME#2")
    parser.add_argument(
        "--skip-steps", type=count, default=SKIPPED_STEPS, metavar="N",
        help="first steps that step_time_s leaves out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--points", type=_points, default=POINTS, metavar="N|all", help="records of a curve (default: %(default)s)"
    )
    parser.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="[NAME=]HEX",
        help="checksum that a file must have (repeatable)",
    )
    parser.add_argument("--report", type=Path, metavar="RUNS", help="compare the losses with those of this run table")
    parser.add_argument(
        "--update-runs", type=Path, metavar="FILE", help="write the table of --report with the losses of the logs"
    )
    add_json(parser)


def logs(arguments: argparse.Namespace) -> None:
    """`companion import logs`: write the tables, and say what came from where."""
    _check(arguments)
    name = arguments.name or ("authors" if arguments.from_authors else _name_of(arguments.file[0]))
    output_paths(arguments.output, name, arguments.force)
    runs = load_runs(arguments.report) if arguments.report else None
    with tempfile.TemporaryDirectory(prefix="companion-logs-") as folder:
        paths = arguments.file
        if arguments.from_authors:
            paths = [clone(arguments.clone or Path(folder) / "clone", arguments.address, arguments.commit)]
        imported = import_logs(
            paths,
            read_mapping(arguments.map),
            preset=arguments.preset,
            settings=arguments.settings,
            architecture=arguments.architecture,
            convention=arguments.convention,
            file_format=arguments.format,
            distinguish=arguments.distinguish,
            skipped_steps=arguments.skip_steps,
            points=arguments.points,
            sha256=arguments.sha256,
            progress=sys.stderr.isatty() and not arguments.json,
        )
    report = None if runs is None else loss_report(runs, _with_status(imported))
    written = imported.write(arguments.output, name, arguments.force)
    if arguments.update_runs and runs is not None:
        _write_runs(update_runs(runs, _with_status(imported)), arguments.update_runs, arguments.force)
    if arguments.json:
        return print_json(_as_json(imported, written, report, arguments))
    _print(imported, written, report, arguments)
    return None


def add_mapping(parser: argparse.ArgumentParser, meaning: str) -> None:
    """The option `--map` of both imports."""
    parser.add_argument("--map", nargs="+", action="extend", default=[], metavar="COLUMN=NAME", help=meaning)


def read_mapping(pairs: list[str]) -> dict[str, str]:
    """What `--map` names: column -> column of the file, or expression.

    Raises
    ------
    InputError
        for a pair without an equals sign, or with nothing on one side of it.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InputError(f"--map {pair!r}: write COLUMN=NAME, such as val_loss=final_loss")
        found[name.strip()] = value.strip()
    return found


def _check(arguments: argparse.Namespace) -> None:
    """Raise an InputError for options that do not go together, before anything is read."""
    if arguments.from_authors == bool(arguments.file):
        raise InputError("give files or folders of logs, or --from-authors (see companion import logs --help)")
    if arguments.clone and not arguments.from_authors:
        raise InputError("--clone needs --from-authors")
    if arguments.update_runs:
        if not arguments.report:
            raise InputError("--update-runs needs --report RUNS, the table to update")
        check_target(arguments.update_runs, arguments.force)


def _points(text: str) -> int | None:
    if text == "all":
        return None
    if (number := count(text)) < 2:
        raise argparse.ArgumentTypeError(f"{text} is neither 2 or more nor 'all'")
    return number


def _name_of(path: Path) -> str:
    """What the tables are called. The name of an event file names a machine: the key of its run does not."""
    if path.is_dir():
        return path.resolve().name
    return find_files([path], FORMATS[0])[0].key


def _with_status(imported: ImportedLogs) -> pd.DataFrame:
    return imported.logs.assign(architecture=imported.logs["architecture"].str.lower())


def _write_runs(table: pd.DataFrame, target: Path, overwrite: bool) -> None:
    """Write a run table whole or not at all, after `load_runs` has accepted it."""
    check_target(target, overwrite)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of columns of the reader's own
        part = Path(folder) / target.name
        table.to_csv(part, index=False)
        load_runs(part)
        os.replace(part, target)


def _as_json(
    imported: ImportedLogs, written: tuple[Path, Path], report: pd.DataFrame | None, arguments: argparse.Namespace
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "logs": str(written[0]),
        "curves": str(written[1]),
        "num_runs": len(imported.logs),
        "num_points": len(imported.curves),
        "status": imported.logs["status"].value_counts().to_dict(),
        "files": list(imported.files),
        "mapping": imported.mapping,
        "notes": list(imported.notes),
    }
    if arguments.from_authors:
        result["not_in_the_clone"] = missing_releases(imported.files)
    if report is not None:
        result["report"] = report.to_dict("records")
        result["report_by_source"] = by_source(report).to_dict("records")
    if arguments.update_runs:
        result["runs"] = str(arguments.update_runs)
    return result


def _print(
    imported: ImportedLogs, written: tuple[Path, Path], report: pd.DataFrame | None, arguments: argparse.Namespace
) -> None:
    for each in imported.files:
        mark = {True: "  as released", False: "  not as released", None: ""}[each["released"]]
        print(f"sha256 {each['sha256']}  {Path(each['file']).name}{mark}")
    if arguments.from_authors and (missing := missing_releases(imported.files)):
        print(f"not in the clone: {', '.join(missing)}")
    for name, what in imported.mapping.items():
        print(f"{name} <- {what}")
    _some([f"note: {note}" for note in imported.notes])
    if report is not None:
        print(f"\nlosses of {arguments.report} against the logs, largest difference first:")
        shown = report[report["difference"] != 0].head(_MOST_LINES).copy()
        shown["difference"] = [f"{value:+.2e}" for value in shown["difference"]]
        if len(shown):
            print_table(shown)
        else:
            print(f"none: {plural(len(report), 'run')} agree in every digit")
        print()
        print_table(by_source(report))
    counts = imported.logs["status"].value_counts()
    split = ", ".join(f"{number} {name}" for name, number in counts.items())
    print(f"{written[0]}: {plural(len(imported.logs), 'run')} ({split})")
    print(f"{written[1]}: {plural(len(imported.curves), 'record')}")
    if arguments.update_runs and report is not None:
        print(f"{arguments.update_runs}: the run table; {plural(len(report), 'run')} with the loss of the log")
        say_next("book", "--parameters", f"runs_file={arguments.update_runs}")
    else:
        say_next("data", "check", str(written[0]))


def _some(lines: list[str]) -> None:
    for line in lines[:_MOST_LINES]:
        print(line)
    if len(lines) > _MOST_LINES:
        print(f"and {len(lines) - _MOST_LINES} more notes (--json prints all)")
