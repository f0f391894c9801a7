"""The `companion` command."""

from companion.cli.dispatch import command_help, main

__all__ = [
    "command_help",
    "main",
]
