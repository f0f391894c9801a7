"""The command `companion`, also as `python -m companion`."""

import sys


def main() -> int:
    """Run the command line; return the exit status. Imports come late: Ctrl-C while they run is one line too."""
    try:
        from companion.cli.dispatch import main as run

        return run()
    except KeyboardInterrupt:
        print("companion: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
