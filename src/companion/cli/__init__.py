"""The `companion` command."""

from companion.cli.dispatch import main

__all__ = [
    "main",
]
