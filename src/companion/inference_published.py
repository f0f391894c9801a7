"""The runtime models as their authors fitted them: one bootstrap resample of the timings, squares of Huber losses.

`companion.inference_time` fits every timing once. The published constants (`inference_fits` of `data/published.yaml`)
come from another procedure, found out from the numbers and recorded in `data/inference_fit_rows.csv`:

* rows with a prompt, and of the step times those with a batch of 8 or more;
* a resample of these rows with replacement (`default_rng(0)`, as many draws as rows), which a default argument drew;
* the Huber loss of each residual, handed to `least_squares` as if it were a residual: the objective is the sum of the
  *squares* of the Huber losses, fourth powers of small residuals;
* MINPACK's `lmdif` without scaling of the parameters, all tolerances 1e-15, from one start;
* a count of FLOPs and bytes of their own (`published_work`).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import leastsq
from scipy.special import huber

from companion.accounting.conventions import PAPER, TFLA
from companion.accounting.flops import forward_flops
from companion.accounting.inference import BF16, cache_numbers
from companion.accounting.params import count_params
from companion.architectures import XLSTM
from companion.errors import InputError
from companion.fitting.bootstrap import resample_counts
from companion.inference_time import (
    COLUMNS,
    PARAMETERS,
    Array,
    InferenceFit,
    Quantity,
    by_model,
    fitted_rows,
    free_columns,
    middle_context,
    unidentified,
)

#: Seed of the resample that the published fits drew.
PUBLISHED_SEED = 0
#: Significant digits of the authors' timings in `data/inference.csv`.
TIME_DIGITS = 6
#: All three tolerances of the published search.
TOLERANCE = 1e-15
#: Calls of the objective after which a search ends; the published ones needed fewer than 200.
MOST_CALLS = 2000


@dataclass(frozen=True)
class PublishedObjective:
    """What a published search squares and sums: Huber losses of residuals in `unit`, or residuals without `delta`."""

    unit: str
    delta: float | None

    def terms(self, predicted: Array, times: Array) -> Array:
        """The terms that are squared, shape (n,), from seconds."""
        residuals = 1e3 * (predicted - times) if self.unit == "milliseconds" else _log_ratio(predicted / times)
        return residuals if self.delta is None else np.asarray(huber(self.delta, residuals))


#: The published objectives by name. The last belongs to one fit (Transformer 7B), whose cell sets delta to 0.
OBJECTIVES = {
    "milliseconds": PublishedObjective("milliseconds", 1.0),
    "logarithms": PublishedObjective("logarithms", 100.0),
    "plain logarithms": PublishedObjective("logarithms", None),
}
#: The objective of most fits of a quantity.
USUAL_OBJECTIVE = {"ttft": "milliseconds", "step_time": "logarithms"}
#: Where the published searches start; rates in FLOP/s or bytes/s, constants in seconds.
STARTS = {
    ("xlstm", "ttft"): (0.9 * 900e12, 2e-3),
    ("transformer", "ttft"): (0.39 * 900e12, 1e-3),
    ("xlstm", "step_time"): (3.35e12, 1e-4, 1e-5),
    ("transformer", "step_time"): (3.35e12, 1e-4, 1e-5),
}

# ---- the authors' count -------------------------------------------------------------------------

#: FLOPs of the prefill: attention with 0.65 of the scores, the tighter count of the mLSTM with chunks of 128.
TRANSFORMER_COUNT = replace(PAPER, name="published prefill", attention_causal_factor=0.65)
XLSTM_COUNT = replace(TFLA, name="published prefill", chunk_size=128, mlstm_causal_factor=0.75)
#: Share of the weights' bytes that counts in a step: the Transformer's as if 100 steps shared one read.
WEIGHTS_SHARE = {"transformer": 0.01, "xlstm": 1.0}


def published_work(rows: pd.DataFrame, quantity: Quantity) -> Array:
    """FLOPs of the prefill (`ttft`) or bytes of the step (`step_time`) by the authors' count, shape (n,).

    Recovered from the column `work` of `data/inference_fit_rows.csv`, whose nine digits it has in every row.

    Prefill, beside `forward_flops` under `TRANSFORMER_COUNT` or `XLSTM_COUNT`: logits of the last token alone; per
    token and block 8·d more for a Transformer; for an xLSTM 11·d and 2·H more, and 2·d·H less, as the two gates are
    priced at half a product.

    Step: weights (see `WEIGHTS_SHARE`) in 2 bytes; keys and values, or the state read and written, as in
    `companion.accounting.inference.count_step`; activations in 2 bytes: V + 3·d numbers, and per block 8·d + 3·d_ff for
    a Transformer, 18·d + 4·H + 3·d_ff for an xLSTM.
    """
    result = np.zeros(len(rows))
    batch, prompt = (rows[name].to_numpy(dtype=float) for name in ("batch_size", "prefill_length"))
    for model, at in by_model(rows):
        if quantity == "ttft":
            result[at] = batch[at] * _prefill(model, prompt[at])
        else:
            weights = count_params(model)
            read = (weights.total - weights.embedding) * BF16.bytes_per_weight * WEIGHTS_SHARE[model.name]
            result[at] = read + batch[at] * _moved_per_sequence(model, middle_context(rows)[at])
    return result


def _prefill(model: Any, prompt: Array) -> Array:
    d, H = model.d_model, model.n_heads
    is_xlstm = model.name == XLSTM.name
    forward = forward_flops(model, prompt, XLSTM_COUNT if is_xlstm else TRANSFORMER_COUNT)
    more = 11 * d + 2 * H - 2 * d * H if is_xlstm else 8 * d
    logits = 2.0 * d * model.vocab_size
    return np.asarray(forward.total - forward.unembedding + model.n_layers * prompt * more + logits)


def _moved_per_sequence(model: Any, context: Array) -> Array:
    d, vocabulary = model.d_model, model.vocab_size
    if model.name == XLSTM.name:
        cache = 2 * cache_numbers(model, context) * BF16.bytes_per_state  # read and written
        block = 18 * d + 4 * model.n_heads + 3 * model.d_ff
    else:
        cache = cache_numbers(model, context + 1) * BF16.bytes_per_cache
        block = 8 * d + 3 * model.d_ff
    return np.asarray(cache + (model.n_layers * block + 3 * d + vocabulary) * BF16.bytes_per_activation)


# ---- the fit ------------------------------------------------------------------------------------


def published_draw(num_rows: int, seed: int = PUBLISHED_SEED) -> NDArray[np.int64]:
    """How often each of `num_rows` rows, in the order of the table, is in the published resample; shape (n,)."""
    return np.bincount(np.random.default_rng(seed).integers(0, num_rows, num_rows), minlength=num_rows)


def fit_published(
    table: pd.DataFrame,
    architecture: str,
    model_size: str,
    quantity: Quantity,
    *,
    objective: str | None = None,
    every_row_once: bool = False,
    num_resamples: int = 400,
    seed: int = 0,
    level: float = 0.95,
    smallest_batch: int | None = None,
) -> InferenceFit:
    """The runtime model of one size by the published procedure.

    Parameters
    ----------
    table, architecture, model_size, quantity, smallest_batch
        as for `companion.inference_time.fit_inference`. The resample depends on the order of the rows.
    objective
        a name of `OBJECTIVES`; by default the one that most published fits of the quantity have.
    every_row_once
        the same search on the timings themselves, without the resample.
    num_resamples, seed
        further resamples, for intervals: how far the constants move with the draw.
    level
        of the interval that must lie above 0 for a rate to count as identified.

    Returns
    -------
    InferenceFit
        `log_residuals` are those of every timing, drawn or not.

    Raises
    ------
    InputError
        for an unknown objective, if there are no such timings, or too few for the parameters.
    """
    chosen = _objective(USUAL_OBJECTIVE[quantity] if objective is None else objective)
    rows = fitted_rows(table, architecture, model_size, quantity, smallest_batch)
    times, design = rows[COLUMNS[quantity]].to_numpy(dtype=float), published_design(rows, quantity)
    start = np.array(STARTS[architecture, quantity])
    counts = np.ones(len(rows)) if every_row_once else published_draw(len(rows)).astype(float)
    free, singular = free_columns((design / times[:, None])[counts > 0])
    solution = solve_published(design, times, start, chosen, counts)
    draws = resample_counts(np.zeros(len(rows)), num_resamples, seed) if num_resamples else np.empty((0, len(rows)))
    resamples = []
    for draw in draws.astype(float):
        undetermined = free_columns((design / times[:, None])[draw > 0])[0].any()
        resamples.append(solution * np.nan if undetermined else solve_published(design, times, start, chosen, draw))
    predicted = design @ solution
    fit = InferenceFit(
        architecture=architecture,
        model_size=model_size,
        quantity=quantity,
        coefficients=np.where(free, np.nan, solution),
        resamples=np.array(resamples).reshape(-1, len(start)),
        reasons={},
        log_residuals=np.log(np.where(predicted > 0, predicted, np.nan) / times),
        singular_values=singular,
    )
    return replace(fit, reasons=unidentified(fit, free, level))


def published_draws(
    table: pd.DataFrame, architecture: str, model_size: str, quantity: Quantity, objective: str, *, num_draws: int
) -> dict[str, Array]:
    """Parameters by name, shape (1 + num_draws,): on the times as stored, then on times drawn within their rounding.

    The authors' timings are stored with `TIME_DIGITS` significant digits.
    """
    chosen, rows = _objective(objective), fitted_rows(table, architecture, model_size, quantity)
    times, design = rows[COLUMNS[quantity]].to_numpy(dtype=float), published_design(rows, quantity)
    half_unit = 0.5 * 10.0 ** (np.floor(np.log10(times)) + 1 - TIME_DIGITS)
    rng = np.random.default_rng(0)
    several = [times, *(times + rng.uniform(-half_unit, half_unit) for _ in range(num_draws))]
    start, counts = np.array(STARTS[architecture, quantity]), published_draw(len(rows)).astype(float)
    found = np.array([solve_published(design, drawn, start, chosen, counts) for drawn in several])
    return dict(zip(PARAMETERS[quantity], np.column_stack([1 / found[:, :1], found[:, 1:]]).T, strict=True))


def published_design(rows: pd.DataFrame, quantity: Quantity) -> Array:
    """Columns that the coefficients multiply, with the authors' count: shape (n, 2) for `ttft`, (n, 3) for steps."""
    columns = [published_work(rows, quantity), np.ones(len(rows)), rows["batch_size"].to_numpy(dtype=float)]
    return np.stack(columns[: len(PARAMETERS[quantity])], axis=1)


