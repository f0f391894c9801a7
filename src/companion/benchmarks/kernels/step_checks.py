"""Whether the single-step kernels are right: a few steps from a given memory against the float64 recurrence.

Judged as `checks` judges sequences; the baseline is `companion.kernels.mlstm.torch_forms.recurrent_step` with a state
of the same dtype. Needs torch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from companion.benchmarks.kernels.cases import DTYPES
from companion.benchmarks.kernels.checks import (
    FAIL,
    INTERPRETER_BFLOAT16,
    PASS,
    SKIPPED,
    TOO_LARGE,
    failure,
    number,
    poisoned,
)
from companion.benchmarks.kernels.implementations import StepImplementation, absent, timed_steps
from companion.benchmarks.kernels.inputs import Inputs, gates, to_half
from companion.benchmarks.kernels.references import STATE_NAMES, allowed_error, relative_error
from companion.errors import InputError
from companion.kernels.mlstm.oracle import mlstm_oracle
from companion.kernels.mlstm.state import MLSTMState

#: Steps that are taken one after another.
NUM_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class StepCase:
    """Batch, heads and gates of a few steps; see `cases.Case` for the fields."""

    name: str
    batch_size: int = 3
    n_heads: int = 2
    d_qk: int = 64
    d_hv: int = 64
    regime: str = "switching"
    empty: bool = False


def step_cases() -> tuple[StepCase, ...]:
    """Head sizes, gate regimes, an empty memory, and a batch as in generation."""
    sizes = ((16, 16), (20, 36), (64, 64), (128, 128), (128, 256), (256, 512), (512, 512))
    cases = [StepCase(name=f"step_{d_qk}_{d_hv}", d_qk=d_qk, d_hv=d_hv) for d_qk, d_hv in sizes]
    regimes = ("typical", "open", "closed", "wide", "input_high", "input_low", "soft_cap")
    cases += [StepCase(name=f"step_{regime}", regime=regime) for regime in regimes]
    tiny = StepCase(name="step_tiny", batch_size=2, n_heads=1, d_qk=16, d_hv=20)
    return (
        *cases,
        StepCase(name="step_empty", empty=True),
        StepCase(name="step_batch", batch_size=64, n_heads=8),
        tiny,
    )


def check_step(
    case: StepCase, device: str, *, todo: Callable[[dict[str, Any]], bool], dtypes: tuple[str, ...] = DTYPES
) -> Iterator[dict[str, Any]]:
    """Results of all implementations, dtypes and (of ours) configurations on one case."""
    inputs = _inputs(case, device)
    h, final = mlstm_oracle(*inputs[:5], initial_state=inputs.initial_state)
    expected = {"h": h, **dict(zip(STATE_NAMES, final, strict=True))}
    for implementation in timed_steps():
        for dtype_name in dtypes:
            for configuration in _configurations(implementation, case, getattr(torch, dtype_name)):
                fields = {
                    "case": case.name,
                    "dtype": dtype_name,
                    "implementation": implementation.name,
                    "upstream": None,
                    "configuration": configuration,
                }
                if todo(fields):
                    yield {**fields, **_cell(inputs, expected, implementation, dtype_name, configuration)}


def run_steps(implementation: StepImplementation, inputs: Inputs, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """h of all steps and the state after them, as the implementation stores them."""
    state = _state(inputs, implementation.state_dtype)
    outputs = []
    with torch.no_grad():
        for t in range(inputs.q.shape[1]):
            vectors = [x[:, t].to(dtype).contiguous() for x in inputs[:3]]
            pair = [x[:, t].float().contiguous() for x in inputs[3:5]]
            h, state = implementation.call(*vectors, *pair, state)
            outputs.append(h.clone())
    return {"h": torch.stack(outputs, dim=1), **dict(zip(STATE_NAMES, state, strict=True))}


def _cell(
    inputs: Inputs,
    expected: dict[str, torch.Tensor],
    implementation: StepImplementation,
    dtype_name: str,
    configuration: str,
) -> dict[str, Any]:
    if reason := absent(implementation.library):
        return {"verdict": SKIPPED, "reason": reason}
    if inputs.q.device.type == "cpu" and "bfloat16" in (dtype_name, implementation.state_dtype):
        return {"verdict": SKIPPED, "reason": INTERPRETER_BFLOAT16}
    dtype = getattr(torch, dtype_name)
    try:
        with poisoned(), _forced(configuration):
            found = run_steps(implementation, inputs, dtype)
    except Exception as error:  # whatever an implementation raises is what was measured
        if isinstance(error, InputError) and TOO_LARGE in str(error):
            return {"verdict": SKIPPED, "reason": "does not fit this GPU"}
        return failure(error)
    torch_step = next(x for x in timed_steps() if x.library == "torch")
    baseline = run_steps(replace(torch_step, state_dtype=implementation.state_dtype), inputs, dtype)
    errors, reasons, excess = {}, [], {}
    for name, reference in expected.items():
        relative, difference = relative_error(found[name], reference)
        _, of_torch = relative_error(baseline[name], reference)
        allowed = allowed_error(name, reference, of_torch, dtype, found[name].dtype, 0.0)
        errors[name] = number(relative)
        excess[name] = difference / allowed if allowed > 0 else 0.0
        if not math.isfinite(difference):
            reasons.append(f"{name} is not finite")
        elif difference > allowed:
            reasons.append(f"{name} has {excess[name]:.3g} times the allowed error")
    worst = max(excess, key=lambda name: excess[name] if excess[name] == excess[name] else math.inf)
    return {
        "verdict": FAIL if reasons else PASS,
        "reason": "; ".join(reasons) or None,
        "worst": worst,
        "worst_over_allowed": number(excess[worst]),
        "errors": errors,
    }


def _inputs(case: StepCase, device: str) -> Inputs:
    random = torch.Generator().manual_seed(sum(case.name.encode()))
    shape = (case.batch_size, NUM_STEPS, case.n_heads)

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=random, dtype=torch.float64)

    direction = torch.where(normal(case.n_heads, case.d_qk) > 0, 1.0, -1.0).double()
    shift = 2.0 if case.d_qk < 64 else 1.0
    q, k = (to_half(normal(*shape, case.d_qk) + shift * direction) for _ in range(2))
    v = to_half(normal(*shape, case.d_hv))
    i, f = (to_half(x) for x in gates(case.regime, shape, random))
    memory = (case.batch_size, case.n_heads)
    if case.empty:
        state = MLSTMState.empty(*memory, case.d_qk, case.d_hv, dtype=torch.float64)
    else:
        n = normal(*memory, case.d_qk) / 4 + direction
        # bfloat16 holds the start of C exactly, so a state in bfloat16 only loses what steps round
        C = (normal(*memory, case.d_qk, case.d_hv) / 4 + n[..., None] / 2).bfloat16()
        state = MLSTMState(C.double(), n.float().double(), normal(*memory).float().double())
    q, k, v, i, f = (x.to(device) for x in (q, k, v, i, f))
    return Inputs(q, k, v, i, f, MLSTMState(*(x.to(device) for x in state)), {}, None)


def _state(inputs: Inputs, state_dtype: str) -> MLSTMState:
    assert inputs.initial_state is not None
    C, n, m = inputs.initial_state
    return MLSTMState(C.to(getattr(torch, state_dtype), copy=True), n.float().clone(), m.float().clone())


def _configurations(implementation: StepImplementation, case: StepCase, dtype: torch.dtype) -> list[str]:
    """All candidates of our kernel; `default` is what runs when nothing is forced."""
    if implementation.library != "companion" or absent("companion"):
        return ["default"]
    from companion.kernels.mlstm.configs import candidates

    choices = candidates("step", d_qk=case.d_qk, d_hv=case.d_hv, chunk_size=64, dtype=dtype)
    return ["default", *(f"step {index}" for index in range(len(choices)))]


def _forced(configuration: str) -> Any:
    from contextlib import nullcontext

    if configuration == "default":
        return nullcontext()
    from companion.kernels.mlstm.configs import forced

    return forced(step=int(configuration.removeprefix("step ")))
