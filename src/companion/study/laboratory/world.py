"""A hidden world from a key: a loss law for each architecture, effects of the settings, noise, and throughput.

Everything is a pure function of the key, the ask and its seed. Laws are drawn around published fits: `chinchilla`
around arXiv 2203.15556 (gamma = 1), `paper` around the fits of arXiv 2510.02228 to its Token/Param runs (those of
data/published.yaml, T = 8192), `misfit` as `chinchilla` with a further term G·(N·D)^-kappa that falls more slowly.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

from scipy.optimize import brentq, minimize_scalar

from companion.errors import InputError
from companion.hardware import get_hardware
from companion.laws import LossSurface
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.chance import normal, uniform
from companion.study.laboratory.effects import Effects
from companion.study.laboratory.rules import ALL_ARCHITECTURES, Rules

#: Where the terms of a law are stated: parameters and tokens.
_AT_SIZE, _AT_TOKENS = 1e9, 2e10
#: Published fits that worlds are drawn around: E, alpha, beta, gamma, and both terms at `_AT_SIZE`, `_AT_TOKENS`.
_CHINCHILLA = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
_PAPER = {
    "transformer": LossSurface(E=1.012, A=1.614e5, B=6.284e5, alpha=0.5273, beta=0.5082, gamma=0.2934),
    "xlstm": LossSurface(E=1.120, A=1.110e7, B=3.301e7, alpha=0.7275, beta=0.6708, gamma=0.2387),
}
#: Standard deviations, all in log loss but the last, which is in nats: runs of one size and seed together, single runs,
#: evaluation on a finite held-out set.
SIZE_NOISE, SEED_NOISE, EVALUATION_NOISE = 0.0012, 0.0018, 0.001


@dataclass(frozen=True, kw_only=True)
class BestRun:
    """The best run that a compute allows: architecture, N, D, and the mean of its loss over seeds, nats per token."""

    architecture: str
    num_params: float
    num_tokens: float
    loss: float


@dataclass(frozen=True)
class World:
    """The world of a key.

    Attributes
    ----------
    key
        any text; 32 hex digits in a laboratory.
    rules
        whose `law` says how the world is drawn; context length, limits and hardware matter too.

    Examples
    --------
    >>> world = World("a key", Rules())
    >>> ask = Ask(architecture="xlstm", num_params=10**8, num_tokens=2 * 10**9, learning_rate=2e-3, batch_size_seqs=64)
    >>> world.observed_loss(ask, "noise") == World("a key", Rules()).observed_loss(ask, "noise")
    True
    >>> 2 < world.expected_loss(ask.checked(Rules())) < 5
    True
    """

    key: str
    rules: Rules

    # ---- what is drawn -----------------------------------------------------------------------------

    @cached_property
    def laws(self) -> dict[str, LossSurface]:
        """The hidden law of every architecture."""
        return {name: self._law(name) for name in ALL_ARCHITECTURES}

    def _law(self, architecture: str) -> LossSurface:
        """Drawn around the published fit: what all architectures share, and what is an architecture's own."""
        paper = self.rules.law == "paper"
        center = _PAPER.get(architecture, _PAPER["xlstm"]) if paper else _CHINCHILLA
        size_term, token_term = center.terms(_AT_SIZE, _AT_TOKENS)
        width = 0.02 if paper else 0.08  # a tenth of a term counts for more under a small outer exponent

        def shared(what: str, spread: float) -> float:
            return spread * normal(self.key, "law", what)

        def own(what: str, spread: float) -> float:
            return spread * normal(self.key, "law", what, architecture)

        alpha = center.alpha * math.exp(shared("alpha", 0.08) + own("alpha", 0.03))
        beta = center.beta * math.exp(shared("beta", 0.08) + own("beta", 0.03))
        size_term *= math.exp(shared("size", 1.5 * width) + own("size", width))
        token_term *= math.exp(shared("tokens", 1.5 * width) + own("tokens", width / 2))
        return LossSurface(
            E=float(center.E * math.exp(shared("floor", 0.05))),
            A=float(size_term * _AT_SIZE**alpha),
            B=float(token_term * _AT_TOKENS**beta),
            alpha=float(alpha),
            beta=float(beta),
            gamma=float(center.gamma),
        )

    @cached_property
    def further_term(self) -> tuple[float, float]:
        """G at the reference point in nats, and kappa, of the term that a `misfit` world adds; (0, 0) elsewhere."""
        if self.rules.law != "misfit":
            return 0.0, 0.0
        return 0.1 + 0.2 * uniform(self.key, "further", "size"), 0.04 + 0.06 * uniform(self.key, "further", "kappa")

    @cached_property
    def effects(self) -> dict[str, Effects]:
        """The effects of the settings, by architecture."""
        return {name: self._effects(name) for name in ALL_ARCHITECTURES}

    def _effects(self, architecture: str) -> Effects:
        def around(center: float, spread: float, what: str) -> float:
            return center * math.exp(spread * normal(self.key, "effect", what, architecture))

        return Effects(
            best_rate=around(2e-3, 0.35, "rate"),
            rate_size_exponent=around(0.25, 0.15, "rate over size"),
            rate_batch_exponent=around(0.45, 0.1, "rate over batch"),
            rate_curvature=around(0.008, 0.25, "curvature"),
            stable_factor=around(6.0, 0.25, "stable rate"),
            stable_width=0.15,
            warmup_needed=around(300.0, 0.4, "warm-up"),
            critical_batch=around(2e8, 0.3, "critical batch"),  # B* of arXiv 2001.08361: 2e8 tokens
            schedule_costs={
                "cosine": 0.0,
                "wsd": 0.001 * normal(self.key, "effect", "wsd", architecture),  # as good as cosine: arXiv 2405.18392
                "constant": around(0.015, 0.2, "constant"),
            },
        )

    # ---- loss --------------------------------------------------------------------------------------

    def law_loss(self, architecture: str, num_params: float, num_tokens: float) -> float:
        """The law's loss at the best settings and a tiny batch, nats per token."""
        factor, kappa = self.further_term
        further = factor * (num_params * num_tokens / (_AT_SIZE * _AT_TOKENS)) ** -kappa if factor else 0.0
        return float(self.laws[architecture].predict(num_params, num_tokens)) + further

    def expected_loss(self, ask: Ask) -> float:
        """The median loss over seeds of a run that does not diverge, nats per token: no noise in it."""
        effects, batch = self.effects[ask.architecture], float(ask.batch_size_seqs * self.rules.context_length)
        loss = self._loss_of_batch(ask.architecture, ask.num_params, ask.num_tokens, batch)
        rate = effects.rate_cost(ask.learning_rate, ask.num_params, batch)
        return loss * math.exp(rate + effects.schedule_costs[ask.schedule])

    def _loss_of_batch(self, architecture: str, num_params: float, num_tokens: float, batch: float) -> float:
        effects = self.effects[architecture]
        at_all_tokens = self.law_loss(architecture, num_params, num_tokens)
        useful = effects.useful_tokens(num_tokens, batch, at_all_tokens)
        return self.law_loss(architecture, num_params, useful)

    def observed_loss(self, ask: Ask, noise_key: str) -> float:
        """The loss that a run reports, nats per token: log-normal noise of the seed, normal noise of the evaluation.

        A part of the seed's noise is common to all runs of one size and seed.
        """
        size = ("size", ask.architecture, ask.num_params, ask.seed)
        single = tuple(ask.as_dict().values())
        log_noise = SIZE_NOISE * normal(noise_key, *size) + SEED_NOISE * normal(noise_key, "run", *single)
        noise = EVALUATION_NOISE * normal(noise_key, "evaluation", *single)
        return self.expected_loss(ask) * math.exp(log_noise) + noise

    def divergence(self, ask: Ask, noise_key: str) -> float | None:
        """The share of its steps after which a run diverges; None for one that does not."""
        batch = float(ask.batch_size_seqs * self.rules.context_length)
        chance = self.effects[ask.architecture].divergence_probability(
            ask.learning_rate, ask.num_params, batch, ask.warmup_steps or 0
        )
        single = tuple(ask.as_dict().values())
        if uniform(noise_key, "diverges", *single) >= chance:
            return None
        return 0.05 + 0.85 * uniform(noise_key, "diverges after", *single)

    # ---- the best run of a compute -----------------------------------------------------------------

    def best_run(self, train_flops: float) -> BestRun:
        """The run of least expected loss at C = 6·N·D with the best settings that the rules allow.

        Every token counts for most in the smallest batch, so the best batch is the smallest one that the limit on steps
        allows; it is taken as a real number.

        Raises
        ------
        InputError
            if the limits allow no run of that compute.
        """
        return min((self._best_of(name, train_flops) for name in self.rules.architectures), key=lambda run: run.loss)

    def _best_of(self, architecture: str, train_flops: float) -> BestRun:
        limits, length = self.rules.limits, self.rules.context_length
        most_steps, (batch_low, batch_high) = limits["train_steps"][1], limits["batch_size_seqs"]
        tokens_high = min(limits["num_tokens"][1], most_steps * batch_high * length)
        low = max(limits["num_params"][0], train_flops / (6 * tokens_high))
        high = min(limits["num_params"][1], train_flops / (6 * limits["num_tokens"][0]))
        if not low < high:
            raise InputError(f"target_flops {train_flops:g}: the limits of the rules allow no run of this compute")

        def loss(log_size: float) -> float:
            size = math.exp(log_size)
            tokens = train_flops / (6 * size)
            batch = max(batch_low * length, tokens / most_steps)
            return self._loss_of_batch(architecture, size, tokens, batch)

        found = minimize_scalar(loss, bounds=(math.log(low), math.log(high)), method="bounded", options={"xatol": 1e-6})
        size = math.exp(float(found.x))
        schedule = min(self.effects[architecture].schedule_costs[name] for name in self.rules.schedules)
        return BestRun(
            architecture=architecture,
            num_params=size,
            num_tokens=train_flops / (6 * size),
            loss=float(found.fun) * math.exp(schedule),
        )

    def compute_worth(self, loss: float, most_flops: float) -> float:
        """C in FLOP at which the best run has this loss, at most `most_flops`: what a run is worth.

        A loss that even a thousandth of the compute reaches is worth that thousandth.
        """
        least = most_flops / 1000
        if self.best_run(least).loss <= loss:
            return least
        if self.best_run(most_flops).loss >= loss:
            return most_flops

        def excess(log_flops: float) -> float:
            return self.best_run(math.exp(log_flops)).loss - loss

        return math.exp(brentq(excess, math.log(least), math.log(most_flops), xtol=1e-4))

    # ---- time --------------------------------------------------------------------------------------

    def gpu_hours(self, ask: Ask) -> float:
        """Device hours of a whole run: C / (utilization · peak).

        The utilization is that of the measured logs (`companion.training.measured`) at the run's size and the rules'
        context length; that of a hybrid, which the logs lack, is the geometric mean of the two architectures.
        """
        share = _utilization(ask.architecture, ask.num_params, self.rules.context_length)
        return ask.train_flops / (share * get_hardware(self.rules.hardware).peak_flops_per_s) / 3600


@lru_cache(maxsize=1)
def _measured():  # type: ignore[no-untyped-def]
    """Curves of the project's training logs; read once."""
    from companion.training.logs import load_training_logs
    from companion.training.measured import MeasuredUtilization

    return MeasuredUtilization.of(load_training_logs())


@lru_cache(maxsize=4096)
def _utilization(architecture: str, num_params: int, context_length: int) -> float:
    if architecture == "hybrid":
        shares = (_utilization(name, num_params, context_length) for name in ("transformer", "xlstm"))
        return math.prod(shares) ** 0.5
    return float(_measured().at(architecture, float(num_params), context_length).value)
