"""The training suite on a CPU: its checks find wrong gradients and graphs, its steps train, its records say it all."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed (extra 'kernels')")

import torch
from torch import Tensor

from companion.accounting.flops import train_flops
from companion.architectures import make_architecture, preset
from companion.benchmarks.models import launches, training, training_cells
from companion.benchmarks.models.__main__ import main
from companion.benchmarks.models.training import architecture_to_train, cells_of, plan_of
from companion.benchmarks.models.training_checks import (
    Reference,
    compare,
    compare_graph,
    compare_launches,
    losses_of,
    plain_loss,
    reference_of,
)
from companion.benchmarks.models.training_step import Training, choose_attention, needed_bytes
from companion.benchmarks.records import read_records
from companion.errors import InputError

MODELS = ("transformer", "xlstm", "hybrid")
Results = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.benchmarks.models.timed.MOST", 3)


def options_of(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    training.add_training_options(parser)
    return parser.parse_args(words)


def suite(path: Path, *words: object) -> tuple[int, Results]:
    """Exit status of a run on the CPU, and the results it added to the file."""
    before = len(read_records(path)) if path.exists() else 0
    few = ("--sizes", "tiny", "--launches", "eager", "--device", "cpu", "--out", path)
    status = main(["training", *map(str, (*few, *words))])
    after = read_records(path)[before:] if path.exists() else []
    return status, [result for record in after for result in record["results"]]


def tiny(model: str, **more: Any) -> Training:
    made = Training(architecture_to_train(model, "tiny"), "cpu", **more)
    made.tokens = made.batch(4, 64)
    return made


@pytest.fixture(scope="module")
def hybrid() -> tuple[Training, Reference]:
    """A model that has learned nothing, and what plain torch finds for it."""
    made = tiny("hybrid")
    return made, reference_of(made)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Results]:
    path = tmp_path_factory.mktemp("training") / "records.jsonl"
    return path, *suite(path, "--models", "hybrid", "--contexts", 64)


# ---- the suite ----------------------------------------------------------------------------------


def test_cells_are_checked_and_timed(records: tuple[Path, int, Results]) -> None:
    path, status, (*checks, cell) = records
    assert status == 0
    assert [x["quantity"] for x in checks[:2]] == ["loss", "gradients"]
    assert all(x["verdict"] == "pass" and x["error"] <= x["tolerance"] and x["reason"] == "" for x in checks)
    architecture = architecture_to_train("hybrid", "tiny")
    assert make_architecture(**cell["shapes"]) == architecture
    assert (cell["part"], cell["launch"], cell["attention"], cell["recompute"]) == (
        "training",
        "eager",
        "default",
        False,
    )
    assert (cell["context_length"], cell["batch_size"], cell["tokens_per_step"], cell["loss_parts"]) == (64, 4, 256, 1)
    assert cell["flops"] == train_flops(architecture, 64, 256)
    assert cell["tokens_per_s"] == pytest.approx(256 / cell["seconds_median"], rel=1e-3)
    assert 0 < cell["seconds_low"] <= cell["seconds_median"] <= cell["seconds_high"]
    [record] = read_records(path)
    assert record["benchmark"] == "model_training"
    assert record["command"].startswith("python -m companion.benchmarks.models training --models hybrid --sizes tiny")


def test_resume_measures_only_what_is_missing(records: tuple[Path, int, Results]) -> None:
    path, *_ = records
    assert suite(path, "--models", "hybrid", "--contexts", 64, "--resume") == (0, [])


def test_wrong_gradients_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(reference: Reference) -> Reference:
        turned = [x._replace(gradients={k: -g for k, g in x.gradients.items()}) for x in reference[2:]]
        return Reference(*reference[:2], *turned)

    monkeypatch.setattr(training_cells, "reference_of", lambda made: wrong(reference_of(made)))
    status, results = suite(tmp_path / "records.jsonl", "--models", "transformer", "--contexts", 64)
    assert status == 1
    assert [x["verdict"] for x in results] == ["pass", "fail", "fail"]
    assert {x["part"] for x in results} == {"check"}
    assert results[1]["reason"].startswith("error 2, allowed 0.0")


def test_errors_of_a_cell_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Training) -> Tensor:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Training, "__call__", fails)
    status, results = suite(tmp_path / "records.jsonl", "--models", "transformer", "--contexts", 64)
    assert (status, results[-1]["skipped"]) == (1, "failed: RuntimeError: no such kernel")


def test_what_does_not_fit_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_cells, "free_bytes", lambda device: 2**10)
    status, results = suite(tmp_path / "records.jsonl", "--models", "xlstm", "--contexts", 64)
    assert (status, [x["skipped"] for x in results]) == (0, ["needs 0.0 GiB, 0.0 GiB are free"])


def test_a_step_without_memory_is_tried_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Training.__call__

    def large(self: Training) -> Tensor:
        if self.loss == self.model.loss or self.tokens.shape[1] > 65:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self)

    monkeypatch.setattr(Training, "__call__", large)
    status, results = suite(tmp_path / "records.jsonl", "--models", "transformer")
    assert status == 0
    fits, not_even_so = (x for x in results if x["part"] == "training")
    assert (fits["context_length"], fits["loss_parts"]) == (64, 8)
    assert not_even_so["skipped"].startswith("needs more than ")


# ---- what is planned ----------------------------------------------------------------------------


def test_sizes_have_the_weights_of_their_names() -> None:
    for size, expected in (("5m", 5e6), ("15m", 15e6), ("86m", 86e6)):
        for model in MODELS[:2]:
            model_of = launches.build(architecture_to_train(model, size, 256), device="meta")
            count = sum(x.numel() for name, x in model_of.named_parameters() if "embedding" not in name)
            assert 0.9 < count / expected < 1.2, (model, size, count)
    assert architecture_to_train("xlstm", "400m") == preset("xlstm", "400m")
    assert architecture_to_train("xlstm", "400m", 512) == preset("xlstm", "400m", vocab_size=512)
    assert architecture_to_train("transformer", "86m") == preset("transformer", "160m")


def test_plan() -> None:
    plan = {(model, size): cells for model, size, cells in plan_of(options_of())}
    assert ("hybrid", "5m") not in plan  # six layers: none of eight is attention
    assert {size for _, size in plan} == {"5m", "15m", "160m", "400m", "1.4b"}
    cells = plan["xlstm", "15m"]
    assert [x.context_length for x in cells if x.launch == "eager"] == [1024, 8192, 32768]
    assert [x.context_length for x in cells if x.launch == "compiled graph"] == [2**k for k in range(9, 17)]
    large = plan["transformer", "1.4b"]
    assert [(x.context_length, x.launch) for x in large] == [(n, "compiled") for n in (1024, 8192, 65536)]
    named = cells_of(options_of("--contexts", "2048", "--launches", "eager"), "xlstm", "1.4b")
    assert named == [(2048, "eager")]
    assert [x.launch for x in cells_of(options_of("--device", "cpu"), "xlstm", "tiny")] == ["eager"] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--contexts", "1000"), r"--contexts: 1000 is not one of 512, 1024, .*65536"),
        (("--launches", "fast"), "--launches: 'fast' is not one of eager, compiled, compiled graph"),
        (("--models", "mamba"), "--models: 'mamba' is not one of transformer, xlstm, hybrid, grouped"),
        (("--sizes", "7b"), "--sizes: '7b' is not one of 5m, 15m, 160m, 400m, 1.4b, 86m, tiny"),
    ],
)
def test_unknown_options_are_named(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_of(options_of(*words))


def test_list_needs_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["training", "--list", "--quick"]) == 0
    assert "xlstm 5m: 5 cells: 512, 1024 tokens; eager, compiled, compiled graph" in capsys.readouterr().out


# ---- steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("recompute", [False, True])
def test_loss_from_its_pieces_is_that_of_the_model(model: str, recompute: bool) -> None:
    from companion.benchmarks.models.training_step import _enter, _leave

    made = tiny(model, recompute=recompute)
    found = []
    for loss in (made.model.loss, partial(made.loss_of, _enter, _leave, 1), partial(made.loss_of, _enter, _leave, 8)):
        value = loss(made.tokens)
        value.backward()
        found.append((value.detach(), [x.grad for x in made.model.parameters()]))
        made.optimizer.zero_grad(set_to_none=True)
    for value, gradients in found[1:]:
        torch.testing.assert_close(value, found[0][0], rtol=1e-5, atol=0)
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-3, atol=1e-6)


def test_a_step_trains_and_can_be_undone() -> None:
    made = tiny("hybrid")
    made()
    before = [x.detach().clone() for x in made.state()]
    with made.undone():
        losses = losses_of(made, 3)
        assert losses[2] < losses[0]
        assert any(not torch.equal(x, y) for x, y in zip(made.state(), before, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(made.state(), before, strict=True))
    assert all(x.grad is None for x in made.model.parameters())
    assert losses_of(made, 3) == losses


def test_blocks_are_compiled_once_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks share their code; the plain loss beside it compiles nothing."""
    monkeypatch.setattr(launches, "COMPILER", "eager")
    torch.compiler.reset()
    made = tiny("transformer")
    reference = reference_of(made)
    torch._dynamo.utils.counters.clear()
    with made.compiled():
        for count, (batch_size, length) in enumerate(((4, 64), (3, 80)), start=1):
            made.tokens = made.batch(batch_size, length)
            loss = float(made.loss(made.tokens))
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3 * count  # embedding, block, loss
            assert compare_launches(loss, plain_loss(made))["verdict"] == "pass"
            assert compare_launches(1.001 * loss, plain_loss(made))["verdict"] == "fail"
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 6
        assert all(row["verdict"] == "pass" for row in compare(made, reference))
    assert made.loss == made.model.loss


