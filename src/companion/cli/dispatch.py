"""The `companion` command: options, dispatch, and what becomes of errors and notes.

Results go to stdout, notes and errors to stderr, one line each. Exit status: 0 done, 1 a check failed, chapters were
left out or the output could not be written, 2 bad input, 130 interrupted.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from companion import __version__
from companion.accounting import CONVENTIONS, PAPER
from companion.cli import commands, fits
from companion.cli.bench import add_bench
from companion.cli.book import add_book
from companion.cli.context import add_context
from companion.cli.data import add_data
from companion.cli.design import add_design
from companion.cli.importing import add_import
from companion.cli.inference import add_inference
from companion.cli.isoflop import add_isoflop
from companion.cli.kernels import add_kernels
from companion.cli.laboratory import add_lab
from companion.cli.options import (
    add_bootstrap,
    add_json,
    add_law,
    add_level,
    add_runs,
    add_shapes,
    budgets,
    whole,
)
from companion.cli.output import flush, is_write_error, lose, prepare_streams, say
from companion.cli.plan import add_plan
from companion.cli.slides import add_slides
from companion.cli.study import add_study
from companion.cli.sweep import add_sweep
from companion.cli.training import add_training
from companion.errors import InputError
from companion.fitting.isoflop.profiles import X_COLUMNS
from companion.fitting.newton import MAX_ITERATIONS
from companion.paths import data_dir


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage text; help that cannot be written is an error."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        (file or sys.stdout).write(message)  # argparse's own passes over an OSError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Parameters
    ----------
    argv
        arguments after the program's name; those of the process if not given.

    Raises
    ------
    SystemExit
        after `--help` and `--version`, with status 0.

    Examples
    --------
    >>> main(["params", "--architecture", "transformer", "--size", "400m"])  # doctest: +ELLIPSIS
    transformer: 406635520 parameters
    ...
    0
    """
    prepare_streams()
    if sys.stdout is None:
        say("companion: standard output is closed; to see nothing, send it to /dev/null")
        return 1
    with warnings.catch_warnings():
        warnings.showwarning = _note  # type: ignore[assignment]
        warnings.simplefilter("always", UserWarning)
        try:
            return flush(_run(argv))
        except SystemExit:  # from argparse
            if status := flush(0):
                return status
            raise


def command_help() -> dict[str, str]:
    """The help of every command by its name, in the order of `companion --help`; a group of commands by its members.

    Lines are as wide as the terminal.

    Examples
    --------
    >>> texts = command_help()
    >>> texts["companion flops"].splitlines()[0].split()[:3]
    ['usage:', 'companion', 'flops']
    >>> "companion data" in texts, "companion data check" in texts
    (False, True)
    """
    texts: dict[str, str] = {}
    waiting: list[argparse.ArgumentParser] = [_parser()]
    while waiting:
        parser = waiting.pop(0)
        groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
        if groups:
            waiting = [*dict.fromkeys(groups[0].choices.values()), *waiting]
        else:
            texts[parser.prog] = parser.format_help()
    return texts


def _run(argv: Sequence[str] | None) -> int:
    """The exit status of a command; what its user can mend is one line, anything else a traceback."""
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.run(arguments) or 0)
    except InputError as error:
        say(f"companion: {error}")
        return 2
    except KeyboardInterrupt:
        say("companion: interrupted")
        return 130
    except MemoryError as error:
        say(f"companion: not enough memory ({error}): take fewer runs (--where) or fewer resamples (--bootstrap)")
        return 1
    except OSError as error:
        if is_write_error(error):
            return lose(error)
        if error.filename is None:
            raise
        say(f"companion: {error.filename}: {error.strerror}")
        return 2


def _note(message: Warning | str, *_: Any) -> None:
    say(f"note: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="companion",
        description="Companion to the paper xLSTM Scaling Laws: FLOP accounting, run tables, fits and the book.",
        epilog=f"'companion COMMAND --help' shows the options of a command, with examples. {_tables()}",
    )
    parser.add_argument("--version", action="version", version=f"companion {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int | None], summary: str, examples: str, to: Any = subparsers
    ) -> argparse.ArgumentParser:
        new = to.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        new.set_defaults(run=run)
        return new

    _add_flops(command)
    _add_params(command)
    add_isoflop(command)
    _add_fit(command)
    _add_overtraining(command)
    _add_extrapolate(command)
    add_context(command)
    add_plan(command)
    add_design(command)
    _add_ledger(command)
    add_data(command, subparsers)
    add_import(command, subparsers)
    add_inference(command, subparsers)
    add_training(command)
    add_bench(command, subparsers)
    add_kernels(command, subparsers)
    add_lab(command, subparsers)
    add_study(command)
    add_sweep(command, subparsers)
    add_book(command)
    add_slides(command)
    return parser


