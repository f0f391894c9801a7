"""The hidden world: pure functions, known answers of its formulas, and what they add up to."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.hardware import get_hardware
from companion.study.laboratory import Ask, Rules, Simulator, World
from companion.study.laboratory.chance import derived_key, normal, uniform
from companion.study.laboratory.rules import ALL_ARCHITECTURES, LAWS
from companion.study.laboratory.world import EVALUATION_NOISE, SEED_NOISE, SIZE_NOISE
from companion.training import load_training_logs
from companion.training.measured import MeasuredUtilization

RULES = Rules(architectures=ALL_ARCHITECTURES)
WORLD = World("a key", RULES)
USUAL = Ask(
    architecture="xlstm", num_params=10**8, num_tokens=2 * 10**9, learning_rate=1e-3, batch_size_seqs=16
).checked(RULES)


def asks() -> st.SearchStrategy[Ask]:
    return st.builds(
        Ask,
        architecture=st.sampled_from(ALL_ARCHITECTURES),
        num_params=st.integers(10**6, 10**10),
        num_tokens=st.integers(10**8, 10**10),
        learning_rate=st.floats(1e-6, 1.0),
        batch_size_seqs=st.just(64),
        schedule=st.sampled_from(RULES.schedules),
        seed=st.integers(0, 100),
    ).map(lambda ask: ask.checked(RULES))


@given(st.lists(asks(), min_size=2, max_size=4), st.sampled_from(sorted(LAWS)))
@settings(max_examples=30)
def test_answers_depend_on_nothing_but_key_and_ask(several: list[Ask], law: str) -> None:
    rules = replace(RULES, law=law)
    first, second = Simulator("key", rules), Simulator("key", rules)
    assert [first.run(ask) for ask in several] == [second.run(ask) for ask in reversed(several)][::-1]
    for ask in several:
        outcome, cost = first.run(ask), first.cost(ask)
        assert outcome.diverged == (outcome.share_done < 1)
        assert outcome.train_flops == pytest.approx(outcome.share_done * cost.train_flops)
        assert outcome.gpu_hours == pytest.approx(outcome.share_done * cost.gpu_hours)
        assert outcome.val_loss is None or outcome.val_loss > 0


def test_worlds_differ_by_key_and_law() -> None:
    losses = {Simulator(key, replace(RULES, law=law)).run(USUAL).val_loss for key in "abc" for law in LAWS}
    assert len(losses) == 9


def test_laws_of_the_kinds_of_worlds() -> None:
    assert {law.gamma for law in WORLD.laws.values()} == {1.0}
    paper = World("a key", replace(RULES, law="paper"))
    assert {name: law.gamma for name, law in paper.laws.items()}["transformer"] == pytest.approx(0.29, abs=0.005)
    misfit = World("a key", replace(RULES, law="misfit"))
    assert misfit.laws == WORLD.laws
    factor, kappa = misfit.further_term
    difference = misfit.law_loss("xlstm", 1e9, 2e10) - WORLD.law_loss("xlstm", 1e9, 2e10)
    assert difference == pytest.approx(factor)
    further = misfit.law_loss("xlstm", 1e10, 2e11) - WORLD.law_loss("xlstm", 1e10, 2e11)
    assert further == pytest.approx(factor * 100**-kappa)


def test_worlds_scatter_around_the_published_fit() -> None:
    """Chinchilla's fit (arXiv 2203.15556): alpha 0.34, beta 0.28, E 1.69."""
    laws = [World(f"{key}", RULES).laws["transformer"] for key in range(300)]
    for name, center in (("alpha", 0.34), ("beta", 0.28), ("E", 1.69)):
        logs = np.log([getattr(law, name) for law in laws])
        assert np.exp(logs.mean()) == pytest.approx(center, rel=0.02)
        assert 0.03 < logs.std() < 0.12


class TestEffects:
    EFFECTS = WORLD.effects["xlstm"]

    def test_a_critical_batch_doubles_the_tokens(self) -> None:
        """arXiv 1812.06162: at B = B_crit twice the examples are needed."""
        critical = self.EFFECTS.critical_batch_size(3.0)
        assert self.EFFECTS.useful_tokens(1e9, critical, 3.0) == pytest.approx(5e8)
        assert self.EFFECTS.useful_tokens(1e9, 1.0, 3.0) == pytest.approx(1e9, rel=1e-4)

    def test_critical_batch_over_loss(self) -> None:
        """arXiv 2001.08361, equation 1.4: B_crit = B*/L^(1/0.21), so about 1.07e6 tokens at 3 nats and B* = 2e8."""
        effects = replace(self.EFFECTS, critical_batch=2e8)
        assert effects.critical_batch_size(3.0) == pytest.approx(1.07e6, rel=0.01)

    def test_best_learning_rate_costs_nothing_and_a_factor_the_same_both_ways(self) -> None:
        best = self.EFFECTS.best_learning_rate(1e8, 2**18)
        assert best == pytest.approx(self.EFFECTS.best_rate)
        assert self.EFFECTS.rate_cost(best, 1e8, 2**18) == 0
        assert self.EFFECTS.rate_cost(3 * best, 1e8, 2**18) == pytest.approx(
            self.EFFECTS.rate_cost(best / 3, 1e8, 2**18)
        )
        assert self.EFFECTS.best_learning_rate(1e9, 2**18) < best < self.EFFECTS.best_learning_rate(1e8, 2**20)

    def test_half_of_the_runs_diverge_at_the_stable_rate(self) -> None:
        stable = self.EFFECTS.stable_factor * self.EFFECTS.best_learning_rate(1e8, 2**18)
        assert self.EFFECTS.divergence_probability(stable, 1e8, 2**18, 10_000) == pytest.approx(0.5)
        assert self.EFFECTS.divergence_probability(stable, 1e8, 2**18, 0) > 0.99
        rising = [self.EFFECTS.divergence_probability(stable * f, 1e8, 2**18, 10_000) for f in (0.25, 0.8, 1.25, 4)]
        assert rising == sorted(rising)
        assert rising[0] < 1e-3 < 0.999 < rising[-1]


