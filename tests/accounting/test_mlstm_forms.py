"""Three forms of one cell: limits, brute force, and the chunk that a square root predicts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import architectures

from companion.accounting import PAPER, TFLA
from companion.accounting.flops import mlstm_core_flops
from companion.accounting.inference import BF16, mlstm_recurrent_flops
from companion.accounting.mlstm_forms import MEASURES, best_chunk_size, chunkwise_per_token, mlstm_form_table
from companion.architectures import XLSTM, preset
from companion.errors import InputError
from companion.hardware import Hardware, get_hardware

SEVEN = preset("xlstm", "7b")


@settings(max_examples=25)
@given(architectures("xlstm"), st.integers(1, 400), st.data())
def test_chunkwise_counts_are_those_of_training(model: XLSTM, context: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, context))
    for convention in (PAPER, TFLA):
        ours = chunkwise_per_token(model, context, size, convention=convention)["flops_per_token"]
        chosen = replace(convention, chunk_size=size)
        core = mlstm_core_flops(model.n_heads, model.d_qk, model.d_hv, context, chosen)
        assert ours * context == pytest.approx(model.n_layers * core, rel=1e-12)


@settings(max_examples=20)
@given(architectures("xlstm"), st.integers(2, 300), st.sampled_from(MEASURES))
def test_best_chunk_by_brute_force(model: XLSTM, context: int, by: str) -> None:
    peaks = get_hardware("h100-sxm")

    def measure(size: int) -> float:
        counts = chunkwise_per_token(model, context, size)
        flops, moved = counts["flops_per_token"], counts["bytes_per_token"]
        seconds = max(flops / peaks.peak_flops_per_s, moved / peaks.peak_bytes_per_s)
        return float({"flops": flops, "bytes": moved, "seconds": seconds}[by])

    values = [measure(size) for size in range(1, context + 1)]
    best = best_chunk_size(model, context, by, hardware=peaks)  # type: ignore[arg-type]
    assert measure(best) == min(values)
    assert best == 1 + values.index(min(values)), "the shortest of equals"


@pytest.mark.parametrize("widths", [(64, 128), (256, 512), (128, 64), (512, 512)])
def test_best_chunk_is_the_square_root(widths: tuple[int, int]) -> None:
    """FLOPs per token are c₀/L + c₁ + c₂·L, so the best L is √(c₀/c₂); T is a multiple of many L, so no tail."""
    d_qk, d_hv = widths
    model = XLSTM(d_model=d_hv, n_layers=1, n_heads=1, d_qk=d_qk, d_hv=d_hv)
    # paper's count: per chunk 5 + 2·d_qk·d_hv + 2·d_qk, and L²(1/2 + 1/2 + 10 + 2·d_qk + 2·d_hv) beside what grows as L
    predicted = np.sqrt((5 + 2 * d_qk * d_hv + 2 * d_qk) / (11 + 2 * d_qk + 2 * d_hv))
    found = best_chunk_size(model, 1_000_000, "flops")
    assert abs(found - predicted) < 1


def test_bytes_want_the_longest_chunk_and_flops_a_short_one() -> None:
    assert best_chunk_size(SEVEN, 4096, "bytes") == 4096
    flops, seconds = (best_chunk_size(SEVEN, 4096, by) for by in ("flops", "seconds"))
    assert flops < seconds < 4096
    slow = Hardware(
        name="slow", label="slow", peak_flops_per_s=1e15, peak_bytes_per_s=1e9, memory_bytes=1e9,
        num_multiprocessors=1, source="made up",
    )  # fmt: skip
    assert best_chunk_size(SEVEN, 4096, "seconds", hardware=slow) > seconds, "less bandwidth, longer chunks"


class TestTable:
    table = mlstm_form_table(SEVEN, 8192).set_index("form")

    def test_rows(self) -> None:
        assert list(self.table.index) == [
            "recurrent", "chunkwise, L = 64", "chunkwise, least flops", "chunkwise, least bytes",
            "chunkwise, least seconds", "parallel",
        ]  # fmt: skip
        assert self.table.loc["recurrent", "chunk_size"] == 1
        assert self.table.loc["parallel", "chunk_size"] == 8192
        assert (self.table.drop(columns="chunk_size") > 0).all().all()

    def test_recurrent_touches_the_whole_state_for_every_token(self) -> None:
        row = self.table.loc["recurrent"]
        assert row["flops_per_token"] == 32 * 8 * mlstm_recurrent_flops(256, 512)
        state = 256 * 512 + 256 + 1
        assert row["bytes_per_token"] == 32 * 8 * (2 * 4 * state + 2 * (2 * 256 + 2 * 512 + 2))

    def test_parallel_is_one_chunk_without_a_state(self) -> None:
        parallel = self.table.loc["parallel"]
        one = chunkwise_per_token(SEVEN, 8192, 8192)
        between = PAPER.mlstm_chunk(8192.0, 256, 512, 1.0)["state"]
        assert parallel["flops_per_token"] == pytest.approx(one["flops_per_token"] - 32 * 8 * between / 8192, rel=1e-12)
        assert parallel["bytes_per_token"] < one["bytes_per_token"]
        tfla = mlstm_form_table(SEVEN, 8192, convention=TFLA).set_index("form").loc["parallel"]
        parts = TFLA.mlstm_chunk(8192.0, 256, 512, 1.0)
        assert tfla["flops_per_token"] == pytest.approx(32 * 8 * (parts["intra"] + parts["combination"]) / 8192)

    def test_the_best_of_each_is_best(self) -> None:
        chunkwise = self.table[self.table.index.str.startswith("chunkwise")]
        for measure, column in zip(MEASURES, ("flops_per_token", "bytes_per_token", "seconds_per_token"), strict=True):
            assert chunkwise.loc[f"chunkwise, least {measure}", column] == chunkwise[column].min()

    def test_parallel_grows_with_the_context(self) -> None:
        longer = mlstm_form_table(SEVEN, 16384).set_index("form")
        assert longer.loc["parallel", "flops_per_token"] > 1.9 * self.table.loc["parallel", "flops_per_token"]
        assert longer.loc["recurrent", "flops_per_token"] == self.table.loc["recurrent", "flops_per_token"]


def test_precision() -> None:
    narrow = replace(BF16, bytes_per_state=2.0)
    full, half = (chunkwise_per_token(SEVEN, 4096, 64, precision=p)["bytes_per_token"] for p in (BF16, narrow))
    assert full - half == pytest.approx(32 * 8 * 2 * (256 * 512 + 256 + 1) * 2 / 64)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="a transformer has none"):
        mlstm_form_table(preset("transformer", "7b"), 4096)
    with pytest.raises(InputError, match="chunk_size 0 is not between 1 and the context of 128 tokens"):
        chunkwise_per_token(SEVEN, 128, 0)
    with pytest.raises(InputError, match="not between 1 and the context of 32 tokens"):
        mlstm_form_table(SEVEN, 32)
    with pytest.raises(InputError, match="best chunk by 'joules': there are flops, bytes, seconds"):
        best_chunk_size(SEVEN, 128, "joules")  # type: ignore[arg-type]
    for context in (0, -3, 2.5):
        with pytest.raises(InputError, match="is not a positive whole number"):
            best_chunk_size(SEVEN, context)  # type: ignore[arg-type]
