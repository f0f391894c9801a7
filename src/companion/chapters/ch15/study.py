"""Chapter 15: the tables of a study, its plan, and which runs belong to what."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.benchmarks.records import latest_record
from companion.chapters import labels
from companion.chapters.applicability import choose_pair, need, optional
from companion.chapters.labels import label_of
from companion.fitting.isoflop import IsoflopFit, fit_isoflop
from companion.fitting.isoflop.select import isoflop_runs
from companion.formatting import listed, power_of_ten
from companion.hardware import get_hardware
from companion.paths import data_dir
from companion.plotting.style import architecture_look
from companion.runs import load_runs
from companion.runs.context_length import choose_context
from companion.runs.select import subset
from companion.study.train.needed import StepSeconds, hardware_of, predicted_step
from companion.study.train.recipe import Recipe
from companion.training import load_training_curves, load_training_logs

#: GPU of the predicted times of the plan.
HARDWARE = "h200-sxm"
#: Experiments of a design, as pages call them.
EXPERIMENTS = {"isoflop": "IsoFLOP", "tokenparam": "Token/Param", "learning_rate": "learning rates"}
#: The experiment whose runs have other learning rates than the rest.
LEARNING_RATE = "learning_rate"


@dataclass(frozen=True, kw_only=True)
class OwnStudy:
    """What the chapter works on.

    `runs` is the run table, `logs` and `curves` those of `companion.training`, `plan` one row per planned run with the
    column `trained`, and `steps` the times of steps that had the GPU to themselves; each None where there is none.
    `pair` are the two architectures that are compared, at `context_length` tokens (None: the table names none).
    """

    runs: pd.DataFrame
    logs: pd.DataFrame | None
    curves: pd.DataFrame | None
    plan: pd.DataFrame | None
    steps: pd.DataFrame | None
    context_length: int | None
    pair: tuple[str, str]
    ours: bool

    @property
    def architectures(self) -> list[str]:
        """All of the table, the two that are compared first."""
        others = sorted(set(self.runs["architecture"]) - set(self.pair))
        return [*self.pair, *others]

    @property
    def labels(self) -> tuple[str, str]:
        """What pages call the pair."""
        return label_of(self.pair[0]), label_of(self.pair[1])

    @property
    def contexts(self) -> list[int]:
        """Context lengths of the table, ascending."""
        if "context_length" not in self.runs:
            return []
        return sorted({int(length) for length in self.runs["context_length"].dropna()})

    @property
    def at_context(self) -> pd.DataFrame:
        """Runs at the context, without those of other learning rates."""
        runs = subset(self.runs, context_length=self.context_length)
        return runs[runs["experiment"] != LEARNING_RATE] if "experiment" in runs else runs

    @cached_property
    def looks(self) -> dict[str, dict[str, Any]]:
        """Color, marker and label of every architecture."""
        return architecture_look(self.architectures)

    def of(self, name: str) -> pd.DataFrame:
        """Runs of an architecture at the context, without those of other learning rates."""
        runs = self.at_context
        return runs[runs["architecture"] == name]

    def profiles(self, num_resamples: int, seed: int = 0) -> dict[str, IsoflopFit]:
        """Profiles of every architecture that has a budget with an optimum; draws of each are its own."""
        found = {}
        for number, name in enumerate(self.architectures):
            iso = optional(isoflop_runs, self.runs, name, self.context_length)
            if iso is not None and has_optimum(iso):
                found[name] = fit_isoflop(iso, num_resamples=num_resamples, seed=seed + number)
        need(found, "no budget of the table has a profile with a minimum")
        return found


def has_optimum(iso: pd.DataFrame) -> bool:
    """Whether a budget of these IsoFLOP runs has three sizes, which a parabola needs, and a minimum."""
    from companion.fitting.isoflop.profiles import fit_profile, isoflop_groups

    groups = isoflop_groups(iso, "num_params").items()
    return any(fit_profile(b, g["num_params"], g["val_loss"], g["train_flops"]).has_optimum for b, g in groups)


def load_study(
    runs_file: str | Path | None = None,
    logs_file: str | Path | None = None,
    curves_file: str | Path | None = None,
    design_file: str | Path | None = None,
    context_length: int | None = None,
) -> OwnStudy:
    """The tables of a study; without a run table those of the recorded one, with its design.

    Raises
    ------
    NotApplicable
        if the table has one architecture only.
    InputError
        if a file cannot be read or is no such table, or the context is not in it.
    """
    ours = runs_file is None
    if ours:
        runs_file, logs_file, curves_file, design_file = recorded_files("study")
    assert runs_file is not None
    runs = load_runs(runs_file)
    pair = choose_pair(sorted(runs["architecture"].unique()))
    both = runs[runs["architecture"].isin(pair)]
    return OwnStudy(
        runs=runs,
        logs=None if logs_file is None else load_training_logs(logs_file),
        curves=None if curves_file is None else load_training_curves(curves_file),
        plan=None if design_file is None else planned(design_file, runs),
        steps=step_times(data_dir() / "benchmarks" / "study.jsonl") if ours else None,
        context_length=choose_context(both, context_length, source="the study").context_length,
        pair=pair,
        ours=ours,
    )


def recorded_files(name: str) -> list[Path]:
    """Run table, logs, curves and design of a study of the project."""
    ends = ("runs.csv", "runs_logs.csv", "runs_curves.csv.gz", "design.toml")
    return [data_dir() / f"{name}_{end}" for end in ends]


def far_study(study: OwnStudy) -> OwnStudy:
    """The study whose losses are far from the entropy: beside ours the earlier one; a reader's own is its own."""
    if not study.ours:
        return study
    runs, logs, curves, design = recorded_files("study_v1024")
    return load_study(runs, logs, curves, design, context_length=study.context_length)