def solve_published(
    design: Array, times: Array, start: Array, objective: PublishedObjective, counts: Array | None = None
) -> Array:
    """Where the published search ends, as coefficients of the columns of a design; shape (k,).

    The search varies the rate, not its inverse, and does not scale the parameters: beside a rate of 1e12 the constants
    weigh nothing, so it may stop short of the minimum, as the published ones did. The derivatives are differences with
    steps relative to each parameter, as in MINPACK's `lmdif`. `scipy.optimize.leastsq` still calls it; later versions
    of `least_squares(method="lm")` scale, and take absolute steps below 1: their ends differ from the fourth digit.

    Parameters
    ----------
    design
        shape (n, k), the column of the rate first.
    times
        seconds, shape (n,).
    start
        rate and constants, shape (k,).
    objective
        what is squared and summed.
    counts
        how often each row counts, shape (n,); once unless given.
    """
    root = np.ones(len(times)) if counts is None else np.sqrt(counts)

    def terms(parameters: Array) -> Array:
        # a step may try a rate of exactly 0; an infinite time is no better than a very long one
        rate = parameters[0] if parameters[0] != 0 else np.finfo(float).tiny
        predicted = np.clip(design[:, 0] / rate + design[:, 1:] @ parameters[1:], -1e100, 1e100)
        return root * objective.terms(predicted, times)

    found, *_ = leastsq(
        terms, start, xtol=TOLERANCE, ftol=TOLERANCE, gtol=TOLERANCE, diag=np.ones(len(start)), maxfev=MOST_CALLS
    )
    return np.concatenate([1 / found[:1], found[1:]])


def _objective(name: str) -> PublishedObjective:
    if name not in OBJECTIVES:
        raise InputError(f"objective {name!r} of the published procedure is not one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def _log_ratio(ratio: Array) -> Array:
    """ln of predicted over measured, below a thousandth its tangent: no step can leave the domain."""
    return np.where(ratio > 1e-3, np.log(np.maximum(ratio, 1e-3)), np.log(1e-3) + (ratio - 1e-3) * 1e3)
