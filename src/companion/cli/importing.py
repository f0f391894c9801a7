"""`companion import runs`: a run table from what people have; `companion import logs` is in `importing_logs`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from companion.accounting import CONVENTIONS
from companion.cli.commands import print_json
from companion.cli.importing_logs import add_import_logs, add_mapping, read_mapping
from companion.cli.options import add_json
from companion.cli.output import say_next
from companion.runs.import_ import PRESETS, Imported, check_target, import_runs
from companion.runs.import_.files import FORMATS
from companion.runs.load import summary


def add_import(command: Callable[..., argparse.ArgumentParser], subparsers: Any) -> None:
    """Register the command; `command` is the maker of subparsers in `companion.cli.dispatch`."""
    group = subparsers.add_parser(
        "import",
        help="make tables of runs and logs from other files",
        description="Make tables of runs and logs from other files.",
    )
    to = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = command(
        "runs",
        runs,
        "write a run table from CSV, TSV, JSON, JSON lines or Parquet with columns of any name and unit",
        "  companion import runs isoflops_curves.json --preset cs336 --output runs.csv\n"
        "  companion import runs sweep.csv --architecture gpt --map val_loss='C4 Eval Loss' num_params=N\n"
        "  companion import runs wandb.csv --map num_params='n_emb + n_rest' 'num_tokens=batch * seq_len * steps'\n"
        "Units in cells or headers are read (412M, 2.1B, ZFLOP, PF-days, 'params (M)'). What is missing and follows\n"
        "from other columns is computed and marked in the column 'derived'.",
        to=to,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="file of runs, or a folder of JSON files, one run each")
    parser.add_argument("--output", type=Path, metavar="FILE", help="run table to write (default: NAME_runs.csv, here)")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    add_mapping(parser, "column of the run table = column of the file, or an expression of them")
    parser.add_argument("--preset", choices=tuple(PRESETS), help="mapping of a well-known set of runs")
    parser.add_argument("--architecture", metavar="NAME", help="of all runs (default: the file's, else 'model')")
    parser.add_argument(
        "--convention",
        choices=tuple(CONVENTIONS),
        help="count of a missing train_flops (default: by shapes, or 6ND)",
    )
    parser.add_argument("--keep", action="append", default=[], metavar="NAME", help="keep this column too (repeatable)")
    parser.add_argument("--format", choices=sorted(set(FORMATS.values())), help="of the file (default: by its name)")
    add_json(parser)
    add_import_logs(command, to)


def runs(arguments: argparse.Namespace) -> None:
    """`companion import runs`: write the table, and say what came from where."""
    output = arguments.output or Path(f"{arguments.file.stem}_runs.csv")
    check_target(output, arguments.force)
    imported = import_runs(
        arguments.file,
        read_mapping(arguments.map),
        preset=arguments.preset,
        architecture=arguments.architecture,
        convention=arguments.convention,
        keep=arguments.keep,
        file_format=arguments.format,
    )
    imported.write(output, arguments.force)
    if arguments.json:
        return print_json(
            {
                "file": str(arguments.file),
                "output": str(output),
                "mapping": imported.mapping,
                "derived": list(imported.derived),
                "dropped": list(imported.dropped),
                "left_out": list(imported.left_out),
                "summary": summary(imported.runs.infer_objects()),
            }
        )
    _print(imported, output)
    return None


def _print(imported: Imported, output: Path) -> None:
    width = max(map(len, imported.mapping))
    for name, what in imported.mapping.items():
        print(f"{name:<{width}} <- {what}")
    for note in imported.derived:
        print(f"derived: {note}")
    for note in imported.dropped:
        print(f"dropped: {note}")
    if imported.left_out:
        print(f"left out: {', '.join(imported.left_out)}")
    counts = imported.runs["architecture"].value_counts()
    number = f"{len(imported.runs)} run{'s' if len(imported.runs) != 1 else ''}"
    print(f"{output}: {number} ({', '.join(f'{n} {name}' for name, n in counts.items())})")
    say_next("data", "check", str(output))
