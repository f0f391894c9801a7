"""Correctness and speed of mLSTM kernels beside plain torch, published kernels and attention.

    python -m companion.benchmarks.kernels [--part PART ...] [--cases NAME ...] [--out FILE] ...

also as `companion bench kernels`. Parts: `checks` (errors of sequences against the float64 recurrence), `step-checks`,
`configurations` (the same for every candidate configuration of every kernel), `long` (65,536 tokens), `forward`,
`training` (forward and backward) and `step` (timings), `tuning` (every candidate configuration timed), `host` (what a
call takes of the CPU) and `first-call` (both passes in a new process, with nothing compiled before). Every case is
recorded as soon as it is done, so an interrupted run loses little; with --resume, cells that the file already holds (of
the same kernels, GPU and versions) are left out. Needs torch (extra `kernels`); timings need a CUDA GPU, and so do
checks unless Triton's interpreter runs them.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from companion.benchmarks.kernels.cases import CHUNK_SIZES, DTYPES, Case, all_cases, reference_work, select_cases
from companion.benchmarks.kernels.identity import identity_today
from companion.benchmarks.kernels.implementations import LIBRARIES, absent, ours, peers, timed, timed_steps
from companion.benchmarks.kernels.other_cells import GATED_DELTA_RULE_NAME, OTHER_CELLS
from companion.benchmarks.kernels.requirements import left_out
from companion.benchmarks.kernels.session import CHECKS, TIMINGS, Session, library_of, say
from companion.benchmarks.kernels.shapes import (
    Shape,
    check_names,
    first_call_shapes,
    host_shapes,
    select_shapes,
    sequence_shapes,
    step_shapes,
)
from companion.errors import InputError

CHECK_PARTS = ("checks", "step-checks", "configurations", "long")
TIMED_PARTS = ("forward", "training", "step", "tuning", "host", "first-call")
PARTS = (*CHECK_PARTS, *TIMED_PARTS)
#: What runs when no part is named.
DEFAULT_PARTS = ("checks", "step-checks", "forward", "training", "step")
#: Exit status of a process that a fault of the GPU ended, and how often such a process is started again.
FAULT, RESTARTS = 3, 8


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of both command lines."""
    parser.add_argument(
        "--part",
        nargs="+",
        choices=PARTS,
        metavar="PART",
        help=f"of {', '.join(PARTS)} (default: {', '.join(DEFAULT_PARTS)})",
    )
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="cases, groups, heads or sizes (see --list)")
    parser.add_argument(
        "--implementations", nargs="+", metavar="NAME", help="names or libraries, such as companion (see --list)"
    )
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, metavar="DTYPE", help="of checks (default: all)")
    parser.add_argument(
        "--chunk-size", type=_positive, metavar="L", help="of tuning, in tokens (default: that of the kernels)"
    )
    parser.add_argument("--quick", action="store_true", help="bfloat16 and few shapes only")
    parser.add_argument("--repeats", type=_positive, default=20, metavar="N", help="timings of a cell (default: 20)")
    parser.add_argument("--max-seconds", type=_positive, metavar="S", help="begin no new case after S seconds")
    parser.add_argument(
        "--processes", type=_positive, default=1, metavar="N", help="that share the checks (default: 1)"
    )
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="only the I-th of N parts of the checks, from 0")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of checks (cpu: TRITON_INTERPRET=1)")
    parser.add_argument(
        "--out", default="kernels.jsonl", metavar="FILE", help="append records here (default: %(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="leave out cells that the file holds already")
    parser.add_argument("--list", action="store_true", help="print parts, cases and implementations, and do nothing")


def run(options: argparse.Namespace) -> int:
    """Do what the options say. Exit status: 0 done, 1 one of our kernels is wrong, 3 the GPU reported a fault.

    Raises
    ------
    InputError
        for options that do not fit together, without torch, or without the GPU that the options name.
    """
    if options.list:
        print("\n".join(listing()))
        return 0
    parts = options.part or DEFAULT_PARTS
    _check_options(options, parts)
    if options.processes > 1:
        _device(options.device)  # one error, not one from every process
        return _run_processes(options, [part for part in parts if part in CHECK_PARTS])
    session = Session(options, _device(options.device))
    status = 0
    for part in parts:
        if part in CHECK_PARTS:
            status = max(status, _run_checks(session, part))
        else:
            status = max(status, _run_timings(session, part))
        if status == FAULT:
            return FAULT
    return 1 if session.num_failed else 0


def check_cases(part: str, options: argparse.Namespace) -> tuple[Case, ...]:
    """Cases of a part of the checks, with the dtypes of the options, for this shard."""
    names = options.cases
    if part == "long":
        cases = [case for case in all_cases() if case.group == "long" and (not names or case.name in names)]
    else:
        known = {name for case in all_cases() for name in (case.name, case.group)}
        chosen = [name for name in names or () if name in known]
        cases = [] if names and not chosen else list(select_cases(chosen))
        cases = [case for case in cases if case.group != "long"]
    if part == "configurations":
        cases = [case for case in cases if case.configurations]
    dtypes = options.dtypes or (("bfloat16",) if options.quick and not names else DTYPES)
    single = [replace(case, dtypes=(dtype,)) for case in cases for dtype in case.dtypes if dtype in dtypes]
    if options.quick:
        single = [replace(case, chunk_sizes=case.chunk_sizes[:1]) for case in single]
    if options.shard:
        index, count = options.shard
        random.Random(0).shuffle(single)
        single = single[index::count]
    joined: dict[str, Case] = {}
    for case in single:
        before = joined[case.name].dtypes if case.name in joined else ()
        joined[case.name] = replace(case, dtypes=(*before, *case.dtypes))
    return tuple(sorted(joined.values(), key=reference_work))


def listing() -> list[str]:
    """Parts, cases and implementations, with those that are absent here or need a newer Triton."""
    lines = [f"parts: {', '.join(PARTS)}", "", "cases of checks, by group:"]
    groups: dict[str, list[str]] = {}
    for case in all_cases():
        groups.setdefault(case.group, []).append(case.name)
    lines += [f"  {group}: {', '.join(names)}" for group, names in groups.items()]
    for title, part in (("forward and training", "forward"), ("step", "step"), ("host", "host")):
        shapes = timed_shapes(part)
        heads, sizes = (dict.fromkeys(getattr(shape, name) for shape in shapes) for name in ("heads", "size"))
        lines += ["", f"shapes of {title} (heads-size):", f"  {', '.join(heads)} - {', '.join(sizes)}"]
    lines += ["", "implementations:"]
    for implementation in implementation_names():
        reason, training = absent(library_of(implementation)), left_out(implementation, "training")
        note = f" (absent: {reason})" if reason else f" (training {training})" if training else ""
        lines.append(f"  {implementation}{note}")
    return lines


def implementation_names() -> list[str]:
    """Of everything that is timed or checked as a peer, each once."""
    sequences = [*(x.name for x in (*timed(), *peers())), GATED_DELTA_RULE_NAME]
    return list(dict.fromkeys([*sequences, *(x.name for x in timed_steps())]))


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit status 2 for wrong input, else that of `run`."""
    parser = argparse.ArgumentParser(
        prog="python -m companion.benchmarks.kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    try:
        return run(parser.parse_args(arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run_checks(session: Session, part: str) -> int:
    from companion.benchmarks.kernels.checks import DeviceFault, check_group
    from companion.benchmarks.kernels.references import same_shape
    from companion.benchmarks.kernels.step_checks import check_step

    options, todo = session.options, session.todo(part)
    if part == "step-checks":
        for case in _step_cases(options):
            if session.out_of_time():
                break
            try:
                found = list(check_step(case, options.device, todo=todo, dtypes=_step_dtypes(options)))
            except DeviceFault as error:
                say(f"error: {case.name}: {error}")
                return FAULT
            session.record(CHECKS, [{"part": part, **x} for x in found])
        return 0
    for group in progress(list(same_shape(check_cases(part, options))), part, options):
        if session.out_of_time():
            break
        try:
            configurations = part == "configurations"
            for _, results in check_group(group, options.device, todo=todo, configurations=configurations):
                session.record(CHECKS, [{"part": part, **x} for x in results])
        except DeviceFault as error:
            say(
                f"error: the GPU reported a fault ({error}); the cell is recorded, run again with --resume for the rest"
            )
            return FAULT
    return 0


def _run_timings(session: Session, part: str) -> int:
    from companion.benchmarks.kernels import host, suites, timing
    from companion.benchmarks.kernels.checks import DeviceFault

    options = session.options
    shapes = select_shapes(timed_shapes(part, options.quick), options.cases)
    if not shapes:
        return 0
    peaks = timing.measured_peaks()
    settings = suites.Settings(options.repeats, peaks, wanted=session.wanted)
    for shape in progress(shapes, part, options):
        if session.out_of_time():
            break
        if part == "tuning":
            from companion.benchmarks.kernels.tuning import tune

            found = tune(shape, repeats=options.repeats, todo=session.todo(part), chunk_size=options.chunk_size)
        elif suite := {"step": suites.steps, "host": host.hosts, "first-call": host.first_calls}.get(part):
            found = suite(shape, settings=settings, todo=session.todo(part))
        else:
            found = _sequences(session, shape, part, settings)
        try:
            for result in found:
                of = identity_today(result["computation"]) if result.get("computation") in OTHER_CELLS else None
                session.record(TIMINGS, [result], **peaks, repeats=options.repeats, **(of._asdict() if of else {}))
        except DeviceFault as error:
            say(
                f"error: the GPU reported a fault ({error}); the cell is recorded, run again with --resume for the rest"
            )
            return FAULT
    return 0


def timed_shapes(part: str, quick: bool = False) -> tuple[Shape, ...]:
    """Shapes of a part of the timings; `quick`: few."""
    if part == "host":
        return host_shapes()
    return {"step": step_shapes, "first-call": first_call_shapes}.get(part, sequence_shapes)(quick)


def _sequences(session: Session, shape: Shape, part: str, settings: Any) -> Iterator[dict[str, Any]]:
    """Results on whole sequences: the mLSTM and attention, then the other cell, then what a newer Triton could run."""
    from companion.benchmarks.kernels import orientation, suites

    asked, refused = session.todo(part), []

    def todo(fields: dict[str, Any]) -> bool:
        if not asked(fields):
            return False
        reason = left_out(fields["implementation"], part)
        refused.extend([{**fields, "skipped": reason}] if reason else [])
        return reason is None

    for suite in (suites, orientation):
        yield from suite.sequences(shape, backward=part == "training", settings=settings, todo=todo)
    yield from refused


def _run_processes(options: argparse.Namespace, parts: list[str]) -> int:
    """Shards of the checks in processes of their own; one that a GPU fault ended goes on behind the faulty cell."""
    count = options.processes
    base = [sys.executable, "-m", "companion.benchmarks.kernels", "--part", *parts]
    for name in ("cases", "implementations", "dtypes"):
        if values := getattr(options, name):
            base += [f"--{name}", *values]
    base += ["--out", options.out, "--device", options.device, *(["--quick"] if options.quick else [])]
    base += ["--max-seconds", str(options.max_seconds)] if options.max_seconds else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}

    def start(index: int, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*base, "--shard", f"{index}/{count}", *more], env=environment)

    running = {index: start(index, *(["--resume"] if options.resume else [])) for index in range(count)}
    restarts, worst = dict.fromkeys(running, 0), 0
    while running:
        for index, process in list(running.items()):
            status = process.poll()
            if status is None:
                continue
            del running[index]
            if status == FAULT and restarts[index] < RESTARTS:
                restarts[index] += 1
                running[index] = start(index, "--resume")
            elif status != 0:
                worst = max(worst, status if status > 0 else FAULT)
                say(f"process {index} of {count} ended with status {status}") if status != 1 else None
        time.sleep(0.2)
    return worst


def _step_cases(options: argparse.Namespace) -> list[Any]:
    from companion.benchmarks.kernels.step_checks import step_cases

    names = options.cases
    cases = [case for case in step_cases() if (case.name in names if names else case.name != "step_tiny")]
    if options.quick:
        cases = cases[:3]
    if options.shard:
        index, count = options.shard
        cases = cases[index::count]
    return cases


def _step_dtypes(options: argparse.Namespace) -> tuple[str, ...]:
    return tuple(options.dtypes) if options.dtypes else (("bfloat16",) if options.quick else DTYPES)


def _check_options(options: argparse.Namespace, parts: Sequence[str]) -> None:
    if options.cases:
        known = {name for case in all_cases() for name in (case.name, case.group)}
        shapes = [shape for part in TIMED_PARTS for shape in timed_shapes(part)]
        known |= {name for shape in shapes for name in (shape.name, shape.heads, shape.size)}
        if any(name.startswith("step_") for name in options.cases):
            known |= _step_names()
        check_names(options.cases, known)
    names = {*implementation_names(), *LIBRARIES}
    names |= {
        ours(size, normalizer_gradient=full, gate=gate).name
        for size in CHUNK_SIZES
        for full in (True, False)
        for gate in ("exponential", "sigmoid")
    }
    for name in options.implementations or ():
        if name not in names:
            raise InputError(f"implementation {name!r} is not known (see --list)")
    if (options.processes > 1 or options.shard) and any(part in TIMED_PARTS for part in parts):
        raise InputError(
            "several processes would disturb each other's timings: use them with --part checks and the like"
        )
    if options.device == "cpu" and any(part in TIMED_PARTS for part in parts):
        raise InputError(f"--device cpu: only checks run there, with --part {' '.join(CHECK_PARTS)}")


def _step_names() -> set[str]:
    _torch()
    from companion.benchmarks.kernels.step_checks import step_cases

    return {case.name for case in step_cases()}


def _device(device: str) -> dict[str, Any]:
    """What the records say of the GPU, or of the interpreter."""
    _torch()
    if device == "cpu":
        if os.environ.get("TRITON_INTERPRET") != "1":
            raise InputError("--device cpu: Triton has no kernels for a CPU; set TRITON_INTERPRET=1 to interpret them")
        return {"gpu": None, "interpreter": os.environ.get("TRITON_INTERPRET") == "1"}
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from companion.benchmarks.hardware import gpu

    return gpu()


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError(f"this benchmark needs torch (extra 'kernels'): {error}") from error
    return torch


def progress(items: Iterable[Any], part: str, options: argparse.Namespace) -> Iterator[Any]:
    """The items, with a bar on stderr if that is a terminal and tqdm is there."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield from items
        return
    yield from tqdm(items, desc=part, disable=options.shard is not None or not sys.stderr.isatty())


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I below N")
    return int(index), int(count)
