"""Utilization as it was measured, between the sizes and context lengths that were trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from companion.errors import InputError
from companion.formatting import listed
from companion.hardware import REFERENCE_HARDWARE
from companion.paths import data_dir
from companion.training.throughput import beyond_peak, finished, with_throughput

Array = NDArray[np.float64]

#: Runs that a quadratic in ln N needs so that its scatter can be estimated.
_FEWEST_RUNS = 6
#: Columns of logs that have been loaded, and those that a utilization is made of.
_NEEDED = ("architecture", "context_length", "num_params", "num_gpus", "step_time_s", "val_loss", "status")
_COUNTED = ("num_tokens", "train_flops", "train_steps")
#: Relative distance up to which a size counts as one of the logs'.
_SAME = 1e-3


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
    recomputed activations) is that of the logs: a table of one's own gives one's own numbers. `source` is the logs'
    file, `hardware` the device whose peak the utilizations are shares of, a name of `data/hardware.csv`.
    """

    curves: dict[str, tuple[SizeCurve, ...]]
    source: str
    hardware: str = REFERENCE_HARDWARE

    @classmethod
    def of(cls, logs: pd.DataFrame, hardware: str = REFERENCE_HARDWARE) -> "MeasuredUtilization":
        """From the finished runs of logs (all groups); context lengths with fewer than six runs are left out.

        Parameters
        ----------
        logs
            of `load_training_logs`, or of `with_throughput` for the same hardware.
        hardware
            what the logs' runs were trained on, a name of `data/hardware.csv`.

        Raises
        ------
        InputError
            if no architecture has a context length with six runs, or a run would do more than its GPUs can.

        Examples
        --------
        >>> from companion.training import load_training_logs
        >>> measured = MeasuredUtilization.of(load_training_logs())
        >>> {name: measured.context_lengths(name) for name in measured.curves}
        {'transformer': (2048, 8192, 16384), 'xlstm': (8192, 16384)}
        """
        source = str(logs.attrs.get("source", "training logs"))
        needed = _NEEDED if "utilization" in logs else (*_NEEDED, *_COUNTED)
        if missing := [name for name in needed if name not in logs]:
            raise InputError(f"{source}: no column {missing[0]!r}; companion.training.load_training_logs reads logs")
        known = logs if "utilization" in logs else with_throughput(logs, hardware)
        if fault := beyond_peak(known, hardware):
            raise InputError(f"{source}: {fault}")
        curves: dict[str, list[SizeCurve]] = {}
        groups: Any = finished(known, group=None).groupby(["architecture", "context_length"])
        for (name, length), rows in groups:
            if len(rows) >= _FEWEST_RUNS and rows["num_params"].nunique() > 3:
                curves.setdefault(str(name), []).append(_fit(length, rows))
        if not curves:
            raise InputError(
                f"{source}: no context length has {_FEWEST_RUNS} finished runs of four sizes with throughput"
            )
        return cls(curves={name: tuple(found) for name, found in curves.items()}, source=source, hardware=hardware)

    @property
    def of_authors(self) -> bool:
        """Whether the logs are the project's own table of the authors' runs."""
        return Path(self.source).absolute() == (data_dir() / "training_logs.csv").absolute()

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

    def residuals(self, architecture: str) -> tuple[int, float]:
        """Number of runs behind the curves of an architecture, and the root mean square of their residuals in ln u.

        Raises
        ------
        InputError
            if the logs do not have the architecture.
        """
        self.context_lengths(architecture)
        curves = self.curves[architecture]
        number = sum(curve.degrees + len(curve.coefficients) for curve in curves)
        return number, float(np.sqrt(sum(curve.degrees * curve.residual_variance for curve in curves) / number))

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
        mean, spread, degrees, outside = self._log_share(architecture, sizes, context_length)
        reach = stats.t.ppf((1 + level) / 2, degrees) * spread
        value, low, high = (np.minimum(np.exp(x), 1.0) for x in (mean, mean - reach, mean + reach))
        return Utilization(value=value, low=low, high=high, outside=outside)

    def quantile(
        self, architecture: str, num_params: ArrayLike, context_length: float, probability: ArrayLike = 0.5
    ) -> Array:
        """The utilization that one further run stays below with a probability; one half gives the curve itself.

        The spread is that of `at`: the uncertainty of the curve and the scatter of a run about it, by Student's t. Both
        arguments broadcast, and NaN for a size gives NaN. `evenly_spread` probabilities make samples of it.

        Raises
        ------
        InputError
            if the logs do not have the architecture.

        Examples
        --------
        >>> from companion.training import load_training_logs
        >>> measured = MeasuredUtilization.of(load_training_logs())
        >>> measured.quantile("xlstm", 1e9, 16384, [0.025, 0.5, 0.975]).round(2)
        array([0.27, 0.3 , 0.32])
        """
        mean, spread, degrees, _ = self._log_share(architecture, np.asarray(num_params, dtype=float), context_length)
        return np.asarray(np.minimum(np.exp(mean + stats.t.ppf(probability, degrees) * spread), 1.0))

    def outside(self, architecture: str, num_params: float, context_length: float) -> list[str]:
        """What of a model lies outside the logs, in words; empty if nothing does.

        Raises
        ------
        InputError
            if the logs do not have the architecture.
        """
        lengths, notes = self.context_lengths(architecture), []
        used = [curve for curve, weight in self._between(architecture, context_length) if weight > 0]
        low, high = max(curve.sizes[0] for curve in used), min(curve.sizes[1] for curve in used)
        if not low * (1 - _SAME) <= num_params <= high * (1 + _SAME):
            at = listed(curve.context_length for curve in used)
            notes.append(
                f"utilization: {num_params:.4g} parameters is outside the logs' {low:.4g} to {high:.4g} at T = {at}; "
                "that of the nearest size is taken"
            )
        if not lengths[0] <= context_length <= lengths[-1]:
            there = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
            notes.append(
                f"utilization: T = {context_length:g} is outside the logs' {there}; that of the nearest T is taken"
            )
        return notes

    def _between(self, architecture: str, context_length: float) -> list[tuple[SizeCurve, float]]:
        """The curves about a context length, or the nearest one, with their weights."""
        lengths = np.log(self.context_lengths(architecture))
        curves = self.curves[architecture]
        if len(curves) == 1:
            return [(curves[0], 1.0)]
        place = float(np.clip(np.log(context_length), lengths[0], lengths[-1]))
        above = int(np.clip(np.searchsorted(lengths, place), 1, len(lengths) - 1))
        share = float((place - lengths[above - 1]) / (lengths[above] - lengths[above - 1]))
        return [(curves[above - 1], 1 - share), (curves[above], share)]

    def _log_share(
        self, architecture: str, sizes: Array, context_length: float
    ) -> tuple[Array, Array, int, NDArray[np.bool_]]:
        """Mean and deviation of ln(utilization) of a further run, degrees of freedom, and which sizes are outside."""
        used = [(curve, weight) for curve, weight in self._between(architecture, context_length) if weight > 0]
        parts = [curve.at(sizes.ravel()) for curve, _ in used]
        mean, variance = (
            np.asarray(sum(weight * part[i] for (_, weight), part in zip(used, parts, strict=True))) for i in (0, 1)
        )
        lengths = self.context_lengths(architecture)
        beyond = not lengths[0] <= context_length <= lengths[-1]
        outside = np.any([part[2] for part in parts], axis=0) | beyond
        degrees = min(curve.degrees for curve, _ in used)
        return mean.reshape(sizes.shape), np.sqrt(variance).reshape(sizes.shape), degrees, outside.reshape(sizes.shape)


def evenly_spread(number: int) -> Array:
    """Probabilities at even distances between 0 and 1 in a fixed order, shape (number,).

    The order is that of no other scatter of a plan, so that what belongs to one resample is unrelated.
    """
    return np.asarray((np.random.default_rng(2).permutation(number) + 0.5) / number)


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
