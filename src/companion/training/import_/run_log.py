"""One training run as it is read from any log, and the names under which people log its quantities."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.formatting import quoted
from companion.runs.import_.values import ALIASES
from companion.runs.schema import OPTIONAL_SHAPE_COLUMNS
from companion.training.logs import LOG_SCHEMA

#: Columns of a history; units as in the tables, `elapsed_s` seconds of wall time since any moment.
HISTORY = ("step", "train_loss", "val_loss", "grad_norm", "step_time_s", "elapsed_s")
#: What is true of a run as a whole. Only these names pass; everything else of a log is dropped.
SETTINGS = (
    *(n for n in LOG_SCHEMA.columns if n not in (*HISTORY, "run", "step_time_q25_s", "step_time_q75_s", "in_runs_csv")),
    *OPTIONAL_SHAPE_COLUMNS,
    "state",
)
TEXT_SETTINGS = ("architecture", "group", "status", "state")
#: What a mapping may name.
TARGETS = ("run", *HISTORY, *SETTINGS)

_LOG_ALIASES: dict[str, tuple[str, ...]] = {
    "run": ("run", "run_name", "run_id", "name", "display_name", "experiment_name", "exp_name", "id"),
    "step": (
        "step", "_step", "global_step", "trainer_global_step", "train_global_step", "iteration", "iter", "it",
        "update", "train_step", "steps",
    ),
    "train_loss": (
        "train_loss", "train_loss_mean", "training_loss", "loss_train", "train_ce", "train_ce_loss", "train_lm_loss",
        "lm_loss", "train_cross_entropy", "train_cross_entropy_loss", "loss",
    ),
    "val_loss": (
        "val_loss", "validation_loss", "valid_loss", "eval_loss", "loss_val", "val_ce", "val_lm_loss", "eval_lm_loss",
        "val_cross_entropy", "test_loss", "lm_loss_validation", "val_dclm_loss",
    ),
    "grad_norm": (
        "grad_norm", "train_grad_norm", "train_grad_norm_mean", "gradient_norm", "gnorm", "optim_total_grad_norm",
    ),
    "step_time_s": (
        "step_time_s", "step_time", "train_step_time", "time_per_step", "iteration_time", "iter_time", "sec_per_step",
        "seconds_per_step", "perf_step_time",
    ),
    "elapsed_s": (
        "elapsed_s", "_runtime", "runtime", "relative_time_process", "elapsed", "elapsed_time", "wall_time",
        "_timestamp",
    ),
    "num_gpus": ("num_gpus", "n_gpus", "gpus", "gpu_count", "world_size", "num_devices", "ngpus"),
    "fsdp_size": ("fsdp_size", "fsdp_axis_size"),
    "train_steps": (
        "train_steps", "num_train_steps", "max_steps", "total_steps", "max_iters", "num_steps", "n_steps",
    ),
    "warmup_steps": ("warmup_steps", "num_warmup_steps", "warmup", "warmup_iters"),
    "cooldown_steps": ("cooldown_steps", "decay_steps_to_zero", "cooldown"),
    "num_tokens": ("num_tokens", "total_tokens", "train_tokens", "tokens_seen", "tokens", "consumed_tokens"),
    "status": ("status",),
    "state": ("state", "_state"),
    "group": ("group", "study"),
}  # fmt: skip


def short_name(name: str) -> str:
    """A column's name in lower case, words joined by underscores: `train/.loss_mean` is `train_loss_mean`."""
    return re.sub(r"[^0-9a-z_]+", "_", name.strip().lower()).strip("_") if name != "_step" else "_step"


def aliases(target: str) -> tuple[str, ...]:
    """Usual names of a column, in the order of preference, as `short_name` writes them."""
    return _LOG_ALIASES.get(target) or ALIASES.get(target) or (target,)


def find_name(target: str, names: Iterable[str]) -> list[str]:
    """Those names that are the best usual name of a column: whole ones before the last part of nested ones.

    `config.model.n_layers` has the last part `n_layers`; `train/loss` is `train_loss` as a whole.
    """
    names = list(names)
    for ending in (False, True):
        if ending and target in HISTORY:
            continue  # the last part of `train/loss` and `val/loss` is the same
        plain = {name: short_name(re.split(r"[./]", name)[-1] if ending else name) for name in names}
        for alias in aliases(target):
            if ending and len(alias) <= 2:
                continue
            if found := [name for name, short in plain.items() if short in (alias, alias.strip("_"))]:
                return found
    return []


