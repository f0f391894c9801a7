"""Options that several commands share, and how their values are read: a wrong one is an error of one line."""

import argparse
from pathlib import Path

from companion.architectures import ARCHITECTURES, PRESET_SIZES, VOCAB_SIZE
from companion.fitting.fit import HUBER_DELTA


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def add_runs(parser: argparse.ArgumentParser) -> None:
    """A run table and which of its runs."""
    parser.add_argument("file", type=Path, metavar="FILE", help="run table (CSV)")
    parser.add_argument("--architecture", help="only runs of this architecture")
    parser.add_argument("--context-length", type=whole, metavar="T", help="only runs of this context length")
    parser.add_argument("--where", metavar="CONDITION", help="only runs for which a condition on columns holds")


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """Architecture, and its size or shapes."""
    parser.add_argument("--architecture", required=True, choices=tuple(ARCHITECTURES))
    parser.add_argument("--size", choices=PRESET_SIZES, help="one of the paper's models, instead of shapes")
    for option, meaning in (
        ("--d-model", "width of the residual stream"),
        ("--n-layers", "number of blocks"),
        ("--n-heads", "heads of the sequence mixer; must divide d_model unless both head widths are given"),
        ("--d-qk", "width of queries and keys per head (default: d_hv, for recurrent mixers d_hv/2)"),
        ("--d-hv", "width of values per head (default: d_model/n_heads, for gated_deltanet 1.5 times that)"),
        ("--vocab-size", f"rows of the embedding (default: {VOCAB_SIZE})"),
    ):
        parser.add_argument(option, type=whole, metavar="N", help=meaning)
    parser.add_argument(
        "--d-ff",
        type=count,
        metavar="N",
        help="inner width of the feed-forward network; 0: none (default: about 8/3 of d_model)",
    )
    for option, meaning in (
        ("--attention-every", "a hybrid: one attention layer in every N (4: three to one)"),
        ("--attention-heads", "heads of the attention layers of a hybrid (default: of width 128)"),
        ("--n-kv-heads", "heads of keys and values of attention (default: as many as it has heads)"),
        ("--window", "tokens that attention sees (default: all)"),
    ):
        parser.add_argument(option, type=whole, metavar="N", help=meaning)
    parser.add_argument("--tied-embeddings", action="store_true", help="one matrix for embedding and unembedding")
    parser.add_argument("--qk-norm", action="store_true", help="attention normalizes queries and keys per head")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """`--weights`."""
    parser.add_argument("--weights", metavar="COLUMN", help="column that says how many times a run counts")


def add_law(parser: argparse.ArgumentParser) -> None:
    """Form and objective of the parametric law."""
    parser.add_argument(
        "--gamma", type=gamma, metavar="free|G", help="outer exponent: free (default), or a value such as 1"
    )
    parser.add_argument(
        "--huber-delta",
        type=positive,
        default=HUBER_DELTA,
        metavar="DELTA",
        help="where the loss of a log residual turns linear; inf is least squares (default: %(default)s)",
    )
    add_weights(parser)


def add_bootstrap(parser: argparse.ArgumentParser) -> None:
    """Number of resamples and seed."""
    parser.add_argument("--bootstrap", type=count, default=1000, metavar="R", help="resamples (default: %(default)s)")
    parser.add_argument("--seed", type=count, default=0, help="of the bootstrap (default: %(default)s)")


def add_level(parser: argparse.ArgumentParser) -> None:
    """Level of the intervals."""
    parser.add_argument("--level", type=level, default=0.95, help="of the intervals (default: %(default)s)")


def whole(text: str) -> int:
    """A positive whole number; 1e9 is one too."""
    return _whole(text, 1, "a positive whole number")


def count(text: str) -> int:
    """A whole number of at least 0."""
    return _whole(text, 0, "a whole number of at least 0")


def _whole(text: str, least: int, kind: str) -> int:
    try:
        value = float(text)
        number = int(text) if (digits := text.strip().lstrip("+-").isdigit()) else int(value)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if (number != value and not digits) or number < least:  # float64 rounds whole numbers above 2^53
        raise argparse.ArgumentTypeError(f"{text} is not {kind}")
    return number


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def gamma(text: str) -> float | None:
    """A number above 0, or None for `free`."""
    return None if text.strip().lower() == "free" else positive(text)


def level(text: str) -> float:
    """A number between 0 and 1."""
    try:
        level = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < level < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return level


def budgets(text: str) -> list[float]:
    """Positive numbers, separated by commas."""
    try:
        budgets = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 6e18,1e19") from None
    if not all(0 < budget < float("inf") for budget in budgets):
        raise argparse.ArgumentTypeError(f"{text!r} holds a number that is not positive and finite")
    return budgets
