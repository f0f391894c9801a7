"""Hypothesis strategies shared by the tests: valid shapes of all architectures."""

from hypothesis import strategies as st

from companion.architectures import ARCHITECTURES, Architecture


@st.composite
def architectures(draw: st.DrawFn, name: str | None = None) -> Architecture:
    """A valid architecture of any size; head widths are even, as recurrent mixers need by default."""
    of = ARCHITECTURES[name or draw(st.sampled_from(sorted(ARCHITECTURES)))]
    n_heads = draw(st.integers(1, 32))
    # 1.5 times the width of a head is even too, where the architecture has it
    shapes = {
        "d_model": n_heads * (2 if of.hidden_ratio == 1 else 4) * draw(st.integers(1, 256)),
        "n_layers": draw(st.integers(1, 96)),
        "n_heads": n_heads,
        "d_ff": draw(st.none() | st.integers(0, 20_000)),
        "d_qk": draw(st.none() | st.integers(1, 512)),
        "d_hv": draw(st.none() | st.integers(1, 512).map(lambda width: 2 * width)),
        "vocab_size": draw(st.integers(1, 200_000)),
    }
    return of(**shapes)
