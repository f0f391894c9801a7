"""Context lengths at which something changes hands: the core of attention, the core of the mLSTM, everything else.

Per token, the FLOPs of causal attention grow in proportion to T and all others are constant, so a crossing is one
division. A recurrent core costs the same per token at every whole number of chunks. In a sliding window the core stops
to grow; such a crossing is looked for with a root finder.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import count_flops, least_context
from companion.accounting.params import over_layers
from companion.architectures import Architecture
from companion.errors import InputError
from companion.numeric import Numeric

_NEVER = float("nan")
#: Longest context that is searched, where cores stop to grow.
_LONGEST = 2.0**60


def context_of_core_share(
    architecture: Architecture, share: float = 0.5, convention: str | Convention = PAPER
) -> float:
    """Context length at which the mixer core is this share of all training FLOPs.

    Parameters
    ----------
    architecture
        one configuration.
    share
        between 0 and 1, both excluded; 0.5: the core costs as much as everything else.
    convention
        a `Convention` or the name of one.

    Returns
    -------
    float
        T in tokens, not rounded; NaN if there is none: the share of an mLSTM does not depend on T, `6ND` counts no
        core, and in a window the core may never be that large.

    Raises
    ------
    InputError
        if the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"share {share} is not between 0 and 1")
    parts = _parts(architecture, convention)
    if parts is not None:
        slope, constant, rest = parts
        return (share / (1 - share) * rest - constant) / slope if slope else _NEVER

    def excess(T: float) -> float:
        core, rest = _per_token(architecture, T, convention)
        return core - share / (1 - share) * rest

    return _crossing(excess, float(least_context(architecture, get_convention(convention))))


def context_of_equal_cores(
    transformer: Architecture, xlstm: Architecture, convention: str | Convention = PAPER
) -> float:
    """Context length above which the core of the first costs more per token than the core of the second.

    T in tokens, not rounded; NaN where there is none, or the convention counts no core. An mLSTM is taken at whole
    chunks.
    """
    return _equal(transformer, xlstm, convention, lambda core, rest: core)


def context_of_equal_cost(
    transformer: Architecture, xlstm: Architecture, convention: str | Convention = PAPER
) -> float:
    """Context length above which a token costs more in the first than in the second, all components together.

    T in tokens, not rounded; NaN where the convention counts no core. 0 if the first costs more at any T.
    """
    found = _equal(transformer, xlstm, convention, lambda core, rest: core + rest)
    return max(0.0, found) if np.isfinite(found) else found


def _equal(
    first: Architecture, second: Architecture, convention: str | Convention, cost: Callable[[Numeric, Numeric], Numeric]
) -> float:
    one, two = _parts(first, convention), _parts(second, convention)
    if one is not None and two is not None:
        # constant FLOPs per token first, what grows with T second
        constant = cost(two[1], two[2]) - cost(one[1], one[2])
        growth = one[0] - two[0]
        return float(constant / growth) if growth > 0 else _NEVER

    def excess(T: float) -> float:
        return float(cost(*_per_token(first, T, convention)) - cost(*_per_token(second, T, convention)))

    convention = get_convention(convention)
    return _crossing(excess, float(max(least_context(model, convention) for model in (first, second))))


def _crossing(excess: Callable[[float], float], shortest: float) -> float:
    """T from which an excess is above 0; NaN if it never is, the shortest context if it always is."""
    if excess(shortest) >= 0:
        return shortest
    if excess(_LONGEST) <= 0:
        return _NEVER
    return float(np.exp(brentq(lambda log_T: excess(float(np.exp(log_T))), np.log(shortest), np.log(_LONGEST))))


def _parts(architecture: Architecture, convention: str | Convention) -> tuple[float, float, float] | None:
    """FLOPs of training per token: of the core, per token of context and constant; and of everything else.

    None where a core stops to grow with the context.
    """
    chosen = get_convention(convention)
    length = least_context(architecture, chosen)
    counted = count_flops(architecture, length, chosen)
    if chosen.rule != "layers":
        return 0.0, 0.0, float(counted.train_flops_per_token)
    if any(mixer.growth(chosen) is None for mixer, _ in architecture.layers):
        return None
    grown = over_layers(architecture, lambda mixer, number: number * mixer.growth(chosen))
    slope = float((1 + chosen.backward_factor) * grown)
    components = counted.components
    constant = float(components.mixer_core) / length - slope * length
    return slope, constant, float(components.total - components.mixer_core) / length


def _per_token(architecture: Architecture, T: float, convention: str | Convention) -> tuple[float, float]:
    """FLOPs of training per token at any real context: of the core, and of everything else."""
    chosen = get_convention(convention)
    counted = count_flops(architecture, least_context(architecture, chosen), chosen)
    rest = (counted.components.total - counted.components.mixer_core) / counted.context_length
    if chosen.rule != "layers":
        return 0.0, float(counted.train_flops_per_token)
    core = over_layers(architecture, lambda mixer, number: number * mixer.core_flops_per_token(T, chosen))
    return float((1 + chosen.backward_factor) * core), float(rest)
