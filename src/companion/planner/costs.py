"""What a model of a plan costs: training, serving, memory; and the size that is cheapest in total."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.accounting.inference import InferencePass, count_prefill, count_step
from companion.architectures import Architecture
from companion.errors import InputError
from companion.fitting.fit import Fit
from companion.hardware import get_hardware
from companion.inference.one_size import Quantity
from companion.laws import LossSurface
from companion.planner.knowledge import Knowledge
from companion.planner.request import SECONDS_PER_HOUR, Request
from companion.runs.shape_family import LARGEST_WIDTH, SMALLEST_WIDTH, FamilyScale

Array = NDArray[np.float64]
#: Widths of the family among which the cost-optimal model is looked for.
SEARCHED_WIDTHS = np.geomspace(SMALLEST_WIDTH, LARGEST_WIDTH, 1800)
#: Relative rise of the cost from one width to the next up to which it counts as smooth.
SMOOTH = 1e-3


def coefficients_of(request: Request, knowledge: Knowledge, number: int, resampled: bool) -> tuple[Array, Array]:
    """Coefficients of both runtime models, shape (number, k): the fit itself, or its resamples in turn.

    A roofline has none: then k is 0.
    """
    if request.timing == "roofline":
        none = np.empty((number if resampled else 1, 0))
        return none, none
    models = knowledge.times
    if not resampled:
        return (models[0].coefficients[None], models[1].coefficients[None])
    return (_cycled(models[0].resamples, number), _cycled(models[1].resamples, number))


def _cycled(rows: Array, number: int) -> Array:
    return rows[np.arange(number) % len(rows)]


def cheapest_in_total(
    request: Request,
    knowledge: Knowledge,
    scale: FamilyScale,
    laws: LossSurface,
    loss: Array,
    resampled: bool,
) -> dict[str, Array]:
    """Widths and tokens that reach a loss with the least device time of training and serving, arrays of shape (R,).

    Only sizes whose memory fits the hardware are searched; the least of `SEARCHED_WIDTHS` is refined by a parabola. NaN
    for laws without such a size.

    Raises
    ------
    InputError
        if no law has a size that both reaches the loss and fits.
    """
    shapes = served_shapes(request, knowledge, SEARCHED_WIDTHS)
    size = knowledge.family.num_params(SEARCHED_WIDTHS)
    price = scale.family.flops_per_token(SEARCHED_WIDTHS, scale.context_length, scale.convention)
    tokens = laws.tokens_for(np.asarray(loss), size[:, None])
    train = price[:, None] * tokens / request.flops_per_second
    total = (
        train
        + _serving_seconds(request, knowledge, shapes, coefficients_of(request, knowledge, len(laws), resampled)).T
    )
    total[~_fits(request, shapes)] = np.inf
    if not np.isfinite(tokens).any():
        raise InputError(
            f"no size from {size[0]:.3g} to {size[-1]:.3g} parameters reaches a loss of {np.nanmax(loss):.4g}"
        )
    feasible = np.isfinite(total).any(axis=0)
    if not feasible.any():
        hardware, needed = get_hardware(request.hardware), needed_bytes(request, shapes)
        least = needed[np.isfinite(tokens).any(axis=1)].min()
        raise InputError(
            f"no size that reaches the loss fits: does not fit, needs {least / 2**30:.1f} GiB; "
            f"{hardware.label} has {hardware.memory_bytes / 2**30:.1f} GiB"
        )
    best = np.clip(np.argmin(np.where(np.isnan(total), np.inf, total), axis=0), 1, len(size) - 2)
    every = np.arange(total.shape[1])
    before, here, after = (np.log(total[best + shift, every]) for shift in (-1, 0, 1))
    with np.errstate(invalid="ignore"):
        shift = 0.5 * (before - after) / (before - 2 * here + after)
        # waves of attention heads and the limit of memory make steps, over which no parabola goes
        smooth = np.isfinite(shift) & (np.abs(shift) <= 1) & (np.maximum(before, after) - here < SMOOTH)
    shift = np.where(smooth, shift, 0.0)
    step = np.log(SEARCHED_WIDTHS[1] / SEARCHED_WIDTHS[0])
    width = SEARCHED_WIDTHS[best] * np.exp(shift * step)
    width = np.where(feasible, width, np.nan)
    tokens = np.asarray(laws.tokens_for(np.asarray(loss), knowledge.family.num_params(width)))
    return {"d_model": width, "num_tokens": tokens, "loss": np.asarray(loss)}


def served_shapes(request: Request, knowledge: Knowledge, width: Any) -> Architecture:
    """The member of the family at a width, keys and values grouped as the request says."""
    return knowledge.family.shapes(width, request.kv_groups)


def _serving_seconds(request: Request, knowledge: Knowledge, shapes: Any, coefficients: tuple[Array, Array]) -> Array:
    """Device seconds of all serving, shape (R, number of shapes): every sequence of a batch shares its time."""
    prefills = request.prefill_tokens / (request.prompt * request.batch_size)
    steps = request.generated_tokens / request.batch_size
    ttft = pass_seconds(request, knowledge, "ttft", coefficients[0], shapes, request.prompt)
    step = pass_seconds(request, knowledge, "step_time", coefficients[1], shapes, request.mean_context)
    return prefills * ttft + steps * step


def pass_seconds(
    request: Request,
    knowledge: Knowledge,
    quantity: Quantity,
    coefficients: Array,
    shapes: Architecture,
    context: int,
    *,
    paired: bool = False,
) -> Array:
    """Seconds of one prefill (`ttft`) or step (`step_time`), by the request's timing: runtime model or roofline alone.

    Shape (R, …), or (R,) where `paired`: row r of the coefficients with model r of shapes (R,).
    """
    where = (shapes, context, request.batch_size)
    if request.timing == "measured":
        model = knowledge.times[("ttft", "step_time").index(quantity)]
        return model.seconds_under(
            coefficients, *where, hardware=request.hardware, precision=request.precision, paired=paired
        )
    count = count_prefill if quantity == "ttft" else count_step
    seconds = np.asarray(count(*where, precision=request.precision).roofline(request.hardware).seconds)
    return seconds if paired else np.broadcast_to(seconds, (len(coefficients), *seconds.shape))


def passes_of(request: Request, shapes: Any) -> tuple[InferencePass, InferencePass]:
    """The prefill of the prompt and the step at the full context."""
    batch, precision = request.batch_size, request.precision
    return (
        count_prefill(shapes, request.prompt, batch, precision=precision),
        count_step(shapes, request.context, batch, precision=precision),
    )


def needed_bytes(request: Request, shapes: Any) -> Array:
    """Bytes that the larger of both passes holds, shape of the shapes."""
    return np.maximum(*(np.asarray(counted.memory.total) for counted in passes_of(request, shapes)))


def cost_curve(request: Request, knowledge: Knowledge, loss: float, widths: Any = SEARCHED_WIDTHS) -> pd.DataFrame:
    """Cost of every size that reaches a loss, by the fitted law and coefficients.

    Returns
    -------
    DataFrame with `num_params`, `num_tokens`, `tokens_per_param`, `train_gpu_hours`, `serve_gpu_hours`,
    `total_gpu_hours` and `fits`; sizes that never reach the loss are left out.
    """
    scale = FamilyScale(family=knowledge.family, context_length=request.context)
    width = np.asarray(widths, dtype=float)
    size = knowledge.family.num_params(width)
    tokens = knowledge.fit.law.tokens_for(loss, size)
    shapes = served_shapes(request, knowledge, width)
    flops = scale.family.flops_per_token(width, scale.context_length, scale.convention) * tokens
    train = flops / request.flops_per_second / SECONDS_PER_HOUR
    serve = (
        _serving_seconds(request, knowledge, shapes, coefficients_of(request, knowledge, 1, False))[0]
        / SECONDS_PER_HOUR
    )
    table = pd.DataFrame(
        {
            "num_params": size,
            "num_tokens": tokens,
            "tokens_per_param": tokens / size,
            "train_gpu_hours": train,
            "serve_gpu_hours": serve,
            "total_gpu_hours": train + serve,
            "fits": _fits(request, shapes),
        }
    )
    return table[np.isfinite(table["num_tokens"])].reset_index(drop=True)


def _fits(request: Request, shapes: Any) -> NDArray[np.bool_]:
    return needed_bytes(request, shapes) <= get_hardware(request.hardware).memory_bytes


def numbers_of(
    request: Request, knowledge: Knowledge, scale: FamilyScale, found: dict[str, Array], scattered: bool
) -> dict[str, Array]:
    """Every number of a planned model, by name; one value per law, shape (R,)."""
    width, tokens = found["d_model"], found["num_tokens"]
    shapes, number = served_shapes(request, knowledge, width), len(width)
    size = knowledge.family.num_params(width)
    flops = scale.family.flops_per_token(width, scale.context_length, scale.convention) * tokens
    rows = coefficients_of(request, knowledge, number, scattered)
    times = [
        pass_seconds(request, knowledge, quantity, coefficients, shapes, context, paired=True)
        for quantity, coefficients, context in _passes(request, rows)
    ]
    loss = found["loss"]
    if scattered:  # what laws and runtime models miss on their own data, they will miss on the planned model too
        loss = loss * _loss_scatter(knowledge.fit, number)
        if request.timing == "measured":
            ttft, step_time = (model.scatter(number) for model in knowledge.times)
            times = [times[0] * ttft, times[1] * step_time, times[2] * step_time]
    prefill, step = passes_of(request, shapes)
    train = flops / request.flops_per_second / SECONDS_PER_HOUR
    prefills = request.prefill_tokens / (request.prompt * request.batch_size)
    serve = (prefills * times[0] + request.generated_tokens / request.batch_size * times[2]) / SECONDS_PER_HOUR
    values = {
        "num_params": size,
        "num_tokens": tokens,
        "tokens_per_param": tokens / size,
        "train_flops": flops,
        "loss": loss,
        "ttft_s": times[0],
        "step_time_s": times[1],
        "ttft_roofline_s": np.asarray(prefill.roofline(request.hardware).seconds),
        "step_time_roofline_s": np.asarray(step.roofline(request.hardware).seconds),
        "memory_bytes": needed_bytes(request, shapes),
        "train_gpu_hours": train,
        "serve_gpu_hours": serve,
        "total_gpu_hours": train + serve,
    }
    if request.price_per_gpu_hour is not None:
        values["total_price"] = values["total_gpu_hours"] * request.price_per_gpu_hour
    return values


def _passes(request: Request, rows: tuple[Array, Array]) -> tuple[tuple[Quantity, Array, int], ...]:
    """The prefill, and the steps at full and at mean context, with their coefficients."""
    return (
        ("ttft", rows[0], request.prompt),
        ("step_time", rows[1], request.context),
        ("step_time", rows[1], request.mean_context),
    )


def _loss_scatter(fit: Fit, number: int) -> Array:
    """Observed over fitted losses, evenly spread over their quantiles in a fixed order, widened for what was fitted."""
    widening = np.sqrt(fit.num_rows / (fit.num_rows - fit.num_free))
    order = np.random.default_rng(1).permutation(number)
    return np.exp(np.quantile(fit.residuals * widening, (order + 0.5) / number))
