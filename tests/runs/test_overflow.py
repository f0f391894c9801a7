"""Products that wrapped in integers, against NumPy's own wrapping."""

import numpy as np
import pytest
from foreign import table
from hypothesis import given
from hypothesis import strategies as st

from companion.runs.load import load_runs
from companion.runs.overflow import wrapped_flops, wrapped_products

_COUNTS = st.lists(st.tuples(st.integers(10**7, 10**11), st.integers(10**9, 10**13)), min_size=1, max_size=6)


@given(_COUNTS, st.sampled_from([np.int64, np.uint64]))
def test_a_product_that_numpy_wraps_is_found_with_the_right_value(
    counts: list[tuple[int, int]], kind: type[np.int64] | type[np.uint64]
) -> None:
    n, d = np.array(counts, dtype=np.int64).T
    with np.errstate(over="ignore"):
        flops = (6 * n.astype(kind) * d.astype(kind)).astype(np.float64)
    true = 6.0 * n.astype(float) * d.astype(float)
    wrong = np.abs(flops / true - 1) > 1e-3
    found = wrapped_flops(n, d, flops)
    assert found.positions.tolist() == np.flatnonzero(wrong & (flops != 0)).tolist()
    assert found.right == pytest.approx(true[found.positions], rel=1e-12)
    assert (found.bits == 64).all()


@given(_COUNTS, st.floats(0.05, 30))
def test_products_in_floating_point_never_count(counts: list[tuple[int, int]], factor: float) -> None:
    n, d = np.array(counts, dtype=np.int64).T
    assert wrapped_flops(n, d, factor * n.astype(float) * d.astype(float)).positions.size == 0


def test_values_as_files_keep_them() -> None:
    """Six digits, as `float_format='%.5e'` writes; N * D wrapped before a factor in floating point; 32 bits."""
    n, d = np.array([400_000_000, 3_000_000_000]), np.array([20_000_000_000, 60_000_000_000])
    with np.errstate(over="ignore"):
        wrapped = 6 * n * d
        pairs = 6.0 * (n * d)
        short = (6 * n.astype(np.int32) * d.astype(np.int32)).astype(float)
    printed = np.array([float(f"{value:.5e}") for value in wrapped])
    for flops, bits in ((printed, 64), (pairs, 64), (short, 32)):
        found = wrapped_flops(n, d, flops)
        assert found.positions[-1] == 1
        assert found.right[-1] == 6.0 * 3e9 * 6e10
        assert found.bits[-1] == bits
    assert found.row(0) is not None
    assert wrapped_flops(n, d, 6.0 * n * d).row(0) is None


def test_tokens_as_a_product_of_32_bit_integers() -> None:
    batch, context, steps = np.array([[256], [8192], [3000]], dtype=np.int32)
    tokens = (batch * context * steps).astype(float)
    assert tokens[0] != 256.0 * 8192 * 3000
    found = wrapped_products(tokens, np.stack([batch, context, steps]))
    assert found.row(0) == (256.0 * 8192 * 3000, 32)
    assert wrapped_products([256.0 * 8192 * 3000], np.stack([batch, context, steps])).row(0) is None
    assert wrapped_products([5.0], [[np.nan], [8192], [3000]]).row(0) is None


def test_the_rows_of_a_table_that_overflowed() -> None:
    """int64_wrapped.csv is int64_right.csv (runs of Gadre et al., arXiv 2403.08540) with 6*N*D in 64-bit integers."""
    right = load_runs(table("int64_right"))
    with pytest.warns(UserWarning, match=r"6 values overflowed 64-bit integers, rows 3, 4, 5, 10, 16, 18: row 3 has"):
        wrong = load_runs(table("int64_wrapped"))
    found = wrapped_flops(wrong["num_params"], wrong["num_tokens"], wrong["train_flops"])
    differ = np.abs(wrong["train_flops"] / right["train_flops"] - 1) > 1e-9
    assert found.positions.tolist() == np.flatnonzero(differ).tolist()
    assert found.right == pytest.approx(right["train_flops"][differ].to_numpy(), rel=1e-12)
