"""Recipes: their identity, what follows from them, and wrong values."""

import hashlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from study_runs import tiny, tiny_recipe

from companion.accounting import train_flops
from companion.architectures import make_architecture, preset
from companion.errors import InputError
from companion.models import build
from companion.study.train.recipe import Recipe, usual_learning_rate

#: As it must be written for ever: another text is another identity, and finished runs would be done again.
CANONICAL = (
    '{"architecture":{"attention_every":2,"attention_heads":2,"d_ff":64,"d_hv":16,"d_model":32,"d_qk":8,"n_heads":2,'
    '"n_kv_heads":2,"n_layers":2,"name":"xlstm","qk_norm":false,"tied_embeddings":false,"vocab_size":64},'
    '"batch_size_seqs":8,"betas":[0.9,0.95],"clip_norm":1.0,"context_length":32,"cooldown_share":0.0,'
    '"corpus":"counting","epsilon":1e-08,"evaluations":2,"final_share":0.1,"held_out_sequences":8,'
    '"learning_rate":0.003,"recipe_version":1,"schedule":"cosine","seed":0,"train_steps":24,"warmup_steps":1,'
    '"weight_decay":0.1}'
)


def test_the_identity_is_that_of_its_text() -> None:
    assert tiny_recipe("hybrid").run_id == hashlib.sha256(CANONICAL.encode()).hexdigest()[:16]


def test_equal_values_are_one_run_however_they_are_given() -> None:
    one = tiny_recipe(learning_rate=1, betas=[0, 0.5], weight_decay=-0.0, warmup_steps=None)
    other = tiny_recipe(learning_rate=np.float64(1.0), betas=(0.0, 0.5), weight_decay=0, warmup_steps=np.int64(1))
    assert one == other
    assert one.run_id == other.run_id
    assert tiny_recipe(cooldown_share=0.3).run_id == tiny_recipe().run_id  # a cosine has no cool-down


