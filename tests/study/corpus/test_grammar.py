"""Parameters of the source and the tables that follow from them."""

import numpy as np
import pytest

from companion.errors import InputError
from companion.study.corpus.alias import WHOLE
from companion.study.corpus.grammar import LEVELS, PARTS, Grammar


@pytest.mark.parametrize("size", [0, 8, 100, 1000, 131072, -16])
def test_vocabulary_sizes_out_of_bounds(size: int) -> None:
    with pytest.raises(InputError, match=f"vocab_size={size}: use a power of two"):
        Grammar(vocab_size=size)


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_seeds_out_of_bounds(seed: int) -> None:
    with pytest.raises(InputError, match=f"seed={seed}"):
        Grammar(seed=seed)


@pytest.mark.parametrize("size", [16, 1024])
def test_tables(size: int) -> None:
    grammar = Grammar(seed=4, vocab_size=size)
    assert grammar.zipf.shape == (LEVELS, size)
    assert grammar.zipf.sum(1).tolist() == [WHOLE] * LEVELS
    assert grammar.whole_weights.sum() == grammar.bounds[-1] == WHOLE
    assert len(grammar.whole_weights) == len(PARTS)
    assert grammar.tails[0] == WHOLE
    assert grammar.tails[-1] == 0
    assert len(grammar.tails) == grammar.max_distance + 1
    assert sorted(grammar.unconditional) == list(range(size))
    assert len(set(grammar.roots)) == LEVELS + 1


def test_sizes_of_classes() -> None:
    grammar = Grammar(vocab_size=256, class_bits=2)
    assert grammar.classes[0] == 0
    # one of each first, and the other 252 as 12 : 6 : 4 : 3, that is 120.96, 60.48, 40.32 and 30.24
    assert np.bincount(grammar.classes[1:]).tolist() == [0, 122, 62, 41, 31]
    equal = Grammar(vocab_size=256, class_bits=4, class_exponent=0.0)
    assert np.bincount(equal.classes[1:]).tolist() == [0] + [16] * 16
    assert sorted(Grammar(vocab_size=16).classes) == list(range(17))


def test_every_parameter_is_in_the_fingerprint() -> None:
    changed = (
        Grammar(),
        Grammar(seed=1),
        Grammar(vocab_size=512),
        Grammar(weights=(0.12, 0.22, 0.23, 0.21, 0.07, 0.15)),
        Grammar(exponents=(1.2, 1.8, 1.9, 2.1)),
        Grammar(class_bits=4),
        Grammar(class_exponent=0.9),
        Grammar(max_distance=2048),
        Grammar(distance_exponent=1.1),
    )
    assert len({grammar.fingerprint for grammar in changed}) == len(changed)
    assert Grammar().fingerprint == Grammar(seed=0).fingerprint
