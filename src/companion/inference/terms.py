"""What limits an inference time: shares of the terms, and what the step times of attention say about the device.

The step times of the Transformer do not grow with the bytes of its cache. They grow with the tokens of one head's
cache, in waves: as many heads as the device has multiprocessors are read at once, one more head costs a second wave
(`companion.inference.runtime_model`). Here are the numbers behind that statement, each from the timings alone.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from companion.accounting.conventions import PAPER
from companion.accounting.inference import BF16, Precision, cache_bytes
from companion.accounting.params import num_params
from companion.errors import InputError
from companion.hardware import REFERENCE_HARDWARE, Hardware, get_hardware
from companion.inference.one_size import SMALLEST_BATCH, InferenceFit, design_of, fit_inference, generation_bytes
from companion.inference.runtime_model import RuntimeModel, fit_runtime_model
from companion.inference.solve import least_squares_start, relative_nnls, solve_times
from companion.inference.timings import COLUMNS, Quantity, by_model, least_seconds, measured, middle_context, model_of

#: Ratio of the time per cached token to that of a single sequence from which a batch counts as two waves.
SECOND_WAVE = 1.5
#: Contexts that a slope is fitted through, at least.
FEWEST_CONTEXTS = 3


def fit_all_sizes(
    table: pd.DataFrame, *, num_resamples: int = 200, objective: Literal["relative", "milliseconds"] = "relative"
) -> tuple[dict[tuple[str, str, str], InferenceFit], list[str]]:
    """The paper's form for every architecture, quantity and size of a table, and what could not be fitted, in words."""
    fits: dict[tuple[str, str, str], InferenceFit] = {}
    notes = []
    for name in dict.fromkeys(table["architecture"]):
        for quantity in _quantities():
            for size in dict.fromkeys(table.loc[table["architecture"] == name, "model_size"]):
                try:
                    fits[name, quantity, size] = fit_inference(
                        table, name, size, quantity, num_resamples=num_resamples, objective=objective
                    )
                except InputError as error:
                    notes.append(str(error))
    return fits, notes


def fit_all_models(
    table: pd.DataFrame,
    *,
    hardware: str | Hardware = REFERENCE_HARDWARE,
    num_resamples: int = 200,
    split_cache: bool = False,
) -> tuple[dict[tuple[str, str], RuntimeModel], list[str]]:
    """The runtime model of every architecture and quantity of a table, and what could not be fitted, in words.

    `split_cache`: see `companion.inference.runtime_model.fit_runtime_model`.
    """
    models: dict[tuple[str, str], RuntimeModel] = {}
    notes = []
    for name in dict.fromkeys(table["architecture"]):
        for quantity in _quantities():
            try:
                models[name, quantity] = fit_runtime_model(
                    table, name, quantity, hardware=hardware, num_resamples=num_resamples, split_cache=split_cache
                )
            except InputError as error:
                notes.append(str(error))
    return models, notes


def fixed_bandwidths(
    table: pd.DataFrame, architecture: str, model_size: str, bandwidths: Iterable[float]
) -> pd.DataFrame:
    """The paper's step-time form with the bandwidth fixed at several values: what the other two parameters make of it.

    Returns
    -------
    DataFrame
        with `beta_eff_bytes_per_s` as given, `eps_s`, `eps_bp_s` of least squares of log residuals, and
        `rms_log_error`.
    """
    rows = measured(table, architecture, "step_time", model_size)
    rows = rows[(rows["prefill_length"] > 0) & (rows["batch_size"] >= SMALLEST_BATCH)]
    design, times = design_of(rows, "step_time"), rows["step_time_s"].to_numpy(dtype=float)
    found = []
    for bandwidth in bandwidths:
        known = design[:, 0] / bandwidth
        start = least_squares_start(design[:, 1:] / times[:, None], 1 - known / times)
        eps, eps_bp = solve_times(design[:, 1:], times, start, known=known)
        residuals = np.log((known + design[:, 1:] @ [eps, eps_bp]) / times)
        found.append({"beta_eff_bytes_per_s": bandwidth, "eps_s": eps, "eps_bp_s": eps_bp})
        found[-1]["rms_log_error"] = float(np.sqrt(np.mean(residuals**2)))
    return pd.DataFrame(found, columns=["beta_eff_bytes_per_s", "eps_s", "eps_bp_s", "rms_log_error"])


