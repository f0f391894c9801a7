"""Small pieces of text and choices that tables and facts of the chapter share."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from companion.fitting.context.prediction import Explanation
from companion.fitting.context.scaling import ContextFit
from companion.formatting import count, percent

#: Contexts that the text names where they are among those that the law is read off at: 128k and 1M tokens.
NAMED_CONTEXTS = (131072, 1048576)


def context_label(context_length: float) -> str:
    """2k, 128k, 1M: in units of 1024 where that is a whole number."""
    for size, letter in ((1024**2, "M"), (1024, "k")):
        if context_length >= size and context_length % size == 0:
            return f"{context_length / size:.0f}{letter}"
    return f"{context_length:g}"


def named_contexts(lengths: Sequence[int]) -> list[int]:
    """Those of `NAMED_CONTEXTS` that are among some contexts, or the last of these."""
    return [length for length in NAMED_CONTEXTS if length in lengths] or [lengths[-1]]


def context_lengths(fits: Iterable[ContextFit]) -> list[int]:
    """Context lengths of all fits, ascending."""
    return sorted({length for fit in fits for length in fit.context_lengths})


def context_range(fits: Iterable[ContextFit]) -> tuple[int, int]:
    """Shortest and longest context of all fits, tokens."""
    lengths = context_lengths(fits)
    return lengths[0], lengths[-1]


def nearest_context(fit: ContextFit, context_length: float) -> int:
    """The context length of the fit that is nearest to another one, by ratio."""
    return min(fit.context_lengths, key=lambda length: abs(np.log(length / context_length)))


def law_contexts(fits: Mapping[str, ContextFit], context_length: float) -> dict[str, int]:
    """The context of each architecture's law: of those with optima, the `nearest_context` to another one."""
    return {name: nearest_context(fit, context_length) for name, fit in fits.items()}


def contexts_between(first: float, last: float) -> NDArray[np.float64]:
    """Up to seven contexts from one to another at equal ratios, tokens in tens."""
    return np.unique(np.geomspace(first, last, 7).round(-1))


def largest_shared_budget(fits: Mapping[str, ContextFit]) -> float:
    """The largest budget (FLOP) of all architectures, or the largest of any if they share none."""
    budgets = [set(fit.budgets) for fit in fits.values()]
    return max(set.intersection(*budgets) or set.union(*budgets))


def start_text(explanations: Mapping[str, Explanation]) -> str:
    """The contexts that the laws were fitted at: 8192, or 2048 and 8192."""
    return " and ".join(map(str, sorted({each.fit_context for each in explanations.values()})))


def change_text(
    factor: float, low: float, high: float, words: tuple[str, str], decimals: int = 0, *, bounds: bool = True
) -> str:
    """A factor with its interval as a change: 28 % [25, 30] smaller; without `bounds` 28 % smaller.

    Parameters
    ----------
    words
        for up and for down.
    """
    sign = 1 if factor >= 1 else -1
    ends = sorted((low, high))[::sign]
    value, *limits = (percent(sign * (each - 1), decimals=decimals) for each in (factor, *ends))
    start, end = (limit.removesuffix(" %") for limit in limits)
    return f"{value}{f' [{start}, {end}]' if bounds else ''} {words[0] if sign > 0 else words[1]}"


def value_text(value: float, low: float, high: float, style: Callable[[float], str] = "{:.3f}".format) -> str:
    """A value with its interval: 0.947 [0.931, 0.963]."""
    return f"{style(value)} [{style(low)}, {style(high)}]"


def count_text(value: float, bounds: tuple[float, float]) -> str:
    """A number of parameters or tokens with its interval: 400M [390M, 410M]; "no interval" where it is unknown."""
    return value_text(value, *bounds, count) if np.isfinite(bounds[0]) else f"{count(value)} (no interval)"
