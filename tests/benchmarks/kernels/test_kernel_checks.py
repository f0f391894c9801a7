"""The judge of kernels: right ones pass in every layout, each kind of wrong one fails and is named."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from companion.benchmarks.kernels import checks, gate
from companion.benchmarks.kernels.cases import GENERAL, LAYOUTS, Case, orthogonal_mode
from companion.benchmarks.kernels.checks import check_group, judge, measure, poisoned
from companion.benchmarks.kernels.evaluation import evaluate
from companion.benchmarks.kernels.implementations import Implementation, plain_torch
from companion.benchmarks.kernels.references import FLOAT32_FLOOR, Reference, allowed_error, references, relative_error

CASE = Case(
    name="judge",
    group="x",
    context_length=90,
    d_qk=16,
    d_hv=24,
    regime="switching",
    initial_state=True,
    state_gradient=True,
    orthogonal=True,
    dtypes=("bfloat16", "float32"),
)
REQUIRED = ("h", "C", "n", "m", "dq", "dk", "dv", "di", "df", "dC0", "dn0", "dm0")
RIGHT = plain_torch(64)


@pytest.fixture(scope="module")
def known() -> tuple[Any, Reference]:
    return references((CASE,), "cpu")["judge"]


def changed(change: Callable[[Any, Any], Any]) -> Implementation:
    """Plain torch with something done to (h, state)."""

    def call(*arguments: Any, **options: Any) -> Any:
        return change(*RIGHT.call(*arguments, **options))

    return replace(RIGHT, name="changed", call=call)


class Scaled(torch.autograd.Function):
    """The identity, with a gradient that is 5 % too large."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * 1.05


def verdict(implementation: Implementation, known: tuple[Any, Reference], mode: str = GENERAL) -> dict[str, Any]:
    inputs, reference = known
    baseline = measure(evaluate(RIGHT, CASE, inputs, torch.float32, mode), reference, mode)[1]
    found = evaluate(implementation, CASE, inputs, torch.float32, mode)
    return judge(found, reference, mode, torch.float32, baseline, REQUIRED)


def test_plain_torch_with_other_chunks_passes(known: tuple[Any, Reference]) -> None:
    judged = verdict(plain_torch(16), known)
    assert judged["verdict"] == "pass", judged
    assert set(judged["errors"]) == set(REQUIRED)
    assert max(judged["errors"].values()) < 1e-5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h, state: (h * 1.001, state), "h has"),
        (lambda h, state: (h, state._replace(n=state.n * 1.001)), "n has"),
        (lambda h, state: (Scaled.apply(h), state), "dv has"),
        (lambda h, state: (torch.where(h == h[0, 0, 0, 0], math.nan, h), state), "h is not finite"),
        (lambda h, state: (h, state._replace(C=state.C.detach(), n=state.n.detach(), m=state.m.detach())), "dC0 has"),
    ],
    ids=["output", "state", "gradient", "NaN", "gradient of the state"],
)
def test_what_is_wrong_fails(known: tuple[Any, Reference], change: Any, said: str) -> None:
    judged = verdict(changed(change), known)
    assert judged["verdict"] == "fail"
    assert said in judged["reason"]


def test_without_the_normalizer_only_orthogonal_gradients_are_right(known: tuple[Any, Reference]) -> None:
    detached = plain_torch(64, normalizer_gradient=False)
    general, orthogonal = (verdict(detached, known, mode) for mode in (GENERAL, orthogonal_mode("float32")))
    assert general["verdict"] == "fail"
    assert general["errors"]["dq"] > 0.1
    assert orthogonal["errors"]["dq"] < 1e-3


def test_a_missing_gradient_fails(known: tuple[Any, Reference]) -> None:
    inputs, reference = known
    found = evaluate(RIGHT, CASE, inputs, torch.float32, GENERAL)
    baseline = measure(found, reference, GENERAL)[1]
    del found["dm0"]
    assert "no dm0" in judge(found, reference, GENERAL, torch.float32, baseline, REQUIRED)["reason"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_the_same_computation(layout: str) -> None:
    case = replace(CASE, name="layout", layout=layout)
    inputs, reference = references((case,), "cpu")["layout"]
    errors, _ = measure(evaluate(RIGHT, case, inputs, torch.float32, GENERAL), reference, GENERAL)
    assert set(errors) == set(REQUIRED)
    assert max(errors.values()) < 1e-5


def test_a_group_yields_one_result_per_cell_and_skips_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_candidates", lambda case, configurations: [RIGHT])
    monkeypatch.setattr(checks, "absent", lambda library: None)
    case = replace(CASE, dtypes=("float16", "float32"))
    ((_, results),) = check_group((case,), "cpu", todo=lambda fields: True, configurations=False)
    assert [x["dtype"] for x in results] == ["float16", "float32"]
    assert all(x["verdict"] == "pass" and x["deterministic"] for x in results)
    ((_, rest),) = check_group((case,), "cpu", todo=lambda x: x["dtype"] == "float16", configurations=False)
    assert [x["dtype"] for x in rest] == ["float16"]


def test_results_that_differ_from_run_to_run_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))
    unsteady = changed(lambda h, state: (h + next(calls) * 1e-9, state))
    monkeypatch.setattr(checks, "_candidates", lambda case, configurations: [unsteady])
    ((_, (result,)),) = check_group(
        (replace(CASE, dtypes=("float32",)),), "cpu", todo=lambda fields: True, configurations=False
    )
    assert result["verdict"] == "fail"
    assert not result["deterministic"]
    assert "differs from run to run" in result["reason"]