def left_out_sizes(table: pd.DataFrame, architecture: str, quantity: Quantity) -> pd.DataFrame:
    """Every size predicted by a model of the others: `model_size`, `num_rows`, `rms_log_error`, `bias` (mean ln ratio).

    Raises
    ------
    InputError
        if too few timings are left for the terms.
    """
    rows, found = measured(table, architecture, quantity), []
    if quantity == "ttft":
        rows = rows[rows["prefill_length"] > 0]
    for size in dict.fromkeys(rows["model_size"]):
        model = fit_runtime_model(rows[rows["model_size"] != size], architecture, quantity, num_resamples=0)
        left = rows[rows["model_size"] == size]
        at = left["prefill_length"].to_numpy(dtype=float) if quantity == "ttft" else middle_context(left)
        predicted = model.predict(model_of(left.iloc[0]), at, left["batch_size"].to_numpy())
        ratio = np.log(predicted / left[COLUMNS[quantity]].to_numpy(dtype=float))
        found.append({"model_size": size, "num_rows": len(left), "rms_log_error": float(np.sqrt(np.mean(ratio**2)))})
        found[-1]["bias"] = float(np.mean(ratio))
    return pd.DataFrame(found, columns=["model_size", "num_rows", "rms_log_error", "bias"])


def _quantities() -> tuple[Quantity, ...]:
    return ("ttft", "step_time")


def cached_token_times(table: pd.DataFrame, architecture: str = "transformer") -> pd.DataFrame:
    """Seconds that one more token of context adds to a step, per layer: slopes of step time over context.

    Returns
    -------
    DataFrame
        with `model_size`, `batch_size`, `n_heads`, `head_width` (d_model / n_heads), `heads_in_batch` (batch_size ·
        n_heads), `num_contexts`, `seconds` per token and layer (least squares), and `ratio` of it to that of the
        smallest batch of the same size. Pairs of size and batch with fewer than three contexts are left out.

    Raises
    ------
    InputError
        if the table has no step times of the architecture.
    """
    rows = measured(table, architecture, "step_time")
    rows = rows.assign(context_length=middle_context(rows))
    found = []
    for (size, batch), group in rows.groupby(["model_size", "batch_size"], sort=False):
        if group["context_length"].nunique() < FEWEST_CONTEXTS:
            continue
        slope = np.polyfit(group["context_length"], group["step_time_s"], 1)[0]
        row = group.iloc[0]
        found.append(
            {
                "model_size": size,
                "batch_size": batch,
                "n_heads": row["n_heads"],
                "head_width": row["d_model"] / row["n_heads"],
                "heads_in_batch": batch * row["n_heads"],
                "num_contexts": len(group),
                "seconds": slope / row["n_layers"],
            }
        )
    columns = ["model_size", "batch_size", "n_heads", "head_width", "heads_in_batch", "num_contexts", "seconds"]
    times = pd.DataFrame(found, columns=columns)
    first = times.sort_values("batch_size").groupby("model_size")["seconds"].first()
    return times.assign(ratio=times["seconds"] / times["model_size"].map(first))


def multiprocessor_bounds(times: pd.DataFrame) -> tuple[float, float]:
    """Heads that still run in one wave, and fewest that do not: the device has at least the first, fewer than the last.

    `times` is the table of `cached_token_times`. Infinite or 0 where the timings give no bound.
    """
    two = times["ratio"] >= SECOND_WAVE
    low, high = times.loc[~two, "heads_in_batch"].max(), times.loc[two, "heads_in_batch"].min()
    return (0.0 if np.isnan(low) else float(low), float("inf") if np.isnan(high) else float(high))


def multiprocessor_scan(
    table: pd.DataFrame, numbers: Iterable[int], hardware: str | Hardware = REFERENCE_HARDWARE
) -> pd.DataFrame:
    """`rms_log_error` of the Transformer's step-time model for devices of `num_multiprocessors`, a row each."""
    peaks, found = get_hardware(hardware), []
    for number in numbers:
        device = replace(peaks, num_multiprocessors=int(number))
        model = fit_runtime_model(table, "transformer", "step_time", hardware=device, num_resamples=0)
        found.append({"num_multiprocessors": int(number), "rms_log_error": model.rms_log_error})
    return pd.DataFrame(found, columns=["num_multiprocessors", "rms_log_error"])


def cache_term_variants(model: RuntimeModel) -> pd.DataFrame:
    """The Transformer's step-time model with other terms for the cache: waves, bytes, both, waves times head width.

    Returns
    -------
    DataFrame
        with `cache_term`, `rms_log_error` and `share_of_bytes`: what the terms in bytes (or in head width) take of all
        fitted time.
    """
    rows, times = model.rows, model.rows["step_time_s"].to_numpy(dtype=float)
    at = [term.name for term in model.terms].index("cache_waves")
    waves, rest = model.design[:, at], np.delete(model.design, at, axis=1)
    head_width = (rows["d_model"] / rows["n_heads"]).to_numpy(dtype=float)
    moved = generation_bytes(rows)
    variants = {
        "tokens × waves": ([waves], []),
        "bytes of all heads": ([], [moved]),
        "tokens × waves, and bytes of all heads": ([waves], [moved]),
        "tokens × waves × head width": ([], [waves * head_width]),
        "tokens × waves, and × head width": ([waves], [waves * head_width]),
    }
    found = []
    for name, (plain, wide) in variants.items():
        design = np.column_stack([rest, *plain, *wide])
        coefficients = relative_nnls(design, times)(np.ones(len(times)))
        residuals = np.log(design @ coefficients / times)
        spent = coefficients * design.sum(axis=0)
        found.append(
            {
                "cache_term": name,
                "rms_log_error": float(np.sqrt(np.mean(residuals**2))),
                "share_of_bytes": float(spent[-1] / spent.sum()) if wide else 0.0,
            }
        )
    return pd.DataFrame(found)