@dataclass(kw_only=True)
class RunLog:
    """The log of one run.

    `run` is its key, `where` says where it was read, for messages. `settings` has values for some of `SETTINGS`.
    `history` has the columns `HISTORY`, one row a record in the order of the log, its index the row of the file; NaN
    where nothing was logged, infinite where the logged value was not finite (a loss of NaN, say).
    """

    run: str
    where: str
    settings: dict[str, Any] = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=lambda: make_history({}))
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = key_text(self.run)
        for name in TEXT_SETTINGS:
            if isinstance(self.settings.get(name), str):
                self.settings[name] = key_text(self.settings[name])
        if unknown := [name for name in self.settings if name not in SETTINGS]:
            raise ValueError(f"not a setting of a run: {unknown}")


def key_text(key: str) -> str:
    """A run's key; of a path only the last part, so that no folder of anybody's home arrives in a table."""
    text = str(key).strip()
    if text.startswith(("/", "~", "\\")) or re.match(r"[A-Za-z]:[\\/]|\w+://", text):
        text = re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    return text or "run"


def make_history(columns: dict[str, Any], index: Any = None) -> pd.DataFrame:
    """A history from some of its columns; the others are empty."""
    frame = pd.DataFrame({name: pd.Series(values, dtype=float) for name, values in columns.items()})
    frame = frame.reindex(columns=list(HISTORY)).astype(float)
    if index is not None:
        frame.index = pd.Index(index)
    return frame


def join(logs: Iterable[RunLog], distinguish: bool = False) -> list[RunLog]:
    """Logs that belong to one run put together: one metric from one file, another from the next.

    Two logs with one key belong together if no quantity is in both. Otherwise they are two runs.

    Parameters
    ----------
    logs
        in the order in which they were read.
    distinguish
        give the second run of a key the key `NAME#2`, the third `NAME#3`.

    Raises
    ------
    InputError
        if two runs have one key and are not to be distinguished; the line names both.
    """
    found: dict[str, RunLog] = {}
    for log in logs:
        before = found.get(log.run)
        if before is None:
            found[log.run] = log
            continue
        both = _measured(before.history) & _measured(log.history)
        clash = [n for n in log.settings if n in before.settings and before.settings[n] != log.settings[n]]
        if not both and not clash:
            before.history = _merged(before.history, log.history)
            before.settings |= log.settings
            before.notes += log.notes
            continue
        if not distinguish:
            what = f"both have {sorted(both)[0]}" if both else f"they differ in {clash[0]}"
            raise InputError(
                f"two runs have the key {quoted(log.run)}: {before.where} and {log.where} ({what}); give "
                "--distinguish to keep them apart"
            )
        number = next(n for n in range(2, len(found) + 3) if f"{log.run}#{n}" not in found)
        log.run = f"{log.run}#{number}"
        found[log.run] = log
    return list(found.values())


def _measured(history: pd.DataFrame) -> set[str]:
    return {name for name in HISTORY[1:-1] if history[name].notna().any()}


def _merged(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Two histories of one run, as one: records of the same step and the same attempt are one record."""
    parts = [part.assign(attempt=attempts(part)) for part in (first, second) if len(part)]
    if not parts:
        return first
    table = pd.concat(parts).sort_values(["attempt", "step"], kind="stable")
    return table.groupby(["attempt", "step"], sort=True, as_index=False).last()[list(HISTORY)]


def attempts(history: pd.DataFrame) -> np.ndarray:
    """How often a run had been restarted before each record.

    It was where a quantity is logged again at the same step or an earlier one. A validation that is written after the
    next training step is no restart.
    """
    steps = history["step"].to_numpy(dtype=float)
    number = np.zeros(len(steps), dtype=int)
    if not (np.diff(steps) <= 0).any():
        return number
    known = history.drop(columns=["step", "elapsed_s"]).notna().to_numpy()
    latest = np.full(known.shape[1], -np.inf)
    for row, step in enumerate(steps):
        number[row] = number[row - 1] if row else 0
        if (step <= latest[known[row]]).any():
            number[row] += 1
            latest[:] = -np.inf
        latest[known[row]] = step
    return number
