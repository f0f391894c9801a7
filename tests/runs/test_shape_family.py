"""Families of shapes: inverse functions, the models they were fitted to, real models, bad input."""

import numpy as np
import pandas as pd
import pytest
from foreign import table
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.accounting import CONVENTIONS, PAPER, count_flops, num_params
from companion.architectures import Transformer, preset
from companion.errors import InputError
from companion.runs.load import SHAPE_COLUMNS, load_paper_runs, load_runs
from companion.runs.shape_family import (
    LARGEST_WIDTH,
    SMALLEST_WIDTH,
    FamilyScale,
    ShapeFamily,
    fit_shape_family,
    paper_family,
)

RUNS = load_paper_runs()
NAMES = ("transformer", "xlstm")
names = st.sampled_from(NAMES)
sizes = st.floats(3e7, 3e12)


@settings(max_examples=40)
@given(names, sizes)
def test_width_of_is_the_inverse_of_num_params(name: str, size: float) -> None:
    family = paper_family(name)
    width = family.width_of(size)
    assert SMALLEST_WIDTH < width < LARGEST_WIDTH
    assert family.num_params(width) == pytest.approx(size, rel=1e-9)
    assert family.at(size).d_model == pytest.approx(width, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_arrays(name: str) -> None:
    family, many = paper_family(name), np.geomspace(1e8, 1e11, 5).reshape(5, 1)
    assert family.width_of(many).shape == (5, 1)
    assert (np.diff(family.width_of(many.ravel())) > 0).all()
    np.testing.assert_allclose(family.width_of(many)[2], family.width_of(many[2]))


@settings(max_examples=40)
@given(names, sizes)
def test_shapes_hold_together(name: str, size: float) -> None:
    shape = paper_family(name).at(size)
    assert shape.n_heads * shape.d_hv == pytest.approx(shape.d_model, rel=1e-12)
    assert shape.d_qk / shape.d_hv == (0.5 if name == "xlstm" else 1.0)
    assert shape.n_kv_heads == shape.n_heads
    assert shape.name == name


@pytest.mark.parametrize("name", NAMES)
def test_family_is_close_to_the_models_of_the_paper(name: str) -> None:
    family = paper_family(name)
    assert family.largest_deviation < 0.05
    for size in ("160m", "1.4b", "7b"):
        model = preset(name, size)
        count = num_params(model)
        assert family.at(count).d_model == pytest.approx(model.d_model, rel=0.25)
        exact = count_flops(model, 8192).train_flops_per_token
        assert family.flops_per_token(family.width_of(count), 8192) == pytest.approx(exact, rel=0.12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_price_of_a_real_shape_is_the_count(name: str, convention: str) -> None:
    """A family whose member at one width is exactly a real model counts exactly what that model costs."""
    model = preset(name, "400m")
    family = ShapeFamily(
        architecture=name, depth=model.n_layers, depth_exponent=0.0, head_width=model.d_hv, head_width_exponent=0.0,
        qk_ratio=model.d_qk / model.d_hv, ff_ratio=model.d_ff / model.d_model, vocab_size=model.vocab_size,
        smallest=1.0, largest=1e12, largest_deviation=0.0,
    )  # fmt: skip
    assert family.num_params(model.d_model) == pytest.approx(num_params(model), rel=1e-12)
    exact = count_flops(model, 2048, convention).train_flops_per_token
    assert family.flops_per_token(model.d_model, 2048, convention) == pytest.approx(exact, rel=1e-12)


@settings(max_examples=40)
@given(names, st.floats(1e8, 1e11), st.sampled_from([512, 8192, 131072]))
def test_elasticities_against_wide_differences(name: str, size: float, context: int) -> None:
    family = paper_family(name)
    width, step = family.width_of(size), 1e-3
    of_size, of_price = family.elasticities(np.log(width), context)
    low, high = width * np.exp(-step), width * np.exp(step)
    assert of_size == pytest.approx(np.log(family.num_params(high) / family.num_params(low)) / (2 * step), rel=1e-4)
    prices = [family.flops_per_token(each, context) for each in (low, high)]
    assert of_price == pytest.approx(np.log(prices[1] / prices[0]) / (2 * step), rel=1e-4)


@settings(max_examples=40)
@given(names, st.floats(1e8, 2e10))
def test_rounded_is_a_model_of_about_that_size(name: str, size: float) -> None:
    model = paper_family(name).rounded(size)
    assert model.name == name
    assert model.d_model == model.n_heads * model.d_hv
    # the width moves in steps of a head, the largest part of the error at small sizes
    assert num_params(model) == pytest.approx(size, rel=0.4)


def test_grouped_heads_have_fewer_parameters_and_projections_but_the_same_core() -> None:
    full = Transformer(d_model=1024, n_layers=24, n_heads=16)
    grouped = Transformer(d_model=1024, n_layers=24, n_heads=16, n_kv_heads=4)
    saved = 24 * 2 * 1024 * 12 * 64  # keys and values of the 12 heads that are gone
    assert num_params(full) - num_params(grouped) == saved
    one, two = (count_flops(model, 4096).components for model in (full, grouped))
    assert one.mixer_core == two.mixer_core
    assert one.mixer_projections - two.mixer_projections == 3 * 2 * 4096 * saved
    assert one.ffn == two.ffn
    with pytest.raises(InputError, match="n_kv_heads 5 does not divide n_heads 16"):
        Transformer(d_model=1024, n_layers=24, n_heads=16, n_kv_heads=5)


def test_context_raises_the_price_of_the_transformer_only() -> None:
    contexts = (2048, 8192, 131072)
    transformer, xlstm = (
        [paper_family(name).flops_per_token(1024.0, context) for context in contexts] for name in NAMES
    )
    assert (np.diff(transformer) > 0).all()
    assert np.diff(transformer)[1] / np.diff(transformer)[0] == pytest.approx((131072 - 8192) / (8192 - 2048))
    np.testing.assert_allclose(xlstm, xlstm[0], rtol=1e-12)


@settings(max_examples=40)
@given(names, st.floats(1e8, 1e11), st.floats(1, 3000), st.sampled_from([64, 8192, 131072]))
def test_family_scale_and_its_inverse(name: str, size: float, ratio: float, context: int) -> None:
    scale = FamilyScale(family=paper_family(name), context_length=context)
    flops = scale.train_flops(size, ratio)
    assert scale.num_params(flops, ratio) == pytest.approx(size, rel=1e-8)
    assert scale.train_flops(size, 2 * ratio) == pytest.approx(2 * flops)


def test_family_scale_of_6nd_is_6nd() -> None:
    scale = FamilyScale(family=paper_family("xlstm"), context_length=8192, convention=CONVENTIONS["6ND"])
    np.testing.assert_allclose(scale.train_flops(np.array([1e8, 1e10]), 20.0), 6 * 20 * np.array([1e8, 1e10]) ** 2)


def test_family_of_other_shapes() -> None:
    runs = RUNS[(RUNS["architecture"] == "transformer") & (RUNS["experiment"] == "isoflop")]
    wide = fit_shape_family(runs.assign(d_ff=2 * runs["d_ff"]), "transformer")
    assert wide.ff_ratio == pytest.approx(2 * fit_shape_family(runs, "transformer").ff_ratio)
    assert (wide.smallest, wide.largest) == (runs["num_params"].min(), runs["num_params"].max())
    bare = runs.drop(columns=list(SHAPE_COLUMNS))
    assert fit_shape_family(bare, "transformer") == paper_family("transformer")
    other = fit_shape_family(runs, "xlstm")  # none of these runs: the paper's
    assert other == paper_family("xlstm")


@pytest.mark.parametrize("name", NAMES)
def test_the_inverses_stop_at_the_ends_of_the_widths(name: str) -> None:
    family = paper_family(name)
    ends = family.num_params(np.array([SMALLEST_WIDTH, LARGEST_WIDTH]))
    np.testing.assert_allclose(family.width_of(ends), [SMALLEST_WIDTH, LARGEST_WIDTH], rtol=1e-12)
    scale = FamilyScale(family=family, context_length=8192)
    found = scale.num_params(np.array([1.0, scale.train_flops(1e9, 20.0), 1e60, np.nan]), 20.0)
    np.testing.assert_allclose(found, [ends[0], 1e9, ends[1], np.nan], rtol=1e-9)
    assert scale.num_params(1.0, 20.0) == pytest.approx(ends[0])
    assert np.isnan(scale.num_params(np.nan, 20.0))
    assert family.width_of(np.array([])).shape == (0,)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no shapes for architecture 'mamba', only for transformer, xlstm"):
        paper_family("mamba")
    family = paper_family("transformer")
    for wrong in (1.0, 1e22, float("nan")):
        with pytest.raises(InputError, match=r"num_params \S+ is outside"):
            family.width_of(wrong)
    with pytest.raises(InputError, match=r"num_params 1 is outside"):
        family.width_of([1e9, 1.0])
    one = RUNS[(RUNS["architecture"] == "xlstm") & (RUNS["d_model"] == 768)]
    with pytest.raises(InputError, match="shapes of xlstm: 1 different d_model; at least 2 needed"):
        fit_shape_family(pd.DataFrame(one), "xlstm")
    with pytest.raises(InputError, match="shorter than one chunk"):
        FamilyScale(family=paper_family("xlstm"), context_length=PAPER.chunk_size - 1)
    with pytest.raises(InputError, match="not a positive whole number"):
        FamilyScale(family=family, context_length=0)


def test_the_vocabulary_is_that_of_the_table() -> None:
    runs = load_runs(table("vocab"))
    few = runs[runs["vocab_size"] == 32000]
    assert fit_shape_family(few, "transformer").vocab_size == 32000
    assert fit_shape_family(runs.assign(vocab_size=float("nan")), "transformer").vocab_size == 50304