def test_an_exception_is_a_failure_and_a_fault_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(error: Exception) -> Implementation:
        def call(*_: Any, **__: Any) -> Any:
            raise error

        return replace(RIGHT, name=str(error)[:8], call=call)

    case = replace(CASE, dtypes=("float32",))
    for error in (ValueError("multiple\nof 16"), RuntimeError("CUDA error: an illegal memory access")):
        chosen = [broken(error), RIGHT]
        monkeypatch.setattr(checks, "_candidates", lambda case, configurations, chosen=chosen: chosen)
        group = check_group((case,), "cpu", todo=lambda fields: True, configurations=False)
        _, results = next(group)
        assert results[0]["verdict"] == "fail"
        if isinstance(error, ValueError):
            assert results[0]["reason"] == "ValueError: multiple of 16"
            assert results[1]["verdict"] == "pass"
        else:
            assert len(results) == 1
            with pytest.raises(checks.DeviceFault):
                next(group)


def test_fresh_memory_is_poisoned_and_settings_come_back() -> None:
    with poisoned():
        assert torch.isnan(torch.empty(10)).all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_relative_error() -> None:
    one = torch.tensor([3.0, 4.0])
    assert relative_error(one * 1.1, one)[0] == pytest.approx(0.1)
    assert relative_error(torch.zeros(2), torch.zeros(2)) == (0.0, 0.0)
    assert relative_error(one, torch.zeros(2)) == (math.inf, 5.0)
    assert math.isnan(relative_error(torch.tensor([math.nan, 4.0]), one)[0])
    empty = torch.tensor([-math.inf, 1.0])
    assert relative_error(empty, empty) == (0.0, 0.0)
    assert not math.isfinite(relative_error(torch.tensor([0.0, 1.0]), empty)[1])


def test_allowed_error() -> None:
    reference = torch.full((100,), 2.0)
    norm = reference.norm().item()
    allow = partial(allowed_error, "dq", reference, dtype=torch.bfloat16)
    assert allow(torch_difference=1.0, stored=torch.bfloat16, terms=0.0) == 1.5
    floor = torch.finfo(torch.bfloat16).eps / 4 * norm
    assert allow(torch_difference=0.0, stored=torch.bfloat16, terms=0.0) == pytest.approx(floor)
    assert allow(torch_difference=math.inf, stored=torch.bfloat16, terms=0.0) == pytest.approx(floor)
    assert allow(torch_difference=0.0, stored=torch.float32, terms=9.0) == pytest.approx(FLOAT32_FLOOR * norm)
    # gradients of gates are sums that may cancel
    gate = allowed_error("df", reference * 1e-9, 0.0, torch.float32, torch.float32, 9.0)
    assert gate == pytest.approx(9 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("computation", ["exponential", "sigmoid", "forget_only"])
def test_the_gate_passes_what_is_right(computation: str) -> None:
    kind = "exponential" if computation == "exponential" else "sigmoid"
    implementation = plain_torch(64, gate=kind)
    if computation == "forget_only":
        implementation = replace(implementation, computation=computation)
    result = gate.verify_small(implementation, 32, 48, backward=True, device="cpu")
    assert result["verified"], result
    assert result["upstream"] == GENERAL


def test_the_gate_refuses_what_is_wrong() -> None:
    wrong = changed(lambda h, state: (Scaled.apply(h), state))
    forward = gate.verify_small(wrong, 32, 48, backward=False, device="cpu")
    assert forward["verified"], "its outputs are right"
    backward = gate.verify_small(wrong, 32, 48, backward=True, device="cpu")
    assert not backward["verified"]
    assert backward["reason"].startswith("wrong: relative error of d")
    claimed = replace(plain_torch(64, normalizer_gradient=False), normalizer_gradient=True)
    assert not gate.verify_small(claimed, 32, 48, backward=True, device="cpu")["verified"]
    honest = plain_torch(64, normalizer_gradient=False)
    result = gate.verify_small(honest, 32, 48, backward=True, device="cpu")
    assert result["verified"]
    assert result["upstream"] == "orthogonal"


class Refused(torch.autograd.Function):
    """A forward pass whose backward raises, as simple_gla's does where its kernels would be wrong."""

    @staticmethod
    def forward(ctx: Any, h: torch.Tensor) -> torch.Tensor:
        return h.clone()

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        raise RuntimeError("not on this GPU")


def test_outputs_are_judged_and_timed_where_gradients_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = changed(lambda h, state: (Refused.apply(h) if h.requires_grad else h, state))
    monkeypatch.setattr(checks, "_candidates", lambda case, configurations: [refusing])
    case = replace(CASE, dtypes=("float32",))
    ((_, (result,)),) = check_group((case,), "cpu", todo=lambda fields: True, configurations=False)
    assert result["verdict"] == "fail"
    assert result["reason"] == "gradients: RuntimeError: not on this GPU"
    assert set(result["errors"]) == {"h", "C", "n", "m"}
    assert result["errors"]["h"] < 1e-5
    assert gate.verify_small(refusing, 32, 48, backward=False, device="cpu")["verified"]
    refused = gate.verify_small(refusing, 32, 48, backward=True, device="cpu")
    assert not refused["verified"]
    assert "not on this GPU" in refused["reason"]
