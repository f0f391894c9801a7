"""On a CUDA GPU: launches of a training step agree, and a run that is interrupted goes on bit for bit."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from companion.study.sweep import study_architecture
from companion.study.train import Recipe, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
KINDS = ("transformer", "xlstm", "hybrid")


def recipe_of(kind: str, train_steps: int = 60, context_length: int = 1024, batch_size_seqs: int = 16) -> Recipe:
    return Recipe(
        architecture=study_architecture(kind, "5m", 1024),
        corpus="source",
        context_length=context_length,
        batch_size_seqs=batch_size_seqs,
        train_steps=train_steps,
        learning_rate=1e-3,
        held_out_sequences=32,
        evaluations=1,
    )


def run(folder: Path, recipe: Recipe, **options: Any) -> dict[str, Any]:
    return train(recipe, folder, device="cuda", progress=False, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_every_launch_trains_the_same(kind: str, tmp_path: Path) -> None:
    recipe = recipe_of(kind)
    found = {launch: run(tmp_path / launch, recipe, launch=launch) for launch in ("eager", "compiled", "graph")}
    for launch, record in found.items():
        assert record["launch"] == launch
        assert record["curve"]["loss"] == pytest.approx(found["eager"]["curve"]["loss"], abs=0.05)
    assert found["graph"]["curve"]["loss"][-1] < found["graph"]["curve"]["loss"][0] - 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_has_the_same_bits(kind: str, tmp_path: Path) -> None:
    """The parts in processes of their own, as after a crash."""
    recipe = recipe_of(kind)
    whole = run(tmp_path / "whole", recipe)
    for stop in (17, 9):  # steps of each part
        code = (
            "import json, pathlib\nfrom companion.study.train import Recipe, train\n"
            f"recipe = Recipe.from_dict({recipe.to_dict()!r})\n"
            f"folder = pathlib.Path({str(tmp_path / 'parts')!r})\n"
            f"train(recipe, folder, device='cuda', progress=False, stop_after={stop})"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
    parts = run(tmp_path / "parts", recipe)
    for name in ("curve", "val_loss", "evaluations", "train_loss"):
        assert parts[name] == whole[name], name


def test_memory_is_that_of_the_run(tmp_path: Path) -> None:
    """Not of the one before in the same process, whose compiled code keeps its tensors."""
    recipes = [recipe_of("xlstm", train_steps=4, batch_size_seqs=n) for n in (8, 32, 8)]
    recipes[2] = replace(recipes[2], learning_rate=2e-3)
    first, _, third = (run(tmp_path, recipe)["peak_memory_bytes"] for recipe in recipes)
    assert third == pytest.approx(first, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_parts(kind: str, tmp_path: Path) -> None:
    recipe = recipe_of(kind, train_steps=20)
    whole, parts = run(tmp_path / "whole", recipe), run(tmp_path / "parts", recipe, micro_batch=4)
    assert parts["curve"]["loss"] == pytest.approx(whole["curve"]["loss"], abs=0.05)
    assert parts["peak_memory_bytes"] < whole["peak_memory_bytes"]
