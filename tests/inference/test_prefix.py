"""Prefix caching counted: bytes and times by hand, and the best interval against all others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.accounting.inference import Precision, cache_bytes, context_of_equal_cache
from companion.architectures import make_architecture, preset
from companion.errors import InputError
from companion.inference.prefix import KeptPerSequence, best_interval, interval_seconds, kept_by, reread_tokens

SMALL = {"d_model": 64, "n_layers": 4, "n_heads": 2, "vocab_size": 100}
COSTS = {"prefix_tokens": 1000, "hits": 10, "seconds_per_token": 1e-4, "seconds_kept": 60.0, "memory_bytes": 1e9}


def test_bytes_by_hand() -> None:
    # 4 layers of 2 heads of 32 keys and 32 values, 2 bytes each
    assert kept_by(make_architecture("transformer", **SMALL)) == KeptPerSequence(token_bytes=1024, state_bytes=0)
    # 4 layers of 2 heads: a matrix of 16 × 32, a normalizer of 16 and a stabilizer, 4 bytes each
    assert kept_by(make_architecture("xlstm", **SMALL)) == KeptPerSequence(token_bytes=0, state_bytes=4 * 2 * 529 * 4)


def test_a_hybrid_keeps_both() -> None:
    hybrid = make_architecture("xlstm", **SMALL, attention_every=4, attention_heads=2, n_kv_heads=1)
    assert kept_by(hybrid) == KeptPerSequence(token_bytes=128, state_bytes=3 * 2 * 529 * 4)


@pytest.mark.parametrize("name", ["transformer", "xlstm"])
@given(tokens=st.integers(1, 10**6))
def test_one_prefix_takes_what_the_accounting_counts(name: str, tokens: int) -> None:
    shapes = preset(name, "160m")
    assert kept_by(shapes).entry_bytes(tokens) == cache_bytes(shapes, tokens)
    assert kept_by(shapes).entry_bytes(0) == 0


def test_a_window_keeps_all_tokens() -> None:
    windowed = make_architecture("transformer", **SMALL, window=8)
    assert kept_by(windowed).entry_bytes(100) == 100 * 1024, "any of them may be the one to go on from"


def test_one_snapshot_in_tokens_is_the_context_of_equal_cache() -> None:
    transformer, xlstm = preset("transformer", "7b"), preset("xlstm", "7b")
    both = KeptPerSequence(token_bytes=kept_by(transformer).token_bytes, state_bytes=kept_by(xlstm).state_bytes)
    assert both.tokens_of_one_snapshot == pytest.approx(context_of_equal_cache(transformer, xlstm))
    assert kept_by(transformer).tokens_of_one_snapshot == 0
    assert kept_by(xlstm).tokens_of_one_snapshot == float("inf")
    half = kept_by(xlstm, Precision(bytes_per_state=2.0))
    assert half.state_bytes == both.state_bytes / 2


def test_times_by_hand() -> None:
    kept = KeptPerSequence(token_bytes=10, state_bytes=1000)
    assert kept.copy_seconds(50, 1e3) == 2.0, "the state is read and written; keys and values stay where they are"
    assert kept.copy_seconds(50, 1e3, share_tokens=False) == 3.0
    assert kept.load_seconds(50, 1e3) == 1.5
    np.testing.assert_array_equal(kept.load_seconds(np.array([0, 100]), 1e3), [0, 2])


def test_when_loading_pays_by_hand() -> None:
    kept = KeptPerSequence(token_bytes=10, state_bytes=1000)
    # at 100 bytes/s a token takes 0.1 s to load, and 0.3 s to read again; the state takes 10 s: 50 · 0.2
    assert kept.paying_prefix(0.3, 100) == pytest.approx(50)
    assert kept.paying_prefix(0.1, 100) == float("inf"), "a token takes as long to load as to read"
    assert KeptPerSequence(token_bytes=10, state_bytes=0).paying_prefix(0.3, 100) == 0


@given(token=st.floats(0, 1e6), state=st.floats(1, 1e9), seconds=st.floats(1e-6, 1e-2), rate=st.floats(1e6, 1e13))
def test_loading_is_faster_beyond_the_paying_prefix_and_slower_before(
    token: float, state: float, seconds: float, rate: float
) -> None:
    kept = KeptPerSequence(token_bytes=token, state_bytes=state)
    tokens = kept.paying_prefix(seconds, rate)
    if tokens > 1e15:  # beyond, a whole number is not one more than its neighbor
        return
    longer, shorter = np.floor(1.001 * tokens) + 1, np.floor(0.999 * tokens)
    assert kept.load_seconds(longer, rate) < seconds * longer
    assert shorter == 0 or kept.load_seconds(shorter, rate) > seconds * shorter


def test_what_a_grid_makes_a_request_read_again() -> None:
    # github.com/vllm-project/vllm/issues/40696: blocks of 528 tokens; prompts of 480, 552 and 979
    np.testing.assert_array_equal(reread_tokens(np.array([480, 552, 979]), 528), [480, 24, 451])
    assert np.asarray(reread_tokens(np.arange(128 * 3), 128)).mean() == (128 - 1) / 2


@given(
    tokens=st.integers(1, 300),
    state=st.floats(1e2, 1e7),
    hits=st.floats(0.1, 1e3),
    budget=st.floats(1.0, 400.0),
)
def test_the_best_interval_is_the_best_of_all(tokens: int, state: float, hits: float, budget: float) -> None:
    kept = KeptPerSequence(token_bytes=3, state_bytes=state)
    costs = {**COSTS, "prefix_tokens": tokens, "hits": hits}
    best = best_interval(kept, **costs, budget_bytes=budget * state)
    allowed = [every for every in range(1, tokens + 1) if tokens / every <= budget * (1 + 1e-12)]
    assert best in allowed
    seconds = np.asarray(interval_seconds(np.array(allowed), kept, **costs))
    assert float(interval_seconds(best, kept, **costs)) <= seconds.min() * (1 + 1e-12)


def test_seconds_of_an_interval_by_hand() -> None:
    kept = KeptPerSequence(token_bytes=0, state_bytes=1e6)
    # 10 snapshots of a thousandth of the memory for 60 s; 10 requests read 49.5 tokens of 0.1 ms again
    assert interval_seconds(100, kept, **COSTS) == pytest.approx(10 * 1e-3 * 60 + 10 * 49.5 * 1e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda kept: kept.entry_bytes(2.5), "prefix_tokens: 2.5"),
        (lambda kept: kept.entry_bytes(-1), "prefix_tokens: -1"),
        (lambda kept: kept.copy_seconds(1, 0), "bytes_per_s 0"),
        (lambda kept: kept.paying_prefix(-1.0, 1), "seconds_per_token -1.0"),
        (lambda kept: reread_tokens(5, 0), "every: 0"),
        (lambda kept: interval_seconds(0, kept, **COSTS), "every: 0"),
        (lambda kept: interval_seconds(1, kept, **{**COSTS, "hits": 0}), "hits 0"),
        (lambda kept: best_interval(kept, **COSTS, budget_bytes=999), "below one snapshot"),
        (lambda kept: best_interval(KeptPerSequence(token_bytes=1, state_bytes=0), **COSTS), "keeps no state"),
    ],
)
def test_bad_input(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words):
        call(KeptPerSequence(token_bytes=10, state_bytes=1000))
