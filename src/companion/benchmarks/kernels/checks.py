"""Whether mLSTM kernels are right: errors of outputs, states and all gradients on every case, measured and judged.

The error of a tensor is ‖found − reference‖/‖reference‖ in float64, the reference being `mlstm_oracle` on the same
rounded inputs. A tensor passes if its error is at most 1.5 times that of the plain-torch chunkwise form in the same
dtype with the same chunks, or below a floor of rounding (`references.allowed_error`), and if all its numbers are
finite. Ours must also give the same bits twice. Fresh memory is filled with NaN, so that nothing unwritten passes.
Needs torch.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from companion.benchmarks.kernels.cases import GENERAL, ORTHOGONAL, Case, orthogonal_mode
from companion.benchmarks.kernels.evaluation import Tensors, evaluate
from companion.benchmarks.kernels.implementations import Implementation, absent, ours, peers, plain_torch
from companion.benchmarks.kernels.inputs import Inputs
from companion.benchmarks.kernels.references import (
    STATE_NAMES,
    Reference,
    allowed_error,
    references,
    relative_error,
)
from companion.errors import InputError

#: What a cell found: within the bounds, beyond them, or not run (reason given).
PASS, FAIL, SKIPPED = "pass", "fail", "skipped"
#: Part of the message of `companion.kernels.mlstm.configs.run` for a configuration that does not fit.
TOO_LARGE = "needs more than this GPU has"
#: Why the interpreter checks no bfloat16.
INTERPRETER_BFLOAT16 = "Triton's interpreter does not round to bfloat16 as a GPU does"


class DeviceFault(RuntimeError):
    """The GPU reported a fault: nothing more can be computed in this process."""


def check_group(
    cases: tuple[Case, ...], device: str, *, todo: Callable[[dict[str, Any]], bool], configurations: bool
) -> Iterator[tuple[Case, list[dict[str, Any]]]]:
    """All cells of cases of one shape; one case after another, with its results.

    Parameters
    ----------
    cases
        of one shape (`references.same_shape`).
    todo
        whether the cell of these fields (`case`, `dtype`, `implementation`, `upstream`, `configuration`) is wanted.
    configurations
        check every candidate configuration instead of the default one; peers are left out.

    Raises
    ------
    DeviceFault
        after the results up to then were handed on, the last of them the cell that caused it.
    """
    known = references(cases, device)
    for case in cases:
        inputs, reference = known[case.name]
        results: list[dict[str, Any]] = []
        fault = None
        for fields, run in _cells(case, inputs, reference, device, configurations):
            if not todo(fields):
                continue
            try:
                results.append({**fields, **run()})
            except DeviceFault as error:
                results.append({**fields, "verdict": FAIL, "reason": str(error)})
                fault = error
                break
        yield case, results
        if fault is not None:
            raise fault


def measure(found: Tensors, reference: Reference, mode: str) -> tuple[dict[str, float], dict[str, float]]:
    """Relative errors by tensor, and ‖found − reference‖; only of tensors that were found."""
    expected = {**reference.outputs, **reference.gradients[mode]}
    pairs = {name: relative_error(found[name], expected[name]) for name in expected if name in found}
    return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}


def judge(
    found: Tensors,
    reference: Reference,
    mode: str,
    dtype: torch.dtype,
    baseline: dict[str, float],
    required: tuple[str, ...],
) -> dict[str, Any]:
    """Errors, verdict and reason of one implementation; `baseline` holds ‖·‖ of plain torch."""
    errors, differences = measure(found, reference, mode)
    expected = {**reference.outputs, **reference.gradients[mode]}
    reasons = [f"no {name}" for name in required if name not in found]
    excess = {}
    for name, difference in differences.items():
        allowed = allowed_error(
            name,
            expected[name],
            baseline.get(name, math.inf),
            dtype,
            found[name].dtype,
            reference.terms[mode].get(name, 0.0),
        )
        excess[name] = difference / allowed if allowed > 0 else (0.0 if difference == 0 else math.inf)
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
        "errors": {name: number(error) for name, error in errors.items()},
    }


def _cells(
    case: Case, inputs: Inputs, reference: Reference, device: str, configurations: bool
) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Fields that name a cell, and how to run it."""
    baselines: dict[Any, dict[str, float]] = {}

    def baseline(dtype: torch.dtype, size: int, mode: str, detached: bool) -> dict[str, float]:
        key = (dtype, size, mode, detached)
        if key not in baselines:
            form = plain_torch(size, normalizer_gradient=not detached, gate=_gate(case))
            found = evaluate(form, case, inputs, dtype, mode)
            baselines[key] = measure(found, reference, mode)[1]
        return baselines[key]

    for dtype_name in case.dtypes:
        dtype = getattr(torch, dtype_name)
        for implementation in _candidates(case, configurations):
            for mode in _modes(case, implementation, dtype):
                cell = _Cell(case, inputs, reference, dtype, mode, implementation, device, baseline)
                fields = cell.fields()
                if configurations:
                    for kernel in _kernels(case, cell.size, dtype):
                        yield {**fields, "configuration": kernel}, lambda c=cell, k=kernel: c.all_configurations(k)  # type: ignore[misc]
                else:
                    yield fields, cell.default


