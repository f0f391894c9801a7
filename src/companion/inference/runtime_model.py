"""Inference times of all sizes at once: what the hardware does, term by term.

The paper fits every size by itself (`companion.inference.one_size`); such fits cannot predict a size in between. Here a
time is a sum of physical terms (`companion.inference.features`) with coefficients that all sizes of an architecture
share, none of them negative:

* prefill: FLOPs over a rate (attention's core at its own), work per token and layer that no matrix unit does, and
  overheads per layer and per pass;
* step: weights over a bandwidth, state over a bandwidth, activations, overheads per layer. Attention reads the cache of
  one head on one multiprocessor, in waves: a batch with more heads than multiprocessors waits for a second wave.
  `cache_waves` counts tokens times waves, not bytes: the time hardly depends on the width of a head (chapter 8), so it
  is a latency, which a larger bandwidth would not shorten.

Coefficients are found by non-negative least squares of relative errors, intervals by a bootstrap over (size, batch).
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.accounting.inference import BF16, Precision
from companion.accounting.params import num_params
from companion.architectures import Architecture, Term
from companion.errors import InputError, NotApplicable
from companion.fitting.bootstrap import percentile_interval, resample_counts
from companion.hardware import REFERENCE_HARDWARE, Hardware, get_hardware
from companion.inference.features import features, features_of_rows, split_terms, terms_of
from companion.inference.solve import free_columns, relative_nnls
from companion.inference.timings import COLUMNS, Quantity, load_paper_inference, measured, middle_context, model_of
from companion.numeric import Numeric, Values

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RuntimeModel:
    """Coefficients of the terms of one architecture and quantity, in seconds per unit of a term.

    `coefficients` has shape (k,), `resamples` (R, k), `log_residuals` (n,): log predicted minus log measured.
    `hardware` is what the timings are taken to come from; `rows` are the timings that were fitted. With `split_cache`
    the terms are those of kernels that split a cache over the device (`companion.inference.features.split_terms`).
    """

    architecture: str
    quantity: Quantity
    hardware: Hardware
    coefficients: Array
    resamples: Array
    log_residuals: Array
    rows: pd.DataFrame
    split_cache: bool = False

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The terms, in the order of the coefficients."""
        return _terms(self.rows, self.architecture, self.quantity, self.split_cache)

    @property
    def design(self) -> Array:
        """Sizes of the terms for every timing, shape (n, k)."""
        return features_of_rows(self.rows, self.terms, self.quantity, self.hardware, split_cache=self.split_cache)

    @property
    def rms_log_error(self) -> float:
        """Root mean square of the log residuals."""
        return float(np.sqrt(np.mean(self.log_residuals**2)))

    @property
    def free(self) -> dict[str, str]:
        """Terms whose coefficient the timings leave free, and why; predictions for models like those timed stand."""
        design = self.design
        free = np.asarray(free_columns(design / self.rows[COLUMNS[self.quantity]].to_numpy(dtype=float)[:, None])[0])
        occurs = {term.name: bool(column.any()) for term, column in zip(self.terms, design.T, strict=True)}
        names = [term.name for column, term in enumerate(self.terms) if free[column]]
        tied = [name for name in names if occurs[name]]
        others = {name: " and ".join(other for other in tied if other != name) for name in tied}
        return {name: f"trades off with {others[name]}" if name in tied else "occurs in no timing" for name in names}

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """A row per term: `term`, `kind`, `unit`, `rate` (units per second), its interval, `share` of all fitted time.

        `identified` is False where the bootstrap cannot separate the coefficient from 0 (the upper end is infinite),
        and where the timings leave it free (see `free`: rate and interval are then NaN if its term occurs at all).
        """
        total, free = self.coefficients * self.design.sum(axis=0), self.free
        rows = []
        for column, term in enumerate(self.terms):
            low, high = percentile_interval(self.resamples[:, column], level)
            with np.errstate(divide="ignore"):
                rates = 1 / np.array([self.coefficients[column], high, low])
            if "trades off" in free.get(term.name, ""):
                rates, low = np.full(3, np.nan), np.nan
            rows.append(
                {
                    "term": term.name,
                    "kind": term.kind,
                    "unit": term.unit,
                    "rate": rates[0],
                    "rate_low": rates[1],
                    "rate_high": rates[2],
                    "identified": bool(low > 0),
                    "share": total[column] / total.sum(),
                    "meaning": term.meaning,
                }
            )
        return pd.DataFrame(rows)

    def parts(
        self,
        architecture: Architecture,
        context_length: Numeric,
        batch_size: Numeric,
        hardware: str | Hardware | None = None,
        precision: Precision = BF16,
    ) -> dict[str, Values]:
        """Seconds of every term (see `predict`)."""
        sizes, speed = self._sizes(architecture, context_length, batch_size, hardware, precision)
        scale = [speed[term.kind] for term in self.terms]
        return {
            term.name: coefficient * sizes[term.name] * factor
            for term, coefficient, factor in zip(self.terms, self.coefficients, scale, strict=True)
        }

    def predict(
        self,
        architecture: Architecture,
        context_length: Numeric,
        batch_size: Numeric,
        hardware: str | Hardware | None = None,
        precision: Precision = BF16,
    ) -> Values:
        """Seconds of one prefill or step of a batch; arrays broadcast.

        On other hardware than the timings', compute terms scale with its peak FLOP/s and memory terms with its peak
        bandwidth: the efficiency is taken to be the same; latencies and overheads are.
        """
        return sum(self.parts(architecture, context_length, batch_size, hardware, precision).values())

    def samples(
        self,
        architecture: Architecture,
        context_length: Numeric,
        batch_size: Numeric,
        hardware: str | Hardware | None = None,
        precision: Precision = BF16,
        scatter: bool = True,
        paired: bool = False,
    ) -> Array:
        """Seconds under every resample, shape (R, …); `paired`: model r of shapes (R,) under resample r, shape (R,).

        With `scatter`, each is multiplied by a residual of the fit: what the model misses on the timings it saw, it
        will miss elsewhere too.
        """
        where = (architecture, context_length, batch_size, hardware, precision)
        result = self.seconds_under(self.resamples, *where, paired=paired)
        if scatter:
            result = result * self.scatter(len(result)).reshape(-1, *[1] * (np.ndim(result) - 1))
        return result

    def seconds_under(
        self,
        coefficients: Array,
        architecture: Architecture,
        context_length: Numeric,
        batch_size: Numeric,
        hardware: str | Hardware | None = None,
        precision: Precision = BF16,
        *,
        paired: bool = False,
    ) -> Array:
        """Seconds under rows of coefficients (R, k): shape (R, …), or (R,) where `paired` with shapes (R,)."""
        sizes, speed = self._sizes(architecture, context_length, batch_size, hardware, precision)
        result: Any = 0.0
        for column, term in enumerate(self.terms):
            size = np.asarray(sizes[term.name] * speed[term.kind])
            result = result + (
                coefficients[:, column] * size if paired else np.multiply.outer(coefficients[:, column], size)
            )
        return np.asarray(result)

    def scatter(self, number: int) -> Array:
        """Measured over predicted times of the fit, evenly spread over their quantiles in a fixed order, shape (R,)."""
        # an order for each quantity: the errors of the two models are unrelated
        order = np.random.default_rng(len(self.quantity)).permutation(number)
        return np.exp(-np.quantile(self.log_residuals, (order + 0.5) / number))

    def outside(self, num_params: ArrayLike, context_length: ArrayLike, batch_size: ArrayLike) -> list[str]:
        """What of a request lies outside the timings, in words; empty if nothing does."""
        notes, tokens = [], "prompt" if self.quantity == "ttft" else "context"
        column = self.rows["prefill_length"] if self.quantity == "ttft" else pd.Series(middle_context(self.rows))
        for name, value, values in (
            ("num_params", num_params, self.rows["num_params"]),
            (tokens, context_length, column),
            ("batch_size", batch_size, self.rows["batch_size"]),
            (
                "tokens in a batch",
                np.multiply(context_length, batch_size, dtype=float),
                column.to_numpy() * self.rows["batch_size"],
            ),
        ):
            low, high = float(np.min(values)), float(np.max(values))
            if np.any(np.asarray(value) > high * 1.001) or np.any(np.asarray(value) < low * 0.999):
                notes.append(
                    f"{self.quantity}: {name} {np.max(value):.4g} is outside the timed {low:.4g} to {high:.4g}"
                )
        if notes and self.free:
            notes.append(f"{self.quantity}: the timings leave free what {', '.join(self.free)} cost")
        return notes

    def _sizes(
        self,
        architecture: Architecture,
        context_length: Numeric,
        batch_size: Numeric,
        hardware: str | Hardware | None,
        precision: Precision,
    ) -> tuple[dict[str, Any], dict[str, float]]:
        if architecture.name != self.architecture:
            raise InputError(f"runtime model of {self.architecture}: the model is a {architecture.name}")
        target = self.hardware if hardware is None else get_hardware(hardware)
        where = (self.quantity, architecture, context_length, batch_size, target, precision)
        sizes = features(*where, split_cache=self.split_cache)
        speed = {
            "compute": self.hardware.peak_flops_per_s / target.peak_flops_per_s,
            "memory": self.hardware.peak_bytes_per_s / target.peak_bytes_per_s,
            "latency": 1.0,
            "fixed": 1.0,
        }
        return sizes, speed


