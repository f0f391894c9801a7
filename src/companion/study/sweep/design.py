"""Designs of a study: a TOML file that says which runs there are to be. Needs no torch.

A design has a table `[study]` with what all runs share, and one table `[[grid]]` for every set of runs: its sizes,
architectures, context lengths and seeds, and either compute budgets (IsoFLOP) or ratios of tokens to parameters.
"""

import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from companion.errors import InputError
from companion.formatting import quoted
from companion.study.sweep.ladder import LADDER

#: A design is a page of text; a larger file is something else.
MAX_BYTES = 1_000_000
#: Names of experiments of grids that name none.
ISOFLOP, TOKEN_PARAM = "isoflop", "tokenparam"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Runs of all combinations of architectures, sizes, contexts, seeds, and budgets or ratios.

    Parameters
    ----------
    architectures, sizes
        as `companion.study.sweep.study_architecture` takes them.
    context_lengths
        tokens per sequence.
    seeds
        of weights; every seed is one run.
    budgets
        C in FLOP by the accounting, from small to large: every size trains until it has used the budget.
    tokens_per_param
        D/N: the other way to say how long a size trains.
    tokens_per_step
        batch size in tokens: one for all runs, or one per budget.
    rate_factors
        learning rates over the usual one of the architecture and size; several make a sweep of the learning rate.
    experiment
        name in the run table; by default `isoflop` or `tokenparam`.
    """

    architectures: tuple[str, ...]
    sizes: tuple[str, ...]
    context_lengths: tuple[int, ...] = (1024,)
    seeds: tuple[int, ...] = (0,)
    budgets: tuple[float, ...] = ()
    tokens_per_param: tuple[float, ...] = ()
    tokens_per_step: tuple[int, ...] = (65_536,)
    rate_factors: tuple[float, ...] = (1.0,)
    experiment: str = ""

    def __post_init__(self) -> None:
        if bool(self.budgets) == bool(self.tokens_per_param):
            raise InputError("give either budgets or tokens_per_param")
        for name in ("budgets", "tokens_per_param", "tokens_per_step", "context_lengths", "rate_factors"):
            if any(not math.isfinite(value) or value <= 0 for value in getattr(self, name)):
                raise InputError(f"{name}: every value must be positive and finite")
        for name in ("architectures", "sizes", "context_lengths", "seeds", "budgets", "tokens_per_param"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"{name}: a value is given twice")
        if list(self.budgets) != sorted(self.budgets):
            raise InputError("budgets: they go from small to large")
        if unknown := [size for size in self.sizes if size not in LADDER]:
            raise InputError(f"sizes: {quoted(unknown[0])} is not one of {', '.join(LADDER)}")
        if len(self.tokens_per_step) not in (1, len(self.budgets)):
            raise InputError("tokens_per_step: give one number, or one for every budget")
        if any(seed < 0 for seed in self.seeds):
            raise InputError("seeds: they are not negative")
        if not self.experiment:
            object.__setattr__(self, "experiment", ISOFLOP if self.budgets else TOKEN_PARAM)


@dataclass(frozen=True, kw_only=True)
class Design:
    """What runs there are to be.

    Parameters
    ----------
    corpus
        as `companion.study.corpus.open_corpus` takes it.
    grids
        sets of runs; a run that two grids ask for is trained once.
    options
        further fields of `companion.study.train.Recipe` that all runs share, such as `schedule` or `weight_decay`.
    """

    corpus: str
    grids: tuple[Grid, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.grids:
            raise InputError("a design needs at least one [[grid]]")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A design from the tables of its file.

        Raises
        ------
        InputError
            that names the table, the key and what is wrong with it.
        """
        unknown = [name for name in values if name not in ("study", "grid")]
        if unknown:
            raise InputError(f"table {quoted(unknown[0])}: a design has [study] and [[grid]]")
        study, grids = values.get("study", {}), values.get("grid", [])
        if not isinstance(study, Mapping) or not isinstance(grids, list):
            raise InputError("a design has one table [study] and tables [[grid]]")
        if not isinstance(study.get("corpus"), str):
            raise InputError("[study]: corpus: the name of a corpus is missing, such as 'source'")
        options = {name: value for name, value in study.items() if name != "corpus"}
        found = tuple(_grid(number, table) for number, table in enumerate(grids, start=1))
        return cls(corpus=study["corpus"], grids=found, options=options)


def read_design(path: str | os.PathLike[str]) -> Design:
    """The design in a TOML file.

    Raises
    ------
    InputError
        if the file cannot be read, or is no design; the line says where.

    Examples
    --------
    >>> read_design(example_design()).grids[0].architectures
    ('transformer', 'xlstm')
    """
    from companion.tables import open_table, path_name, unreadable  # here: a GPU machine may lack its pandera

    name = path_name(path)
    with open_table(path, MAX_BYTES) as file:
        try:
            raw = file.read()
        except OSError as error:
            raise unreadable(name, error) from error
    try:
        values = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 text, from byte {error.start} on") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{name}: no TOML: {' '.join(str(error).split())}") from error
    try:
        return Design.from_dict(values)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def example_design() -> Path:
    """The design that comes with the package: a small IsoFLOP study that a CPU trains in seconds."""
    return Path(__file__).with_name("example.toml")


_KINDS: dict[str, type] = {
    "architectures": str,
    "sizes": str,
    "context_lengths": int,
    "seeds": int,
    "budgets": float,
    "tokens_per_param": float,
    "tokens_per_step": int,
    "rate_factors": float,
}


def _grid(number: int, table: Any) -> Grid:
    where = f"[[grid]] {number}"
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: it is not a table")
    known = [each.name for each in fields(Grid)]
    if unknown := [name for name in table if name not in known]:
        raise InputError(f"{where}: {quoted(unknown[0])} is not one of {', '.join(known)}")
    if missing := [name for name in ("architectures", "sizes") if name not in table]:
        raise InputError(f"{where}: {missing[0]} is missing")
    values: dict[str, Any] = {name: _values(where, name, table[name]) for name in table if name != "experiment"}
    experiment = table.get("experiment", "")
    if not isinstance(experiment, str):
        raise InputError(f"{where}: experiment: {experiment!r} is not a name")
    try:
        return Grid(experiment=experiment, **values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _values(where: str, name: str, given: Any) -> tuple[Any, ...]:
    """The values of a key: one value stands for a list of it."""
    values: Sequence[Any] = given if isinstance(given, list) else [given]
    kind = _KINDS[name]
    accepted = (int, float) if kind is float else (kind,)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, accepted):
            words = {str: "a name", int: "a whole number", float: "a number"}[kind]
            raise InputError(f"{where}: {name}: {value!r} is not {words}")
    if not values:
        raise InputError(f"{where}: {name}: the list is empty")
    return tuple(kind(value) for value in values)