class _Cell:
    """One implementation on one case, dtype and upstream gradient."""

    def __init__(
        self,
        case: Case,
        inputs: Inputs,
        reference: Reference,
        dtype: torch.dtype,
        mode: str,
        implementation: Implementation,
        device: str,
        baseline: Callable[..., dict[str, float]],
    ) -> None:
        self.case, self.inputs, self.reference, self.dtype, self.mode = case, inputs, reference, dtype, mode
        self.implementation, self.device = implementation, device
        self.size = implementation.chunk_size or 64
        self._baseline = baseline

    def fields(self) -> dict[str, Any]:
        return {
            "case": self.case.name,
            "dtype": str(self.dtype).removeprefix("torch."),
            "implementation": self.implementation.name,
            "upstream": ORTHOGONAL if self.mode != GENERAL else GENERAL,
            "configuration": "default",
        }

    def default(self) -> dict[str, Any]:
        if reason := self._skip():
            return {"verdict": SKIPPED, "reason": reason}
        try:
            # peers are run as they are: other settings of torch would compile their parts a second time
            twice = [self._run(poison=False) for _ in range(2)]
            found = twice[0] if self.implementation.is_peer else self._run()
        except Exception as error:  # whatever an implementation raises is what was measured
            return self._forward_alone(failure(error))
        judged = self._judge(found)
        same = all(torch.equal(_bits(twice[0][name]), _bits(twice[1][name])) for name in found)
        judged["deterministic"] = same
        if not same and not self.implementation.is_peer:
            judged |= {
                "verdict": FAIL,
                "reason": "; ".join(filter(None, (judged["reason"], "differs from run to run"))),
            }
        return judged

    def _forward_alone(self, failed: dict[str, Any]) -> dict[str, Any]:
        """What failed, with the errors of the outputs where those can be had without gradients."""
        try:
            found = evaluate(self.implementation, self.case, self.inputs, self.dtype, self.mode, backward=False)
        except Exception as error:
            failure(error)  # raises if the GPU is at fault; else the first failure says enough
            return failed
        judged = self._judge(found)
        return {**judged, **failed, "reason": f"gradients: {failed['reason']}"}

    def all_configurations(self, kernel: str) -> dict[str, Any]:
        """Worst of all candidates of one kernel; those that ask for more than the GPU has are counted, not run."""
        from companion.kernels.mlstm import configs

        choices = configs.candidates(
            kernel, d_qk=self.case.d_qk, d_hv=self.case.d_hv, chunk_size=self.size, dtype=self.dtype
        )
        judged, refused = [], 0
        for number, choice in enumerate(choices):
            try:
                with configs.forced(**{kernel: number}):
                    found = self._run()
            except Exception as error:
                if isinstance(error, InputError) and TOO_LARGE in str(error):
                    refused += 1
                else:
                    judged.append({**failure(error), "which": str(choice)})
                continue
            judged.append({**self._judge(found), "which": str(choice)})
        counts = {"configurations": len(judged), "configurations_too_large": refused}
        if not judged:
            return {"verdict": SKIPPED, "reason": "no configuration fits this GPU", **counts}
        worst = max(judged, key=lambda x: (x["verdict"] == FAIL, x.get("worst_over_allowed") or 0.0))
        return {**worst, **counts}

    def _skip(self) -> str | None:
        if reason := absent(self.implementation.library):
            return reason
        if self.device == "cpu" and self.dtype == torch.bfloat16:
            return INTERPRETER_BFLOAT16
        return self.implementation.refusal(self.case.context_length, self.case.d_qk, self.case.d_hv)

    def _run(self, *, poison: bool = True) -> Tensors:
        with poisoned() if poison else nullcontext():
            found = evaluate(self.implementation, self.case, self.inputs, self.dtype, self.mode)
            if self.device == "cuda":
                torch.cuda.synchronize()  # a fault shows here, not in what comes after
            return found

    def _judge(self, found: Tensors) -> dict[str, Any]:
        detached = self.mode != GENERAL
        baseline = self._baseline(self.dtype, self.size, self.mode, detached)
        names = [*self.reference.outputs, *self.reference.gradients[self.mode]]
        if not self.implementation.has_state:
            names = [name for name in names if name not in STATE_NAMES]
        if self.case.gate == "forget_only":
            names.remove("di")
        return judge(found, self.reference, self.mode, self.dtype, baseline, tuple(names))


