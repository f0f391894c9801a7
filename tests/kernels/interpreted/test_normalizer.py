"""The scan that carries n forwards and dn backwards, against a loop over chunks in float64."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.kernels.mlstm.launch import carry_vectors
from companion.kernels.mlstm.problem import Problem

L, HEADS = 16, 2


def problem(lengths: list[int], packed: bool, d_qk: int) -> Problem:
    """Sequences of `lengths` tokens: packed, or as a batch (all of the same length)."""
    if packed:
        q, bounds = torch.zeros(1, sum(lengths), HEADS, d_qk), torch.tensor([0, *np.cumsum(lengths).tolist()])
    else:
        q, bounds = torch.zeros(len(lengths), lengths[0], HEADS, d_qk), None
    return Problem.of(q, q, bounds, L, False)


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 90 * L), min_size=1, max_size=3),
    packed=st.booleans(),
    d_qk=st.sampled_from([16, 20]),
    parts=st.sampled_from([1, 2]),
    backwards=st.booleans(),
    with_start=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_scan_is_the_loop(
    lengths: list[int], packed: bool, d_qk: int, parts: int, backwards: bool, with_start: bool, seed: int
) -> None:
    lengths = lengths if packed else lengths[:1] * len(lengths)
    p = problem(lengths, packed, d_qk)
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    changes, n = draw(parts, p.num_chunks, HEADS, d_qk), draw(p.num_chunks, HEADS, d_qk)
    keep = torch.rand(HEADS, p.num_chunks, generator=random)
    keep[0, ::3] = 0.0  # gates that shut
    start = draw(len(lengths), HEADS, d_qk) if with_start else None
    counts = [-(-length // L) for length in lengths]
    firsts = np.cumsum([0, *counts[:-1]]).tolist()
    expected, ends = np.full((p.num_chunks, HEADS, d_qk), np.nan), np.zeros((len(lengths), HEADS, d_qk))
    through = np.full((HEADS, p.num_chunks), np.nan)
    for seq, (first, count, length) in enumerate(zip(firsts, counts, lengths, strict=True)):
        x = np.zeros((HEADS, d_qk)) if start is None else start[seq].double().numpy()
        for number in reversed(range(count)) if backwards else range(count):
            at = first + number
            # the last chunk may end before its second half: nobody has written that part
            written = [part for part in range(parts) if part * (L // parts) < length - number * L]
            changes[[part for part in range(parts) if part not in written], at] = torch.nan
            expected[at] = x
            kept = keep[:, at].double().numpy()[:, None] * x
            through[:, at] = (kept * n[at].double().numpy()).sum(-1)
            x = kept + changes[written, at].double().sum(0).numpy()
        ends[seq] = x
    found, end = torch.zeros(p.num_chunks, HEADS, d_qk), torch.zeros(len(lengths), HEADS, d_qk)
    passing = carry_vectors(p, changes, start, keep, found, end, n if backwards else None)
    used = ~np.isnan(expected[:, 0, 0])
    assert used.sum() == sum(counts)
    np.testing.assert_allclose(found.numpy()[used], expected[used], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(end.numpy(), ends, rtol=1e-5, atol=1e-5)
    if backwards:
        np.testing.assert_allclose(passing.sum(0).numpy()[:, used], through[:, used], rtol=1e-5, atol=1e-4)
    else:
        assert passing.shape[0] == 0


def test_what_passes_a_nearly_shut_gate_is_not_lost_in_what_is_added() -> None:
    """keep · dnᵀn is computed from dn itself, not as a difference of sums: 1e-12 beside changes of 1."""
    p = problem([3 * L], False, 16)
    changes, n = torch.ones(1, 3, HEADS, 16), torch.ones(3, HEADS, 16)
    keep = torch.full((HEADS, 3), 1e-12)
    passing = carry_vectors(p, changes, None, keep, torch.empty_like(n), None, n)
    expected = torch.tensor([16e-12, 16e-12, 0.0]).expand(HEADS, 3)
    torch.testing.assert_close(passing.sum(0), expected, rtol=1e-5, atol=0.0)