def _tables() -> str:
    """Where the files of the examples are."""
    try:
        return f"The tables that examples call data/ are in {data_dir()}."
    except InputError as error:
        return f"The project's own tables are missing: {error}."


def _add_flops(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "flops",
        commands.flops,
        "training FLOPs per token from shapes, by component",
        "  companion flops --architecture xlstm --size 7b --context-length 8192\n"
        "  companion flops --architecture xlstm --d-model 4096 --n-layers 32 --n-heads 8 --d-qk 256 --d-hv 512 \\\n"
        "      --d-ff 10944 --context-length 8192 --json\n"
        "  companion flops --architecture transformer --size 160m --context-length 2048 --convention 6ND",
    )
    add_shapes(parser)
    parser.add_argument("--context-length", required=True, type=whole, metavar="T", help="tokens per sequence")
    parser.add_argument(
        "--convention", default=PAPER.name, choices=tuple(CONVENTIONS), help="what counts (default: %(default)s)"
    )
    parser.add_argument(
        "--chunk-size", type=whole, metavar="L", help=f"tokens per mLSTM chunk (default: {PAPER.chunk_size})"
    )
    parser.add_argument("--num-tokens", type=whole, metavar="D", help="also print train_flops for this many tokens")
    add_json(parser)


def _add_params(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "params",
        commands.params,
        "number of parameters from shapes, by component",
        "  companion params --architecture transformer --size 400m\n"
        "  companion params --architecture xlstm --d-model 1024 --n-layers 24 --n-heads 4 --json\n"
        "  companion params --architecture transformer --d-model 4096 --n-layers 32 --n-heads 32 --n-kv-heads 8 \\\n"
        "      --d-ff 14336 --vocab-size 128256   (Llama 3 8B)",
    )
    add_shapes(parser)
    add_json(parser)


def _add_fit(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "fit",
        fits.fit,
        "the parametric law of loss over parameters and tokens, with intervals",
        "  companion fit data/runs.csv --architecture xlstm --context-length 8192\n"
        "  companion fit data/runs.csv --architecture transformer --context-length 8192 --gamma 1 --json \\\n"
        "      --where \"experiment == 'isoflop'\" --weights multiplicity_in_published_fits\n"
        "  companion fit my_runs.csv --huber-delta inf --bootstrap 200 --cluster num_params --save fit.json",
    )
    add_runs(parser)
    add_law(parser)
    add_bootstrap(parser)
    parser.add_argument(
        "--cluster", choices=X_COLUMNS, help="draw all runs of one value of this column together (default: single runs)"
    )
    parser.add_argument("--jobs", type=whole, default=1, metavar="N", help="processes for the bootstrap (default: 1)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="Dask scheduler for the bootstrap, tcp://host:port")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the fit and its resamples as JSON")
    parser.add_argument(
        "--max-iterations",
        type=whole,
        default=MAX_ITERATIONS,
        metavar="N",
        help="Newton steps of every start (default: %(default)s)",
    )
    add_level(parser)
    add_json(parser)


def _add_overtraining(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "overtraining",
        fits.overtraining,
        "slopes of loss over compute at fixed tokens per parameter",
        "  companion overtraining data/runs.csv --architecture xlstm --context-length 8192 --json",
    )
    add_runs(parser)
    parser.add_argument(
        "--keep-left-out", action="store_true", help="keep runs marked in the column left_out_of_published_slopes"
    )
    add_level(parser)
    add_json(parser)


def _add_extrapolate(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "extrapolate",
        fits.extrapolation,
        "fit below a compute cut-off and predict the runs above",
        "  companion extrapolate data/runs.csv --architecture xlstm --context-length 8192\n"
        "  companion extrapolate data/runs.csv --architecture transformer --cutoffs 1e20,1e21 --gamma 1 --json",
    )
    add_runs(parser)
    add_law(parser)
    parser.add_argument("--cutoffs", type=budgets, metavar="C,C,...", help="FLOP (default: six, spread over the runs)")
    add_json(parser)


def _add_ledger(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "ledger",
        commands.ledger,
        "every published number with ours, a tolerance and a verdict",
        "  companion ledger\n"
        "  companion ledger --section isoflop_power_laws\n"
        "  companion ledger --verdict differs --json",
    )
    parser.add_argument("--section", action="append", help="only this section (may be repeated)")
    parser.add_argument("--verdict", choices=commands.VERDICTS, help="only rows with this verdict")
    add_json(parser)


if __name__ == "__main__":
    sys.exit(main())
