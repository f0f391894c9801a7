"""Profiles: components sum to the accounting, parts to the whole, and every kernel belongs to the mark before it."""

import argparse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed (extra 'kernels')")

import torch

from companion.accounting.flops import count_flops
from companion.accounting.inference import count_prefill, count_step
from companion.architectures import Architecture, make_architecture
from companion.benchmarks.models import profile_trace, profiles
from companion.benchmarks.models.__main__ import main
from companion.benchmarks.models.models import architecture_of
from companion.benchmarks.models.profile_counts import COMPONENTS, component_costs
from companion.benchmarks.models.profile_parts import Marks, Parts, marked_steps
from companion.benchmarks.models.profile_trace import Kernel, by_component, labels_of
from companion.benchmarks.models.profiles import architecture_of_pass, plan_of, rows_of
from companion.benchmarks.models.training import architecture_to_train
from companion.benchmarks.models.training_step import Training
from companion.benchmarks.records import read_records
from companion.errors import InputError
from companion.models import Memory

MODELS = ("transformer", "grouped", "xlstm", "hybrid")
OTHERS = (
    make_architecture("transformer", d_model=256, n_layers=3, n_heads=4, n_kv_heads=2, qk_norm=True),
    make_architecture("xlstm", d_model=256, n_layers=3, n_heads=4, d_ff=0),
)


def options_of(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    profiles.add_profile_options(parser)
    return parser.parse_args(words)


def words(a: Architecture) -> str:
    return f"{a.name}, {a.d_ff}"


# ---- counts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "architecture", [*(architecture_of(name, "7b") for name in MODELS), *OTHERS], ids=lambda a: f"{a.name}, {a.d_ff}"
)
def test_components_of_a_step_sum_to_the_accounting(architecture: Architecture) -> None:
    costs = component_costs(architecture, "step", 16384, 4)
    counted = count_step(architecture, 16384, 4)
    assert sum(cost.flops for cost in costs.values()) == counted.flops.total
    assert sum(cost.bytes for cost in costs.values()) == counted.traffic.total


@pytest.mark.parametrize(
    "architecture", [*(architecture_of(name, "400m") for name in MODELS), *OTHERS], ids=lambda a: f"{a.name}, {a.d_ff}"
)
def test_components_but_the_core_sum_to_the_accounting(architecture: Architecture) -> None:
    own = {"attention", "mlstm"}
    costs = component_costs(architecture, "training", 2048, 4)
    counted = 4 * count_flops(architecture, 2048).components
    rest = sum(cost.flops for name, cost in costs.items() if name not in own)
    assert rest == pytest.approx(counted.total - counted.mixer_core, rel=1e-12)
    layer = component_costs(architecture, "prefill_layer", 2048, 4)
    forward = count_prefill(architecture, 2048, 4).flops
    rest = sum(cost.flops for name, cost in layer.items() if name not in own)
    assert rest == pytest.approx(forward.total - forward.mixer_core - forward.unembedding, rel=1e-12)
    assert all(set(costs) | {"gaps"} == set(COMPONENTS) for costs in (costs, layer))


def test_a_chain_of_kernels_takes_their_times_one_after_another() -> None:
    cost = component_costs(architecture_of("xlstm", "400m"), "training", 2048, 4)["mlstm"]
    assert len(cost.kernels) == 24 * 8, "three forward, five backward: the states are kept"
    assert sum(moved for _, moved in cost.kernels) == pytest.approx(cost.bytes)
    flops_per_s, bytes_per_s = 8e14, 4.3e12
    assert cost.seconds(flops_per_s, bytes_per_s) > max(cost.flops / flops_per_s, cost.bytes / bytes_per_s)


# ---- parts --------------------------------------------------------------------------------------


def forward_order(model: str) -> list[str]:
    core = {"transformer": ["attention"], "xlstm": ["mlstm", "output_gate"]}[model]
    layer = ["norms", "qkv", "heads", *core, "out", "norms", "ffn_up", "ffn_activation", "ffn_down"]
    return ["embedding", *layer, *layer, "norms", "unembedding", "loss"]


@pytest.mark.parametrize("model", ["transformer", "xlstm"])
def test_a_training_step_in_parts_is_the_step(model: str) -> None:
    training, marks = Training(architecture_to_train(model, "tiny"), "cpu"), Marks("cpu")
    tokens, parts = training.batch(2, 64), Parts(marks)
    found = []
    for loss in (training.model.loss(tokens), parts.loss(training.model, tokens)):
        loss.backward()
        found.append((loss.detach(), [x.grad for x in training.model.parameters()]))
        training.optimizer.zero_grad(set_to_none=True)
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-7)
    order = forward_order(model)
    assert marks.names == order + order[-2::-1]  # the way back begins in the loss, and needs no mark there
    assert marks.times == sorted(marks.times)


def test_a_step_marks_its_operators() -> None:
    a = architecture_of("hybrid", "tiny")
    model = profile_trace.launches.random_model(a, "cpu", torch.float32)
    tokens, marks = torch.tensor([[3]]), Marks("cpu")
    memories = [Memory.empty(a, 1, 8, dtype=torch.float32) for _ in range(2)]
    with torch.no_grad():
        expected = model(tokens, memories[0])
        with marked_steps(model, marks):
            assert torch.equal(model(tokens, memories[1]), expected)
    ffn = ["ffn_up", "ffn_down"]
    layers = ["qkv", "mlstm", "output_gate", "out", *ffn, "qkv", "attention", "out", *ffn]
    assert marks.names == [*layers, "unembedding", "sampling"]
    marks.enabled = False
    marks("norms")
    assert marks.names[-1] == "sampling"


# ---- traces -------------------------------------------------------------------------------------


