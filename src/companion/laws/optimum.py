"""The best model of a law for a compute, and the least compute for a loss, under any count of what training costs.

A *cost* is a line of models, one at every value of a coordinate x: how many parameters the model has and what a token
of its training costs, F. With D = C / F the loss has no slope along the line where

    (−dL/d ln N) · d ln N/dx = (−dL/d ln D) · d ln F/dx:

more tokens and more parameters then buy the same loss (arXiv 2203.15556, equation 4, is the case F = 6·N).
`companion.runs.shape_family.FamilyScale` and `companion.fitting.overtraining.cost.ComputeScale` are such costs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, elementwise

from companion.errors import InputError
from companion.laws.base import Array, Law
from companion.laws.surface import LossSurface
from companion.numeric import Values

#: A root of x this close to an end of the line's limits is not an optimum: the loss falls to the end.
_AT_END = 1e-6


@dataclass(frozen=True)
class Models:
    """Models of a line, arrays of the shape of x: N, the training FLOP per token F, and how both grow with x.

    `d_model` is their width where the line knows shapes.
    """

    num_params: Array
    flops_per_token: Array
    size_slope: Array
    price_slope: Array
    d_model: Array | None = None


class Cost(Protocol):
    """What training costs, along a line of models."""

    @property
    def label(self) -> str:
        """Name of the line, for messages."""

    def limits(self) -> tuple[float, float]:
        """Between which x an optimum is looked for."""

    def models(self, x: Values) -> Models:
        """The models at x, any array."""

    def reach(self) -> str:
        """The limits in words, for messages."""


@dataclass(frozen=True)
class FlopsPerParamAndToken:
    """C = k·N·D with one k: x is ln N."""

    k: float = 6.0

    @property
    def label(self) -> str:
        """Name for messages."""
        return f"C = {self.k:g} N D"

    def limits(self) -> tuple[float, float]:
        """From one parameter to 1e30."""
        return 0.0, float(np.log(1e30))

    def models(self, x: Values) -> Models:
        """The model at x = ln N."""
        return Models(np.exp(x), self.k * np.exp(x), np.ones_like(x), np.ones_like(x))

    def reach(self) -> str:
        """In words."""
        return "num_params from 1 to 1e30"


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """Compute-optimal models, arrays of shape (R,): one per law or compute.

    `train_flops` in FLOP, `loss` in nats per token, `d_model` where the cost knows shapes. NaN where a law has no
    optimum within the limits.
    """

    train_flops: Array
    num_params: Array
    num_tokens: Array
    loss: Array
    d_model: Array | None = None

    @property
    def tokens_per_param(self) -> Array:
        """M = D/N."""
        return self.num_tokens / self.num_params


def optimum(law: Law, cost: Cost | float, train_flops: ArrayLike, limits: tuple[float, float] | None = None) -> Optimum:
    """Models of least loss at a compute.

    Parameters
    ----------
    law
        one law, or many at once, e.g. `bootstrap.laws`.
    cost
        what training costs; a number is the k of C = k·N·D, for which `LossSurface` has a closed form.
    train_flops
        C in FLOP; a number, or one per law.
    limits
        of the cost's coordinate, instead of its own.

    Raises
    ------
    InputError
        if C is not positive and finite, or no law has an optimum.

    Examples
    --------
    >>> law = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    >>> best = optimum(law, 6.0, 5.76e23)
    >>> f"{best.num_params[0]:.3g} parameters, {best.num_tokens[0]:.3g} tokens"
    '3.22e+10 parameters, 2.98e+12 tokens'
    """
    line: Cost = FlopsPerParamAndToken(float(cost)) if isinstance(cost, int | float) else cost
    flops = np.asarray(train_flops, dtype=float)
    if not (np.isfinite(flops) & (flops > 0)).all():
        raise InputError(f"train_flops {train_flops!s} is not positive and finite")
    flops = np.broadcast_to(flops, np.broadcast_shapes(flops.shape, (len(law),)))
    if isinstance(line, FlopsPerParamAndToken) and isinstance(law, LossSurface) and limits is None:
        size, tokens = law.optimum(flops, line.k)
        size, tokens, loss = (np.asarray(each) for each in (size, tokens, law.predict(size, tokens)))
        return Optimum(train_flops=flops, num_params=size, num_tokens=tokens, loss=loss)
    return optimum_where(law, line, lambda _, budget: budget, flops, limits)


def optimum_where(
    law: Law,
    cost: Cost,
    flops_of: Callable[[Any, Any], Any],
    which: ArrayLike,
    limits: tuple[float, float] | None = None,
) -> Optimum:
    """Models of least loss at a compute that depends on the model, as that of given device hours does.

    Of all models that cost as much as the result, none has a lower loss; other models may be given another compute.

    Parameters
    ----------
    law, cost, limits
        as of `optimum`.
    flops_of
        C in FLOP of a model, by its N and an element of `which`; any arrays that broadcast. It grows by less than any
        N·D does with N, as utilizations do; else there may be several such models, and one of them is found.
    which
        what the compute depends on otherwise: a number, or one per law.

    Raises
    ------
    InputError
        if no law has an optimum.

    Examples
    --------
    >>> law = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    >>> best = optimum_where(law, FlopsPerParamAndToken(6.0), lambda size, share: share * size**0.2, 1e19)
    >>> f"{best.train_flops[0] / best.num_params[0]**0.2:.3g}"
    '1e+19'
    """
    given = np.asarray(which, dtype=float)
    given = np.broadcast_to(given, np.broadcast_shapes(given.shape, (len(law),)))

    def preference(x: Any, each_given: Any, *values: Any) -> Any:
        # what another token buys less what another parameter buys: rises with the size
        each, models = _law_of(law, values), cost.models(x)
        budget = flops_of(models.num_params, each_given)
        gain = each.log_gain_ratio(models.num_params, budget / models.flops_per_token)
        return gain + np.log(models.price_slope) - np.log(models.size_slope)

    low, high = cost.limits() if limits is None else limits
    x = _roots(preference, low, high, given, law)
    if np.isnan(x).all():
        first = np.ravel(flops_of(cost.models(np.asarray(low)).num_params, given.flat[0]))[0]
        raise InputError(f"{cost.label}: the law has no optimum at {first:g} FLOP with {cost.reach()}")
    models = cost.models(x)
    flops = np.asarray(flops_of(models.num_params, given))
    tokens = flops / models.flops_per_token
    return Optimum(
        train_flops=flops,
        num_params=models.num_params,
        num_tokens=tokens,
        loss=np.asarray(law.predict(models.num_params, tokens)),
        d_model=models.d_model,
    )


def compute_for_loss(law: LossSurface, cost: Cost, loss: float) -> Optimum:
    """The cheapest training that reaches a loss: C and the compute-optimal model.

    Laws whose floor E is not below the loss have none: NaN.

    Raises
    ------
    InputError
        if no law reaches the loss; the message gives the lowest E.

    Examples
    --------
    >>> law = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    >>> needed = compute_for_loss(law, FlopsPerParamAndToken(6.0), 2.0)
    >>> best = optimum(law, 6.0, needed.train_flops[0])
    >>> round(float(best.loss[0]), 6)
    2.0
    """
    reachable = np.greater(loss, np.atleast_1d(law.E))
    if not reachable.any():
        raise InputError(f"{cost.label}: loss {loss:g} is never reached, the law's floor E is {np.min(law.E):.4g}")

    def preference(x: Any, target: Any, *values: Any) -> Any:
        # the condition of the optimum with the tokens that reach the loss at this size; none do where N is too small
        each, models = _law_of(law, values), cost.models(x)
        tokens = each.tokens_for(target, models.num_params)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = each.log_gain_ratio(models.num_params, tokens)
            return np.maximum(gain + np.log(models.price_slope) - np.log(models.size_slope), -_LARGE)

    x = _roots(preference, *cost.limits(), np.full(len(law), float(loss)), law)
    models = cost.models(np.where(reachable, x, np.nan))
    tokens = np.where(np.isfinite(models.num_params), law.tokens_for(loss, models.num_params), np.nan)
    if not np.isfinite(tokens).any():
        raise InputError(f"{cost.label}: loss {loss:g} needs a {_outside(cost)}")
    return Optimum(
        train_flops=models.flops_per_token * tokens,
        num_params=models.num_params,
        num_tokens=tokens,
        loss=np.where(np.isfinite(tokens), float(loss), np.nan),
        d_model=models.d_model,
    )


#: Stands for minus infinity where a root is looked for.
_LARGE = 1e6


def _outside(cost: Cost) -> str:
    return cost.reach().replace(" from ", " outside ", 1)


def _law_of(law: Law, values: tuple[Any, ...]) -> Any:
    return type(law)(**dict(zip(law.PARAMETERS, values, strict=True)))


def _roots(function: Callable[..., Any], low: float, high: float, first: Any, law: Law) -> Any:
    """x between the limits at which an increasing function of (x, first, *parameters) is zero, shape of `first`.

    NaN where there is none, or it lies at a limit.
    """
    found = increasing_root(function, low, high, first, *law.parameters.values())
    return np.where((found > low + _AT_END) & (found < high - _AT_END), found, np.nan)


def increasing_root(function: Callable[..., Any], low: float, high: float, first: Any, *values: Any) -> Any:
    """x between low and high at which an increasing function of `(x, first, *values)` is zero, shape of `first`.

    NaN where the function has one sign on the whole interval. `values` broadcast to the shape of `first`.

    Examples
    --------
    >>> increasing_root(lambda x, target: x**2 - target, 0.0, 2.0, np.array([0.25, 1.0, 9.0])).round(12)
    array([0.5, 1. , nan])
    """
    first = np.asarray(first, dtype=float)
    every = tuple(np.broadcast_to(np.asarray(value, dtype=float), first.shape) for value in values)
    if first.size == 1:  # one root: the scalar solver is ten times faster
        numbers = (float(first.flat[0]), *(float(value.flat[0]) for value in every))
        ends = [float(function(end, *numbers)) for end in (low, high)]
        inside = np.isfinite(ends).all() and ends[0] < 0 < ends[1]
        found = np.array([brentq(function, low, high, args=numbers, xtol=1e-13) if inside else np.nan])
        return found.reshape(first.shape)
    solved = elementwise.find_root(function, (np.full(first.shape, low), high), args=(first, *every))
    return np.where(solved.success, solved.x, np.nan)
