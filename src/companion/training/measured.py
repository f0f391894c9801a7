"""Utilization as it was measured, between the sizes and context lengths that were trained."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from companion.errors import InputError
from companion.training.throughput import finished, with_throughput

Array = NDArray[np.float64]

#: Runs that a quadratic in ln N needs so that its scatter can be estimated.
_FEWEST_RUNS = 6


@dataclass(frozen=True, kw_only=True)
class Utilization:
    """Utilization of models, each a share between 0 and 1, arrays of one shape.

    `low` and `high` bound that of a single further run at the level asked for; `outside` marks sizes or a context
    length beyond the runs, where the value of the nearest run's size and context length stands in.
    """

    value: Array
    low: Array
    high: Array
    outside: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class SizeCurve:
    """ln(utilization) over ln N at one context length: a quadratic about `center`, highest power first.

    `sizes` are the smallest and largest N of its runs, `covariance` is that of the coefficients, `residual_variance`
    that of a run about the curve, with `degrees` degrees of freedom.
    """

    context_length: int
    sizes: tuple[float, float]
    center: float
    coefficients: Array
    covariance: Array
    residual_variance: float
    degrees: int

    def at(self, num_params: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Mean of ln(utilization), variance of one further run, and which sizes lie outside."""
        inside = np.clip(num_params, *self.sizes)
        x = np.vander(np.log(inside) - self.center, len(self.coefficients))
        variance = np.einsum("ij,jk,ik->i", x, self.covariance, x) + self.residual_variance
        return x @ self.coefficients, variance, inside != num_params


@dataclass(frozen=True, kw_only=True)
class MeasuredUtilization:
    """Utilization by architecture, size and context length, from training logs.

    Within a context length a quadratic in ln N is fitted to ln(utilization) by least squares; between two context
    lengths both are interpolated linearly in ln T. What else made the runs fast or slow (GPUs, batch, kernels,
    recomputed activations) is that of the logs: a table of one's own gives one's own numbers.
    """

    curves: dict[str, tuple[SizeCurve, ...]]
    source: str

    @classmethod
    def of(cls, logs: pd.DataFrame) -> "MeasuredUtilization":
        """From the finished runs of logs (all groups); context lengths with fewer than six runs are left out.

        Raises
        ------
        InputError
            if no architecture has a context length with six runs.

        Examples
        --------
        >>> from companion.training import load_training_logs
        >>> measured = MeasuredUtilization.of(load_training_logs())
        >>> {name: measured.context_lengths(name) for name in measured.curves}
        {'transformer': (2048, 8192, 16384), 'xlstm': (8192, 16384)}
        """
        known = logs if "utilization" in logs else with_throughput(logs)
        source = str(logs.attrs.get("source", "training logs"))
        curves: dict[str, list[SizeCurve]] = {}
        groups: Any = finished(known, group=None).groupby(["architecture", "context_length"])
        for (name, length), rows in groups:
            if len(rows) >= _FEWEST_RUNS and rows["num_params"].nunique() > 3:
                curves.setdefault(str(name), []).append(_fit(length, rows))
        if not curves:
            raise InputError(
                f"{source}: no context length has {_FEWEST_RUNS} finished runs of four sizes with throughput"
            )
        return cls(curves={name: tuple(found) for name, found in curves.items()}, source=source)

    def context_lengths(self, architecture: str) -> tuple[int, ...]:
        """Context lengths that an architecture was measured at, increasing.

        Raises
        ------
        InputError
            if the logs do not have the architecture.
        """
        if architecture not in self.curves:
            raise InputError(f"{self.source}: no utilization of {architecture!r}; known are {', '.join(self.curves)}")
        return tuple(curve.context_length for curve in self.curves[architecture])

    def at(self, architecture: str, num_params: ArrayLike, context_length: float, level: float = 0.95) -> Utilization:
        """Utilization of models of N parameters, any shape, trained at a context length.

        Raises
        ------
        InputError
            if the logs do not have the architecture, or a number is not positive.

        Examples
        --------
        >>> from companion.training import load_training_logs
        >>> measured = MeasuredUtilization.of(load_training_logs())
        >>> found = measured.at("transformer", [2e8, 2e12], 16384)
        >>> found.value.round(2), found.outside
        (array([0.16, 0.27]), array([False,  True]))
        """
        sizes = np.asarray(num_params, dtype=float)
        if not (np.isfinite(sizes) & (sizes > 0)).all() or not context_length > 0:
            raise InputError(f"num_params {num_params!s} and context_length {context_length!s} must be positive")
        lengths = np.log(self.context_lengths(architecture))
        flat = sizes.ravel()
        place = float(np.clip(np.log(context_length), lengths[0], lengths[-1]))
        above = int(np.clip(np.searchsorted(lengths, place), 1, max(len(lengths) - 1, 1)))
        pair = self.curves[architecture][max(above - 1, 0) : above + 1]
        share = (place - lengths[above - 1]) / (lengths[above] - lengths[above - 1]) if len(pair) == 2 else 0.0
        parts = [curve.at(flat) for curve in pair]
        weights = np.array([1 - share, share])[: len(parts)]
        used = [part for part, weight in zip(parts, weights, strict=True) if weight > 0]
        mean = sum(weight * part[0] for weight, part in zip(weights, parts, strict=True))
        spread = np.sqrt(sum(weight * part[1] for weight, part in zip(weights, parts, strict=True)))
        reach = stats.t.ppf((1 + level) / 2, min(curve.degrees for curve in pair)) * spread
        outside = np.any([part[2] for part in used], axis=0) | (abs(np.log(context_length) - place) > 1e-9)
        value, low, high = (np.exp(x).reshape(sizes.shape) for x in (mean, mean - reach, mean + reach))
        return Utilization(
            value=value, low=low, high=np.asarray(np.minimum(high, 1.0)), outside=outside.reshape(sizes.shape)
        )


def _fit(context_length: int, rows: pd.DataFrame) -> SizeCurve:
    """The quadratic of one architecture at one context length."""
    size = rows["num_params"].to_numpy(float)
    center = float(np.log(size).mean())
    x, y = np.vander(np.log(size) - center, 3), np.log(rows["utilization"].to_numpy(float))
    coefficients, *_ = np.linalg.lstsq(x, y)
    degrees = len(y) - x.shape[1]
    residual_variance = float(np.square(y - x @ coefficients).sum() / degrees)
    return SizeCurve(
        context_length=context_length,
        sizes=(float(size.min()), float(size.max())),
        center=center,
        coefficients=coefficients,
        covariance=residual_variance * np.linalg.inv(x.T @ x),
        residual_variance=residual_variance,
        degrees=degrees,
    )
