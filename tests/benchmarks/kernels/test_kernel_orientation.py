"""The gated delta rule, timed for orientation with a fake fla, and kernels that need a newer Triton."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from companion.benchmarks.kernels import benchmark, identity, orientation, requirements, session, suites, timing
from companion.benchmarks.kernels.other_cells import GATED_DELTA_RULE, GATED_DELTA_RULE_NAME
from companion.benchmarks.kernels.shapes import Shape
from companion.benchmarks.records import read_records

SHAPE = Shape(2, 16, 24, batch_size=2, context_length=300)
TIMES = {"seconds_median": 2e-3, "seconds_quartile_1": 1e-3, "seconds_quartile_3": 3e-3, "repeats": 5}
PEAKS = {"peak_flops_per_s": 1e15, "peak_bytes_per_s": 4e12}
REFUSED = "left out: needs Triton 3.7.1 or later, here is 3.6.0"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> suites.Settings:
    """On a CPU: actions run once and take two milliseconds."""

    def seconds(action: Any, **_: Any) -> dict[str, Any]:
        action(1)
        return TIMES

    monkeypatch.setattr(timing, "seconds", seconds)
    monkeypatch.setattr(timing, "peak_memory", lambda action: 123)
    monkeypatch.setattr(timing, "num_sets", lambda size: 2)
    return suites.Settings(5, PEAKS, "cpu")


def install(monkeypatch: pytest.MonkeyPatch, scale: float = 1.0) -> list[dict[str, Any]]:
    """A fake fla-core: the recurrence behind the signature of `chunk_gated_delta_rule`, and what it was called with."""
    calls: list[dict[str, Any]] = []

    def chunk_gated_delta_rule(q: Any, k: Any, v: Any, g: Any, beta: Any, **options: Any) -> Any:
        calls.append({"q": q, "k": k, "v": v, "g": g, "beta": beta, **options})
        f, i = (torch.log(x / (1 - x)) for x in (g.double().exp(), beta.double()))
        return (scale * orientation.recurrence(q, k, v, i, f)).to(q.dtype), None

    for name in ("fla", "fla.ops", "fla.ops.gated_delta_rule"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(
        sys.modules["fla.ops.gated_delta_rule"], "chunk_gated_delta_rule", chunk_gated_delta_rule, raising=False
    )
    return calls


def run(settings: Any, *, backward: bool = True, shape: Shape = SHAPE) -> dict[str, Any]:
    (result,) = orientation.sequences(shape, backward=backward, settings=settings, todo=lambda fields: True)
    return result


def test_the_recurrence_is_the_delta_rule() -> None:
    """Without forgetting and at full strength the state holds for the last key exactly the last value."""
    torch.manual_seed(0)
    k = torch.nn.functional.normalize(torch.randn(1, 5, 1, 4, dtype=torch.float64), dim=-1)
    v = torch.randn(1, 5, 1, 3, dtype=torch.float64)
    certain = torch.full((1, 5, 1), 50.0, dtype=torch.float64)
    h = orientation.recurrence(k * 2, k, v, certain, certain)  # 2 = √d_qk undoes the scale
    torch.testing.assert_close(h, v)
    orthogonal = torch.eye(4, dtype=torch.float64)[:, None][None]
    v4 = torch.randn(1, 4, 1, 3, dtype=torch.float64)
    gates = torch.zeros(1, 4, 1, dtype=torch.float64)
    h = orientation.recurrence(2 * orthogonal.sum(1, keepdim=True).expand(1, 4, 1, 4), orthogonal, v4, gates, gates)
    weights = torch.tensor([[0.5 ** (t - s) * 0.5 if s <= t else 0.0 for s in range(4)] for t in range(4)])
    torch.testing.assert_close(h[0, :, 0], weights.double() @ v4[0, :, 0])


def test_the_call_has_the_shapes_and_dtypes_of_the_library(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    calls = install(monkeypatch)
    for backward in (False, True):
        result = run(settings, backward=backward)
        assert result["seconds_median"] == 2e-3, result
        assert result["implementation"] == GATED_DELTA_RULE_NAME
        assert "another cell" in result["implementation"]
        assert result["computation"] == GATED_DELTA_RULE
        assert result["part"] == ("training" if backward else "forward")
        assert result["gate"]["verified"]
        assert result["gate_at_shape"]["verified"]
        assert result["bytes_per_s"] == pytest.approx(result["least_bytes"] / 2e-3, rel=1e-4)
        assert "useful_flops" not in result, "the FLOPs of the mLSTM are not its own"
    one = next(call for call in calls if call["q"].shape[1] == SHAPE.context_length)
    assert one["q"].shape == one["k"].shape == (2, 300, 2, 16)
    assert one["v"].shape == (2, 300, 2, 24)
    assert one["g"].shape == one["beta"].shape == (2, 300, 2)
    assert {one[name].dtype for name in "qkv"} == {torch.bfloat16}
    assert one["g"].dtype == one["beta"].dtype == torch.float32
    assert (one["g"] < 0).all(), "the logarithm of the gate"
    assert ((one["beta"] > 0) & (one["beta"] < 1)).all()
    torch.testing.assert_close(one["k"].float().norm(dim=-1), torch.ones(2, 300, 2), atol=0.01, rtol=0)
    assert set(one) == {"q", "k", "v", "g", "beta"}, "nothing that some versions lack"


def test_what_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    install(monkeypatch, scale=1.2)
    result = run(settings)
    assert "wrong: relative error of" in result["skipped"]
    assert "seconds_median" not in result


def test_the_ends_of_the_timed_shape_are_verified() -> None:
    inputs = orientation.make_inputs(SHAPE, 0, "cpu", backward=True)
    found = orientation._run(inputs, True, orientation.recurrence)
    judged = orientation.verify_timed(inputs, found)
    assert judged["verified"]
    assert judged["error"] < 1e-12
    for name, where in (("h", slice(0, 1)), ("dv", slice(-1, None))):
        wrong = found[name].clone()
        wrong[-1, where, -1] += 10
        judged = orientation.verify_timed(inputs, {**found, name: wrong})
        assert judged["error_of"] == f"{name} at the timed shape"
        assert not judged["verified"]


def test_a_missing_package_and_a_refused_shape_are_reasons(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(orientation, "absent", lambda library: f"{library} is not installed")
    assert run(settings)["skipped"] == "fla is not installed"
    monkeypatch.setattr(orientation, "absent", lambda library: None)
    assert run(settings, shape=Shape(2, 512, 512, batch_size=1, context_length=4))["skipped"] == (
        "d_qk 512 is more than 256"
    )
    install(monkeypatch)

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(sys.modules["fla.ops.gated_delta_rule"], "chunk_gated_delta_rule", refuse)
    assert run(settings)["skipped"] == "RuntimeError: no such kernel"
    nothing = orientation.sequences(SHAPE, backward=False, settings=settings, todo=lambda fields: False)
    assert list(nothing) == []


# ---- Triton --------------------------------------------------------------------------------------


def machine(monkeypatch: pytest.MonkeyPatch, triton: str | None, *, hopper: bool = True, packages: str = "fla") -> None:
    monkeypatch.setattr(requirements, "triton_version", lambda: triton)
    monkeypatch.setattr(requirements, "on_hopper", lambda: hopper)
    monkeypatch.setattr(requirements, "find_spec", lambda name: name if name in packages.split() else None)


def test_what_needs_a_newer_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("simple_gla, chunk 64", GATED_DELTA_RULE_NAME)
    for version, found in (("3.6.0", REFUSED), ("3.7.1", None), ("3.10.0+git", None), ("3.3.1", None), (None, None)):
        machine(monkeypatch, version)
        assert [requirements.left_out(name, "training") for name in names] == [found, found], version
    machine(monkeypatch, "3.6.0")
    assert requirements.left_out(names[0], "forward") is None, "only its backward pass"
    assert requirements.left_out("companion", "training") is None
    machine(monkeypatch, "3.6.0", hopper=False)
    assert requirements.left_out(names[0], "training") is None
    machine(monkeypatch, "3.6.0", packages="fla tilelang")
    assert [requirements.left_out(name, "training") for name in names] == [REFUSED, None]
    machine(monkeypatch, "3.6.0", packages="")
    assert requirements.left_out(names[0], "training") is None, "the missing package is the reason"


def test_the_list_says_what_needs_a_newer_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"  {GATED_DELTA_RULE_NAME} (absent: fla is not installed)" in benchmark.listing()
    machine(monkeypatch, "3.6.0")
    monkeypatch.setattr(benchmark, "absent", lambda library: None)
    assert f"  simple_gla, chunk 64 (training {REFUSED})" in benchmark.listing()
    assert "  companion" in benchmark.listing()


def test_the_error_of_an_earlier_record_in_plain_words() -> None:
    error = "RuntimeError: Triton >= 3.4.0 and < 3.7.1 on Hopper GPUs produces incorrect results (see #640)."
    assert requirements.plain_reason(error, "3.6.0") == REFUSED
    assert requirements.plain_reason(error, None) == "left out: needs Triton 3.7.1 or later"
    assert requirements.plain_reason("fla is not installed", "3.6.0") == "fla is not installed"


def test_hopper_is_asked_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, found in (((9, 0), True), ((8, 0), False), ((10, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert requirements.on_hopper() is found
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not requirements.on_hopper()


# ---- records -------------------------------------------------------------------------------------


def test_records_of_the_suite(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> None:
    """The other cell is an operator of its own, what is left out is recorded, and neither is done twice."""
    import argparse

    install(monkeypatch)
    machine(monkeypatch, "3.6.0")
    monkeypatch.setattr(suites, "timed", lambda: [peer for peer in suites_peers() if peer.name.startswith("simple")])
    monkeypatch.setattr(timing, "measured_peaks", lambda: PEAKS)
    monkeypatch.setattr(suites, "Settings", lambda *_, **__: settings)
    monkeypatch.setattr(benchmark, "sequence_shapes", lambda quick: (SHAPE,))
    parser = argparse.ArgumentParser()
    benchmark.add_options(parser)
    out = tmp_path / "kernels.jsonl"
    options = parser.parse_args(["--part", "training", "--out", str(out), "--resume"])
    for _ in range(2):
        benchmark._run_timings(session.Session(options, {"gpu": "G"}), "training")
    first, second = read_records(out)
    assert {r["results"][0]["skipped"] for r in (first, second)} == {REFUSED}
    machine(monkeypatch, "3.7.1")
    out.unlink()
    options = parser.parse_args(["--part", "training", "--out", str(out), "--implementations", GATED_DELTA_RULE_NAME])
    benchmark._run_timings(session.Session(options, {"gpu": "G"}), "training")
    (record,) = read_records(out)
    assert record["parameters"]["operator"] == GATED_DELTA_RULE
    assert record["parameters"]["harness"] == identity.harness_identity(GATED_DELTA_RULE)
    assert record["results"][0]["seconds_median"] == 2e-3
    again = parser.parse_args(["--part", "training", "--out", str(out), "--resume"])
    assert not session.Session(again, {"gpu": "G"}).todo("training")(record["results"][0])
    assert session.library_of(GATED_DELTA_RULE_NAME) == "fla"


def suites_peers() -> Any:
    from companion.benchmarks.kernels.implementations import peers

    return peers()


def test_the_harness_of_the_mlstm_does_not_depend_on_it() -> None:
    apart = {"orientation", "other_cells", "requirements"}
    assert not apart & set(identity.HARNESSES["mlstm"])
    assert apart - {"requirements"} <= set(identity.HARNESSES[GATED_DELTA_RULE])
    assert identity.harness_identity(GATED_DELTA_RULE) != identity.harness_identity("mlstm")
