"""Rules of a laboratory that trains: defaults for a CPU and for a GPU, and what must fit together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from companion.errors import InputError
from companion.formatting import listed, quoted
from companion.hardware import REFERENCE_HARDWARE, get_hardware
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.rules import ALL_ARCHITECTURES, ARCHITECTURES, TRAINED, TRAINING, Rules
from companion.study.laboratory.training_corpus import corpus_digest, needs_torch, open_by_name
from companion.study.laboratory.training_rules import DEVICES, TrainingRules
from companion.study.laboratory.training_runs import cost_of
from companion.study.sweep.ladder import LADDER
from companion.study.train.needed import hardware_of


@dataclass(frozen=True, kw_only=True)
class Usual:
    """Defaults on a kind of device; `budget` and `target_flops` in FLOP, `sizes` of the ladder."""

    corpus: str
    context_length: int
    sizes: tuple[str, ...]
    budget: float
    target_flops: float


#: On a core of a CPU the budget is about a minute and the target ten; on a large GPU minutes and half an hour.
USUAL = {
    "cpu": Usual(
        corpus="source",
        context_length=64,
        sizes=("0.1m", "0.2m", "0.3m", "0.6m", "1.2m"),
        budget=1e12,
        target_flops=1e13,
    ),
    "cuda": Usual(corpus="source", context_length=1024, sizes=tuple(LADDER), budget=1e16, target_flops=1e17),
}
#: How far an N may be from the smallest and the largest model, whose run it then gets.
SIZE_MARGIN = 1.25
#: Smallest and largest value of every field of an ask but N, whose range is that of the sizes.
LIMITS: dict[str, tuple[float, float]] = {
    "num_tokens": (1e2, 1e12),
    "learning_rate": (1e-6, 1.0),
    "batch_size_seqs": (1, 4096),
    "train_steps": (10, 200_000),
}


def training_rules(
    corpus: str | None = None,
    *,
    device: str | None = None,
    sizes: Sequence[str] | None = None,
    context_length: int | None = None,
    unit: str = "flops",
    budget: float | None = None,
    target_flops: float | None = None,
    hybrid: bool = False,
    level: float = 0.9,
    hardware: str | None = None,
) -> Rules:
    """Rules of a laboratory that trains on this machine; what is not given is taken from `USUAL`.

    Parameters
    ----------
    corpus
        name, as `companion.study.corpus.open_corpus` takes it.
    device
        `cuda` or `cpu`; `cuda` where torch sees a GPU.
    sizes
        of `companion.study.sweep.ladder.LADDER`.
    context_length
        T, tokens of a sequence.
    unit
        of the budget: `flops`, or on a GPU `gpu_hours`.
    budget
        in FLOP, or in GPU-hours, which have no default.
    target_flops
        C of the run to be predicted, FLOP.
    hybrid
        a third architecture.
    level
        of the interval to commit.
    hardware
        row of `data/hardware.csv`, for predicted GPU-hours; by default that of the GPU, where its name is known.

    Raises
    ------
    InputError
        that names what cannot be: a corpus or a size that is not known, a device that is not there, a budget that pays
        for no run, a target that no run can have.

    Examples
    --------
    >>> rules = training_rules("source:vocab_size=16", device="cpu", sizes=["0.1m"])
    >>> rules.budget, rules.training.vocab_size, rules.model_size("xlstm", 50_000)
    (1000000000000.0, 16, 50694)
    """
    chosen = _device(device)
    usual = USUAL[chosen]
    if unit == "gpu_hours" and chosen == "cpu":
        raise InputError("unit gpu_hours: runs are trained on a CPU; give a budget in FLOP")
    if unit == "gpu_hours" and budget is None:
        raise InputError("budget: GPU-hours have no default; give one")
    found = open_by_name(corpus or usual.corpus)
    length = usual.context_length if context_length is None else context_length
    training = TrainingRules(
        corpus=found.name,
        vocab_size=found.vocab_size,
        corpus_digest=corpus_digest(found),
        sizes=tuple(sizes or usual.sizes),
        device=chosen,
    )
    found.held_out(training.held_out_sequences, length)  # raises where there are fewer, or none of this length
    architectures = ALL_ARCHITECTURES if hybrid else ARCHITECTURES
    rules = Rules(
        backend=TRAINING,
        law=TRAINED,
        training=training,
        unit=unit,
        budget=usual.budget if budget is None else budget,
        target_flops=usual.target_flops if target_flops is None else target_flops,
        context_length=length,
        architectures=architectures,
        limits={"num_params": _size_range(training, architectures), **LIMITS},
        level=level,
        hardware=hardware or _hardware(chosen),
    )
    get_hardware(rules.hardware)
    check_feasible(rules)
    return rules


def check_feasible(rules: Rules) -> None:
    """Raise an InputError if the budget pays for no run, or no run can have the target compute."""
    assert rules.training is not None
    (least_steps, most_steps), (least_batch, most_batch) = rules.limits["train_steps"], rules.limits["batch_size_seqs"]
    least = int(least_steps * least_batch) * rules.context_length
    most = min(most_steps * most_batch * rules.context_length, rules.limits["num_tokens"][1])
    models = [(kind, rules.training.num_params(kind, low)) for kind in rules.architectures for low in (1.0, 1e18)]
    costs = [cost_of(_run(kind, size, least, int(least_batch)), rules).charged(rules) for kind, size in models]
    if min(costs) > rules.budget:
        raise InputError(f"budget {rules.budget:g} pays for no run: the smallest costs {rules.amount(min(costs))}")
    per_token = [rules.flops_per_token(kind, size) for kind, size in models]
    low, high = min(per_token) * least, max(per_token) * most
    if not low <= rules.target_flops <= high:
        raise InputError(
            f"target_flops {rules.target_flops:g}: runs of these sizes have from {low:.3g} to {high:.3g} FLOP"
        )


def _run(kind: str, size: int, num_tokens: int, batch: int) -> Ask:
    return Ask(architecture=kind, num_params=size, num_tokens=num_tokens, learning_rate=1e-3, batch_size_seqs=batch)


def _size_range(training: TrainingRules, architectures: Sequence[str]) -> tuple[float, float]:
    """N that may be asked for: from a little below the smallest model to a little above the largest one."""
    smallest = min(training.num_params(kind, 1.0) for kind in architectures)
    largest = max(training.num_params(kind, 1e18) for kind in architectures)
    return float(math.floor(smallest / SIZE_MARGIN)), float(math.ceil(largest * SIZE_MARGIN))


def _device(name: str | None) -> str:
    """`cpu` or `cuda`, which must be there."""
    if name not in (None, *DEVICES):
        raise InputError(f"device {quoted(name)} is not one of {listed(DEVICES)}")
    with needs_torch():
        import torch
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise InputError("device cuda: torch sees no GPU here")
    return name or ("cuda" if there else "cpu")


def _hardware(device: str) -> str:
    """The row of the hardware table for this GPU, or the reference where its name is not known."""
    if device == "cpu":
        return REFERENCE_HARDWARE
    import torch

    return hardware_of(torch.cuda.get_device_name()) or REFERENCE_HARDWARE
