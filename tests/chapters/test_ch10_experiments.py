"""Experiments of the kernel chapter: what they show is what the equations say."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tensors are small: threads would only wait for each other

from companion.chapters.ch10 import experiments, source  # noqa: E402
from companion.errors import InputError  # noqa: E402
from companion.kernels.mlstm.oracle import mlstm_oracle  # noqa: E402


def test_inputs() -> None:
    inputs = experiments.cell_inputs(4000, n_heads=2, d_qk=3, d_hv=5, input_gate=-2.0, forget_gate=4.0, spread=0.5)
    assert {name: tuple(x.shape) for name, x in inputs.items()} == {
        "q": (1, 4000, 2, 3), "k": (1, 4000, 2, 3), "v": (1, 4000, 2, 5), "i": (1, 4000, 2), "f": (1, 4000, 2),
    }  # fmt: skip
    assert all(x.dtype == torch.float64 for x in inputs.values())
    assert float(inputs["i"].mean()) == pytest.approx(-2, abs=0.05)
    assert float(inputs["f"].std()) == pytest.approx(0.5, abs=0.02)
    assert float((inputs["q"] * inputs["k"]).mean()) == pytest.approx(1, abs=0.1), "the shared direction"
    apart = experiments.cell_inputs(4000, shared=0.0)
    assert float((apart["q"] * apart["k"]).mean()) == pytest.approx(0, abs=0.05)


def test_relative_error() -> None:
    reference = torch.tensor([3.0, 4.0])
    assert experiments.relative_error(reference + torch.tensor([0.3, 0.4]), reference) == pytest.approx(0.1)
    assert math.isinf(experiments.relative_error(torch.tensor([math.nan, 1.0]), reference))


def test_forms_agree_to_their_dtype() -> None:
    table = experiments.form_errors(experiments.cell_inputs(40), chunk_size=16)
    assert len(table) == 4 * 3 * 8
    worst = table.groupby("dtype")["error"].max()
    assert worst["float64"] < 1e-13
    assert 1e-8 < worst["float32"] < 1e-5
    assert 1e-4 < worst["float16"] < worst["bfloat16"] < 0.05
    # the recurrence computes in float32 and rounds h once
    h = table[(table["form"] == "recurrent") & (table["quantity"] == "h")].set_index("dtype")["error"]
    assert h["bfloat16"] < 2.0**-9


def test_unscaled_forms_are_the_cell_where_nothing_overflows() -> None:
    inputs = experiments.cell_inputs(30, input_gate=1.0)
    reference, _ = mlstm_oracle(*inputs.values())
    found = [experiments.recurrent_without_exponent(inputs, torch.float64)]
    found += [experiments.parallel_without_exponent(inputs, torch.float64, factored=f) for f in (True, False)]
    for h in found:
        assert experiments.relative_error(h, reference) < 1e-12


def test_what_overflows_without_the_exponent() -> None:
    """exp(ĩ) passes the largest float32, e^88.7, at ĩ = 90; exp(−b) at closed gates long before."""
    table = experiments.without_exponent([(0, 3), (90, 3), (0, -15), (15, 3)], context_length=64).set_index(
        ["input_gate", "forget_gate"]
    )
    assert (table["with m"] < 1e-4).all()
    ways = table[["recurrent", "pairs", "factored"]]
    assert (ways.loc[(0, 3)] < 1e-5).all()
    assert np.isinf(ways.loc[(90, 3)]).all()
    assert np.isinf(ways.loc[(0, -15), "factored"])
    assert (ways.loc[(0, -15), ["recurrent", "pairs"]] < 1e-4).all()
    assert (ways.loc[(15, 3)] < 1e-4).all(), "the soft cap of 15 keeps exp(ĩ) in float32"
    half = experiments.without_exponent([(15, 3)], context_length=64, dtype=torch.float16)
    assert np.isinf(half["recurrent"]).all()
    assert (half["with m"] < 0.02).all()


def test_normalizer_gradient() -> None:
    inputs = experiments.cell_inputs(48, input_gate=1.0)
    heads = {
        "h": lambda h: h,
        "norm": experiments.head_norm,
        "with epsilon": lambda h: experiments.head_norm(h, 1e-2),
    }
    table = experiments.normalizer_gradient_errors(inputs, heads)
    assert len(table) == 3 * 2 * 5
    errors = table.set_index(["upstream", "normalizer_gradient", "gradient"])["error"]
    kept = table[table["normalizer_gradient"]]
    assert (kept["error"] < 1e-12).all()
    for name in ("dq", "dk", "di", "df"):
        assert errors["h", False, name] > 0.1
        assert errors["norm", False, name] < 1e-12
        assert 1e-5 < errors["with epsilon", False, name] < errors["h", False, name]
    assert errors["h", False, "dv"] < 1e-12, "values do not enter the normalizer"
    along = table.groupby("upstream")["parallel"].first()
    assert along["norm"] < 1e-12 < along["with epsilon"] < along["h"]


def test_normalizer_gradient_by_default_has_two_heads() -> None:
    table = experiments.normalizer_gradient_errors(experiments.cell_inputs(8))
    assert list(table["upstream"].unique()) == ["h itself", "head norm"]


def test_forget_gate_gradients() -> None:
    """On exact numbers both sums are the gradient; on rounded ones the totals lose it where gates are closed."""
    inputs = experiments.cell_inputs(200, forget_gate=-6.0, d_qk=32, d_hv=32, n_heads=1)
    exact = experiments.forget_gate_gradients(inputs, dtype=torch.float64)
    for column in ("totals", "pairs"):
        np.testing.assert_allclose(exact[column], exact["exact"], atol=1e-4 * exact["exact"].abs().max())
    rounded = experiments.forget_gate_gradients(inputs)
    error = {c: np.linalg.norm(rounded[c] - rounded["exact"]) for c in ("totals", "pairs")}
    assert error["totals"] > 10 * error["pairs"]
    assert list(rounded["token"]) == list(range(1, 201))


def test_block_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    found = source.block_sizes("states", d_qk=16, d_hv=512, chunk_size=64)
    assert set(found) == {"BLOCK_K", "BLOCK_V", "BLOCK_T"}
    assert found["BLOCK_K"] == 64, "cut to the head, but not below 64"
    monkeypatch.setattr(source, "find_spec", lambda name: None)
    assert source.block_sizes("states", d_qk=16, d_hv=512, chunk_size=64) == {}


def test_blocks_are_smaller_where_there_are_few_sequences() -> None:
    pytest.importorskip("triton")
    size = {"d_qk": 256, "d_hv": 512, "chunk_size": 128}
    areas = []
    for chains in (1000, 8):
        blocks = source.block_sizes("states", **size, chains=chains, multiprocessors=132)
        areas.append(blocks["BLOCK_K"] * blocks["BLOCK_V"])
    assert areas[0] == 128 * 128
    assert areas[1] < areas[0]


def test_kernel_source() -> None:
    module = "companion.chapters.ch10.experiments"
    whole = source.kernel_source(module, "head_norm")
    assert whole.startswith("def head_norm(")
    assert whole.endswith(".sqrt()")
    part = source.kernel_source(module, "relative_error", after="out, reference =", before="return float((out")
    assert part.splitlines()[0].startswith("out, reference =")
    assert part.splitlines()[-1].strip() == 'return float("inf")'
    with pytest.raises(InputError, match=r"no module 'companion\.nothing'"):
        source.kernel_source("companion.nothing", "f")
    with pytest.raises(InputError, match="no function 'nothing'"):
        source.kernel_source(module, "nothing")
    with pytest.raises(InputError, match="no line starts with 'nothing'"):
        source.kernel_source(module, "head_norm", after="nothing")


def test_normalizer_sums() -> None:
    """They are the division of the unnormalized output by h wherever they pass 1."""
    inputs = experiments.cell_inputs(50, input_gate=-1.0)
    sums = experiments.normalizer_sums(inputs)
    h, _ = mlstm_oracle(*inputs.values())
    one = inputs | {"v": torch.ones_like(inputs["v"])}
    # with v = 1 the output is the sum over its own normalizer
    ones, _ = mlstm_oracle(*one.values())
    np.testing.assert_allclose(ones[..., 0], sums / sums.abs().clamp(min=1), rtol=1e-12)
    assert 0 < float((sums.abs() > 1).double().mean()) < 1
    assert sums.shape == h.shape[:3]


def test_state_dtype_errors() -> None:
    table = experiments.state_dtype_errors([1, 40, 80])
    assert list(table["num_tokens"]) == [1, 40, 80]
    assert (table["float32"] < 1e-5).all()
    assert table["bfloat16"].iloc[0] < 1e-5, "the first token reads C before it is rounded"
    assert (table["bfloat16"].iloc[1:] > 1e-4).all()
