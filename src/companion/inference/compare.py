"""Two architectures at inference: which is faster, from which context length on; at equal size, loss or compute.

Equal size is how timings are taken. Equal loss is what a user gets: the training law of each architecture says which
compute-optimal model reaches a loss (`companion.laws.optimum`), and the two models differ in size.

Two methods of predicting a time: `measured`, the runtime models fitted to timings (`inference.runtime_model`), and
`roofline`, the least time that the hardware's peaks allow for the counted work. `measured_crossovers` interpolates the
timings themselves. A ratio is always the second architecture's time over the first's: above 1 the first is faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.accounting.inference import BF16, Precision, count_prefill, count_step
from companion.architectures import Architecture
from companion.errors import InputError
from companion.fitting.bootstrap import percentile_interval, quantile_ends
from companion.fitting.fit import Fit
from companion.fitting.uncertainty import Bootstrap
from companion.hardware import REFERENCE_HARDWARE, Hardware, get_hardware
from companion.inference.runtime_model import RuntimeModel
from companion.inference.timings import COLUMNS, Quantity, by_model, measured, middle_context
from companion.laws import Optimum, compute_for_loss, optimum
from companion.numeric import Numeric, Values
from companion.runs.shape_family import FamilyScale

Array = NDArray[np.float64]
Method = Literal["measured", "roofline"]
METHODS: tuple[Method, ...] = ("measured", "roofline")
#: Runtime models by architecture and quantity.
Models = Mapping[tuple[str, str], RuntimeModel]


def crossover(context_lengths: ArrayLike, ratio: ArrayLike) -> Values:
    """Context from which a ratio stays above 1, between the given ones by a straight line in log-log axes.

    Parameters
    ----------
    context_lengths
        tokens, rising, shape (K,).
    ratio
        second time over first, shape (K,) or (K, R): one crossover per column.

    Returns
    -------
    Values
        float or array of shape (R,): tokens; 0 if the ratio is above 1 at every context, infinite if it is not above 1
        at the longest, NaN where a ratio is NaN.

    Raises
    ------
    InputError
        if the contexts do not rise.
    """
    T, values = np.asarray(context_lengths, dtype=float), np.asarray(ratio, dtype=float)
    if T.ndim != 1 or not len(T) or np.any(np.diff(T) <= 0) or T[0] <= 0:
        wrong = int(np.argmax(np.diff(T, prepend=0) <= 0)) if T.ndim == 1 and len(T) else 0
        raise InputError(f"context lengths do not rise from above 0: entry {wrong} of {T.size}")
    columns = values.reshape(len(T), -1)
    found = np.zeros(columns.shape[1])
    for column, series in enumerate(np.log(columns.T)):
        below = np.flatnonzero(~(series > 0))
        if np.isnan(series).any():
            found[column] = np.nan
        elif len(below) and below[-1] == len(T) - 1:
            found[column] = np.inf
        elif len(below):
            at = below[-1]
            share = -series[at] / (series[at + 1] - series[at])
            found[column] = np.exp(np.log(T[at]) + share * np.log(T[at + 1] / T[at]))
    return found if values.ndim > 1 else float(found[0])


def measured_crossovers(
    table: pd.DataFrame, quantity: Quantity, first: str = "xlstm", second: str = "transformer"
) -> pd.DataFrame:
    """Crossovers of the timings themselves, at equal size and batch.

    Returns
    -------
    DataFrame
        with `model_size`, `batch_size`, `num_contexts` (contexts timed for both), `shortest` and `longest` of them,
        `ratio_at_shortest`, `ratio_at_longest`, and `crossover` (see the function of that name), all contexts in
        tokens. Pairs of size and batch with fewer than two common contexts are left out.

    Raises
    ------
    InputError
        if an architecture has no such timings.
    """
    sides = []
    for name in (first, second):
        rows = measured(table, name, quantity)
        rows = rows.assign(context_length=rows["prefill_length"] if quantity == "ttft" else middle_context(rows))
        keys = ["model_size", "batch_size", "context_length"]
        # several timings of one context (of several generation lengths, say) count as their mean
        sides.append(rows[rows["context_length"] > 0].groupby(keys, sort=False)[COLUMNS[quantity]].mean())
    ratio = (sides[1] / sides[0]).dropna().rename("ratio").reset_index()
    found = []
    for (size, batch), group in ratio.groupby(["model_size", "batch_size"], sort=False):
        series = group.sort_values("context_length")
        if len(series) < 2:
            continue
        contexts, values = series["context_length"].to_numpy(), series["ratio"].to_numpy()
        found.append(
            {
                "model_size": size,
                "batch_size": batch,
                "num_contexts": len(series),
                "shortest": contexts[0],
                "longest": contexts[-1],
                "ratio_at_shortest": values[0],
                "ratio_at_longest": values[-1],
                "crossover": crossover(contexts, values),
            }
        )
    columns = ["model_size", "batch_size", "num_contexts", "shortest", "longest"]
    return pd.DataFrame(found, columns=[*columns, "ratio_at_shortest", "ratio_at_longest", "crossover"])


def seconds(
    quantity: Quantity,
    architecture: Architecture,
    context_length: Numeric,
    batch_size: Numeric = 1,
    *,
    model: RuntimeModel | None = None,
    hardware: str | Hardware = REFERENCE_HARDWARE,
    precision: Precision = BF16,
) -> Numeric:
    """Seconds of a prefill or a step under a runtime model, or without one the roofline's; arrays broadcast."""
    if model is not None:
        return model.predict(architecture, context_length, batch_size, hardware, precision)
    counted = count_prefill if quantity == "ttft" else count_step
    return counted(architecture, context_length, batch_size, precision=precision).roofline(hardware).seconds


