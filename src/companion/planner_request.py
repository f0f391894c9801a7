"""What is planned for, and what the tables teach about each architecture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from companion.accounting.conventions import PAPER
from companion.accounting.inference import BF16, Precision, check_batch_size
from companion.errors import InputError
from companion.fitting.parametric import ParametricFit, fit_parametric
from companion.fitting.uncertainty import ParametricBootstrap, bootstrap_parametric
from companion.hardware import REFERENCE_HARDWARE, get_hardware
from companion.planner_warnings import Ranges
from companion.runs import load_paper_runs, subset
from companion.runtime_model import RuntimeModel, fit_runtime_model, paper_runtime_model
from companion.shape_family import ShapeFamily, fit_shape_family

#: Context length whose runs give the loss laws.
LAW_CONTEXT = 8192
SECONDS_PER_HOUR = 3600.0
TIMINGS = ("measured", "roofline")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is planned for: one budget (`train_flops`, `gpu_hours` or `target_loss`) and a workload.

    Parameters
    ----------
    train_flops
        C in FLOP.
    gpu_hours
        device hours for training; with `utilisation` and the hardware's peak they make C.
    target_loss
        nats per token.
    context_length
        T in tokens: of training, and of a full request.
    prefill_tokens, generated_tokens
        tokens the model will read as prompts, and write, over its life.
    prompt_length
        tokens of one prompt; by default the context's share of prompts, at least one chunk, or the whole context if
        nothing is served.
    batch_size
        sequences served at once on one device.
    hardware
        a name of `data/hardware.csv`: of training and serving.
    utilisation
        share of peak FLOP/s that training reaches, above 0 to 1.
    price_per_gpu_hour
        money; costs are also given in it.
    timing
        `measured`: times as the authors' kernels would take them (`companion.runtime_model`); `roofline`: the least
        that the hardware allows, for any kernel.
    kv_groups
        query heads of a Transformer that share one head of keys and values when it is served (1: as trained). The law
        is that of models with `kv_groups` 1; the loss is taken to be the same.
    precision
        bytes per number when serving.

    Raises
    ------
    InputError
        if there is not exactly one budget, or a value cannot be; the message names it.
    """

    train_flops: float | None = None
    gpu_hours: float | None = None
    target_loss: float | None = None
    context_length: int = LAW_CONTEXT
    prefill_tokens: float = 0.0
    generated_tokens: float = 0.0
    prompt_length: int | None = None
    batch_size: int = 8
    hardware: str = REFERENCE_HARDWARE
    utilisation: float = 0.4
    price_per_gpu_hour: float | None = None
    timing: Literal["measured", "roofline"] = "measured"
    kv_groups: int = 1
    precision: Precision = field(default=BF16)

    def __post_init__(self) -> None:
        budgets = ("train_flops", "gpu_hours", "target_loss")
        given = [name for name in budgets if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(f"plan: give one of {', '.join(budgets)}; given: {', '.join(given) or 'none'}")
        for name in (*given, *(["price_per_gpu_hour"] if self.price_per_gpu_hour is not None else [])):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"plan: {name} {getattr(self, name)} is not a positive number")
        for name in ("prefill_tokens", "generated_tokens"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"plan: {name} {getattr(self, name)} is not a number of at least 0")
        if not 1e-6 < self.utilisation <= 1:
            raise InputError(f"plan: utilisation {self.utilisation} is not between 0 and 1")
        if self.timing not in TIMINGS:
            raise InputError(f"plan: timing {self.timing!r} is not one of {', '.join(TIMINGS)}")
        get_hardware(self.hardware)
        check_batch_size(self.batch_size)
        if self.gpu_hours is not None and not math.isfinite(self.gpu_hours * self.flops_per_second * SECONDS_PER_HOUR):
            raise InputError(f"plan: gpu_hours {self.gpu_hours:g} is too large")
        for name in ("context_length", "prompt_length", "kv_groups"):
            if (value := getattr(self, name)) is not None and not (value > 0 and value == int(value)):
                raise InputError(f"plan: {name} {value} is not a positive whole number")
        if self.prompt_length is not None and self.prompt_length > self.context_length:
            raise InputError(f"plan: prompt_length {self.prompt_length} exceeds the context of {self.context_length}")

    @property
    def prompt(self) -> int:
        """Tokens of one prompt."""
        if self.prompt_length is not None:
            return self.prompt_length
        served = self.prefill_tokens + self.generated_tokens
        share = self.prefill_tokens / served if served else 1.0
        return min(self.context_length, max(PAPER.chunk_size, round(self.context_length * share)))

    @property
    def mean_context(self) -> int:
        """Tokens of context half-way through the generation of a request that fills the context."""
        return max(1, (self.prompt + self.context_length + 1) // 2)

    @property
    def budget_flops(self) -> float | None:
        """Training compute in FLOP; None where a loss was asked for."""
        if self.gpu_hours is not None:
            return self.gpu_hours * SECONDS_PER_HOUR * self.flops_per_second
        return self.train_flops

    @property
    def flops_per_second(self) -> float:
        """FLOP/s of training on one device."""
        return self.utilisation * get_hardware(self.hardware).peak_flops_per_s


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """All that is known of one architecture: law, its doubt, shapes, times, and how far its data reach."""

    architecture: str
    fit: ParametricFit
    bootstrap: ParametricBootstrap
    family: ShapeFamily
    ttft: RuntimeModel
    step_time: RuntimeModel
    ranges: Ranges
    #: context length of the runs behind the law; None where the table names none.
    law_context: int | None


def learn(
    runs: pd.DataFrame | None = None,
    timings: pd.DataFrame | None = None,
    architectures: Sequence[str] = ("transformer", "xlstm"),
    *,
    experiment: str | None = None,
    num_resamples: int = 200,
    seed: int = 0,
) -> dict[str, Knowledge]:
    """Fit everything the planner needs, from the paper's tables unless others are given.

    Parameters
    ----------
    runs
        a run table; its runs at T = 8192 give the laws (all runs where it names no context).
    timings
        a table of inference timings (`companion.inference_time.load_inference`).
    architectures
        which to plan for.
    experiment
        only runs of this experiment.
    num_resamples, seed
        of all bootstraps.

    Raises
    ------
    InputError
        as the fits do.
    """
    table, known = load_paper_runs() if runs is None else runs, {}
    for name in architectures:
        context = LAW_CONTEXT if "context_length" in table else None
        chosen = subset(table, architecture=name, context_length=context, experiment=experiment)
        fit = fit_parametric(chosen)
        times = {
            quantity: paper_runtime_model(name, quantity, num_resamples, seed)
            if timings is None
            else fit_runtime_model(timings, name, quantity, num_resamples=num_resamples, seed=seed)
            for quantity in ("ttft", "step_time")
        }
        known[name] = Knowledge(
            architecture=name,
            fit=fit,
            bootstrap=bootstrap_parametric(fit, num_resamples, seed=seed),
            family=fit_shape_family(table, name),
            ttft=times["ttft"],
            step_time=times["step_time"],
            ranges=Ranges.of(chosen, table[table["architecture"] == name]),
            law_context=context,
        )
    return known
