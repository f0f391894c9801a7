"""Companion to the paper xLSTM Scaling Laws: accounting, run tables, fits and the book that shows them.

>>> from companion import LossSurface, count_flops, fit, load_runs, preset

Five names are enough to begin with; they load what they need when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from companion.accounting import count_flops
    from companion.architectures import preset
    from companion.fitting import fit
    from companion.laws import LossSurface
    from companion.runs import load_runs

__all__ = ["LossSurface", "count_flops", "fit", "load_runs", "preset"]
__version__ = "0.1.0"

_HOMES = {
    "LossSurface": "companion.laws",
    "count_flops": "companion.accounting",
    "fit": "companion.fitting",
    "load_runs": "companion.runs",
    "preset": "companion.architectures",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'companion' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