def kernels(*spans: tuple[str, float, float]) -> list[Kernel]:
    return [Kernel(*span) for span in spans]


def test_kernels_belong_to_the_mark_before_them() -> None:
    marked = kernels(("spin_kernel(long)", 0, 1), ("a", 1, 2), ("b", 2, 3), ("spin_kernel(long)", 3, 4), ("a", 4, 5))
    labels = labels_of(marked, ["qkv", "out"])
    assert labels == [("a", "qkv"), ("b", "qkv"), ("a", "out")]
    with pytest.raises(ArithmeticError, match="2 marks, 1 were made"):
        labels_of(marked, ["qkv"])


def test_kernels_that_begin_early_count_from_the_end_of_the_one_before() -> None:
    labels = [("a", "qkv"), ("b", "out"), ("c", "out")]
    one = [("a", 0.0, 4.0), ("b", 1.0, 6.0), ("c", 7.0, 8.0)]  # b waits for a; then a second of nothing
    later = [(name, start + 10, end + 10) for name, start, end in one]
    found = by_component(kernels(*one, *later), labels, wall=9.0)
    assert found["seconds"] == {"qkv": 4.0, "out": 3.0, "gaps": 1.0}  # not the two seconds between the passes
    assert found["kernels"] == {"qkv": 1, "out": 2}


@pytest.mark.parametrize(("wall", "gaps"), [(9.0, 1.0), (7.25, 0.25), (5.0, 0.0)])
def test_gaps_that_tracing_made_do_not_count(wall: float, gaps: float) -> None:
    labels = [("a", "qkv"), ("b", "out"), ("c", "out")]
    one = kernels(("a", 0.0, 4.0), ("b", 1.0, 6.0), ("c", 7.0, 8.0))
    assert by_component(one, labels, wall)["seconds"]["gaps"] == gaps


@pytest.mark.parametrize("names", ["", "ab", "abcd", "abd"])
def test_other_kernels_than_those_with_marks_are_refused(names: str) -> None:
    labels = [("a", "qkv"), ("b", "out"), ("c", "out")]
    with pytest.raises(ArithmeticError, match=f"trace: {len(names)} kernels without marks, 3 with marks"):
        by_component(kernels(*((name, k, k + 1.0) for k, name in enumerate(names))), labels, 9.0)


# ---- the suite ----------------------------------------------------------------------------------


def test_all_parts_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "profile.jsonl"
    words = ["profile", "--sizes", "tiny", "--models", "xlstm", "--device", "cpu", "--out", str(path)]
    assert main(words) == 0
    records = read_records(path)
    assert [record["benchmark"] for record in records] == ["model_profile"] * 3
    for record, part in zip(records, ("step", "prefill_layer", "training"), strict=True):
        *rows, whole = record["results"]
        assert {(row["part"], row["model"], row["size"]) for row in rows} == {(part, "xlstm", "tiny")}
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert whole["component"] == "whole"
        assert whole["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
        assert {row["component"] for row in rows if row["seconds"]} >= {"qkv", "mlstm", "out", "ffn_up", "ffn_down"}
        assert all(row["roofline_seconds"] is None for row in rows)
    assert main([*words, "--resume"]) == 0
    assert len(read_records(path)) == 3


def test_rows_have_the_roofline_of_the_measured_peaks() -> None:
    fields: dict[str, Any] = {
        "part": "step", "model": "xlstm", "size": "7b", "context_length": 16384, "batch_size": 1
    }  # fmt: skip
    trace = {"seconds": {"qkv": 3e-4, "gaps": 1e-4}, "kernels": {"qkv": 2}, "attention": "none", "launch": "graph"}
    peaks = {"matmul_flops_per_s": 8e14, "copy_bytes_per_s": 4.3e12}
    *rows, whole = rows_of(fields, architecture_of("xlstm", "7b"), trace, peaks)
    by_name = {row["component"]: row for row in rows}
    assert (by_name["qkv"]["share"], by_name["gaps"]["share"]) == pytest.approx((0.75, 0.25))
    assert by_name["qkv"]["roofline_seconds"] == by_name["qkv"]["bytes"] / 4.3e12
    assert (by_name["gaps"]["roofline_seconds"], by_name["ffn_up"]["seconds"]) == (0.0, 0.0)
    assert whole["roofline_seconds"] == pytest.approx(sum(row["roofline_seconds"] for row in rows))


def test_parts_that_differ_from_the_whole_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_trace, "TOLERANCE", {"training": -1.0, "prefill_layer": -1.0})
    words = ["--sizes", "tiny", "--models", "xlstm", "--part", "prefill_layer", "training", "--device", "cpu"]
    assert main(["profile", *words, "--out", str(tmp_path / "profile.jsonl")]) == 1
    assert not (tmp_path / "profile.jsonl").exists()


def test_plan() -> None:
    plan = plan_of(options_of("--models", "transformer", "hybrid"))
    assert [(x["part"], x["model"]) for x in plan] == [
        ("step", "transformer"), ("step", "hybrid"), ("prefill_layer", "transformer"),
        ("training", "transformer"), ("training", "hybrid"),
    ]  # fmt: skip
    assert architecture_of_pass(plan[2]).n_layers == 1
    [other] = plan_of(options_of("--part", "training", "--models", "xlstm", "--context", "32768"))
    assert (other["size"], other["context_length"], other["batch_size"]) == ("400m", 32768, 2)
    with pytest.raises(InputError, match="layers of two kinds"):
        plan_of(options_of("--part", "prefill_layer", "--models", "hybrid"))
    with pytest.raises(InputError, match="--part: 'loss' is not one of step, prefill_layer, training"):
        plan_of(options_of("--part", "loss"))