CHANGES: dict[str, Any] = {
    "architecture": tiny("xlstm"),
    "corpus": "other",
    "context_length": 64,
    "batch_size_seqs": 4,
    "train_steps": 25,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "schedule": "wsd",
    "final_share": 0.0,
    "weight_decay": 0.0,
    "betas": (0.9, 0.99),
    "epsilon": 1e-9,
    "clip_norm": 2.0,
    "seed": 1,
    "held_out_sequences": 9,
    "evaluations": 0,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_value_counts(name: str) -> None:
    changed = replace(tiny_recipe(warmup_steps=1), **{name: CHANGES[name]})
    assert changed.run_id != tiny_recipe().run_id
    assert Recipe.from_dict(changed.to_dict()) == changed


@pytest.mark.parametrize("kind", ["transformer", "xlstm", "hybrid"])
def test_parameters_are_those_of_the_model(kind: str) -> None:
    recipe = tiny_recipe(kind)
    assert recipe.num_params == sum(p.numel() for p in build(recipe.architecture, device="meta").parameters())


def test_tokens_and_flops() -> None:
    recipe = tiny_recipe("xlstm", context_length=128)
    assert recipe.num_tokens == 24 * 8 * 128
    assert recipe.train_flops == train_flops(recipe.architecture, 128, recipe.num_tokens, "paper")
    assert tiny_recipe("xlstm").train_flops > 0  # shorter than a chunk


def test_rates_and_evaluations() -> None:
    recipe = tiny_recipe(warmup_steps=4, final_share=0.5, evaluations=3)
    assert recipe.learning_rate_at(0) == pytest.approx(3e-3 / 4)
    assert recipe.learning_rate_at([3, 23]) == pytest.approx([3e-3, 1.5e-3])
    assert recipe.evaluation_steps == [6, 12, 18, 24]
    assert tiny_recipe(train_steps=2, evaluations=9).evaluation_steps == [1, 2]


def test_usual_rates_fall_with_the_width() -> None:
    widths = [tiny(kind, d_model=width) for kind in ("transformer", "xlstm") for width in (256, 512)]
    rates = [usual_learning_rate(each) for each in widths]
    assert rates[0] / rates[1] == rates[2] / rates[3] == 2
    with pytest.raises(InputError, match="no usual rate for 'gated_deltanet', only for transformer, xlstm"):
        usual_learning_rate(make_architecture("gated_deltanet", d_model=256, n_layers=2, n_heads=2))


WRONG: list[tuple[str, Any, str]] = [
    ("context_length", 0, "context_length: 0 is not a whole number from 1"),
    ("batch_size_seqs", 2.0, "batch_size_seqs: 2.0 is not a whole number"),
    ("train_steps", True, "train_steps: True"),
    ("train_steps", 10**400, "train_steps: 1000"),
    ("warmup_steps", 25, "train_steps: 24 are fewer than 25 steps of warm-up"),
    ("learning_rate", math.nan, "learning_rate: nan is not a finite number, above 0"),
    ("learning_rate", math.inf, "learning_rate: inf"),
    ("learning_rate", 10**400, "learning_rate: 1000"),
    ("learning_rate", "fast", "learning_rate: fast is not a number"),
    ("weight_decay", -1, "weight_decay: -1 is not a finite number, at least 0"),
    ("final_share", 1.5, "final_share: 1.5 is not a finite number, at least 0, at most 1"),
    ("betas", [0.9], "betas: .* is not a pair"),
    ("betas", [0.9, 1.0], "betas: 1.0 is not a finite number, at least 0, below 1"),
    ("epsilon", 0, "epsilon: 0 is not"),
    ("clip_norm", None, "clip_norm: None is not a number"),
    ("schedule", "linear", "schedule: 'linear' is not one of cosine, wsd"),
    ("corpus", "", "corpus: '' is not a name"),
    ("seed", -1, "seed: -1"),
    ("architecture", 3, "architecture: is not an object"),
    ("architecture", {"name": "rnn", "d_model": 8, "n_layers": 1, "n_heads": 1}, "'rnn' is not known"),
    ("architecture", {"name": "xlstm", "d_model": 8, "n_layers": 1}, "shape 'n_heads' is missing"),
    ("architecture", {"name": "xlstm", "d_modell": 8}, "shape 'd_modell' is not known"),
    ("architecture", {"name": "xlstm", "d_model": [8, 16]}, r"d_model \[8, 16\] is not a whole number"),
    ("architecture", {"name": ["xlstm"]}, "name .* is not text"),
    ("recipe_version", 2, "recipe_version: 2 is not 1"),
    ("label", "mine", "field 'label' is not known"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_wrong_values_are_named(name: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Recipe.from_dict({**tiny_recipe().to_dict(), name: value})
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named() -> None:
    values = tiny_recipe().to_dict()
    del values["learning_rate"]
    with pytest.raises(InputError, match="field 'learning_rate' is missing"):
        Recipe.from_dict(values)
    with pytest.raises(InputError, match="list is not an object"):
        Recipe.from_dict([])  # type: ignore[arg-type]


def test_a_cool_down_and_a_warm_up_must_fit() -> None:
    with pytest.raises(InputError, match="fewer than 10 steps of warm-up and 19 of cool-down"):
        tiny_recipe(schedule="wsd", cooldown_share=0.8, warmup_steps=10)


def test_architectures_of_several_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="several sizes at once"):
        tiny_recipe(architecture=tiny(d_model=np.array([32, 64])))
    with pytest.raises(InputError, match="str is not an architecture"):
        tiny_recipe(architecture="xlstm")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def made_of(values: dict[str, Any]) -> tuple[Recipe | None, str]:
    """The recipe of some values, or why there is none."""
    try:
        return Recipe.from_dict(values), ""
    except InputError as error:
        return None, str(error)


@example(name="batch_size_seqs", value="\n")
@example(name="learning_rate", value="")
@given(name=st.sampled_from(sorted(tiny_recipe().to_dict())), value=JSON)
def test_any_value_makes_a_recipe_or_an_error(name: str, value: Any) -> None:
    recipe, fault = made_of({**tiny_recipe().to_dict(), name: value})
    assert "\n" not in fault
    assert recipe is None or Recipe.from_dict(recipe.to_dict()).run_id == recipe.run_id


@given(shape=st.sampled_from(sorted(preset("xlstm", "160m").all_shapes())), value=JSON)
def test_any_shape_makes_a_recipe_or_an_error(shape: str, value: Any) -> None:
    values = tiny_recipe("hybrid").to_dict()
    values["architecture"][shape] = value
    recipe, fault = made_of(values)
    assert "\n" not in fault
    assert recipe is None or Recipe.from_dict(recipe.to_dict()) == recipe


def test_the_seed_decides_the_first_weights() -> None:
    from companion.study.train.step import TrainingStep

    made = [TrainingStep(tiny_recipe(seed=seed), torch.device("cpu")).state() for seed in (0, 0, 1)]
    name = "weight embedding.weight"
    assert torch.equal(made[0][name], made[1][name])
    assert not torch.equal(made[0][name], made[2][name])