@contextmanager
def poisoned() -> Iterator[None]:
    """Within the block, memory that torch hands out unwritten is filled with NaN."""
    deterministic, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn)
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def _candidates(case: Case, configurations: bool) -> list[Implementation]:
    gate = _gate(case)
    found = [ours(size, gate=gate) for size in case.chunk_sizes]
    if case.orthogonal and gate == "exponential":
        found += [ours(size, gate=gate, normalizer_gradient=False) for size in case.chunk_sizes]
    if configurations:
        return found
    computations = {case.gate} | ({"sigmoid"} if case.gate == "forget_only" else set())
    if case.peers:
        found += [peer for peer in peers() if peer.computation in computations and _plain(case)]
    return found


def _modes(case: Case, implementation: Implementation, dtype: torch.dtype) -> list[str]:
    """Peers without the normalizer's gradient are measured with both upstream gradients."""
    orthogonal = orthogonal_mode(str(dtype).removeprefix("torch."))
    if implementation.normalizer_gradient:
        return [GENERAL]
    if implementation.is_peer and case.orthogonal:
        return [GENERAL, orthogonal]
    return [orthogonal] if case.orthogonal else [GENERAL]


def _plain(case: Case) -> bool:
    return case.sequences is None and case.layout == "bthd"


def _gate(case: Case) -> str:
    return "exponential" if case.gate == "exponential" else "sigmoid"


def _kernels(case: Case, size: int, dtype: torch.dtype) -> tuple[str, ...]:
    """Kernels of sequences that have a configuration for a case."""
    from companion.kernels.mlstm.configs import KERNELS, candidates

    shape: dict[str, Any] = {"d_qk": case.d_qk, "d_hv": case.d_hv, "chunk_size": size, "dtype": dtype}
    return tuple(kernel for kernel in KERNELS if kernel != "step" and candidates(kernel, **shape))


def failure(error: Exception) -> dict[str, Any]:
    """What an exception means for a cell.

    Raises
    ------
    DeviceFault
        if it is one from which this process cannot recover.
    """
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in reason:
        raise DeviceFault(reason) from error
    return {"verdict": FAIL, "reason": reason}


def number(value: float) -> float | None:
    """As JSON holds it: four digits, None if not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _bits(x: torch.Tensor) -> torch.Tensor:
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return x.contiguous().view(kinds[x.element_size()])
