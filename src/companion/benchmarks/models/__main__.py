"""`python -m companion.benchmarks.models SUITE`."""

import argparse
import sys

from companion.benchmarks.models import inference, prefix, profiles, training
from companion.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit status 2 for wrong input, else that of the suite."""
    parser = argparse.ArgumentParser(prog="python -m companion.benchmarks.models")
    suites = parser.add_subparsers(title="suites", metavar="SUITE", required=True)
    for name, module, add in (
        ("inference", inference, inference.add_inference_options),
        ("training", training, training.add_training_options),
        ("profile", profiles, profiles.add_profile_options),
        ("prefix", prefix, prefix.add_prefix_options),
    ):
        new = suites.add_parser(name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        new.set_defaults(run=module.run)
        add(new)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
