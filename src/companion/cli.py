"""The `companion` command: options, dispatch, and how errors and notes are told.

Results go to stdout, notes and errors to stderr, one line each. Exit status: 0 done, 1 a check failed, 2 bad input.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from companion import cli_commands as commands
from companion import cli_fits as fits
from companion.accounting import CONVENTIONS, PAPER
from companion.architectures import ARCHITECTURES, PRESET_SIZES, VOCAB_SIZE
from companion.errors import InputError
from companion.fitting.isoflop import X_COLUMNS
from companion.fitting.parametric import HUBER_DELTA


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Parameters
    ----------
    argv
        arguments after the program's name; those of the process if not given.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _note  # type: ignore[assignment]
        warnings.simplefilter("always", UserWarning)
        try:
            arguments = _parser().parse_args(argv)
            status = arguments.run(arguments)
            sys.stdout.flush()
            return int(status or 0)
        except InputError as error:
            print(f"companion: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except BrokenPipeError:
            # the reader of our output left (`companion ledger | head`): nothing to say, and nothing more to flush
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            print("companion: interrupted", file=sys.stderr)
            return 130


def _note(message: Warning | str, *_: Any) -> None:
    print(f"note: {' '.join(str(message).split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="companion",
        description="Companion to the paper xLSTM Scaling Laws: FLOP accounting, run tables, fits and the book.",
        epilog="'companion COMMAND --help' shows the options of a command, with examples.",
    )
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
    _add_isoflop(command)
    _add_fit(command)
    _add_overtraining(command)
    _add_extrapolate(command)
    _add_ledger(command)
    data = subparsers.add_parser("data", help="check run tables", description="Check run tables.")
    _add_data_check(command, data.add_subparsers(title="commands", metavar="COMMAND", required=True))
    _add_book(command)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--architecture", required=True, choices=tuple(ARCHITECTURES))
    parser.add_argument("--size", choices=PRESET_SIZES, help="one of the paper's models, instead of shapes")
    for option, meaning in (
        ("--d-model", "width of the residual stream"),
        ("--n-layers", "number of blocks"),
        ("--n-heads", "heads of the sequence mixer; must divide d_model"),
        ("--d-qk", "width of queries and keys per head (default: d_hv, for xlstm d_hv/2)"),
        ("--d-hv", "width of values per head (default: d_model/n_heads)"),
        ("--d-ff", "inner width of the feed-forward network (default: about 8/3 of d_model)"),
        ("--vocab-size", f"rows of the embedding (default: {VOCAB_SIZE})"),
    ):
        parser.add_argument(option, type=_whole, metavar="N", help=meaning)


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
    _add_shapes(parser)
    parser.add_argument("--context-length", required=True, type=_whole, metavar="T", help="tokens per sequence")
    parser.add_argument(
        "--convention", default=PAPER.name, choices=tuple(CONVENTIONS), help="what counts (default: %(default)s)"
    )
    parser.add_argument(
        "--chunk-size", type=_whole, metavar="L", help=f"tokens per mLSTM chunk (default: {PAPER.chunk_size})"
    )
    parser.add_argument("--num-tokens", type=_whole, metavar="D", help="also print train_flops for so many tokens")
    _add_json(parser)


def _add_params(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "params",
        commands.params,
        "number of parameters from shapes, by component",
        "  companion params --architecture transformer --size 400m\n"
        "  companion params --architecture xlstm --d-model 1024 --n-layers 24 --n-heads 4 --json",
    )
    _add_shapes(parser)
    _add_json(parser)


def _add_isoflop(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "isoflop",
        commands.isoflop,
        "IsoFLOP optima of a run table and the power law through them",
        "  companion isoflop data/runs.csv --architecture xlstm --context-length 8192\n"
        "  companion isoflop data/runs.csv --architecture xlstm --context-length 8192 --x num_tokens --json \\\n"
        "      --weights multiplicity_in_published_fits --budgets 6e18,1e19,3e19,1e20   (as published)\n"
        "  companion isoflop my_runs.csv --where \"num_params > 1e8 and experiment == 'isoflop'\"",
    )
    _add_runs(parser)
    parser.add_argument(
        "--x", default=X_COLUMNS[0], choices=X_COLUMNS, help="what the profiles run over (default: %(default)s)"
    )
    _add_weights(parser)
    parser.add_argument("--budgets", type=_budgets, metavar="C,C,...", help="only these budgets (default: all)")
    _add_bootstrap(parser)
    _add_level(parser)
    _add_json(parser)


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
    _add_runs(parser)
    _add_law(parser)
    _add_bootstrap(parser)
    parser.add_argument(
        "--cluster", choices=X_COLUMNS, help="draw all runs of one value of this column together (default: single runs)"
    )
    parser.add_argument("--jobs", type=_whole, default=1, metavar="N", help="processes for the bootstrap (default: 1)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="Dask scheduler for the bootstrap, tcp://host:port")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the fit as JSON")
    _add_level(parser)
    _add_json(parser)


def _add_overtraining(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "overtraining",
        fits.overtraining,
        "slopes of loss over compute at fixed tokens per parameter",
        "  companion overtraining data/runs.csv --architecture xlstm --context-length 8192 --json",
    )
    _add_runs(parser)
    parser.add_argument(
        "--keep-left-out", action="store_true", help="keep runs marked in the column left_out_of_published_slopes"
    )
    _add_level(parser)
    _add_json(parser)


def _add_extrapolate(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "extrapolate",
        fits.extrapolation,
        "fit below a compute cut-off and predict the runs above",
        "  companion extrapolate data/runs.csv --architecture xlstm --context-length 8192\n"
        "  companion extrapolate data/runs.csv --architecture transformer --cutoffs 1e20,1e21 --gamma 1 --json",
    )
    _add_runs(parser)
    _add_law(parser)
    parser.add_argument("--cutoffs", type=_budgets, metavar="C,C,...", help="FLOP (default: six, spread over the runs)")
    _add_json(parser)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="run table (CSV)")
    parser.add_argument("--architecture", help="only runs of this architecture")
    parser.add_argument("--context-length", type=_whole, metavar="T", help="only runs of this context length")
    parser.add_argument("--where", metavar="CONDITION", help="only runs for which a condition on columns holds")


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", metavar="COLUMN", help="column that says how many times a run counts")


def _add_law(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gamma", type=_gamma, metavar="free|G", help="outer exponent: free (default), or a value such as 1"
    )
    parser.add_argument(
        "--huber-delta",
        type=_positive,
        default=HUBER_DELTA,
        metavar="DELTA",
        help="where the loss of a log residual turns linear; inf is least squares (default: %(default)s)",
    )
    _add_weights(parser)


def _add_bootstrap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bootstrap", type=_count, default=1000, metavar="R", help="resamples (default: %(default)s)")
    parser.add_argument("--seed", type=_count, default=0, help="of the bootstrap (default: %(default)s)")


def _add_level(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--level", type=_level, default=0.95, help="of the intervals (default: %(default)s)")


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
    _add_json(parser)


def _add_data_check(command: Callable[..., argparse.ArgumentParser], to: Any) -> None:
    parser = command(
        "check",
        commands.data_check,
        "check a run table and say what it holds",
        "  companion data check data/runs.csv\n  companion data check my_runs.csv --strict --json",
        to=to,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="run table (CSV)")
    parser.add_argument("--strict", action="store_true", help="columns that are not known are errors")
    _add_json(parser)


def _add_book(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command(
        "book",
        commands.book,
        "execute the notebooks and build the html of the book",
        "  companion book\n"
        "  companion book --jobs 4 --output /tmp/book\n"
        "  companion book --parameters runs_file=/data/my_runs.csv   (chapters on your own table)",
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="build folder (default: _build of the checkout)")
    parser.add_argument("--jobs", type=_whole, metavar="N", help="notebooks at a time (default: all cores)")
    parser.add_argument(
        "--parameters", action="append", default=[], metavar="NAME=VALUE", help="set a notebook parameter (repeatable)"
    )


def _whole(text: str) -> int:
    """A positive whole number; 1e9 is one too."""
    try:
        value = float(text)
        whole = int(text) if text.strip().lstrip("+-").isdigit() else int(value)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if whole != value or whole <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return whole


def _count(text: str) -> int:
    return 0 if text.strip() == "0" else _whole(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _gamma(text: str) -> float | None:
    return None if text.strip().lower() == "free" else _positive(text)


def _level(text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < level < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return level


def _budgets(text: str) -> list[float]:
    try:
        budgets = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 6e18,1e19") from None
    if not all(0 < budget < float("inf") for budget in budgets):
        raise argparse.ArgumentTypeError(f"{text!r} holds a budget that is not positive and finite")
    return budgets


if __name__ == "__main__":
    sys.exit(main())
