"""Designs: what their file may hold, and what is said of one that is wrong."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.accounting import num_params
from companion.errors import InputError
from companion.hardware import get_hardware
from companion.study.sweep.design import Design, example_design, read_design
from companion.study.sweep.ladder import KINDS, LADDER, sizes_of, study_architecture
from companion.study.sweep.plan import make_plan

GRID = {"architectures": ["xlstm"], "sizes": ["5m"], "budgets": [1e15, 2e15]}


def made(**changes: Any) -> Design:
    return Design.from_dict({"study": {"corpus": "source"}, "grid": [{**GRID, **changes}]})


def test_what_a_grid_leaves_out_has_a_default() -> None:
    (grid,) = made(sizes="3m").grids
    assert (grid.sizes, grid.seeds, grid.experiment) == (("3m",), (0,), "isoflop")
    assert grid.tokens_per_step == (65_536,)
    ratios = {"architectures": "xlstm", "sizes": "5m", "tokens_per_param": 20}
    (grid,) = Design.from_dict({"study": {"corpus": "source"}, "grid": [ratios]}).grids
    assert (grid.experiment, grid.tokens_per_param) == ("tokenparam", (20.0,))


def test_options_go_to_every_recipe() -> None:
    design = Design.from_dict({"study": {"corpus": "source", "schedule": "wsd", "warmup_steps": 5}, "grid": [GRID]})
    assert design.options == {"schedule": "wsd", "warmup_steps": 5}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budgets": [2e15, 1e15]}, "[[grid]] 1: budgets: they go from small to large"),
        ({"budgets": [1e15, 1e15]}, "budgets: a value is given twice"),
        ({"budgets": [float("inf")]}, "budgets: every value must be positive and finite"),
        ({"budgets": [True]}, "budgets: True is not a number"),
        ({"budgets": []}, "budgets: the list is empty"),
        ({"tokens_per_param": [20]}, "give either budgets or tokens_per_param"),
        ({"sizes": ["4m"]}, "sizes: '4m' is not one of 0.1m"),
        ({"sizes": [5]}, "sizes: 5 is not a name"),
        ({"context_lengths": [1024.5]}, "context_lengths: 1024.5 is not a whole number"),
        ({"context_lengths": [0]}, "context_lengths: every value must be positive"),
        ({"seeds": [-1]}, "seeds: they are not negative"),
        ({"tokens_per_step": [1, 2, 3]}, "tokens_per_step: give one number, or one for every budget"),
        ({"lenghts": [1]}, "'lenghts' is not one of architectures"),
        ({"experiment": 3}, "experiment: 3 is not a name"),
    ],
)
def test_a_wrong_grid_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        made(**changes)
    assert words in str(error.value)
    assert str(error.value).startswith("[[grid]] 1")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"grid": [GRID]}, "[study]: corpus: the name of a corpus is missing"),
        ({"study": {"corpus": "source"}}, "at least one [[grid]]"),
        ({"study": {"corpus": "source"}, "grids": [GRID]}, "table 'grids': a design has [study] and [[grid]]"),
        ({"study": {"corpus": "source"}, "grid": [{"sizes": ["5m"], "budgets": [1e15]}]}, "architectures is missing"),
        ({"study": {"corpus": "source"}, "grid": ["xlstm"]}, "[[grid]] 1: it is not a table"),
        ({"study": 3, "grid": [GRID]}, "a design has one table [study]"),
    ],
)
def test_a_wrong_design_is_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        Design.from_dict(values)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[study\n", "no TOML: "),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"", "corpus: the name of a corpus is missing"),
        (b"a = " + b"[" * 5000, "no TOML"),
        (b'[study]\ncorpus = "source"\n' + b"#" * 2_000_000, "the file is too large"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "design.toml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_design(path)
    assert words in str(error.value)
    assert "design.toml" in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.toml"):
        read_design(tmp_path / "nothing.toml")
    with pytest.raises(InputError):
        read_design(tmp_path)


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.integers() | st.text(max_size=4), st.lists)))
def test_anything_else_is_refused_in_one_line(values: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        Design.from_dict({"study": {"corpus": "source"}, "grid": [values]})
    assert "\n" not in str(error.value)


def test_the_example_is_a_design() -> None:
    assert read_design(example_design()).grids[0].sizes == ("0.1m", "0.2m", "0.3m")


def test_sizes_of_the_ladder_are_what_their_names_say() -> None:
    """Every kind of model at a size has about the number of parameters of its name, and sizes grow."""
    for kind in KINDS:
        names = sizes_of(kind)
        sizes = [float(num_params(study_architecture(kind, size, 1024))) for size in names]
        assert sizes == sorted(sizes)
        for size, number in zip(names, sizes, strict=True):
            assert number / (float(size[:-1]) * 1e6) == pytest.approx(1, abs=0.2), (kind, size)
    pairs = itertools.pairwise(LADDER.values())
    assert all(small[0] < large[0] and small[1] <= large[1] for small, large in pairs)


def test_unknown_models() -> None:
    with pytest.raises(InputError, match="size '4m' is not one of"):
        study_architecture("xlstm", "4m", 1024)
    with pytest.raises(InputError, match="architecture 'mamba' is not known"):
        study_architecture("mamba", "5m", 1024)


def test_every_fourth_layer_of_a_hybrid_is_attention() -> None:
    a = study_architecture("hybrid", "17m", 1024)
    assert [(layers.mixer.name, int(layers.number)) for layers in a.layers] == [("mlstm", 7), ("attention", 2)]
    for size in sizes_of("hybrid"):
        assert int(study_architecture("hybrid", size, 1024).layers[1].number) >= 1
    assert sizes_of("transformer") == sizes_of("xlstm") == tuple(LADDER)


def test_a_hybrid_without_attention() -> None:
    with pytest.raises(InputError, match=r"size '0.2m' of a hybrid: every 4th layer is attention.* 3 layers; use 0.3m"):
        study_architecture("hybrid", "0.2m", 1024)
    design = made(architectures=["xlstm", "hybrid"], sizes=["0.1m", "0.3m"])
    with pytest.raises(InputError, match=r"^\[\[grid\]\] 1: size '0.1m' of a hybrid"):
        make_plan(design, get_hardware("h200-sxm"))
