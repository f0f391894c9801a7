"""Plans: every run of a design with its recipe and what it will cost, known before anything starts. Needs torch."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd

from companion.accounting import num_params
from companion.architectures import Architecture
from companion.errors import InputError
from companion.formatting import count, quoted
from companion.hardware import Hardware
from companion.paths import check_target, ensure_folder, write_whole
from companion.study.corpus import open_corpus
from companion.study.corpus.base import Corpus
from companion.study.sweep.design import Design, Grid
from companion.study.sweep.ladder import study_architecture
from companion.study.train.files import read_json
from companion.study.train.needed import START_SECONDS, predicted_memory_bytes, predicted_step
from companion.study.train.recipe import Recipe, flops_per_token, usual_learning_rate

#: Name of the plan in the folder of a study, and its layout.
PLAN_FILE, SCHEMA = "plan.json", 1
MAX_BYTES = 200_000_000


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run: its recipe, to what it belongs, and what it is predicted to take.

    Parameters
    ----------
    kind
        architecture by its name in the design: `hybrid` for an xLSTM with layers of attention.
    size
        of the ladder.
    experiment, isoflop_budget
        as in the run table; the budget in FLOP, None outside of IsoFLOP profiles.
    memory_bytes, seconds
        predicted, on one GPU.
    """

    recipe: Recipe
    kind: str
    size: str
    experiment: str
    isoflop_budget: float | None
    memory_bytes: float
    seconds: float

    @property
    def run_id(self) -> str:
        """That of the recipe: the run's record has this name."""
        return self.recipe.run_id

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        labels = ("kind", "size", "experiment", "isoflop_budget", "memory_bytes", "seconds")
        return {
            "run_id": self.run_id,
            **{name: getattr(self, name) for name in labels},
            "recipe": self.recipe.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A run from what `to_dict` gave.

        Raises
        ------
        InputError
            for a value that is missing or wrong, or a recipe that was changed after it was planned.
        """
        labels: dict[str, Any] = {}
        for name, kinds in _LABELS.items():
            if name not in values or isinstance(values[name], bool) or not isinstance(values[name], kinds):
                raise InputError(f"{name}: {values.get(name)!r} is not what a plan holds there")
            labels[name] = values[name]
        if not isinstance(values.get("recipe"), Mapping):
            raise InputError("recipe: it is missing")
        run = cls(recipe=Recipe.from_dict(values["recipe"]), **labels)
        if run.run_id != values.get("run_id"):
            raise InputError(f"recipe: it was changed: it is that of {run.run_id}, not of {values.get('run_id')!r}")
        return run


_LABELS: dict[str, Any] = {
    "kind": str,
    "size": str,
    "experiment": str,
    "isoflop_budget": (int, float, type(None)),
    "memory_bytes": (int, float),
    "seconds": (int, float),
}


@dataclass(frozen=True)
class Plan:
    """All runs of a design, cheapest first."""

    runs: tuple[PlannedRun, ...]

    @property
    def train_flops(self) -> float:
        """C of all runs, FLOP."""
        return float(sum(run.recipe.train_flops for run in self.runs))

    @property
    def seconds(self) -> float:
        """Predicted, one run after the other on one GPU."""
        return float(sum(run.seconds for run in self.runs))

    def table(self) -> pd.DataFrame:
        """A row per run: what it is, and what it will take."""
        rows = [
            {
                "run_id": run.run_id,
                "experiment": run.experiment,
                "architecture": run.kind,
                "size": run.size,
                "context_length": run.recipe.context_length,
                "seed": run.recipe.seed,
                "isoflop_budget": run.isoflop_budget,
                "num_params": run.recipe.num_params,
                "num_tokens": run.recipe.num_tokens,
                "train_flops": run.recipe.train_flops,
                "batch_size_seqs": run.recipe.batch_size_seqs,
                "train_steps": run.recipe.train_steps,
                "learning_rate": run.recipe.learning_rate,
                "memory_bytes": run.memory_bytes,
                "seconds": run.seconds,
            }
            for run in self.runs
        ]
        return pd.DataFrame(rows)


def make_plan(design: Design, hardware: Hardware, utilization: float | None = None) -> Plan:
    """The runs of a design, each once, cheapest first.

    Parameters
    ----------
    hardware
        of the predicted times: those of one run after the other on one such GPU.
    utilization
        share of its peak FLOP/s that every run is taken to reach; None predicts the time of a step from its shapes
        (`companion.study.train.needed`).

    Raises
    ------
    InputError
        for a run that cannot be trained: fewer steps than its warm-up has, a batch that is no whole number of
        sequences, more tokens than the corpus has, more memory than the GPU has.

    Examples
    --------
    >>> from companion.hardware import get_hardware
    >>> from companion.study.sweep.design import example_design, read_design
    >>> plan = make_plan(read_design(example_design()), get_hardware("h200-sxm"))
    >>> len(plan.runs), f"{plan.train_flops:.2g} FLOP"
    (18, '4.2e+11 FLOP')
    """
    if utilization is not None and not 0 < utilization <= 1:
        raise InputError(f"utilization {utilization:g} is not above 0 and at most 1")
    corpus = open_corpus(design.corpus)
    found: dict[str, PlannedRun] = {}
    for number, grid in enumerate(design.grids, start=1):
        for run in _runs_of(design, grid, corpus, f"[[grid]] {number}"):
            if run.run_id not in found:
                found[run.run_id] = _priced(run, hardware, utilization)
    return Plan(tuple(sorted(found.values(), key=lambda run: (run.recipe.train_flops, run.run_id))))


def _runs_of(design: Design, grid: Grid, corpus: Corpus, where: str) -> Iterable[PlannedRun]:
    lengths = grid.budgets or grid.tokens_per_param
    batches = grid.tokens_per_step * (len(lengths) if len(grid.tokens_per_step) == 1 else 1)
    for kind in grid.architectures:
        for size in grid.sizes:
            try:
                architecture = study_architecture(kind, size, corpus.vocab_size)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            for context_length in grid.context_lengths:
                for length, batch in zip(lengths, batches, strict=True):
                    what = (
                        f"{where}: {kind} {size}, T = {context_length}, {'C' if grid.budgets else 'D/N'} = {length:g}"
                    )
                    if batch % context_length:
                        raise InputError(f"{what}: tokens_per_step {batch} is no whole number of sequences")
                    steps = _steps(architecture, context_length, length, batch, bool(grid.budgets), what)
                    for seed in grid.seeds:
                        for factor in grid.rate_factors:
                            recipe = _recipe(design, architecture, context_length, batch, steps, seed, factor, what)
                            _check_tokens(recipe, corpus, what)
                            yield PlannedRun(
                                recipe=recipe,
                                kind=kind,
                                size=size,
                                experiment=grid.experiment,
                                isoflop_budget=float(length) if grid.budgets else None,
                                memory_bytes=0.0,
                                seconds=0.0,
                            )


def _steps(architecture: Architecture, context_length: int, length: float, batch: int, budget: bool, what: str) -> int:
    """Steps of a run, to the nearest whole number."""
    tokens = length * float(num_params(architecture))
    if budget:
        tokens = length / flops_per_token(architecture, context_length)
    steps = round(tokens / batch)
    if steps < 1:
        raise InputError(f"{what}: {count(tokens)} tokens are less than one step of {batch}: lower tokens_per_step")
    return steps


def _recipe(
    design: Design,
    architecture: Architecture,
    context_length: int,
    batch: int,
    steps: int,
    seed: int,
    factor: float,
    what: str,
) -> Recipe:
    values: dict[str, Any] = {
        "architecture": architecture,
        "corpus": design.corpus,
        "context_length": context_length,
        "batch_size_seqs": batch // context_length,
        "train_steps": steps,
        "learning_rate": float(f"{usual_learning_rate(architecture) * factor:.6g}"),
        "seed": seed,
    }
    given = sorted(set(values) & set(design.options))
    if given:
        raise InputError(f"[study]: {given[0]}: every run has its own")
    known = [each.name for each in fields(Recipe) if each.name not in values]
    if unknown := [name for name in design.options if name not in known]:
        raise InputError(f"[study]: {quoted(unknown[0])} is not one of corpus, {', '.join(known)}")
    try:
        return Recipe(**values, **design.options)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _check_tokens(recipe: Recipe, corpus: Corpus, what: str) -> None:
    there = corpus.num_sequences(recipe.context_length)
    needed = recipe.batch_size_seqs * recipe.train_steps
    if there is not None and needed > there:
        raise InputError(
            f"{what}: {needed} sequences are needed, the corpus {quoted(corpus.name)} has {there} of this length"
        )


def _priced(run: PlannedRun, hardware: Hardware, utilization: float | None) -> PlannedRun:
    memory = float(predicted_memory_bytes(run.recipe))
    if memory > hardware.memory_bytes:
        raise InputError(
            f"{run.kind} {run.size}, T = {run.recipe.context_length}: {count(memory)} bytes of memory are needed, "
            f"{hardware.label} has {count(hardware.memory_bytes)}: lower tokens_per_step"
        )
    if utilization is None:
        step = predicted_step(run.recipe, hardware.peak_flops_per_s, hardware.peak_bytes_per_s)
        training = run.recipe.train_steps * step.total
    else:
        training = run.recipe.train_flops / (utilization * hardware.peak_flops_per_s)
    return replace(run, memory_bytes=float(f"{memory:.3g}"), seconds=float(f"{START_SECONDS + training:.3g}"))


# ---- the file ------------------------------------------------------------------------------------


def write_plan(plan: Plan, folder: Path, *, replace_all: bool = False) -> Path:
    """Write a plan to the folder of a study, which is made if there is none. A plan that is there grows.

    Runs of an earlier plan stay, so that a study can grow in steps; with `replace_all` the new ones alone are planned.

    Returns
    -------
    Path
        of the file.

    Raises
    ------
    InputError
        if the folder cannot be made or written to, or holds a plan that cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_plan(Plan(()), Path(folder)).name
    'plan.json'
    """
    ensure_folder(folder)
    path = folder / PLAN_FILE
    check_target(path)
    runs = {run.run_id: run for run in read_plan(folder).runs} if path.exists() and not replace_all else {}
    runs |= {run.run_id: run for run in plan.runs}
    ordered = sorted(runs.values(), key=lambda run: (run.recipe.train_flops, run.run_id))
    content: dict[str, Any] = {"schema": SCHEMA, "runs": [run.to_dict() for run in ordered]}
    content["checksum"] = _checksum(content["runs"])
    write_whole(path, json.dumps(content, indent=1) + "\n")
    return path


def read_plan(folder: str | os.PathLike[str]) -> Plan:
    """The plan in the folder of a study.

    Raises
    ------
    InputError
        if there is none, it is cut short, or it was changed by hand.

    Examples
    --------
    >>> read_plan("nowhere")
    Traceback (most recent call last):
    ...
    companion.errors.InputError: nowhere/plan.json: there is no plan; `companion study plan` makes one
    """
    path = Path(folder) / PLAN_FILE
    name = str(path)
    if not os.path.lexists(path):
        raise InputError(f"{name}: there is no plan; `companion study plan` makes one")
    content = read_json(path, MAX_BYTES)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("runs"), list):
        raise InputError(f"{name}: no plan of layout {SCHEMA}")
    if content.get("checksum") != _checksum(content["runs"]):
        raise InputError(f"{name}: it was changed by hand: change the design and plan again")
    runs = []
    for number, values in enumerate(content["runs"], start=1):
        try:
            runs.append(PlannedRun.from_dict(values))
        except InputError as error:
            raise InputError(f"{name}: run {number}: {error}") from error
    return Plan(tuple(runs))


def _checksum(runs: list[Any]) -> str:
    return hashlib.sha256(json.dumps(runs, sort_keys=True).encode()).hexdigest()
