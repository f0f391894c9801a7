"""Companion to the paper xLSTM Scaling Laws: accounting, run tables, fits and the book that shows them."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("xlstm-scaling-companion")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "unknown"
