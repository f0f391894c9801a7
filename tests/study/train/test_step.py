"""One step against plain torch, its state, and what a launch that fails falls back to."""

import os
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from study_runs import Counting, tiny, tiny_recipe
from torch import Tensor
from torch._dynamo.utils import counters

from companion.errors import InputError
from companion.models import build
from companion.study.train import step as module
from companion.study.train.determinism import deterministic
from companion.study.train.recipe import Recipe
from companion.study.train.step import TrainingStep, check_head_widths, micro_batch_size

CPU = torch.device("cpu")
KINDS = ("transformer", "xlstm", "hybrid")


def batches(recipe: Recipe, number: int) -> list[Tensor]:
    size = recipe.batch_size_seqs
    return [Counting().sequences(n * size, size, recipe.context_length) for n in range(number)]


def trained(step: TrainingStep, number: int) -> list[list[float]]:
    """Losses and norms of some steps."""
    found = []
    for n, tokens in enumerate(batches(step.recipe, number)):
        step.tokens.copy_(tokens)
        step.rate.fill_(step.recipe.learning_rate_at(n))
        step.make()
        found.append(step.outcome.tolist())
    return found


def by_plain_torch(recipe: Recipe, number: int) -> tuple[Any, list[list[float]]]:
    """The same by `LanguageModel.loss`, `clip_grad_norm_` and an AdamW that is not fused."""
    torch.manual_seed(recipe.seed)
    model = build(recipe.architecture)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups: Any = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=recipe.betas, eps=recipe.epsilon, fused=False, foreach=False)
    found = []
    for n, tokens in enumerate(batches(recipe, number)):
        for group in optimizer.param_groups:
            group["lr"] = float(recipe.learning_rate_at(n))
        loss = model.loss(tokens)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        found.append([loss.item(), norm.item()])
    return model, found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip_norm", [0.5, 100.0])
def test_a_step_is_that_of_plain_torch(kind: str, clip_norm: float) -> None:
    # decay strong enough to be seen, and an epsilon with which the size of gradients matters
    recipe = tiny_recipe(kind, weight_decay=5.0, clip_norm=clip_norm, epsilon=0.01, learning_rate=0.01)
    step = TrainingStep(recipe, CPU)
    found = trained(step, 3)
    model, expected = by_plain_torch(recipe, 3)
    assert torch.tensor(found).allclose(torch.tensor(expected), rtol=1e-4)
    assert 1 < expected[0][1] < 50  # one of the two clips
    for name, weight in model.named_parameters():
        assert step.state()[f"weight {name}"].allclose(weight, rtol=1e-4, atol=1e-5), name


def test_shared_embeddings() -> None:
    recipe = tiny_recipe(architecture=tiny(tied_embeddings=True))
    step = TrainingStep(recipe, CPU)
    assert torch.tensor(trained(step, 2)).allclose(torch.tensor(by_plain_torch(recipe, 2)[1]), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_parts_is_the_same_batch(kind: str) -> None:
    whole, parts = (trained(TrainingStep(tiny_recipe(kind), CPU, micro_batch=n), 3) for n in (None, 2))
    assert torch.tensor(whole).allclose(torch.tensor(parts), rtol=1e-4)


def test_losses_of_sequences() -> None:
    step = TrainingStep(tiny_recipe("hybrid"), CPU, micro_batch=4)
    sequences = Counting().held_out(10, 32)
    with torch.no_grad():
        logits = step.model(sequences[:, :-1])
        each = [F.cross_entropy(logits[n], sequences[n, 1:]).item() for n in range(10)]
    assert step.sequence_losses(sequences).tolist() == pytest.approx(each, rel=1e-5)


def test_a_state_is_put_back() -> None:
    step = TrainingStep(tiny_recipe(), CPU)
    trained(step, 2)
    kept = {name: tensor.clone() for name, tensor in step.state().items()}
    after = trained(step, 2)
    assert after != trained(step, 2)
    step.load(kept)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in step.state().items())
    assert trained(step, 2) == after
    with pytest.raises(InputError, match="not those of this model"):
        step.load(TrainingStep(tiny_recipe("xlstm"), CPU).state())


def test_the_state_of_torch_is_left_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    TrainingStep(tiny_recipe(), CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_compiled_steps_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILER", "eager")  # traced, no code made
    step = TrainingStep(tiny_recipe(), CPU)
    before = {name: tensor.clone() for name, tensor in step.state().items()}
    step.prepare("compiled")
    assert step.launch == "compiled"
    assert all(torch.equal(tensor, before[name]) for name, tensor in step.state().items())
    assert trained(step, 2) == trained(TrainingStep(tiny_recipe(), CPU), 2)


def test_runs_of_equal_sizes_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILER", "eager")

    def graphs(**values: Any) -> int:
        before = counters["stats"]["unique_graphs"]
        TrainingStep(tiny_recipe(**values), CPU).prepare("compiled")
        return int(counters["stats"]["unique_graphs"] - before)

    monkeypatch.setattr(module, "_compiled_for", [])
    assert graphs() == 2  # a block, and the loss
    assert graphs(seed=1, learning_rate=1e-3) == 0
    assert graphs(batch_size_seqs=4) == 2


def test_what_cannot_be_compiled_or_captured_is_launched_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILER", "eager")
    step = TrainingStep(tiny_recipe(), CPU)
    with pytest.warns(UserWarning, match="launched compiled: graph failed: there are no CUDA graphs on a cpu"):
        step.prepare("graph")
    assert step.launch == "compiled"

    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(module, "COMPILER", broken)
    step = TrainingStep(tiny_recipe(), CPU)
    with pytest.warns(UserWarning, match="steps are launched eager: compiled failed: .*no compiler here"):
        step.prepare("compiled")
    assert step.launch == "eager"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trained(step, 2) == trained(TrainingStep(tiny_recipe(), CPU), 2)


def test_parts_must_divide() -> None:
    assert micro_batch_size(8, 4) == 4
    for wrong in (0, 3, 16):
        with pytest.raises(InputError, match=f"micro_batch: {wrong} does not divide the 8 sequences"):
            micro_batch_size(8, wrong)


@pytest.mark.parametrize("kind", ["xlstm", "hybrid"])
def test_heads_that_the_kernels_do_not_take(kind: str) -> None:
    with pytest.raises(InputError, match=r"d_qk: heads of width 8; .* from 16 to 512: change n_heads"):
        check_head_widths(tiny(kind))
    with pytest.raises(InputError, match="d_hv: heads of width 520"):
        check_head_widths(tiny(kind, d_model=520, n_heads=1, attention_heads=1 if kind == "hybrid" else None))
    check_head_widths(tiny(kind, d_model=64))
    check_head_widths(tiny())  # attention takes others


@pytest.mark.parametrize("before", [None, ":16:8"])
def test_settings_of_torch_come_back(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    variable = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.delenv(variable, raising=False)
    if before is not None:
        monkeypatch.setenv(variable, before)
    memory: Any = torch.utils.deterministic

    def settings() -> tuple[Any, ...]:
        enabled = torch.are_deterministic_algorithms_enabled()
        return enabled, memory.fill_uninitialized_memory, os.environ.get(variable)

    kept = settings()
    with deterministic():
        assert settings() == (True, False, ":4096:8")
    assert settings() == kept
    with pytest.raises(ZeroDivisionError), deterministic():
        raise ZeroDivisionError
    assert settings() == kept
