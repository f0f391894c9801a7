"""A run of the kernel benchmark: which cells it measures, which are done already, and the records it leaves."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from companion.benchmarks.kernels.identity import OPERATORS, Identity, identity_of, identity_today
from companion.benchmarks.kernels.implementations import LIBRARIES, versions
from companion.benchmarks.records import append_record, new_record, read_records

CHECKS, TIMINGS = "kernel_checks", "kernels"  # tuning is a part of the second
#: Fields that name a cell in a record.
KEY = ("part", "case", "dtype", "implementation", "upstream", "configuration", "launch")


class Session:
    """What one run shares: options, what is done already, the machine, and when to stop."""

    def __init__(self, options: argparse.Namespace, device: dict[str, Any]) -> None:
        self.options, self.device, self.begin = options, device, time.monotonic()
        self.out = Path(options.out)
        self.parameters = {**identity_today()._asdict(), **device}
        self.done = done_cells(self.out, self.parameters) if options.resume else set()
        self.num_failed = 0

    def wanted(self, name: str, library: str) -> bool:
        chosen = self.options.implementations
        return not chosen or name in chosen or library in chosen

    def todo(self, part: str) -> Callable[[dict[str, Any]], bool]:
        def check(fields: dict[str, Any]) -> bool:
            library = library_of(fields["implementation"])
            return self.wanted(fields["implementation"], library) and cell({"part": part, **fields}) not in self.done

        return check

    def out_of_time(self) -> bool:
        limit = self.options.max_seconds
        return limit is not None and time.monotonic() - self.begin > limit

    def record(self, benchmark: str, results: Sequence[dict[str, Any]], **parameters: Any) -> None:
        """Append the results, if there are any, as one record, and say so in one line."""
        if not results:
            return
        record = new_record(benchmark, command(self.options), {**self.parameters, **parameters}, results, packages=())
        record["versions"] |= versions()
        append_record(self.out, record)
        part, case = results[0]["part"], results[0]["case"]
        if benchmark == CHECKS:
            failed = [x for x in results if x["verdict"] == "fail"]
            own = [x for x in failed if library_of(x["implementation"]) == "companion"]
            self.num_failed += len(own)
            say(f"{part} {case}: {len(results)} cells, {len(own)} of ours failed, {len(failed) - len(own)} of others")
            for x in own:
                say(f"  {x['implementation']}, {x['dtype']}, {x['configuration']}: {x['reason']}")
        else:
            for x in results:
                found = x.get("skipped") or f"{1e3 * x['seconds_median']:.4g} ms"
                which = ", ".join(x[name] for name in ("implementation", "launch", "configuration") if name in x)
                say(f"{part} {case}: {which}: {found}")


def done_cells(path: Path, parameters: dict[str, Any]) -> set[tuple[Any, ...]]:
    """Cells of a file that were measured with the same code, GPU and versions."""
    if not path.exists():
        return set()
    found, current = set(), versions()
    machine = {name: value for name, value in parameters.items() if name not in Identity._fields}
    for record in read_records(path):
        same = all(record["parameters"].get(name) == value for name, value in machine.items())
        same = same and identity_of(record["parameters"]) == _identity_here(record["parameters"], parameters)
        if same and all(record["versions"].get(name) == value for name, value in current.items()):
            found |= {cell(result) for result in record["results"]}
    return found


def _identity_here(recorded: dict[str, Any], parameters: dict[str, Any]) -> Identity | None:
    """What a record of the same code would name: that of the session, or of the other operator that it is of."""
    operator = str(recorded.get("operator", "mlstm"))
    if operator == parameters.get("operator", "mlstm"):
        return identity_of(parameters)
    return identity_today(operator) if operator in OPERATORS else None


def cell(fields: dict[str, Any]) -> tuple[Any, ...]:
    """What names a cell."""
    return tuple(fields.get(name) for name in KEY)


def library_of(name: str) -> str:
    """Library of an implementation, by its name."""
    if name.startswith(("simple_gla", "gated_delta_rule")):
        return "fla"
    return next((key for key in LIBRARIES if name.startswith(key)), "torch")


def command(options: argparse.Namespace) -> str:
    """The command line that repeats a run; the shard of a process is left out."""
    words = ["python -m companion.benchmarks.kernels"]
    for name in ("part", "cases", "implementations", "dtypes"):
        if values := getattr(options, name):
            words.append(f"--{name} " + " ".join(f"'{x}'" if " " in x else x for x in values))
    words += [f"--chunk-size {options.chunk_size}"] if options.chunk_size else []
    words += ["--quick"] if options.quick else []
    words += [f"--repeats {options.repeats}"] if options.repeats != 20 else []
    words += [f"--device {options.device}"] if options.device != "cuda" else []
    return " ".join(words)


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)
