"""Chapter 12: the tables it works on, and which runs of them can be compared."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.applicability import PAPER_BUDGETS, need, need_paper, optional
from companion.fitting import fit
from companion.fitting.fit import Fit
from companion.fitting.isoflop.profiles import fit_isoflop
from companion.fitting.isoflop.select import budgets_between, isoflop_runs
from companion.laws import LossSurface
from companion.runs import load_paper_runs, load_runs
from companion.training import load_training_curves, load_training_logs
from companion.training.batch import batch_table, pair_batches
from companion.training.curve_faults import common_noise, parting
from companion.training.curves import FAMILY, finished_runs, with_budgets

#: What two trainings of one configuration share, where a table has the column.
CONFIGURATION = (
    "architecture", "context_length", "num_params", "num_tokens", "batch_size_seqs", "learning_rate", "d_model",
    "n_layers", "n_heads", "d_qk", "d_hv", "d_ff",
)  # fmt: skip
#: The group of the logs that is the paper's own design.
OWN_GROUP = "isoflop"
#: Fewer pairs than this are no experiment on the batch.
LEAST_PAIRS = 4
#: Fewer runs than this are no profile.
LEAST_PROFILE = 5
#: N · D of runs at one budget differ by less than this factor; budgets of a study lie farther apart.
ONE_BUDGET = 1.5


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the chapter works on.

    `runs` is the run table (for a reader's logs without one, their finished runs), `logs` and `curves` those of
    `companion.training`, `curves` None where a reader gives none. `pairs` are the runs of `batches` (two batch sizes,
    sequences) that differ in nothing else, of one architecture and context length; `other_pairs` are the rest of all
    pairs, by both batch sizes. `twins` are the names of two trainings of one configuration, the worse one first. All
    three are empty or None where there are none.
    """

    runs: pd.DataFrame
    logs: pd.DataFrame
    curves: pd.DataFrame | None
    of_paper: bool
    batches: tuple[float, float] | None
    pairs: pd.DataFrame | None
    other_pairs: dict[tuple[float, float], pd.DataFrame]
    twins: tuple[str, str] | None

    @property
    def finished(self) -> pd.DataFrame:
        """The logs of runs that finished."""
        return self.logs[self.logs["status"] == "finished"]

    @property
    def losses(self) -> pd.Series:
        """Final validation loss by the name of the run, nats per token."""
        return self.logs.set_index("run")["val_loss"]


def load_study(
    runs_file: str | Path | None = None, logs_file: str | Path | None = None, curves_file: str | Path | None = None
) -> Study:
    """The tables of the chapter; without a file the paper's runs and the authors' logs.

    Raises
    ------
    NotApplicable
        if a reader gives a run table without logs: a table of final losses cannot show what it hides.
    InputError
        if a file cannot be read or is no such table.
    """
    own = [name for name in (runs_file, logs_file, curves_file) if name is not None]
    need(
        not own or logs_file is not None,
        "a run table holds final losses only; this chapter needs training logs (logs_file), and curves (curves_file)",
    )
    logs = load_training_logs(logs_file)
    curves = None if own and curves_file is None else load_training_curves(curves_file)
    runs = load_runs(runs_file) if runs_file is not None else finished_runs(logs) if own else load_paper_runs()
    return study_of(runs, logs, curves, of_paper=not own, runs_given=not own or runs_file is not None)


def study_of(
    runs: pd.DataFrame, logs: pd.DataFrame, curves: pd.DataFrame | None, *, of_paper: bool, runs_given: bool = True
) -> Study:
    """A study of tables in memory; `runs_given` is False where `runs` are the logs themselves."""
    table = batch_table(runs, logs) if runs_given and "batch_size_seqs" in runs and "train_steps" in runs else logs
    found = all_pairs(table)
    largest = sorted(((len(pairs), key) for key, pairs in found.items()), key=lambda each: -each[0])
    chosen = largest[0][1] if largest else None
    others: dict[tuple[float, float], list[pd.DataFrame]] = {}
    for (batches, family), pairs in found.items():
        if (batches, family) != chosen:
            others.setdefault(batches, []).append(pairs)
    return Study(
        runs=runs,
        logs=logs,
        curves=curves,
        of_paper=of_paper,
        batches=None if chosen is None else chosen[0],
        pairs=None if chosen is None else found[chosen],
        other_pairs={batches: pd.concat(pairs, ignore_index=True) for batches, pairs in others.items()},
        twins=find_twins(logs),
    )


def all_pairs(table: pd.DataFrame) -> dict[tuple[tuple[float, float], Any], pd.DataFrame]:
    """Pairs by their two batch sizes (sequences) and their family, where there are at least `LEAST_PAIRS`."""
    if "batch_size_seqs" not in table:
        return {}
    found = {}
    sizes = sorted(float(size) for size in table["batch_size_seqs"].dropna().unique())
    for both in combinations(sizes, 2):
        pairs = optional(pair_batches, table, *both)
        if pairs is not None:
            by = [name for name in FAMILY if name in pairs]
            for family, part in pairs.groupby(by):
                found[both, family] = part.reset_index(drop=True)
    return {key: pairs for key, pairs in found.items() if len(pairs) >= LEAST_PAIRS}