def size_crossovers(
    table: pd.DataFrame,
    models: Models,
    quantity: Quantity,
    batch_sizes: Sequence[int],
    context_lengths: ArrayLike,
    *,
    hardware: str | Hardware = REFERENCE_HARDWARE,
    first: str = "xlstm",
    second: str = "transformer",
) -> pd.DataFrame:
    """Crossovers at equal size of the models that a table of timings names, under runtime models and roofline.

    Returns
    -------
    DataFrame
        with `model_size`, `batch_size`, `method` (`measured` or `roofline`), `crossover` (tokens, see the function of
        that name) and `ratio_at_longest` context.
    """
    shapes = {
        name: {table.loc[rows.index[at[0]], "model_size"]: model for model, at in by_model(rows)}
        for name, rows in ((name, measured(table, name, quantity)) for name in (first, second))
    }
    T, found = np.asarray(context_lengths, dtype=float), []
    for size in [size for size in shapes[first] if size in shapes[second]]:
        for batch in batch_sizes:
            for method in METHODS:
                times = [
                    seconds(
                        quantity,
                        shapes[name][size],
                        T,
                        batch,
                        model=models[name, quantity] if method == "measured" else None,
                        hardware=hardware,
                    )
                    for name in (first, second)
                ]
                ratio = np.broadcast_to(np.asarray(times[1]), T.shape) / times[0]
                found.append({"model_size": size, "batch_size": batch, "method": method})
                found[-1] |= {"crossover": crossover(T, ratio), "ratio_at_longest": ratio[-1]}
    return pd.DataFrame(found, columns=["model_size", "batch_size", "method", "crossover", "ratio_at_longest"])


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The compute-optimal model of one architecture, and the same of every resample of its law.

    `best` has shape (1,), `resamples` (R,): NaN where a resample has none. `scale` says shapes and training context.
    """

    architecture: str
    scale: FamilyScale
    best: Optimum
    resamples: Optimum

    def interval(self, quantity: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of `num_params`, `num_tokens`, `train_flops`, `loss` or `tokens_per_param`."""
        return percentile_interval(getattr(self.resamples, quantity), level)

    @property
    def extrapolated(self) -> bool:
        """Whether the model is smaller or larger than those of the runs behind the family of shapes."""
        family, size = self.scale.family, float(self.best.num_params[0])
        return not family.smallest <= size <= family.largest


def at_equal_loss(
    fits: Mapping[str, Fit],
    bootstraps: Mapping[str, Bootstrap],
    scales: Mapping[str, FamilyScale],
    loss: float,
) -> dict[str, Trained]:
    """The cheapest model of every architecture that reaches a loss (nats per token).

    Raises
    ------
    InputError
        if a law never reaches it.
    """
    return {
        name: Trained(
            architecture=name,
            scale=scales[name],
            best=compute_for_loss(fit.law, scales[name], loss),
            resamples=compute_for_loss(bootstraps[name].laws, scales[name], loss),
        )
        for name, fit in fits.items()
    }


