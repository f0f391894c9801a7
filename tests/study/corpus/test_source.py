"""The synthetic source as a corpus."""

import json

import pytest
import torch

from companion.errors import InputError
from companion.study.corpus import Source
from companion.study.corpus.conditional import Conditionals


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(seed=3, vocab_size=64)


def test_sequences_do_not_depend_on_the_batch(source: Source) -> None:
    together = source.sequences(first=5, number=6, context_length=9)
    assert together.shape == (6, 10)
    assert together.dtype == torch.int64
    apart = torch.cat([source.sequences(5, 2, 9), source.sequences(7, 4, 9)])
    assert torch.equal(together, apart)
    assert source.num_sequences(9) is None


def test_held_out_sequences_are_none_of_training(source: Source) -> None:
    held_out = source.held_out(50, 30)
    assert torch.equal(held_out, source.held_out(60, 30)[:50])
    training = source.sequences(0, 500, 30)
    assert len(torch.unique(torch.cat([training, held_out]), dim=0)) == 550


def test_the_last_number(source: Source) -> None:
    assert source.sequences((1 << 63) - 1, 1, 4).shape == (1, 5)
    assert source.sequences(0, 0, 4).shape == (0, 5)


@pytest.mark.parametrize(
    ("first", "number", "length", "message"),
    [
        (-1, 1, 4, "sequences -1 to -1"),
        ((1 << 63) - 1, 2, 4, "use numbers from 0"),
        (0, -1, 4, "use numbers from 0"),
        (0, 1, 0, "context_length=0"),
        (0, 1, 1 << 31, "context_length=2147483648"),
    ],
)
def test_out_of_bounds(source: Source, first: int, number: int, length: int, message: str) -> None:
    with pytest.raises(InputError, match=f"{source.name}: {message}|{message}"):
        source.sequences(first, number, length)


def test_description(source: Source) -> None:
    told = source.describe()
    assert json.loads(json.dumps(told)) == told
    assert (told["name"], told["vocab_size"], told["seed"]) == ("source:seed=3,vocab_size=64", 64, 3)
    assert told["fingerprint"] == source.grammar.fingerprint != Source(vocab_size=64).describe()["fingerprint"]


def test_probabilities(source: Source) -> None:
    tokens = source.held_out(2, 20)
    exact = Conditionals(source.grammar)
    assert torch.equal(source.probabilities(tokens), exact.probabilities(tokens))
    assert torch.equal(source.log_probabilities(tokens), exact.log_probabilities(tokens))


def test_floor_of_the_default_is_in_the_table() -> None:
    loss, error = Source().loss_floor(256)
    assert 3 < loss < 4.5
    assert error < 0.001


def test_floor_is_below_what_a_model_of_frequencies_reaches(source: Source) -> None:
    loss, error = source.loss_floor(40)
    tokens = source.held_out(300, 40)[:, 1:].flatten()
    p = torch.bincount(tokens, minlength=64).double() / len(tokens)
    assert 0 < error < 0.05
    assert loss + 10 * error < float(torch.special.entr(p).sum())