def fit_runtime_model(
    table: pd.DataFrame,
    architecture: str,
    quantity: Quantity,
    *,
    hardware: str | Hardware = REFERENCE_HARDWARE,
    num_resamples: int = 200,
    seed: int = 0,
    split_cache: bool = False,
) -> RuntimeModel:
    """The runtime model of all sizes of an architecture.

    Parameters
    ----------
    table
        timings, see `companion.inference.timings.load_inference`. Times to first token without a prompt are left out.
    hardware
        what the timings were taken on.
    num_resamples, seed
        bootstrap over (model_size, batch_size): timings of one model and batch share what the model misses.
    split_cache
        whether the timed kernels split a cache over the device: then its bytes are a term and not waves of heads, and
        a table of hybrids can be fitted.

    Raises
    ------
    NotApplicable
        if the architecture or quantity has no runtime model, there are no such timings, or fewer (size, batch) pairs
        than terms.

    Examples
    --------
    >>> model = fit_runtime_model(load_paper_inference(), "xlstm", "step_time", num_resamples=10)
    >>> print(f"{model.rms_log_error:.2f}")
    0.05
    """
    if not split_cache:
        terms_of(architecture, quantity)  # raises before the rows are looked at
    rows = measured(table, architecture, quantity)
    if quantity == "ttft":
        rows = rows[rows["prefill_length"] > 0]
    if rows.empty:
        raise NotApplicable(
            f"{table.attrs.get('source', 'the table of timings')}: no {quantity} timings of {architecture}"
            + (" with a prompt" if quantity == "ttft" else "")
        )
    terms = _terms(rows, architecture, quantity, split_cache)
    if "num_params" not in rows:
        rows = rows.assign(num_params=[int(num_params(model_of(row))) for _, row in rows.iterrows()])
    groups = rows.groupby(["model_size", "batch_size"], sort=False).ngroup().to_numpy()
    if len(np.unique(groups)) <= len(terms):
        raise NotApplicable(
            f"runtime model of {architecture}, {quantity}: {len(np.unique(groups))} pairs of size and batch for "
            f"{len(terms)} terms; at least {len(terms) + 1} are needed"
        )
    peaks = get_hardware(hardware)
    times = rows[COLUMNS[quantity]].to_numpy(dtype=float)
    design = features_of_rows(rows, terms, quantity, peaks, split_cache=split_cache)
    solve = relative_nnls(design, times)
    counts = np.empty((0, len(rows)))
    if num_resamples:
        counts = resample_counts(np.zeros(groups.max() + 1), num_resamples, seed)[:, groups].astype(float)
    coefficients = solve(np.ones(len(rows)))
    return RuntimeModel(
        architecture=architecture,
        quantity=quantity,
        hardware=peaks,
        coefficients=coefficients,
        resamples=np.array([solve(weights) for weights in counts]).reshape(-1, len(terms)),
        log_residuals=np.log(np.maximum(design @ coefficients / times, np.finfo(float).tiny)),
        rows=rows,
        split_cache=split_cache,
    )


def _terms(rows: pd.DataFrame, architecture: str, quantity: Quantity, split_cache: bool) -> tuple[Term, ...]:
    return split_terms(model_of(rows.iloc[0]), quantity) if split_cache else terms_of(architecture, quantity)


@lru_cache(maxsize=8)
def paper_runtime_model(architecture: str, quantity: Quantity, num_resamples: int = 200, seed: int = 0) -> RuntimeModel:
    """The runtime model of the authors' timings.

    Examples
    --------
    >>> paper_runtime_model("transformer", "ttft", num_resamples=10).resamples.shape
    (10, 5)
    """
    return fit_runtime_model(load_paper_inference(), architecture, quantity, num_resamples=num_resamples, seed=seed)
