"""Chapter 13: the source of tokens and its entropies, and small models that learn it."""

from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from companion.accounting import num_params  # noqa: E402
from companion.chapters import ch13  # noqa: E402
from companion.chapters.ch13 import learning, small  # noqa: E402
from companion.errors import InputError  # noqa: E402
from companion.models import build  # noqa: E402


def block_entropy(source: ch13.CopySource, length: int) -> float:
    """Of `length` tokens in a row, by the probability of every sequence there is."""
    total = 0.0
    for tokens in product(range(source.vocab_size), repeat=length):
        p = source.stationary[tokens[: source.distance]]
        for t in range(source.distance, length):
            p *= source.next_token[tokens[t - source.distance], tokens[t - 1], tokens[t]]
        total -= p * np.log(p)
    return total


@pytest.mark.parametrize("distance", [2, 3])
def test_entropies_are_those_of_all_sequences(distance: int) -> None:
    source = ch13.CopySource.random(3, distance, copying=0.3, seed=1)
    blocks = [block_entropy(source, length) for length in range(distance, 8)]
    assert np.diff(blocks) == pytest.approx(source.entropy_rate)
    assert source.block_entropy(distance) == pytest.approx(blocks[0])
    assert source.least_loss(6) == pytest.approx((blocks[7 - distance] - source.block_entropy(1)) / 6)
    assert source.entropy_rate < source.least_loss(6) < source.last_token_entropy < source.unigram_entropy < np.log(3)


def test_samples_are_of_the_source() -> None:
    source = ch13.CopySource.random(4, 3, seed=2)
    tokens = source.sample(400, 200, np.random.default_rng(0))
    assert tokens.shape == (400, 200)
    assert source.surprise(tokens) == pytest.approx(source.entropy_rate, abs=0.02)
    assert (tokens[:, 3:] == tokens[:, :-3]).mean() == pytest.approx(source.repeats, abs=0.01)
    firsts = np.bincount(tokens[:, 0], minlength=4) / 400
    assert firsts == pytest.approx(source.stationary.sum(axis=(1, 2)), abs=0.1)
    assert source.sample(2, 2, np.random.default_rng(0)).shape == (2, 2)


def test_sources_that_are_none() -> None:
    chain = np.full((3, 3), 1 / 3)
    with pytest.raises(InputError, match="copying 1 is not between 0 and 1"):
        ch13.CopySource(chain, 1, 2)
    with pytest.raises(InputError, match="distance 1 is not from 2 to"):
        ch13.CopySource(chain, 0.5, 1)
    with pytest.raises(InputError, match="distance 9 is not from 2 to 4, with 16 tokens"):
        ch13.CopySource.random(16, 9)
    with pytest.raises(InputError, match="rows sum to 1"):
        ch13.CopySource(chain * 2, 0.5, 2)
    with pytest.raises(InputError, match="context_length 2 is shorter than the distance 3"):
        ch13.CopySource.random(3, 3).least_loss(2)


def test_plans_have_equal_flops_and_the_published_rate() -> None:
    shapes = ch13.small_shapes(["transformer", "xlstm", "hybrid"], 16)
    plans = {name: ch13.Plan.of(each, 20) for name, each in shapes.items()}
    for name, plan in plans.items():
        assert plan.flops == pytest.approx(20 * small.CORE_FLOPS_PER_S, rel=0.01)
        assert num_params(shapes[name]) == pytest.approx(1.07e6, rel=0.01)
        # Kaplan et al. 2020, appendix D.6, at a million parameters
        assert plan.learning_rate == pytest.approx(0.0013, abs=2e-5)
    shares = [plans["xlstm"]._share(step) for step in range(plans["xlstm"].num_steps)]
    assert 0 < shares[0] < 0.1
    assert max(shares) == pytest.approx(1, abs=1e-3)
    assert 0 <= shares[-1] < 0.01
    with pytest.raises(InputError, match="models: 'gru' is not one of transformer, xlstm, hybrid"):
        ch13.small_shapes(["gru"], 16)


def test_a_model_learns_and_the_same_seed_gives_the_same_losses() -> None:
    source = ch13.CopySource.random(8, 2, seed=0)
    shapes = ch13.small_shapes(["transformer"], 8)["transformer"]
    plan = ch13.Plan.of(shapes, 1)
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        model = build(shapes)
        optimizer, schedule = plan.optimizer(model)
        losses = []
        for tokens in plan.batches(source, 0):
            loss = model.loss(tokens)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        runs.append(losses)
    assert runs[0] == runs[1]
    assert len(runs[0]) == plan.num_steps
    final = ch13.held_out_losses({"transformer": model}, source)["transformer"]
    assert source.least_loss(128) < final < runs[0][0]
    said = ch13.generations({"transformer": model}, source, 12)
    assert list(said["model"]) == ["Transformer", "the source"]
    assert set(said["text"].str.len()) == {12}
    assert said["surprise"].iloc[1] < said["surprise"].iloc[0]


def test_what_was_learned_in_words() -> None:
    source = ch13.CopySource.random(8, 2)
    least, last = source.least_loss(128), source.last_token_entropy
    assert small.learned(least, source) == pytest.approx(1)
    assert small.learned(last, source) == pytest.approx(0)
    words = learning.learned_verdict({"transformer": 0.9, "xlstm": 0.5, "hybrid": 0.85})
    assert words == "The Transformer and the hybrid have learned most of it; the xLSTM has learned some of it"
    assert learning.learned_verdict({"xlstm": -0.1}) == "The xLSTM has learned next to nothing"


def test_curves_are_means_of_steps() -> None:
    table = learning.curves({"xlstm": np.arange(100.0).tolist(), "hybrid": [3.0, 1.0]})
    xlstm = table[table["model"] == "xlstm"]
    assert len(xlstm) == learning.NUM_POINTS
    assert xlstm["loss"].iloc[0] == 1.5
    assert xlstm["num_tokens"].iloc[0] == 2 * 8 * 128
    assert table[table["model"] == "hybrid"]["loss"].tolist() == [3.0, 1.0]
