"""`python -m companion.study.sweep`: train a plan where torch is and little else (see `companion study run`)."""

import argparse
import sys
from pathlib import Path

import torch

from companion.errors import InputError
from companion.study.sweep.execute import FAILED, Workers, run_plan
from companion.study.sweep.plan import read_plan


def main(arguments: list[str] | None = None) -> int:
    """Train what a plan has and its folder lacks. Exit status: 0 done, 1 a run failed, 2 bad input, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m companion.study.sweep", description=main.__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with the plan, and for the records")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda where there is a GPU")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1, this one)")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="begin no run that would end later")
    options = parser.parse_args(arguments)
    there = torch.cuda.is_available()
    try:
        workers = Workers(
            device=options.device or ("cuda" if there else "cpu"),
            number=options.workers,
            num_gpus=max(1, torch.cuda.device_count()),
        )
        ended = run_plan(read_plan(options.folder), options.folder, workers, max_seconds=options.max_seconds)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        return 130
    for each in ended:
        print(f"{each.run_id} {each.status}{': ' if each.reason else ''}{each.reason}", flush=True)
    return int(any(each.status == FAILED for each in ended))


if __name__ == "__main__":
    sys.exit(main())