def need_one_budget(pairs: pd.DataFrame) -> None:
    """Leave out a profile of pairs that belong to several budgets of compute.

    Raises
    ------
    NotApplicable
        if N · D of the pairs differs by more than `ONE_BUDGET`.
    """
    work = pairs["num_params"] * pairs["second_num_tokens"].astype(float)
    need(
        work.max() < ONE_BUDGET * work.min(),
        f"the pairs belong to several budgets of compute (N D differs by a factor of {work.max() / work.min():.2g}); "
        "a profile has one",
    )


def num_logged(study: Study) -> int:
    """Logged runs that finished at the larger batch of the pairs, of their architecture and context; paired or not."""
    assert study.pairs is not None
    assert study.batches is not None
    done, like = study.finished, study.pairs.iloc[0]
    chosen = done["batch_size_seqs"] == study.batches[1]
    for name in FAMILY:
        chosen &= done[name] == like[name]
    return max(int(chosen.sum()), len(study.pairs))


def parted(study: Study) -> tuple[int | None, pd.DataFrame] | None:
    """Where the twins part and by how much (`companion.training.curve_faults.parting`); None without their curves."""
    if study.twins is None or study.curves is None:
        return None
    found: tuple[int | None, pd.DataFrame] | None = optional(parting, study.curves, *study.twins)
    return found


def design_noise(study: Study, begin: int) -> float | None:
    """How far all runs of the twins' family and batch rise and fall together after a step; None if unknown."""
    assert study.twins is not None
    done = study.finished
    like = done[done["run"] == study.twins[0]].iloc[0]
    for name in (*FAMILY, "batch_size_seqs"):
        done = done[done[name] == like[name]] if name in done else done
    others = done[~done["run"].isin(study.twins)]
    found: float | None = optional(common_noise, study.curves, others["run"].tolist(), begin=begin)
    return found


def twin_choice(study: Study, design: pd.DataFrame) -> pd.DataFrame:
    """Fits of a design with the better and with the worse of the two twins.

    Parameters
    ----------
    design
        from `selection_runs`.

    Returns
    -------
    DataFrame
        indexed by `better` and `worse`: `E`, `alpha`, `beta` of the law, `exponent` of N\\*(C), and of the twins'
        budget `optimum` (N\\*) and `least loss` of its parabola.

    Raises
    ------
    NotApplicable
        if the configuration is not in the design, or its budget has no optimum.
    """
    assert study.twins is not None
    like = study.logs[study.logs["run"] == study.twins[0]].iloc[0]
    same = (design["num_params"] == like["num_params"]) & (design["num_tokens"] == like["num_tokens"])
    need(same.any(), "the configuration that was trained twice is in no budget of the design")
    rows = []
    for run in reversed(study.twins):
        one = design[same].head(1).assign(val_loss=study.losses[run])
        table = pd.concat([design[~same], one])
        law, profiles = fit_law(table).parameters, fit_isoflop(table, num_resamples=0)
        own = [each for each in profiles.optima if np.isclose(each.isoflop_budget, one["isoflop_budget"].iloc[0])]
        need(own, "the budget of the configuration that was trained twice has no optimum")
        rows.append(
            {name: law[name] for name in ("E", "alpha", "beta")}
            | {"exponent": profiles.power_law.law.exponent, "optimum": own[0].x_opt, "least loss": own[0].loss_opt}
        )
    return pd.DataFrame(rows, index=["better", "worse"])


def find_twins(logs: pd.DataFrame) -> tuple[str, str] | None:
    """The two finished trainings of one configuration whose final losses differ most, the worse one first."""
    done = logs[(logs["status"] == "finished") & logs["val_loss"].notna()]
    keys = [name for name in CONFIGURATION if name in done]
    again = done[done.duplicated(keys, keep=False)].sort_values("val_loss", kind="stable")
    if again.empty:
        return None
    groups = [group for _, group in again.groupby(keys, dropna=False)]
    widest = max(groups, key=lambda group: group["val_loss"].iloc[-1] - group["val_loss"].iloc[0])
    return str(widest["run"].iloc[-1]), str(widest["run"].iloc[0])


def scatter_of_repeats(runs: pd.DataFrame) -> tuple[float, int]:
    """Standard deviation between trainings of one configuration in a run table, and of how many configurations.

    Losses are compared whose configuration has the columns `CONFIGURATION` in common; NaN and 0 where none is repeated.
    """
    keys = [name for name in CONFIGURATION if name in runs]
    again = runs[runs.duplicated(keys, keep=False)]
    groups = again.groupby(keys, dropna=False)["val_loss"]
    freedom = len(again) - groups.ngroups
    if not freedom:
        return float("nan"), 0
    squares = float(((again["val_loss"] - groups.transform("mean")) ** 2).sum())
    return float(np.sqrt(squares / freedom)), groups.ngroups


