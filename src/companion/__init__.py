"""Companion to the paper xLSTM Scaling Laws: accounting, run tables, fits and the book that shows them."""

__version__ = "0.1.0"
