"""Training one language model of a study: what a run is, its record, and the run itself.

Recipes, schedules and records need no torch; `train` does, and loads it when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from companion.study.train.recipe import Recipe, usual_learning_rate
from companion.study.train.records import DamagedRecord, read_record, record_path, write_record

if TYPE_CHECKING:
    from companion.study.train.setting import RunInProgress
    from companion.study.train.trainer import train

__all__ = [
    "DamagedRecord",
    "Recipe",
    "RunInProgress",
    "read_record",
    "record_path",
    "train",
    "usual_learning_rate",
    "write_record",
]
_LAZY = {"RunInProgress": "companion.study.train.setting", "train": "companion.study.train.trainer"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
