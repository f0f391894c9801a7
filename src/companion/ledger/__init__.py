"""The ledger: every published number beside ours, with a tolerance and a verdict."""

from companion.ledger.entries import (
    DIFFERS,
    NOT_ATTEMPTED,
    REPRODUCED,
    SPREAD_FACTOR,
    LedgerRow,
    build_ledger,
    half_unit,
    load_published,
    summarize,
    to_frame,
)

__all__ = [
    "DIFFERS",
    "NOT_ATTEMPTED",
    "REPRODUCED",
    "SPREAD_FACTOR",
    "LedgerRow",
    "build_ledger",
    "half_unit",
    "load_published",
    "summarize",
    "to_frame",
]
