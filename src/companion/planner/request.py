"""What is planned for: a budget and a workload."""

import math
from dataclasses import dataclass, field

from companion.accounting.conventions import PAPER
from companion.accounting.inference import BF16, Precision, check_batch_size
from companion.errors import InputError
from companion.hardware import REFERENCE_HARDWARE, get_hardware
from companion.inference.compare import METHODS, Method
from companion.runs.context_length import PAPER_CONTEXT

#: Context length whose runs give the loss laws of the paper's table.
LAW_CONTEXT = PAPER_CONTEXT
SECONDS_PER_HOUR = 3600.0
#: Largest values of what a count multiplies: no device and no law reaches beyond them.
_LARGEST = {"context_length": 2**40, "prompt_length": 2**40, "kv_groups": 2**16, "batch_size": 2**40}
_LARGEST_PRICE = 1e12
#: Tokens served, more than a billion people could read in the age of the universe.
_LARGEST_TOKENS = 1e30


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is planned for: one budget (`train_flops`, `gpu_hours` or `target_loss`) and a workload.

    Parameters
    ----------
    train_flops
        C in FLOP.
    gpu_hours
        device hours for training; with the utilization and the hardware's peak they make C.
    target_loss
        nats per token.
    context_length
        T in tokens: of training, and of a full request; None takes that of the runs behind the laws.
    prefill_tokens, generated_tokens
        tokens the model will read as prompts, and write, over its life.
    prompt_length
        tokens of one prompt; by default the context's share of prompts, at least one chunk, or the whole context if
        nothing is served.
    batch_size
        sequences served at once on one device.
    hardware
        a name of `data/hardware.csv`: of training and serving.
    utilization
        share of peak FLOP/s that training reaches, above 0 to 1, of every model; None: as measured, by architecture,
        size and context (`Knowledge.utilization`).
    price_per_gpu_hour
        money; costs are also given in it.
    timing
        `measured`: times as the authors' kernels would take them (`inference.runtime_model`); `roofline`: the least
        that the hardware allows, for any kernel.
    kv_groups
        query heads of a Transformer that share one head of keys and values when it is served (1: as trained; at most
        65,536). The law is that of models with `kv_groups` 1; the loss is taken to be the same.
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
    context_length: int | None = None
    prefill_tokens: float = 0.0
    generated_tokens: float = 0.0
    prompt_length: int | None = None
    batch_size: int = 8
    hardware: str = REFERENCE_HARDWARE
    utilization: float | None = None
    price_per_gpu_hour: float | None = None
    timing: Method = "measured"
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
        if self.price_per_gpu_hour is not None and self.price_per_gpu_hour > _LARGEST_PRICE:
            raise InputError(f"plan: price_per_gpu_hour {self.price_per_gpu_hour:g} is too large")
        for name in ("prefill_tokens", "generated_tokens"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"plan: {name} {getattr(self, name)} is not a number of at least 0")
            if getattr(self, name) > _LARGEST_TOKENS:
                raise InputError(f"plan: {name} {getattr(self, name):g} is too large; the most is {_LARGEST_TOKENS:g}")
        if self.utilization is not None and not 1e-6 < self.utilization <= 1:
            why = "not between 0 and 1" if not 0 < self.utilization <= 1 else "too small"
            raise InputError(f"plan: utilization {self.utilization:g} is {why}")
        if self.timing not in METHODS:
            raise InputError(f"plan: timing {self.timing!r} is not one of {', '.join(METHODS)}")
        peak = get_hardware(self.hardware).peak_flops_per_s
        check_batch_size(self.batch_size)
        if self.gpu_hours is not None and not math.isfinite(self.gpu_hours * peak * SECONDS_PER_HOUR):
            raise InputError(f"plan: gpu_hours {self.gpu_hours:g} is too large")
        for name, largest in _LARGEST.items():
            if (value := getattr(self, name)) is None:
                continue
            if not (math.isfinite(value) and value > 0 and value == int(value)):
                raise InputError(f"plan: {name} {value} is not a positive whole number")
            if value > largest:
                raise InputError(f"plan: {name} {value} is too large; the largest is {largest}")
        if None not in (self.prompt_length, self.context_length) and self.prompt > self.context:
            raise InputError(f"plan: prompt_length {self.prompt_length} exceeds the context of {self.context_length}")

    @property
    def context(self) -> int:
        """T in tokens; that of the paper's laws as long as nobody chose one."""
        return LAW_CONTEXT if self.context_length is None else self.context_length

    @property
    def prompt(self) -> int:
        """Tokens of one prompt."""
        if self.prompt_length is not None:
            return self.prompt_length
        served = self.prefill_tokens + self.generated_tokens
        share = self.prefill_tokens / served if served else 1.0
        return min(self.context, max(PAPER.chunk_size, round(self.context * share)))

    @property
    def mean_context(self) -> int:
        """Tokens of context half-way through the generation of a request that fills the context."""
        return max(1, (self.prompt + self.context + 1) // 2)
