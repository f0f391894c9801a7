"""What a chapter can do with a run table: which context length, which architectures, and why not the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from companion.architectures import ARCHITECTURES
from companion.errors import InputError, NotApplicable
from companion.fitting.context.scaling import comparable_architectures
from companion.fitting.fit import Fit, fit
from companion.fitting.isoflop.profiles import IsoflopFit, fit_isoflop
from companion.fitting.isoflop.select import budgets_between, isoflop_runs
from companion.laws import LossSurface
from companion.runs.context_length import choose_context
from companion.runs.load import load_paper_runs, load_runs
from companion.runs.select import subset
from companion.runs.where import table_name

#: Runs that a law with six free parameters needs at least.
LAW_RUNS = len(LossSurface.PARAMETERS) + 1
#: Mean train_flops of the budgets behind the paper's main laws, FLOP (arXiv 2510.02228).
PAPER_BUDGETS = (5e18, 2e20)
#: Architectures that a chapter compares where a table has both.
PAPER_PAIR = ("xlstm", "transformer")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The runs that a chapter works on.

    `runs` is the whole table, `tables` the runs of each chosen architecture at `context_length` (None: the table names
    none, and all runs count), `note` one or two sentences for the page that say what was chosen and what was not.
    """

    runs: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    context_length: int | None
    of_paper: bool
    note: str

    @property
    def architectures(self) -> list[str]:
        """The chosen architectures, in the order of the tables."""
        return list(self.tables)

    @property
    def at_context(self) -> pd.DataFrame:
        """The runs of all architectures at the context length."""
        return subset(self.runs, context_length=self.context_length)


def select_runs(
    runs_file: str | Path | None = None,
    architectures: Sequence[str] | None = None,
    context_length: int | None = None,
    *,
    at_least: int = 1,
    usable: Callable[[pd.DataFrame], Any] | None = None,
    all_contexts: bool = False,
) -> Selection:
    """The runs of a chapter: a table, one context length, and the architectures that can be used.

    Parameters
    ----------
    runs_file
        path of a run table; None for the paper's.
    architectures
        names; None for all of the table, sorted.
    context_length
        tokens; None leaves it to the table (`companion.runs.context_length.choose_context`): 8192 for the paper's.
    at_least
        how many architectures the chapter needs.
    usable
        called with the runs of one architecture at the context: an `InputError` means that they cannot be used, and
        its message is the reason. An architecture without runs at the context cannot be used either.
    all_contexts
        the tables hold the runs of every context, for a chapter that compares them; the context length is chosen still.

    Raises
    ------
    NotApplicable
        if fewer than `at_least` architectures can be used, or the table lacks the requested context; the message says
        why.
    InputError
        if the file cannot be read or is not a run table, or a requested architecture is not in it.
    """
    runs = load_paper_runs() if runs_file is None else load_runs(runs_file)
    # a page says no path of the machine it was built on
    choice = choose_context(runs, context_length, source="the paper's runs" if runs_file is None else None)
    tables, unusable = {}, {}
    for name in _names(runs, architectures):
        try:
            own = runs[runs["architecture"] == name]
            if choice.context_length is not None and not all_contexts:
                own = subset(own, context_length=choice.context_length)
            if usable is not None:
                usable(own)
        except InputError as error:
            unusable[name] = _without_source(str(error), runs)
        else:
            tables[name] = own.copy()
    if len(tables) < at_least:
        raise NotApplicable(_too_few(runs, tables, unusable, at_least))
    left = [f"left out: {name} ({reason})" for name, reason in unusable.items()]
    note = "; ".join([*([choice.note] if choice.note and not all_contexts else []), *left]) or "all runs of the table"
    return Selection(
        runs=runs, tables=tables, context_length=choice.context_length, of_paper=runs_file is None, note=note
    )


def choose_pair(names: Sequence[str], first: str | None = None, second: str | None = None) -> tuple[str, str]:
    """Two architectures to compare: those asked for, else the paper's two if the table has both, else the first two.

    Raises
    ------
    NotApplicable
        if there are not two.
    InputError
        if both asked for are the same, or one of them is missing.
    """
    if first is not None and first == second:
        raise InputError(f"first and second are both {first}: a comparison needs two architectures")
    if absent := [name for name in (first, second) if name not in (None, *names)]:
        raise InputError(f"no runs with architecture {absent[0]} to compare; there are {', '.join(names)}")
    rest = [name for name in dict.fromkeys((*PAPER_PAIR, *names)) if name in names and name not in (first, second)]
    chosen = [name if name is not None else (rest.pop(0) if rest else None) for name in (first, second)]
    if None in chosen:
        raise NotApplicable(f"a comparison needs two architectures; there is {', '.join(names) or 'none'} only")
    return str(chosen[0]), str(chosen[1])


def need(condition: Any, reason: str) -> None:
    """Leave out what follows in a section of a notebook unless a condition holds.

    Raises
    ------
    NotApplicable
        with the reason.
    """
    if not condition:
        raise NotApplicable(reason)


def need_paper(of_paper: bool) -> None:
    """Leave out what follows in a section unless the chapter shows the paper's own runs.

    Raises
    ------
    NotApplicable
        if a table of the reader is shown.
    """
    need(of_paper, "this part is about the paper's runs and its published values, not about your table")


def need_identified(fits: Mapping[str, Fit]) -> None:
    """Leave out what follows in a section unless the runs determine every one of some fitted laws.

    Parameters
    ----------
    fits
        by what the reader calls them, such as the name of an architecture.

    Raises
    ------
    NotApplicable
        with the first law that is not identified, and why.
    """
    for name, fitted in fits.items():
        need(fitted.identified, f"the law of {name} is not identified: {fitted.status_detail}")


