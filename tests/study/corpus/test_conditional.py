"""Exact probabilities, against the formula written out, and against what is drawn."""

import numpy as np
import pytest
import torch

from companion.study.corpus.alias import WHOLE
from companion.study.corpus.conditional import Conditionals
from companion.study.corpus.drawing import MEASURING, draw
from companion.study.corpus.grammar import Grammar
from companion.study.corpus.mixing import mix, scramble


def one(word: int) -> int:
    """`mix` of one word."""
    return int(mix(np.array([word]))[0])


def formula(grammar: Grammar, before: list[int]) -> np.ndarray:
    """The mixture of `companion.study.corpus.grammar`, part by part and token by token, for the token after these."""
    size, t = grammar.vocab_size, len(before)
    classes = [int(grammar.classes[token + 1]) for token in before]
    symbols = [token + 1 for token in before]

    def level(number: int, context: list[int]) -> np.ndarray:
        key = grammar.roots[number]
        for symbol in context:
            key = one(key ^ symbol)
        if number == 0:
            return ranked(0, np.full(size, grammar.roots[0]))
        return ranked(number, np.full(size, key))

    def ranked(number: int, key: np.ndarray) -> np.ndarray:
        law = np.zeros(size)
        law[scramble(np.arange(size), key, grammar.bits)] = grammar.zipf[number] / WHOLE
        return law

    none = level(0, [])
    parts = [
        none,
        level(1, ([0, *symbols])[-1:]),
        level(2, ([0, 0, *symbols])[-2:]),
        level(3, ([0] * 4 + classes)[-4:]),
    ]
    echo = none * (1 - grammar.distances[:t].sum() / WHOLE)
    for back in range(1, min(t, grammar.max_distance) + 1):
        echo[before[t - back]] += grammar.distances[back - 1] / WHOLE
    recall = none
    for place in range(t - 2, -1, -1):
        if before[place] == before[-1]:
            recall = np.eye(size)[before[place + 1]]
            break
    parts += [echo, recall]
    return sum(weight / WHOLE * part for weight, part in zip(grammar.whole_weights, parts, strict=True))


@pytest.mark.parametrize(
    "grammar", [Grammar(vocab_size=16), Grammar(seed=2**62 + 5, vocab_size=64, max_distance=8, class_bits=3)]
)
def test_the_formula_written_out(grammar: Grammar) -> None:
    tokens = draw(grammar, np.array([3, 4]), 31)
    exact = Conditionals(grammar)
    found = exact.probabilities(torch.from_numpy(tokens[:, :-1])).numpy()
    for row in range(2):
        for t in range(1, 31):
            assert found[row, t - 1] == pytest.approx(formula(grammar, tokens[row, :t].tolist()), abs=1e-14)
    first = exact.at(torch.from_numpy(tokens), torch.tensor([0]), torch.tensor([0]))[0].numpy()
    assert first == pytest.approx(formula(grammar, []), abs=1e-14)
    assert found.sum(-1) == pytest.approx(np.ones((2, 30)), abs=1e-13)


def test_two_ways_to_a_probability_of_a_token() -> None:
    grammar = Grammar(seed=1, vocab_size=256)
    tokens = torch.from_numpy(draw(grammar, np.arange(5), 100))
    exact = Conditionals(grammar)
    of_all = exact.probabilities(tokens[:, :-1]).gather(2, tokens[:, 1:, None])[..., 0].log()
    assert exact.log_probabilities(tokens) == pytest.approx(of_all, abs=1e-12)


def test_beyond_the_longest_distance() -> None:
    grammar = Grammar(vocab_size=16, max_distance=4)
    tokens = torch.from_numpy(draw(grammar, np.arange(3), 40))
    exact = Conditionals(grammar)
    of_all = exact.probabilities(tokens[:, :-1])
    assert of_all.sum(-1).numpy() == pytest.approx(np.ones((3, 39)), abs=1e-13)
    chosen = of_all.gather(2, tokens[:, 1:, None])[..., 0].log()
    assert exact.log_probabilities(tokens) == pytest.approx(chosen, abs=1e-12)


