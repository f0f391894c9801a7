"""What answers a laboratory's asks: the simulator, or anything else that knows the costs and can train.

A backend of one's own needs two methods, `cost` and `run`. One that can also run the target and knows the best run
there is a `Referee`: scores need it. `Cautious` ones refuse what cannot be run before it is paid for.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from companion.study.laboratory.asks import Ask
from companion.study.laboratory.chance import derived_key
from companion.study.laboratory.rules import Rules
from companion.study.laboratory.world import World


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run takes: `train_flops` in FLOP, `gpu_hours`."""

    train_flops: float
    gpu_hours: float

    def charged(self, rules: Rules) -> float:
        """The cost in the unit of the budget."""
        return self.train_flops if rules.unit == "flops" else self.gpu_hours


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run: its loss in nats per token, None if it diverged, and what was really spent.

    `share_done` is the share of the steps that were made: below 1 only for a run that diverged.
    """

    val_loss: float | None
    train_flops: float
    gpu_hours: float
    share_done: float = 1.0

    @property
    def diverged(self) -> bool:
        """Whether the run ended without a loss."""
        return self.val_loss is None

    @property
    def cost(self) -> Cost:
        """What the run took."""
        return Cost(train_flops=self.train_flops, gpu_hours=self.gpu_hours)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as a ledger holds them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Regret:
    """How far a run stays behind the best one of its compute: `nats` per token, and the compute that would have done.

    `compute_share` is C′/C, where the best run at C′ has the expected loss of the run at C: 1 for the best choice.
    """

    nats: float
    compute_share: float


class Backend(Protocol):
    """Answers asks that `Ask.checked` returned. The same ask gets the same answer."""

    def cost(self, ask: Ask) -> Cost:
        """What the whole run would take, known before it starts."""

    def run(self, ask: Ask) -> Outcome:
        """Train it. What was spent is at most the cost, up to what cannot be known before."""


@runtime_checkable
class Referee(Protocol):
    """Runs the target, and knows what could have been reached."""

    def final(self, ask: Ask) -> Outcome:
        """The target run, with noise that no ask has."""

    def regret(self, ask: Ask, outcome: Outcome, target_flops: float) -> Regret | None:
        """How far the choice stays behind the best; None where nobody knows the best."""


@runtime_checkable
class Cautious(Protocol):
    """Knows before a run whether it can be made here."""

    def check_possible(self, asks: Sequence[Ask]) -> None:
        """Raise an InputError that names the field of an ask which no run here can have: then nothing is run."""


@dataclass(frozen=True)
class Simulator:
    """A hidden world as a backend and a referee.

    Attributes
    ----------
    key
        of the world and of the noise of asks.
    rules
        of the laboratory.
    final_key
        of the noise of the target; by default it follows from `key`. In a class only the instructor has it.

    Examples
    --------
    >>> simulator = Simulator("a key", Rules())
    >>> ask = Ask(architecture="xlstm", num_params=10**8, num_tokens=2 * 10**9, learning_rate=2e-3, batch_size_seqs=64)
    >>> ask = ask.checked(Rules())
    >>> simulator.run(ask) == simulator.run(ask)
    True
    >>> simulator.run(ask) == simulator.final(ask)
    False
    """

    key: str
    rules: Rules
    final_key: str | None = None

    @cached_property
    def world(self) -> World:
        """The hidden world."""
        return World(self.key, self.rules)

    def cost(self, ask: Ask) -> Cost:
        """6·N·D, and the hours that the measured utilization makes of it."""
        return Cost(train_flops=ask.train_flops, gpu_hours=self.world.gpu_hours(ask))

    def run(self, ask: Ask) -> Outcome:
        """The loss with noise, or a divergence, which costs what was spent until then."""
        return self._outcome(ask, derived_key(self.key, "asks"))

    def final(self, ask: Ask) -> Outcome:
        """As `run`, with the noise of the final key."""
        return self._outcome(ask, self.final_key or derived_key(self.key, "final"))

    def regret(self, ask: Ask, outcome: Outcome, target_flops: float) -> Regret:
        """By expected losses, so that luck with the seed does not count; a run that diverged is worth nothing."""
        best = self.world.best_run(target_flops).loss
        expected = self.world.expected_loss(ask)
        share = 0.0 if outcome.diverged else self.world.compute_worth(expected, target_flops) / target_flops
        return Regret(nats=expected - best, compute_share=share)

    def _outcome(self, ask: Ask, noise_key: str) -> Outcome:
        cost, share = self.cost(ask), self.world.divergence(ask, noise_key)
        whole = Outcome(
            val_loss=self.world.observed_loss(ask, noise_key) if share is None else None,
            train_flops=cost.train_flops,
            gpu_hours=cost.gpu_hours,
        )
        if share is None:
            return whole
        return replace(whole, train_flops=share * cost.train_flops, gpu_hours=share * cost.gpu_hours, share_done=share)