def need_identified_isoflop(runs: pd.DataFrame) -> None:
    """A check for `select_runs`: IsoFLOP runs that determine the parametric law.

    Raises
    ------
    NotApplicable
        if they do not.
    InputError
        if the runs form no budgets, or are too few for the law.
    """
    name = str(runs["architecture"].iloc[0])
    iso = isoflop_runs(runs, name)
    need(
        len(iso["isoflop_budget"].drop_duplicates()) > 1,
        "one IsoFLOP budget; the growth of the best size needs at least two",
    )
    need_identified({name: fit(LossSurface, iso)})


def need_profiles(runs: pd.DataFrame) -> None:
    """A check for `select_runs`: IsoFLOP runs with the optimum of at least one budget.

    Raises
    ------
    NotApplicable
        if the runs form no budgets, or no budget has an optimum.
    """
    try:
        fit_isoflop(isoflop_runs(runs, str(runs["architecture"].iloc[0])), num_resamples=0)
    except InputError as error:
        reasons = str(error).split("; ")
        more = f"; {len(reasons) - 2} more such budgets" if len(reasons) > 2 else ""
        raise NotApplicable("; ".join(reasons[:2]) + more) from None


def need_laws(fits: Mapping[str, IsoflopFit]) -> None:
    """Leave out what follows in a section unless the optima define every one of some power laws.

    Parameters
    ----------
    fits
        by what the reader calls them.

    Raises
    ------
    NotApplicable
        with the first law that is undefined, and why.
    """
    for name, fitted in fits.items():
        need(fitted.law_defined, f"the power law of {name} is undefined: {fitted.law_fault}")


def main_budgets(iso: pd.DataFrame, budget_range: Sequence[float] | None, of_paper: bool) -> list[float]:
    """Budgets behind the main laws of a chapter, ascending: those in a range, or all of a reader's own table.

    Parameters
    ----------
    iso
        from `companion.fitting.isoflop.select.isoflop_runs`.
    budget_range
        lowest and highest mean train_flops, FLOP; None takes `PAPER_BUDGETS` for the paper's runs.

    Raises
    ------
    InputError
        if fewer than two budgets lie in a given range.
    """
    if budget_range is None and not of_paper:
        return sorted(map(float, iso["isoflop_budget"].unique()))
    return budgets_between(iso, *(budget_range or PAPER_BUDGETS))


def need_contexts(runs: pd.DataFrame) -> None:
    """A check for `select_runs`: models that can be counted, with optima at two contexts of one budget.

    Raises
    ------
    NotApplicable
        if there is one context only, the accounting does not know the models, or no budget has two optima.
    """
    name = str(runs["architecture"].iloc[0])
    lengths = runs["context_length"].nunique() if "context_length" in runs else 0
    need(lengths > 1, f"{lengths or 'no'} context length; optima are compared over at least two")
    need_costs(runs)
    need(comparable_architectures(runs, [name]), "no IsoFLOP budget has an optimum at two contexts")


def of_experiment(runs: pd.DataFrame, experiment: str | None) -> pd.DataFrame:
    """The runs of an experiment, or all of them where the table does not name it."""
    if experiment is None or "experiment" not in runs or not (runs["experiment"] == experiment).any():
        return runs
    return subset(runs, experiment=experiment)


def need_costs(runs: pd.DataFrame) -> None:
    """Check that the models of a table can be counted: parameters, FLOPs and times of each size.

    Raises
    ------
    NotApplicable
        if an architecture of the runs is unknown to the accounting.
    """
    unknown = sorted(set(runs["architecture"]) - set(ARCHITECTURES))
    known = ", ".join(sorted(ARCHITECTURES))
    need(not unknown, f"nothing here counts the FLOPs of {', '.join(unknown)}; {known} can be counted")


def need_runs(num_runs: int, purpose: str) -> Callable[[pd.DataFrame], None]:
    """A check for `select_runs`: at least this many runs with different sizes, tokens or losses.

    Parameters
    ----------
    purpose
        what they are needed for, as in "a law with six parameters".
    """

    def check(runs: pd.DataFrame) -> None:
        there = len(runs[["num_params", "num_tokens", "val_loss"]].drop_duplicates())
        need(there >= num_runs, f"{there} different runs; {purpose} needs at least {num_runs}")

    return check


def optional(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a function returns, or None where it refuses the runs (`InputError`)."""
    try:
        return function(*arguments, **options)
    except InputError:
        return None


def _names(runs: pd.DataFrame, requested: Sequence[str] | None) -> list[str]:
    there = sorted(map(str, runs["architecture"].unique()))
    if requested is None:
        return there
    names = [requested] if isinstance(requested, str) else list(requested)
    if missing := [name for name in names if name not in there]:
        raise InputError(
            f"{table_name(runs)}: no runs with architecture {missing[0]}; the table has {', '.join(there)}"
        )
    return names


def _too_few(runs: pd.DataFrame, tables: dict[str, Any], unusable: dict[str, str], at_least: int) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in unusable.items():
        by_reason.setdefault(reason, []).append(name)
    reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
    if at_least == 1:
        return f"{table_name(runs)}: {reasons}"
    there = ", ".join(tables) or "none"
    return f"{table_name(runs)}: needs {at_least} architectures; usable: {there}{'; ' + reasons if reasons else ''}"


def _without_source(message: str, runs: pd.DataFrame) -> str:
    return message.removeprefix(f"{table_name(runs)}: ")
