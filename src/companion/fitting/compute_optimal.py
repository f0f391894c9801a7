"""The best model of a loss law under exact accounting: any context length, one law or all of a bootstrap at once.

`LossSurface.optimum` assumes C = 6·N·D. Here C comes from the shapes of a family at a context length, so that the cost
of attention moves the optimum. At given C the loss has no slope along the family where

    alpha·A·N^-alpha · d ln N/d ln d_model = beta·B·D^-beta · d ln F/d ln d_model,      D = C / F(d_model, T),

with F the training FLOP per token: more tokens and more parameters then buy the same loss (arXiv 2203.15556, equation
4, is the case F = 6·N).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from companion.errors import InputError
from companion.fitting.parametric import PARAMETERS
from companion.fitting.uncertainty import ParametricBootstrap
from companion.laws import LossSurface
from companion.runs.shape_family import LARGEST_WIDTH, SMALLEST_WIDTH, FamilyScale, bisect


@dataclass(frozen=True)
class Laws:
    """Parameters of many laws as arrays of one shape (R,): a bootstrap, or a single law with R = 1."""

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    gamma: Any

    @classmethod
    def of(cls, source: "LossSurface | ParametricBootstrap | Laws") -> "Laws":
        """From one law, or from a bootstrap: its resamples without a fit are left out."""
        if isinstance(source, Laws):
            return source
        if isinstance(source, LossSurface):
            return cls(*(np.array([getattr(source, name)]) for name in PARAMETERS))
        samples = source.samples[list(PARAMETERS)].dropna()
        if samples.empty:
            raise InputError(f"no resample of the law could be fitted: {source.withheld}")
        return cls(*(samples[name].to_numpy() for name in PARAMETERS))

    def __len__(self) -> int:
        return len(self.E)

    def __iter__(self) -> Iterator[LossSurface]:
        for values in zip(*(getattr(self, name) for name in PARAMETERS), strict=True):
            yield LossSurface(**dict(zip(PARAMETERS, map(float, values), strict=True)))

    def predict(self, num_params: Any, num_tokens: Any) -> Any:
        """Loss in nats per token, the last axis over the laws."""
        reducible = self.A * np.power(num_params, -self.alpha) + self.B * np.power(num_tokens, -self.beta)
        return self.E + reducible**self.gamma

    def tokens_for(self, loss: Any, num_params: Any) -> Any:
        """D at which N parameters reach a loss; infinite where they never do."""
        with np.errstate(divide="ignore", over="ignore"):
            excess = np.maximum(np.asarray(loss) - self.E, 0) ** (1 / self.gamma)
            rest = excess - self.A * np.power(num_params, -self.alpha)
            return np.where(rest > 0, np.power(self.B / np.where(rest > 0, rest, 1.0), 1 / self.beta), np.inf)


@dataclass(frozen=True, kw_only=True)
class ComputeOptimal:
    """Compute-optimal models, arrays of shape (R,): one per law.

    `train_flops` in FLOP, `loss` in nats per token. NaN where a law has no optimum among the widths of the family.
    """

    train_flops: Any
    d_model: Any
    num_params: Any
    num_tokens: Any
    loss: Any

    @property
    def tokens_per_param(self) -> Any:
        """M = D/N."""
        return self.num_tokens / self.num_params


def compute_optimal(
    law: LossSurface | ParametricBootstrap | Laws, scale: FamilyScale, train_flops: Any
) -> ComputeOptimal:
    """Models of least loss at a compute.

    Parameters
    ----------
    law
        one law, or the resamples of a bootstrap.
    scale
        shapes, context length and convention that say what training costs.
    train_flops
        C in FLOP; a number, or one per law, shape (R,).

    Raises
    ------
    InputError
        if C is not positive and finite, or no law has an optimum.
    """
    laws = Laws.of(law)
    flops = np.broadcast_to(np.asarray(train_flops, dtype=float), (len(laws),))
    if not (np.isfinite(flops) & (flops > 0)).all():
        raise InputError(f"train_flops {train_flops} is not positive and finite")
    family = scale.family

    def preference(log_width: Any) -> Any:
        # what another token buys less what another parameter buys: rises with the width
        width = np.exp(log_width)
        size, price = family.num_params(width), family.flops_per_token(width, scale.context_length, scale.convention)
        of_size, of_price = family.elasticities(log_width, scale.context_length, scale.convention)
        from_tokens = laws.beta * laws.B * np.power(flops / price, -laws.beta) * of_price
        return np.log(from_tokens) - np.log(laws.alpha * laws.A * np.power(size, -laws.alpha) * of_size)

    width = np.exp(bisect(preference, flops.shape))
    at_end = (width < SMALLEST_WIDTH * (1 + 1e-6)) | (width > LARGEST_WIDTH * (1 - 1e-6))
    if at_end.all():
        raise InputError(
            f"{family.architecture}: the law has no optimum at {flops[0]:g} FLOP and T = {scale.context_length:g} "
            f"with d_model from {SMALLEST_WIDTH:g} to {LARGEST_WIDTH:g}"
        )
    width = np.where(at_end, np.nan, width)
    size = family.num_params(width)
    tokens = flops / family.flops_per_token(width, scale.context_length, scale.convention)
    return ComputeOptimal(
        train_flops=flops, d_model=width, num_params=size, num_tokens=tokens, loss=laws.predict(size, tokens)
    )


def compute_for_loss(law: LossSurface | ParametricBootstrap | Laws, scale: FamilyScale, loss: float) -> ComputeOptimal:
    """The cheapest training that reaches a loss: C and the compute-optimal model.

    Laws whose floor E is not below the loss have none: NaN.

    Raises
    ------
    InputError
        if no law reaches the loss; the message gives the lowest E.
    """
    laws = Laws.of(law)
    reachable = np.greater(loss, laws.E)
    if not reachable.any():
        raise InputError(
            f"{scale.family.architecture}: loss {loss:g} is never reached, the law's floor E is {np.min(laws.E):.4g}"
        )
    family = scale.family

    def preference(log_width: Any) -> Any:
        # the condition of the optimum with the tokens that reach the loss at this width; none do where N is too small
        width = np.exp(log_width)
        size = family.num_params(width)
        of_size, of_price = family.elasticities(log_width, scale.context_length, scale.convention)
        with np.errstate(divide="ignore"):
            from_tokens = np.log(laws.beta * laws.B * laws.tokens_for(loss, size) ** -laws.beta * of_price)
        return from_tokens - np.log(laws.alpha * laws.A * np.power(size, -laws.alpha) * of_size)

    width = np.exp(bisect(preference, (len(laws),)))
    size = family.num_params(width)
    tokens = laws.tokens_for(loss, size)
    outside = ~reachable | ~np.isfinite(tokens) | (width > LARGEST_WIDTH * (1 - 1e-6))
    outside |= width < SMALLEST_WIDTH * (1 + 1e-6)
    if outside.all():
        raise InputError(
            f"{family.architecture}: loss {loss:g} needs a d_model outside {SMALLEST_WIDTH:g} to {LARGEST_WIDTH:g}"
        )
    flops = family.flops_per_token(width, scale.context_length, scale.convention) * tokens
    reached = np.where(outside, np.nan, float(loss))
    blank = [np.where(outside, np.nan, values) for values in (flops, width, size, tokens)]
    return ComputeOptimal(
        train_flops=blank[0], d_model=blank[1], num_params=blank[2], num_tokens=blank[3], loss=reached
    )
