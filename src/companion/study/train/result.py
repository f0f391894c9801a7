"""The record of a run that has ended, from its losses and where it ran. Needs torch."""

import math
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np
import torch

from companion.benchmarks.records import git_commit, machine
from companion.study.corpus.base import Corpus
from companion.study.train.history import curve_of, last_loss
from companion.study.train.needed import peak_flops_of
from companion.study.train.recipe import Recipe
from companion.study.train.records import RECORD_VERSION

#: Distributions whose versions a record names, where they are installed.
_PACKAGES = ("torch", "triton", "numpy")


@dataclass
class Progress:
    """How far a run is: everything besides weights and moments that the rest of it depends on.

    Attributes
    ----------
    step
        steps made.
    losses, grad_norms
        (train_steps,) float32; those of steps to come are NaN.
    evaluations
        `step`, `val_loss` and `val_loss_stderr` of each.
    seconds, seconds_compile
        of training, and of compilation and capture, over all sessions.
    peak_memory_bytes
        the highest of all sessions; None on a CPU.
    """

    step: int
    losses: np.ndarray
    grad_norms: np.ndarray
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    seconds_compile: float = 0.0
    peak_memory_bytes: int | None = None

    @classmethod
    def start(cls, recipe: Recipe) -> "Progress":
        """Before the first step."""
        nothing = np.full(recipe.train_steps, np.nan, dtype=np.float32)
        return cls(step=0, losses=nothing, grad_norms=nothing.copy())


def record_of(
    recipe: Recipe,
    progress: Progress,
    corpus: Corpus,
    *,
    diverged: bool,
    launch: str,
    device: torch.device,
    num_gpus: int,
    processes_per_gpu: int | None,
) -> dict[str, Any]:
    """The record of a run after its last step (`companion.study.train.records` names its fields)."""
    steps = progress.step
    losses, norms = progress.losses[:steps], progress.grad_norms[:steps]
    train_loss, train_loss_steps = last_loss(recipe, losses, diverged=diverged)
    last = {} if diverged or not progress.evaluations else progress.evaluations[-1]
    floor = corpus.loss_floor(recipe.context_length)
    num_tokens = steps * recipe.tokens_per_step
    return {
        "record_version": RECORD_VERSION,
        "run_id": recipe.run_id,
        "recipe": recipe.to_dict(),
        "status": "diverged" if diverged else "finished",
        "step": steps,
        "val_loss": last.get("val_loss"),
        "val_loss_stderr": last.get("val_loss_stderr"),
        "train_loss": train_loss,
        "train_loss_steps": train_loss_steps,
        "num_params": recipe.num_params,
        "num_tokens": num_tokens,
        "train_flops": recipe.train_flops * steps / recipe.train_steps,
        "curve": curve_of(recipe, losses, norms),
        "evaluations": [{name: each[name] for name in ("step", "val_loss")} for each in progress.evaluations],
        "loss_floor": None if floor is None else float(floor[0]),
        "loss_floor_stderr": None if floor is None else float(floor[1]),
        **_speed(recipe, progress, device, num_gpus),
        "peak_memory_bytes": progress.peak_memory_bytes,
        "launch": launch,
        "device": device_name(device),
        "num_gpus": num_gpus,
        "processes_per_gpu": processes_per_gpu,
        "machine": machine(),
        "versions": _versions(),
        "git_commit": git_commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "corpus": corpus.describe(),
    }


def evaluation_of(step: int, losses: torch.Tensor) -> dict[str, Any]:
    """An evaluation after a step, from the mean losses (n,) of held-out sequences; None for what is not finite.

    The standard error is over sequences: how far another draw of them would move the mean.
    """
    mean = float(losses.mean())
    error = float(losses.std()) / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
    values = {"val_loss": mean, "val_loss_stderr": error}
    return {"step": step, **{name: value if math.isfinite(value) else None for name, value in values.items()}}


def device_name(device: torch.device) -> str:
    """The GPU as its driver names it, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _speed(recipe: Recipe, progress: Progress, device: torch.device, num_gpus: int) -> dict[str, Any]:
    seconds, share = progress.seconds, progress.step / recipe.train_steps
    peak = peak_flops_of(device_name(device))
    known = seconds > 0 and peak is not None
    return {
        "seconds": seconds,
        "seconds_compile": progress.seconds_compile,
        "tokens_per_s": recipe.num_tokens * share / seconds if seconds > 0 else None,
        "utilization": recipe.train_flops * share / (seconds * peak * max(1, num_gpus)) if known and peak else None,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