def test_without_a_gpu_there_is_no_choice() -> None:
    assert choose_attention(preset("xlstm", "160m"), "cpu") == "none"
    assert choose_attention(preset("transformer", "160m"), "cpu") == "default"
    assert needed_bytes(tiny("transformer"), 2, 64) is None


# ---- checks -------------------------------------------------------------------------------------


def test_right_steps_pass(hybrid: tuple[Training, Reference]) -> None:
    rows = compare(*hybrid)
    assert [row["verdict"] for row in rows] == ["pass"] * 3
    assert 1e-3 < rows[1]["error"] < 1.5 * rows[1]["reference_error"]


def test_weights_that_moved_do_not_matter(hybrid: tuple[Training, Reference]) -> None:
    made, reference = hybrid
    made()
    assert [row["verdict"] for row in compare(made, reference)] == ["pass"] * 3


@pytest.mark.parametrize("kind", ["mixer.gates.weight", "norm.weight", "embedding.weight"])
def test_wrong_gradients_of_one_kind_are_found(hybrid: tuple[Training, Reference], kind: str) -> None:
    made, reference = hybrid
    hooks = [x.register_hook(lambda g: 1.2 * g) for name, x in made.model.named_parameters() if name.endswith(kind)]
    worst = compare(made, reference)[2]
    for hook in hooks:
        hook.remove()
    assert worst["verdict"] == "fail"
    assert worst["quantity"].removeprefix("gradients of ").endswith(kind)


def test_missing_gradients_and_wrong_losses_are_found(hybrid: tuple[Training, Reference]) -> None:
    made, reference = hybrid
    frozen = made.model.norm.weight.requires_grad_(False)
    rows = compare(made, reference)
    frozen.requires_grad_(True)
    assert "none of norm.weight" in rows[1]["quantity"]
    assert rows[1]["verdict"] == "fail"
    moved = [x._replace(loss=1.001 * x.loss) for x in reference[2:]]
    assert compare(made, Reference(*reference[:2], *moved))[0]["verdict"] == "fail"


def test_graphs_that_do_not_train_are_found() -> None:
    launched = [6.0, 5.9, 5.8]
    assert compare_graph(launched, [6.0, 5.9005, 5.8001], 0.2)["verdict"] == "pass"
    row = compare_graph(launched, [6.0, 6.0, 6.0], 0.2)
    assert (row["verdict"], row["error"]) == ("fail", pytest.approx(1.0))
    assert "launched 6.0, 5.9, 5.8; replayed 6.0, 6.0, 6.0" in row["reason"]
    assert compare_graph([6.0], [float("nan")], 0.2)["verdict"] == "fail"