def planned(design_file: str | Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Every run of a design with what it is predicted to take, and whether the table has it (column `trained`)."""
    from companion.study.sweep import make_plan, read_design  # needs torch

    table = make_plan(read_design(design_file), get_hardware(HARDWARE)).table()
    return table.assign(trained=table["run_id"].isin(runs.get("run", [])))


def step_times(path: Path) -> pd.DataFrame | None:
    """Times of training steps that had the GPU to themselves, of the last record in a file; None without the file.

    Returns
    -------
    DataFrame
        of deterministic steps, as training makes them: `architecture`, `size`, `vocab_size`, `num_params`,
        `context_length`, `launch`, `tokens_per_step`, `seconds_per_step`, `seconds_first`, `utilization`,
        `peak_memory_bytes`, `predicted_memory_bytes`; and the predicted seconds of a step in a CUDA graph,
        `computing`, `moving`, `latency` (NaN for a GPU that `data/hardware.csv` lacks).
    """
    if not path.exists():
        return None
    record = latest_record(path, "study")
    steps = pd.DataFrame([each for each in record["results"] if each["part"] == "step"])
    steps = steps[steps["deterministic"]].reset_index(drop=True).assign(vocab_size=record["parameters"]["vocab_size"])
    parts = [predicted_parts(row, record["parameters"]["device"]) for row in steps.to_dict("records")]
    return steps.join(pd.DataFrame(parts, columns=StepSeconds._fields))


def predicted_parts(step: Mapping[Hashable, Any], device: str) -> StepSeconds:
    """What the plan of a study would have said of a recorded step on this device."""
    from companion.study.sweep import study_architecture  # needs torch

    if (name := hardware_of(device)) is None:
        return StepSeconds(np.nan, np.nan, np.nan)
    recipe = Recipe(
        architecture=study_architecture(step["architecture"], step["size"], step["vocab_size"]),
        corpus="source",
        context_length=step["context_length"],
        batch_size_seqs=step["tokens_per_step"] // step["context_length"],
        train_steps=1,
        learning_rate=1e-3,
    )
    hardware = get_hardware(name)
    return predicted_step(recipe, hardware.peak_flops_per_s, hardware.peak_bytes_per_s)


def part_of(row: pd.Series) -> str:
    """What a page calls the part of a design that a run belongs to: its experiment and its budget."""
    name = EXPERIMENTS.get(row["experiment"], str(row["experiment"]))
    budget = row["isoflop_budget"]
    return name if np.isnan(budget) else f"{name}, {power_of_ten(budget)}"


def by_architecture(words: Mapping[str, str]) -> str:
    """What is said of every architecture: once where it is the same for all.

    >>> by_architecture({"xlstm": "rises", "transformer": "falls"})
    'rises for the xLSTM and falls for the Transformer'
    >>> by_architecture({"xlstm": "rises", "transformer": "rises"})
    'rises for both'
    """
    if len(words) == 2 and len(set(words.values())) == 1:
        return f"{next(iter(words.values()))} for both"
    return listed(f"{text} for {the(name)}" for name, text in words.items())


def the(name: str) -> str:
    """An architecture inside a sentence: the Transformer, the xLSTM, the hybrid; one that nobody knows as it is.

    >>> the("hybrid"), the("xlstm"), the("gpt")
    ('the hybrid', 'the xLSTM', 'gpt')
    """
    return "the hybrid" if name == "hybrid" else labels.the(name)