def test_schedules_and_batches_cost_what_they_should() -> None:
    losses = {name: WORLD.expected_loss(replace(USUAL, schedule=name)) for name in RULES.schedules}
    cost = math.log(losses["constant"] / losses["cosine"])
    assert cost == pytest.approx(WORLD.effects["xlstm"].schedule_costs["constant"])
    assert abs(losses["wsd"] / losses["cosine"] - 1) < 0.005 < losses["constant"] / losses["cosine"] - 1
    rate = WORLD.effects["xlstm"].best_learning_rate
    best_at = [
        WORLD.expected_loss(replace(USUAL, batch_size_seqs=b, learning_rate=rate(1e8, b * 2048))) for b in (8, 64, 512)
    ]
    assert best_at == sorted(best_at)


def test_noise_has_the_stated_size_and_a_part_in_common() -> None:
    expected = WORLD.expected_loss(USUAL)
    seeds = [replace(USUAL, seed=seed) for seed in range(1500)]
    deviations = np.log([WORLD.observed_loss(ask, "noise") / expected for ask in seeds])
    total = math.sqrt(SIZE_NOISE**2 + SEED_NOISE**2 + (EVALUATION_NOISE / expected) ** 2)
    assert deviations.std() == pytest.approx(total, rel=0.06)
    assert abs(deviations.mean()) < 4 * total / math.sqrt(1500)
    others = [replace(ask, num_tokens=2 * ask.num_tokens) for ask in seeds]
    other = np.log([WORLD.observed_loss(ask, "noise") / WORLD.expected_loss(ask) for ask in others])
    assert np.corrcoef(deviations, other)[0, 1] == pytest.approx((SIZE_NOISE / total) ** 2, abs=0.1)


def test_best_run_is_that_of_a_fine_grid() -> None:
    best = WORLD.best_run(1e20)
    sizes = np.geomspace(1e8, 1e10, 4001)
    losses = [
        WORLD._loss_of_batch(best.architecture, n, 1e20 / 6 / n, max(8 * 2048, 1e20 / 6 / n / 2e5)) for n in sizes
    ]
    schedule = math.exp(min(WORLD.effects[best.architecture].schedule_costs.values()))
    assert best.loss == pytest.approx(min(losses) * schedule, rel=1e-6)
    assert best.num_params == pytest.approx(sizes[int(np.argmin(losses))], rel=0.01)
    assert best.num_params * best.num_tokens * 6 == pytest.approx(1e20)


@given(asks())
@settings(max_examples=30)
def test_no_run_beats_the_best_of_its_compute(ask: Ask) -> None:
    assert WORLD.expected_loss(ask) >= WORLD.best_run(ask.train_flops).loss - 1e-9


def test_worth_is_the_inverse_of_the_best_loss() -> None:
    for share in (0.01, 0.3, 0.9):
        assert WORLD.compute_worth(WORLD.best_run(share * 1e20).loss, 1e20) == pytest.approx(share * 1e20, rel=1e-3)
    assert WORLD.compute_worth(1.0, 1e20) == 1e20
    assert WORLD.compute_worth(100.0, 1e20) == 1e17


def test_hours_are_those_of_the_measured_utilization() -> None:
    ask = replace(USUAL, architecture="transformer")
    share = float(MeasuredUtilization.of(load_training_logs()).at("transformer", 1e8, 2048).value)
    assert WORLD.gpu_hours(ask) == pytest.approx(
        ask.train_flops / share / get_hardware("h100-sxm").peak_flops_per_s / 3600
    )
    hours = {name: WORLD.gpu_hours(replace(USUAL, architecture=name)) for name in ALL_ARCHITECTURES}
    assert hours["hybrid"] == pytest.approx(math.sqrt(hours["transformer"] * hours["xlstm"]))


def test_limits_that_allow_no_run_are_named() -> None:
    with pytest.raises(InputError, match="target_flops 1e\\+40: the limits"):
        WORLD.best_run(1e40)


def test_numbers_from_keys_look_as_they_should() -> None:
    values = np.array([uniform("key", "u", i) for i in range(4000)])
    assert abs(values.mean() - 0.5) < 0.02
    assert np.abs(np.histogram(values, 10, (0, 1))[0] - 400).max() < 100
    normals = np.array([normal("key", "n", i) for i in range(4000)])
    assert abs(normals.mean()) < 0.06
    assert normals.std() == pytest.approx(1, abs=0.05)
    assert derived_key("a", "b", "c") != derived_key("a", "bc")