def at_equal_compute(
    fits: Mapping[str, Fit],
    bootstraps: Mapping[str, Bootstrap],
    scales: Mapping[str, FamilyScale],
    train_flops: float,
) -> dict[str, Trained]:
    """The best model of every architecture for a training compute (FLOP)."""
    return {
        name: Trained(
            architecture=name,
            scale=scales[name],
            best=optimum(fit.law, scales[name], train_flops),
            resamples=optimum(bootstraps[name].laws, scales[name], train_flops),
        )
        for name, fit in fits.items()
    }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two trained models over the context length.

    `table` has a row per `quantity` (`ttft`, `step_time` in seconds, `memory` in bytes), `method` (`measured`,
    `roofline`; `count` for memory) and `context_length`: `first` and `second` architecture's value, each with `_low`
    and `_high`, and `ratio` = second / first with the same.
    `crossovers` has a row per quantity and method: `crossover`, `crossover_low`, `crossover_high` in tokens (see
    `crossover`), and `ratio_at_shortest`, `ratio_at_longest`.
    """

    first: str
    second: str
    table: pd.DataFrame
    crossovers: pd.DataFrame


def compare_trained(
    trained: Mapping[str, Trained],
    models: Models,
    context_lengths: ArrayLike,
    batch_size: int = 1,
    *,
    hardware: str | Hardware = REFERENCE_HARDWARE,
    precision: Precision = BF16,
    level: float = 0.95,
    seed: int = 0,
    first: str = "xlstm",
    second: str = "transformer",
) -> Comparison:
    """TTFT, step time and memory of two trained models over the context, with intervals.

    Parameters
    ----------
    trained
        from `at_equal_loss` or `at_equal_compute`.
    models
        runtime models of both architectures and quantities, with resamples.
    context_lengths
        tokens, rising: of the prompt for `ttft`, at the step for `step_time` and `memory`.
    batch_size
        sequences at once.
    level
        of the intervals: resamples of the laws (they move the sizes), of the runtime models, and their residuals, drawn
        independently for the two architectures.

    Raises
    ------
    InputError
        for contexts or a batch that cannot be, unknown hardware, or an architecture that is missing.
    """
    if missing := [name for name in (first, second) if name not in trained]:
        raise InputError(f"comparison: no model of {', '.join(missing)}; there are {', '.join(trained) or 'none'}")
    T, peaks = np.asarray(context_lengths, dtype=float), get_hardware(hardware)
    rng = np.random.default_rng(seed)
    number = min(len(trained[name].resamples.num_params) for name in (first, second))
    kinds = [*((q, m) for q in ("ttft", "step_time") for m in METHODS), ("memory", "count")]
    tables, crossings = [], []
    for quantity, method in kinds:
        sides = []
        for name in (first, second):
            model = models[name, quantity] if method == "measured" else None
            sides.append(_side(trained[name], quantity, model, T, batch_size, peaks, precision, number, rng))
        ratio = tuple(below / above for above, below in zip(*sides, strict=True))
        table = pd.DataFrame({"quantity": quantity, "method": method, "context_length": T})
        for label, (value, samples) in zip(("first", "second", "ratio"), (*sides, ratio), strict=True):
            bounds = [percentile_interval(row, level) for row in samples]
            table[label] = value
            table[f"{label}_low"], table[f"{label}_high"] = np.transpose(bounds)
        tables.append(table)
        low, high = _ordered_interval(np.asarray(crossover(T, ratio[1])), level)
        crossings.append({"quantity": quantity, "method": method, "crossover": crossover(T, ratio[0])})
        crossings[-1] |= {"crossover_low": low, "crossover_high": high}
        crossings[-1] |= {"ratio_at_shortest": ratio[0][0], "ratio_at_longest": ratio[0][-1]}
    return Comparison(
        first=first,
        second=second,
        table=pd.concat(tables, ignore_index=True),
        crossovers=pd.DataFrame(crossings),
    )


def _side(
    trained: Trained,
    quantity: str,
    model: RuntimeModel | None,
    context_lengths: Array,
    batch_size: int,
    hardware: Hardware,
    precision: Precision,
    number: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Values over the contexts, shape (K,), and under resamples, shape (K, R)."""
    shapes = trained.scale.family.shapes(np.asarray(trained.best.d_model)[0])
    widths = np.asarray(trained.resamples.d_model)
    several = trained.scale.family.shapes(widths[rng.permutation(len(widths))[:number]])
    if model is not None:
        value = model.predict(shapes, context_lengths, batch_size, hardware, precision)
        coefficients = model.resamples[rng.permutation(number) % len(model.resamples)]
        scatter = model.scatter(number)[rng.permutation(number)]
        where = (batch_size, hardware, precision)
        samples = [
            model.seconds_under(coefficients, several, T, *where, paired=True) * scatter for T in context_lengths
        ]
        return np.broadcast_to(value, context_lengths.shape), np.array(samples)

    def counted(of: Architecture, T: Numeric) -> Array:
        if quantity == "memory":
            return np.asarray(count_step(of, T, batch_size, precision=precision).memory.total)
        return np.asarray(seconds(quantity, of, T, batch_size, hardware=hardware, precision=precision))  # type: ignore[arg-type]

    value = np.broadcast_to(counted(shapes, context_lengths), context_lengths.shape)
    return value, np.array([np.broadcast_to(counted(several, T), (number,)) for T in context_lengths])


def _ordered_interval(samples: Array, level: float) -> tuple[float, float]:
    """Percentiles of values of which some may be 0 or infinite: no interpolation between neighbors."""
    known = samples[~np.isnan(samples)]
    if not known.size:
        return (float("nan"), float("nan"))
    low, high = quantile_ends(known, level, "inverted_cdf")
    return (float(low), float(high))
