"""The training step over the context: the fastest launch of each model, crossings, what launches cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from companion.chapters.applicability import need
from companion.chapters.ch13.records import Suite, in_order

#: Ways in which a step is launched, the slowest first.
LAUNCHES = ("eager", "compiled", "compiled graph")
FIRST, SECOND = "xlstm", "transformer"
#: Models that a suite times, in the order of figures and tables.
MODELS = (SECOND, "grouped", FIRST, "hybrid")


@dataclass(frozen=True)
class Steps:
    """Times of training steps on one GPU.

    Attributes
    ----------
    suite
        of `companion.chapters.ch13.records.TRAINING`.
    context_length
        T at which single numbers are shown.
    vocabulary
        only models with so many rows of the embedding; None: with those of most of them.
    """

    suite: Suite
    context_length: int
    vocabulary: int | None = None

    @cached_property
    def table(self) -> pd.DataFrame:
        """Timed steps of our own models, of one vocabulary."""
        own = self._all
        if "vocabulary" not in own:
            return own
        return own[own["vocabulary"] == (self.vocabulary or own["vocabulary"].mode().max())]

    @property
    def _all(self) -> pd.DataFrame:
        timed = self.suite.timed
        return timed[(timed["part"] == "training") & (timed["implementation"] == "companion")]

    @property
    def others(self) -> list["Steps"]:
        """The same of every other vocabulary with which both architectures were timed, the smallest first."""
        if "vocabulary" not in self._all:
            return []
        sizes = sorted(set(self._all["vocabulary"].dropna()) - set(self.table["vocabulary"]))
        return [each for size in sizes if (each := Steps(self.suite, self.context_length, int(size))).sizes]

    @cached_property
    def fastest(self) -> pd.DataFrame:
        """The fastest launch of every model, size and context."""
        order = self.table.sort_values("seconds_median")
        return order.drop_duplicates(["model", "size", "context_length"]).sort_values("context_length")

    @cached_property
    def sizes(self) -> list[str]:
        """Sizes of which both architectures were timed, the smallest first."""
        both = [set(self.fastest.loc[self.fastest["model"] == name, "size"]) for name in (FIRST, SECOND)]
        return in_order(both[0] & both[1])

    @property
    def curves(self) -> list[str]:
        """Sizes of which both were timed at several contexts; where there is none, all sizes."""
        return [size for size in self.sizes if len(self.ratios(size)) > 1] or self.sizes

    @property
    def models(self) -> list[str]:
        """Models that were timed."""
        return [name for name in MODELS if (self.fastest["model"] == name).any()]

    @property
    def num_tokens(self) -> int:
        """Tokens of a step."""
        return int(self.fastest["tokens_per_step"].max())

    def of(self, model: str, size: str) -> pd.DataFrame:
        """The fastest steps of one model, by context."""
        rows = self.fastest[(self.fastest["model"] == model) & (self.fastest["size"] == size)]
        return rows.set_index("context_length")

    def ratios(self, size: str, model: str = FIRST) -> pd.Series:
        """Time of the Transformer's step over that of another model, by context."""
        other, own = (self.of(name, size)["seconds_median"] for name in (SECOND, model))
        return (other / own).dropna()

    def ratio_at(self, size: str, context_length: int) -> float:
        """The ratio at one context; NaN where one of the two was not timed."""
        return float(self.ratios(size).get(context_length, np.nan))

    def by_launch(self, size: str, model: str) -> pd.DataFrame:
        """Seconds of a step by context (rows) and launch (columns)."""
        rows = self.table[(self.table["model"] == model) & (self.table["size"] == size)]
        wide = rows.pivot_table(index="context_length", columns="launch", values="seconds_median", aggfunc="last")
        return wide.reindex(columns=[name for name in LAUNCHES if name in wide])


@dataclass(frozen=True)
class Crossing:
    """From which context on the first of two models is faster.

    Attributes
    ----------
    at
        T in tokens, between two timed contexts; 0 where it is faster at all of them, infinite where at none.
    least, most
        the contexts that were timed.
    """

    at: float
    least: int
    most: int

    @property
    def text(self) -> str:
        """The crossing in a table: 1500, below 512, above 65536."""
        if self.at == 0:
            return f"below {self.least}"
        return f"above {self.most}" if np.isinf(self.at) else f"{round_context(self.at)}"


def crossing(ratios: pd.Series) -> Crossing:
    """Where a ratio of times that is 1 at equality rises above 1 for good; between contexts by straight lines in logs.

    Parameters
    ----------
    ratios
        slower over faster candidate, by context length (index).
    """
    need(len(ratios) > 0, "no context was timed for both")
    lengths, logs = np.asarray(ratios.index, dtype=float), np.log(ratios.to_numpy(dtype=float))
    ends = int(lengths[0]), int(lengths[-1])
    below = np.flatnonzero(logs <= 0)
    if not below.size:
        return Crossing(0.0, *ends)
    last = below[-1]
    if last == len(logs) - 1:
        return Crossing(np.inf, *ends)
    share = -logs[last] / (logs[last + 1] - logs[last])
    return Crossing(float(lengths[last] * (lengths[last + 1] / lengths[last]) ** share), *ends)


def round_context(length: float) -> int:
    """A context length to two digits, rounded up, so that what holds from it on does: 1437 is 1500."""
    unit = 10.0 ** (np.floor(np.log10(length)) - 1)
    return int(np.ceil(round(length / unit, 6)) * unit)


def launch_costs(steps: Steps, sizes: Sequence[str] | None = None) -> pd.DataFrame:
    """Times of every launch at the context of the page, or at the nearest that was timed eagerly too.

    Returns
    -------
    DataFrame
        `size`, `model`, `context_length`, a column of seconds for every launch, NaN where it was not timed, and
        `beyond` (compiled over graph, minus 1).
    """
    rows = []
    for size in sizes or steps.sizes:
        for model in steps.models:
            times = steps.by_launch(size, model)
            complete = times.dropna() if set(LAUNCHES) <= set(times) else times
            if complete.empty or len(complete.columns) < 2:
                continue
            nearest = min(complete.index, key=lambda length: abs(np.log(length / steps.context_length)))
            row = times.loc[nearest]
            beyond = row.get("compiled", np.nan) / row.get("compiled graph", np.nan) - 1
            rows.append({"size": size, "model": model, "context_length": nearest, **row.to_dict(), "beyond": beyond})
    need(rows, "no size was timed with several launches")
    return pd.DataFrame(rows)