def test_later_tokens_do_not_count() -> None:
    grammar = Grammar(vocab_size=32)
    tokens = torch.from_numpy(draw(grammar, np.arange(4), 20))
    exact = Conditionals(grammar)
    whole, part = exact.probabilities(tokens), exact.probabilities(tokens[:, :7])
    assert torch.equal(whole[:, :7], part)


def test_entropy_of_a_distribution_and_surprise_of_what_is_drawn() -> None:
    """A million tokens: their mean surprise less their mean exact entropy is a martingale with known variance."""
    grammar = Grammar(seed=6, vocab_size=16)
    exact, differences, variance, tokens_seen = Conditionals(grammar), 0.0, 0.0, 0
    counts, expected, spread = np.zeros(16), np.zeros(16), np.zeros(16)
    for first in range(0, 16000, 500):
        tokens = torch.from_numpy(draw(grammar, np.arange(first, first + 500), 65, MEASURING))
        p = exact.probabilities(tokens[:, :-1])
        log_p = p.log()
        entropy = -(p * log_p).sum(-1)
        surprise = -log_p.gather(2, tokens[:, 1:, None])[..., 0]
        differences += float((surprise - entropy).sum())
        variance += float(((p * log_p**2).sum(-1) - entropy**2).sum())
        counts += np.bincount(tokens[:, 1:].flatten(), minlength=16)
        expected += p.sum((0, 1)).numpy()
        spread += (p * (1 - p)).sum((0, 1)).numpy()
        tokens_seen += surprise.numel()
    assert tokens_seen >= 1_000_000
    assert abs(differences) < 4 * variance**0.5
    # how often every token came, in standard deviations: none beyond 4.5 of 16
    assert np.abs(counts - expected).max() > 0
    assert (np.abs(counts - expected) / spread**0.5).max() < 4.5


def test_chi_square_of_drawn_tokens_in_one_context() -> None:
    """Third tokens after the most frequent first two, beside the probabilities of that context."""
    grammar = Grammar(seed=8, vocab_size=16)
    tokens = draw(grammar, np.arange(100_000), 3)
    pairs = tokens[:, 0] * 16 + tokens[:, 1]
    pair = np.bincount(pairs).argmax()
    third = np.bincount(tokens[pairs == pair, 2], minlength=16)
    p = Conditionals(grammar).probabilities(torch.tensor([[pair // 16, pair % 16]]))[0, 1].numpy()
    assert third.sum() > 2000
    assert ((third - third.sum() * p) ** 2 / (third.sum() * p)).sum() < 37.7  # 0.1 %, 15 degrees of freedom


def test_default_vocabulary_in_the_mean() -> None:
    """At V = 1024 the mean surprise of other documents fits the mean entropy, within 4 standard errors."""
    grammar = Grammar()
    exact = Conditionals(grammar)
    surprise = -exact.log_probabilities(torch.from_numpy(draw(grammar, np.arange(3000), 65))).mean(1)
    tokens = torch.from_numpy(draw(grammar, np.arange(100), 65, MEASURING))
    rows, positions = torch.arange(100).repeat_interleave(64), torch.arange(1, 65).repeat(100)
    entropy = exact.entropies(tokens, rows, positions).reshape(100, 64).mean(1)
    error = (float(surprise.var()) / 3000 + float(entropy.var()) / 100) ** 0.5
    assert abs(float(surprise.mean() - entropy.mean())) < 4 * error
    assert error < 0.01


def test_no_positions() -> None:
    exact, none = Conditionals(Grammar(vocab_size=16)), torch.zeros(0, dtype=torch.int64)
    assert exact.entropies(torch.zeros(1, 3, dtype=torch.int64), none, none).shape == (0,)
