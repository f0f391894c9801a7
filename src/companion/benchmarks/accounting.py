"""How fast parameters and FLOPs of many configurations are counted.

    python -m companion.benchmarks.accounting [--num-configurations 1000000] [--out data/benchmarks/accounting.jsonl]

Times are printed, and kept as one record, only after a sample of the array results equals scalar calls exactly.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion.accounting import CONVENTIONS, count_flops, num_params
from companion.architectures import PAPER_ARCHITECTURES, Architecture, make_architecture
from companion.benchmarks.records import deliver, new_record
from companion.errors import InputError

NAME = "accounting"
#: Configurations of each architecture and convention that are counted one by one and compared.
SAMPLE_SIZE = 200

Arrays = dict[str, NDArray[np.int64]]


def random_configurations(number: int, seed: int = 0) -> tuple[Arrays, NDArray[np.int64]]:
    """Shapes and context lengths of random models, each an array (number,): from a few million weights to 200 billion.

    Contexts are at least one chunk of the mLSTM, and mostly not a multiple of it.
    """
    rng = np.random.default_rng(seed)
    n_heads, head_width = rng.integers(1, 65, number), 2 * rng.integers(16, 129, number)
    shapes = {
        "d_model": n_heads * head_width,
        "n_layers": rng.integers(1, 97, number),
        "n_heads": n_heads,
        "d_ff": rng.integers(256, 49_152, number),
        "d_qk": rng.integers(16, 257, number),
        "d_hv": head_width,
        "vocab_size": rng.integers(1_000, 260_000, number),
    }
    return shapes, rng.integers(64, 1_000_000, number)


def verify_sample(name: str, shapes: Arrays, lengths: NDArray[np.int64], convention: str, seed: int = 0) -> int:
    """Compare array counts with scalar calls for a random sample; return its size.

    Raises
    ------
    ArithmeticError
        if one of them differs in any component.
    """
    sample = np.random.default_rng(seed).permutation(lengths.size)[:SAMPLE_SIZE]
    batch = make_architecture(name, **shapes)
    weights, flops = np.asarray(num_params(batch)), count_flops(batch, lengths, convention).components
    for row in sample:
        model = make_architecture(name, **{key: int(values[row]) for key, values in shapes.items()})
        single = count_flops(model, int(lengths[row]), convention).components
        same = num_params(model) == weights[row] and all(
            value == np.broadcast_to(getattr(flops, component), lengths.shape)[row]
            for component, value in single.items()
        )
        if not same:
            raise ArithmeticError(f"{name} under {convention}: array and scalar counts differ for {model}")
    return int(sample.size)


def measure(num_configurations: int = 1_000_000, repeats: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    """Times of every step, for both architectures and all conventions.

    Returns
    -------
    list of dict
        `architecture`, `step` (`shapes`: checking the arrays, `num_params`, `count_flops` with its total per token),
        `convention` (None where it plays no part), `seconds_median`, `seconds_min`, `seconds_max` and
        `verified_configurations`.

    Raises
    ------
    InputError
        if a number is not positive.
    ArithmeticError
        see `verify_sample`; nothing is timed then.
    """
    for label, value in (("num-configurations", num_configurations), ("repeats", repeats)):
        if value < 1:
            raise InputError(f"{label} {value} is not positive")
    shapes, lengths = random_configurations(num_configurations, seed)
    verified = {
        (name, convention): verify_sample(name, shapes, lengths, convention, seed)
        for name in PAPER_ARCHITECTURES
        for convention in CONVENTIONS
    }
    results = []
    for name in PAPER_ARCHITECTURES:
        model: Architecture = make_architecture(name, **shapes)
        steps: dict[tuple[str, str | None], Callable[[], Any]] = {
            ("shapes", None): lambda name=name: make_architecture(name, **shapes),  # type: ignore[misc]
            ("num_params", None): lambda model=model: num_params(model),  # type: ignore[misc]
        }
        for convention in CONVENTIONS:
            steps["count_flops", convention] = lambda model=model, convention=convention: (
                count_flops(  # type: ignore[misc]
                    model, lengths, convention
                ).train_flops_per_token
            )
        for (step, counted_by), action in steps.items():
            seconds = _times(action, repeats)
            results.append(
                {
                    "architecture": name,
                    "step": step,
                    "convention": counted_by,
                    "seconds_median": round(median(seconds), 6),
                    "seconds_min": round(min(seconds), 6),
                    "seconds_max": round(max(seconds), 6),
                    "verified_configurations": verified.get((name, counted_by or ""), 0),
                }
            )
    return results


def slowest_total(record: dict[str, Any]) -> dict[str, Any]:
    """The slowest way through all three steps: `architecture`, `convention`, `seconds` (sum of the medians)."""
    totals = [
        {
            "architecture": flops["architecture"],
            "convention": flops["convention"],
            "seconds": flops["seconds_median"]
            + sum(
                other["seconds_median"]
                for other in record["results"]
                if other["architecture"] == flops["architecture"] and other["step"] != "count_flops"
            ),
        }
        for flops in record["results"]
        if flops["step"] == "count_flops"
    ]
    return max(totals, key=lambda total: total["seconds"])


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, append the record. Exit status 2 for wrong input, 1 for wrong results."""
    parser = argparse.ArgumentParser(prog="python -m companion.benchmarks.accounting", description=__doc__)
    parser.add_argument("--num-configurations", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timings of each step; the median counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="append the record here (default: accounting.jsonl in data/benchmarks of the checkout; `-` for stdout)",
    )
    options = parser.parse_args(arguments)
    try:
        results = measure(options.num_configurations, options.repeats, options.seed)
        parameters = {name: getattr(options, name) for name in ("num_configurations", "repeats", "seed")}
        command = "python -m companion.benchmarks.accounting " + " ".join(
            f"--{name.replace('_', '-')} {value}" for name, value in parameters.items()
        )
        record = new_record(NAME, command, parameters, results)
        lines = []
        for row in results:
            words = f"{row['architecture']:<12} {row['step']:<12} {row['convention'] or '':<11}"
            lines.append(
                f"{words} {row['seconds_median']:.4f} s ({row['seconds_min']:.4f} to {row['seconds_max']:.4f})"
            )
        deliver(record, options.out, "accounting.jsonl", "\n".join(lines))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ArithmeticError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _times(action: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each repeat, after one that is not counted."""
    action()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