def bandwidth_by_head_width(table: pd.DataFrame, fits: Iterable[InferenceFit]) -> pd.DataFrame:
    """Fitted bandwidths of the paper's step-time form beside the width of a head.

    Returns
    -------
    DataFrame
        with `model_size`, `head_width`, `beta_eff_bytes_per_s`, its interval `low`, `high`, and `per_width`: bytes/s
        per unit of head width.
    """
    found = []
    for fit in fits:
        row = measured(table, fit.architecture, "step_time", fit.model_size).iloc[0]
        beta, width = fit.parameters["beta_eff_bytes_per_s"], row["d_model"] / row["n_heads"]
        low, high = fit.interval("beta_eff_bytes_per_s")
        found.append({"model_size": fit.model_size, "head_width": width, "beta_eff_bytes_per_s": beta})
        found[-1] |= {"low": low, "high": high, "per_width": beta / width}
    columns = ["model_size", "head_width", "beta_eff_bytes_per_s", "low", "high", "per_width"]
    return pd.DataFrame(found, columns=columns)


def memory_of_steps(table: pd.DataFrame, precision: Precision = BF16) -> pd.DataFrame:
    """`bytes` of weights and cache at the end of every generation of the Transformer, and whether its step was `timed`.

    Activations of the prefill are not in it: a generation may have failed for these.
    """
    rows = table[table["architecture"] == "transformer"]
    weights, cache = np.zeros(len(rows)), np.zeros(len(rows))
    tokens = (rows["prefill_length"] + rows["generation_length"]).to_numpy(dtype=float)
    for model, at in by_model(rows):
        weights[at] = num_params(model) * precision.bytes_per_weight
        cache[at] = cache_bytes(model, tokens[at], precision)
    held = weights + rows["batch_size"].to_numpy() * cache
    return pd.DataFrame({"bytes": held, "timed": rows["step_time_s"].notna().to_numpy()})


def shares(
    model: RuntimeModel,
    architecture: Any,
    context_length: Any,
    batch_size: Any = 1,
    hardware: str | Hardware | None = None,
) -> pd.DataFrame:
    """What part of a time each kind of term takes: `compute`, `memory`, `latency`, `fixed`.

    Parameters
    ----------
    model
        of the architecture.
    architecture, hardware
        see `RuntimeModel.predict`.
    context_length, batch_size
        numbers, or arrays of shape (n,) that broadcast.

    Returns
    -------
    DataFrame
        with `context_length`, `batch_size`, `seconds`, a column per kind that the model has (they add up to 1), and
        `largest`: the kind with the largest share.
    """
    T, B = np.broadcast_arrays(
        np.atleast_1d(np.asarray(context_length, dtype=float)), np.atleast_1d(np.asarray(batch_size, dtype=float))
    )
    parts = model.parts(architecture, T, B, hardware)
    total = sum(parts.values()) + np.zeros(T.shape)
    table = pd.DataFrame({"context_length": T, "batch_size": B, "seconds": total})
    kinds = list(dict.fromkeys(term.kind for term in model.terms))
    for kind in kinds:
        table[kind] = sum(parts[term.name] for term in model.terms if term.kind == kind) / total
    return table.assign(largest=table[kinds].idxmax(axis=1))


def changes(table: pd.DataFrame, along: str) -> pd.DataFrame:
    """Where the largest kind changes in a table of `shares`, along `context_length` or `batch_size`.

    Returns
    -------
    DataFrame with `before`, `after`, and `at`: the first value of the column where `after` is the largest.
    """
    kinds = table["largest"].to_numpy()
    at = np.flatnonzero(kinds[1:] != kinds[:-1]) + 1
    return pd.DataFrame({"before": kinds[at - 1], "after": kinds[at], "at": table[along].to_numpy()[at]})


def against_roofline(
    table: pd.DataFrame, architecture: str, quantity: Quantity, hardware: str | Hardware = REFERENCE_HARDWARE
) -> pd.Series:
    """Measured time over the roofline of `companion.accounting.inference`, with the index of the timings.

    Below 1 a pass was faster than the count allows: fewer bytes were moved than counted, or the hardware is another.
    Times to first token without a prompt, or with one below a chunk, are left out.
    """
    rows = measured(table, architecture, quantity)
    if quantity == "ttft":
        rows = rows[rows["prefill_length"] >= PAPER.chunk_size]
    return rows[COLUMNS[quantity]] / least_seconds(rows, quantity, hardware)