def isoflop_logs(study: Study) -> pd.DataFrame:
    """Finished runs of the study's own IsoFLOP design with their budgets: those of group `isoflop`, else all.

    Families (`companion.training.curves.FAMILY`) with a single budget are left out: a budget cannot be predicted from
    the others there.
    """
    found = with_budgets(own_design(finished_runs(study.logs)))
    budgets = found.groupby(list(FAMILY))["isoflop_budget"].transform("nunique")
    need((budgets > 1).any(), "no architecture and context length has logs at two budgets")
    return found[budgets > 1]


def floors(logs: pd.DataFrame) -> pd.Series:
    """The irreducible loss E of the law of a run's family, by run, nats per token (gamma = 1)."""
    parts = []
    for _, members in logs.groupby(list(FAMILY), sort=False):
        parts.append(pd.Series(fit_law(members).parameters["E"], index=pd.Index(members["run"], name="run")))
    return pd.concat(parts)


def first_batch_law(study: Study) -> Fit:
    """The law L(N, D) of the run table's runs at the first batch of the pairs (gamma = 1)."""
    assert study.pairs is not None
    assert study.batches is not None
    like = study.pairs.iloc[0]
    runs = study.runs if "batch_size_seqs" in study.runs else finished_runs(study.logs)
    chosen = runs["batch_size_seqs"] == study.batches[0]
    for name in FAMILY:
        if name in runs and name in like:
            chosen &= runs[name] == like[name]
    return fit_law(runs[chosen])


def iso_of_pairs(study: Study) -> tuple[pd.DataFrame, float, list[float]]:
    """IsoFLOP runs of the family of the pairs, the budget that most of the pairs belong to, and the budgets of the law.

    Raises
    ------
    NotApplicable
        if the run table has no budget with runs of the pairs.
    """
    assert study.pairs is not None
    like = study.pairs.iloc[0]
    iso = isoflop_runs(study.runs, str(like["architecture"]), int(like["context_length"]))
    own = iso[iso["num_params"].isin(study.pairs["num_params"])]
    assert study.batches is not None
    if "batch_size_seqs" in own:
        own = own[own["batch_size_seqs"] == study.batches[0]]
    need(len(own), "no IsoFLOP budget of the run table holds the runs of the pairs")
    budget = float(own["isoflop_budget"].mode().iloc[0])
    all_budgets = sorted(map(float, iso["isoflop_budget"].unique()))
    return iso, budget, budgets_between(iso, *PAPER_BUDGETS) if study.of_paper else all_budgets


def selection_runs(study: Study) -> pd.DataFrame:
    """The design that the selection is simulated on: IsoFLOP runs of the family with the most of them."""
    if study.twins is not None:
        like = study.logs[study.logs["run"] == study.twins[0]].iloc[0]
        found = optional(isoflop_runs, study.runs, str(like["architecture"]), int(like["context_length"]))
        if found is not None:
            return _whole_profiles(found, study.of_paper)
    names = [name for name in FAMILY if name in study.runs]
    largest = study.runs[names].value_counts().index[0]
    return _whole_profiles(isoflop_runs(study.runs, *largest), study.of_paper)


def _whole_profiles(iso: pd.DataFrame, of_paper: bool) -> pd.DataFrame:
    """Runs of the budgets that make the main law and have enough runs for a parabola."""
    every = sorted(map(float, iso["isoflop_budget"].unique()))
    budgets = budgets_between(iso, *PAPER_BUDGETS) if of_paper else every
    sizes = iso.groupby("isoflop_budget")["num_params"].transform("nunique")
    return iso[iso["isoflop_budget"].isin(budgets) & (sizes >= LEAST_PROFILE)]


def large_half(iso: pd.DataFrame) -> np.ndarray:
    """Whether a run is larger than the median of its budget, shape (n,)."""
    middle = iso.groupby("isoflop_budget")["num_params"].transform("median")
    return (iso["num_params"] > middle).to_numpy()


def larger_batch_budget(study: Study) -> pd.DataFrame:
    """The paper's IsoFLOP budget of the pairs' family that was trained at the larger batch of the pairs.

    Raises
    ------
    NotApplicable
        if the table is a reader's own, or has no such budget.
    """
    need_paper(study.of_paper)
    iso, _, _ = iso_of_pairs(study)
    assert study.batches is not None
    found = iso[iso["batch_size_seqs"] == study.batches[1]]
    need(len(found), "no budget of the run table was trained at the larger batch")
    return found[found["isoflop_budget"] == found["isoflop_budget"].max()]


def main_transformers(study: Study) -> tuple[pd.DataFrame, list[float]]:
    """The paper's IsoFLOP Transformers at T = 8192, and the budgets of its main law."""
    iso = isoflop_runs(study.runs, "transformer", 8192)
    return iso, budgets_between(iso, *PAPER_BUDGETS)


def own_design(logs: pd.DataFrame) -> pd.DataFrame:
    """The runs of group `isoflop`, the paper's own design; all where the logs have no such group."""
    own = logs["group"] == OWN_GROUP if "group" in logs else pd.Series(False, index=logs.index)
    return logs[own] if own.any() else logs


def fit_law(runs: pd.DataFrame) -> Fit:
    """L(N, D) of some runs with gamma = 1."""
    return fit(LossSurface, runs, gamma=1)
