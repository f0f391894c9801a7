"""Prompts that share prefixes: counts by hand, and against all prefixes written out."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.inference.prefix import KeptPerSequence
from companion.inference.prefix_tree import prefix_tree

ATTENTION = KeptPerSequence(token_bytes=10, state_bytes=0)
RECURRENT = KeptPerSequence(token_bytes=0, state_bytes=1000)
HYBRID = KeptPerSequence(token_bytes=10, state_bytes=1000)
SYSTEM, TOOLS = ("system", 40), ("tools", 20)
#: Two users of the tools, one without, and a question that goes on.
PROMPTS = [[SYSTEM, TOOLS, ("a", 3)], [SYSTEM, TOOLS, ("b", 1)], [SYSTEM, ("c", 5)], [SYSTEM, ("c", 5), ("d", 2)]]
#: Rows of one-token segments: few letters, so that beginnings are shared.
TEXTS = st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=8)


def tree_of(texts: list[str]):  # type: ignore[no-untyped-def]
    return prefix_tree([[(letter, 1) for letter in text] for text in texts])


def shared_length(text: str, others: list[str]) -> int:
    """Longest beginning of a text that another one has."""
    return max((n for n in range(len(text) + 1) if any(other[:n] == text[:n] for other in others)), default=0)


class TestByHand:
    def test_attention_keeps_every_token_once(self) -> None:
        use = prefix_tree(PROMPTS).use(ATTENTION)
        assert use.cache_bytes == 10 * (40 + 20 + 3 + 1 + 5 + 2)
        assert (use.num_snapshots, use.snapshot_bytes) == (0, 0)
        assert (use.total_tokens, use.shared_tokens) == (63 + 61 + 45 + 47, 60 + 60 + 45 + 45)
        assert use.reread_tokens == 0

    def test_a_recurrent_model_keeps_a_state_where_prompts_part(self) -> None:
        tree = prefix_tree(PROMPTS)
        assert tree.branches == (("system",), ("system", "tools"), ("system", "c"))
        use = tree.use(RECURRENT)
        assert (use.num_snapshots, use.total_bytes, use.reread_tokens) == (3, 3000, 0)

    def test_states_at_the_ends_help_only_who_goes_on(self) -> None:
        use = prefix_tree(PROMPTS).use(RECURRENT, "ends")
        assert use.num_snapshots == 4
        assert use.reused_tokens == 45, "only the last prompt goes on from the end of another"
        again = prefix_tree([PROMPTS[0], PROMPTS[0]]).use(RECURRENT, "ends")
        assert (again.num_snapshots, again.reused_tokens) == (1, 2 * 63)

    def test_a_grid(self) -> None:
        use = prefix_tree(PROMPTS).use(RECURRENT, 16)
        # 16, 32 in system; 48 in tools, none in the rest (a: 60 to 63, c: 40 to 45, d: 45 to 47)
        assert use.num_snapshots == 3
        assert use.reused_tokens == 48 + 48 + 32 + 32

    def test_a_hybrid_adds_both(self) -> None:
        use = prefix_tree(PROMPTS).use(HYBRID, 16)
        assert use.total_bytes == 710 + 3000
        assert use.reread_tokens == 2 * 12 + 2 * 13, "keys and values alone do not help"

    def test_blocks_of_keys_and_values(self) -> None:
        use = prefix_tree(PROMPTS).use(ATTENTION, block_size=16)
        assert use.cache_bytes == 3 * 16 * 10
        assert use.reused_tokens == 48 + 48 + 32 + 32


@given(TEXTS)
def test_a_tree_counts_like_all_prefixes_written_out(texts: list[str]) -> None:
    tree = tree_of(texts)
    prefixes = set(chain.from_iterable((text[:n] for n in range(1, len(text) + 1)) for text in texts))
    assert tree.unique_tokens == len(prefixes)
    others = [texts[:at] + texts[at + 1 :] for at in range(len(texts))]
    shared = [shared_length(text, other) for text, other in zip(texts, others, strict=True)]
    assert [len(path) for path in tree.shared] == shared
    parted = {text[:n] for text, n in zip(texts, shared, strict=True)} - {""}
    assert {"".join(path) for path in tree.branches} >= parted
    for use in (tree.use(RECURRENT), tree.use(ATTENTION)):
        assert use.reused_tokens == use.shared_tokens == sum(shared)


@given(TEXTS, st.integers(1, 4))
def test_a_grid_counts_like_all_prefixes_written_out(texts: list[str], every: int) -> None:
    use = tree_of(texts).use(HYBRID, every)
    kept = {text[:n] for text in texts for n in range(every, len(text) + 1, every)}
    assert use.num_snapshots == len(kept)
    others = [texts[:at] + texts[at + 1 :] for at in range(len(texts))]
    reused = [shared_length(text, other) // every * every for text, other in zip(texts, others, strict=True)]
    assert use.reused_tokens == sum(reused)
    assert use == tree_of(texts).use(HYBRID, every, block_size=1)
    assert 0 <= use.reread_tokens <= len(texts) * (every - 1)


@given(TEXTS)
def test_ends_count_like_all_prefixes_written_out(texts: list[str]) -> None:
    use = tree_of(texts).use(RECURRENT, "ends")
    assert use.num_snapshots == len(set(texts))
    reused = 0
    for at, text in enumerate(texts):
        others = texts[:at] + texts[at + 1 :]
        reused += max((len(other) for other in others if text.startswith(other)), default=0)
    assert use.reused_tokens == reused


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ([], "there are no prompts"),
        ([[SYSTEM], []], "prompt 1: it has no segments"),
        ([[("a", 0)]], "segment 'a' has 0 tokens"),
        ([[("a", 2)], [("a", 3)]], "segment 'a' ends at 3 tokens, but at 2"),
    ],
)
def test_bad_prompts(prompts: list[list[tuple[str, int]]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prefix_tree(prompts)


@pytest.mark.parametrize("snapshots", [0, "sometimes", 1.5])
def test_bad_snapshots(snapshots: object) -> None:
    with pytest.raises(InputError, match="'branches' or 'ends'"):
        prefix_tree(PROMPTS).use(RECURRENT, snapshots)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="block_size"):
        prefix_tree(PROMPTS).use(RECURRENT, block_size=0)
