"""What a model of a plan costs: training, serving, memory; and the size that is cheapest in total."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import elementwise

from companion.accounting.inference import InferencePass, count_prefill, count_step
from companion.architectures import Architecture
from companion.errors import InputError
from companion.fitting.fit import Fit
from companion.hardware import get_hardware
from companion.inference.timings import Quantity
from companion.laws import LossSurface
from companion.planner.knowledge import Knowledge
from companion.planner.request import SECONDS_PER_HOUR, Request
from companion.planner.utilization import training_seconds, utilization_of
from companion.runs.shape_family import LARGEST_WIDTH, SMALLEST_WIDTH, FamilyScale
from companion.training.measured import evenly_spread

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


def probabilities_of(number: int, resampled: bool) -> Array:
    """Which quantile of a further run's utilization each law goes with, shape (R,): one half for the fit itself."""
    return evenly_spread(number) if resampled else np.full(number, 0.5)


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

    Training takes the time that its size's utilization gives; a resample has that of one further run, here and in
    `numbers_of` (`probabilities_of`). Only sizes whose memory fits the hardware are searched. The total has steps and
    several minima, so the least of `SEARCHED_WIDTHS` brackets the minimum, which is then refined where the cost is
    smooth. NaN for laws without such a size.

    Raises
    ------
    InputError
        if no law has a size that both reaches the loss and fits.
    """
    loss = np.broadcast_to(np.asarray(loss, dtype=float), len(laws))
    coefficients = coefficients_of(request, knowledge, len(laws), resampled)
    chances = probabilities_of(len(laws), resampled)

    def seconds(width: Array, law: NDArray[np.intp]) -> Array:
        """Of training and serving the model of a width by the law of a number; the two broadcast."""
        tokens = laws.part(law).tokens_for(loss[law], knowledge.family.num_params(width))
        rows = (coefficients[0][law], coefficients[1][law])
        shapes = served_shapes(request, knowledge, width)
        train = training_seconds(request, knowledge, scale, width, tokens, chances[law])
        return train + _serving_seconds(request, knowledge, shapes, rows)

    every = np.arange(len(laws))
    total = seconds(SEARCHED_WIDTHS[:, None], every)
    total[~_fits(request, served_shapes(request, knowledge, SEARCHED_WIDTHS))] = np.inf
    feasible = np.isfinite(total).any(axis=0)
    if not feasible.any():
        raise _nothing_found(request, knowledge, laws, loss)
    best = np.clip(np.argmin(np.where(np.isnan(total), np.inf, total), axis=0), 1, len(SEARCHED_WIDTHS) - 2)
    before, here, after = (total[best + shift, every] for shift in (-1, 0, 1))
    with np.errstate(invalid="ignore"):
        # waves of attention heads and the limit of memory make steps; beside a step, and where the cost rises as
        # steeply as one, the width of the scan stays
        smooth = np.maximum(before, after) < here * np.exp(SMOOTH)
    width = np.where(feasible, SEARCHED_WIDTHS[best], np.nan)
    if smooth.any():
        bracket = tuple(SEARCHED_WIDTHS[best[smooth] + shift] for shift in (-1, 0, 1))
        refined = elementwise.find_minimum(seconds, bracket, args=(every[smooth],))
        width[smooth] = np.where(refined.success, refined.x, width[smooth])
    tokens = np.asarray(laws.tokens_for(loss, knowledge.family.num_params(width)))
    return {"d_model": width, "num_tokens": tokens, "loss": loss}


def _nothing_found(request: Request, knowledge: Knowledge, laws: LossSurface, loss: Array) -> InputError:
    """Why no law has a size that both reaches the loss and fits."""
    size, shapes = knowledge.family.num_params(SEARCHED_WIDTHS), served_shapes(request, knowledge, SEARCHED_WIDTHS)
    reached = np.isfinite(laws.tokens_for(loss, size[:, None])).any(axis=1)
    if not reached.any():
        return InputError(
            f"no size from {size[0]:.3g} to {size[-1]:.3g} parameters reaches a loss of {np.nanmax(loss):.4g}"
        )
    hardware, least = get_hardware(request.hardware), needed_bytes(request, shapes)[reached].min()
    return InputError(
        f"no size that reaches the loss fits: does not fit, needs {least / 2**30:.1f} GiB; "
        f"{hardware.label} has {hardware.memory_bytes / 2**30:.1f} GiB"
    )


def served_shapes(request: Request, knowledge: Knowledge, width: Any) -> Architecture:
    """The member of the family at a width, keys and values grouped as the request says."""
    return knowledge.family.shapes(width, request.kv_groups)


def _serving_seconds(request: Request, knowledge: Knowledge, shapes: Any, coefficients: tuple[Array, Array]) -> Array:
    """Device seconds of all serving, shape as of `pass_seconds`: every sequence of a batch shares its time."""
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
) -> Array:
    """Seconds of one prefill (`ttft`) or step (`step_time`), by the request's timing: runtime model or roofline alone.

    Row r of the coefficients (R, k) goes with model r of shapes (R,), result (R,); shapes (n, 1) give (n, R), or (n, 1)
    for a roofline, which has no coefficients.
    """
    where = (shapes, context, request.batch_size)
    if request.timing == "measured":
        model = knowledge.times[("ttft", "step_time").index(quantity)]
        return model.seconds_under(
            coefficients, *where, hardware=request.hardware, precision=request.precision, paired=True
        )
    count = count_prefill if quantity == "ttft" else count_step
    return np.asarray(count(*where, precision=request.precision).roofline(request.hardware).seconds)


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
    DataFrame
        with `num_params`, `num_tokens`, `tokens_per_param`, `train_gpu_hours`, `serve_gpu_hours`, `total_gpu_hours` and
        `fits`; sizes that never reach the loss are left out.
    """
    scale = FamilyScale(family=knowledge.family, context_length=request.context)
    width = np.asarray(widths, dtype=float)
    size = knowledge.family.num_params(width)
    tokens = knowledge.fit.law.tokens_for(loss, size)
    shapes = served_shapes(request, knowledge, width)
    train = training_seconds(request, knowledge, scale, width, tokens) / SECONDS_PER_HOUR
    serve = (
        _serving_seconds(request, knowledge, shapes, coefficients_of(request, knowledge, 1, False)) / SECONDS_PER_HOUR
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
        pass_seconds(request, knowledge, quantity, coefficients, shapes, context)
        for quantity, coefficients, context in _passes(request, rows)
    ]
    loss = found["loss"]
    if scattered:  # what laws and runtime models miss on their own data, they will miss on the planned model too
        loss = loss * _loss_scatter(knowledge.fit, number)
        if request.timing == "measured":
            ttft, step_time = (model.scatter(number) for model in knowledge.times)
            times = [times[0] * ttft, times[1] * step_time, times[2] * step_time]
    prefill, step = passes_of(request, shapes)
    chances = probabilities_of(number, scattered)
    train = training_seconds(request, knowledge, scale, width, tokens, chances) / SECONDS_PER_HOUR
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
        "utilization": utilization_of(request, knowledge, size, chances),
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
