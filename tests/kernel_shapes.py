"""Shapes of the mLSTM's cell, as hypothesis draws them."""

from hypothesis import strategies as st

from companion.accounting.kernel_costs import CHUNK_SIZES, CellShape


@st.composite
def shapes(draw: st.DrawFn) -> CellShape:
    small = st.integers(1, 6)
    return CellShape(
        batch_size=draw(small),
        context_length=draw(st.integers(1, 1000)),
        n_heads=draw(small),
        d_qk=draw(st.integers(1, 300)),
        d_hv=draw(st.integers(1, 300)),
        chunk_size=draw(st.sampled_from(CHUNK_SIZES)),
    )
