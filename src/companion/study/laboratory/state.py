"""What a ledger says: runs asked for, what is left of the budget, the prediction, the revealed target.

Runs that are trained take time, so their ledger says when one begins (`begin`): from then on its whole cost is spent,
whether or not it is watched to its end. Its outcome (`ask`) replaces that cost by the one it had. A run that could not
be made (`drop`) costs nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from companion.errors import InputError
from companion.study.laboratory.asks import Ask, ask_from
from companion.study.laboratory.backend import Outcome
from companion.study.laboratory.chain import Entry
from companion.study.laboratory.chance import is_number
from companion.study.laboratory.rules import TRAINING, Rules
from companion.study.laboratory.training_runs import cost_of

#: Share of the budget that sums of float64 costs may miss it by.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A run that was asked for: the ask as it was run, what came of it, and whether it had been asked before."""

    ask: Ask
    outcome: Outcome
    repeated: bool = False


@dataclass(frozen=True, kw_only=True)
class State:
    """A laboratory after the entries of its ledger; `spent` and `left` are in the unit of the budget.

    `commitment` is the hash of the prediction, empty before there is one; `final` is the revealed target. `unfinished`
    are runs that were begun and have no outcome yet: their whole cost is spent.
    """

    answers: tuple[Answer, ...]
    spent: float
    left: float
    commitment: str
    final: Outcome | None
    notes: tuple[str, ...] = ()
    unfinished: tuple[Ask, ...] = ()

    def known(self) -> dict[Ask, Answer]:
        """The answers by their asks, marked as repeated: what asking again gets."""
        return {answer.ask: replace(answer, repeated=True) for answer in self.answers}


def state_of(entries: Sequence[Entry], rules: Rules, source: str, notes: Sequence[str] = ()) -> State:
    """What the entries say, in the order `open`, `ask` any number of times, `predict`, `reveal`.

    Where runs are trained, `begin` comes before an `ask`, or before the `drop` of a run that could not be made.

    Raises
    ------
    InputError
        that begins with `source` and names the line: other rules, a budget overspent, or an entry that cannot be there.

    Examples
    --------
    >>> from companion.study.laboratory.chain import next_entry
    >>> state_of([next_entry([], "open", {"rules": Rules().fingerprint()})], Rules(), "ledger.jsonl").left
    1e+19
    """
    first = entries[0]
    if first.kind != "open" or first.body != {"rules": rules.fingerprint()}:
        raise InputError(f"{source}: line 1: the ledger belongs to other rules; restore lab.json from a copy")
    runs = _Runs(rules)
    commitment, final = "", None
    for entry in entries[1:]:
        place = f"{source}: line {entry.number + 1}"
        if entry.kind in ("begin", "ask", "drop") and not commitment and runs.take(entry, place):
            if runs.spent > (1 + ROUNDING) * rules.budget:
                raise InputError(
                    f"{place}: the runs up to here cost more than the budget of {rules.amount(rules.budget)}"
                )
        elif entry.kind == "predict" and not commitment and isinstance(entry.body.get("commitment"), str):
            commitment = entry.body["commitment"]
        elif entry.kind == "reveal" and commitment and final is None:
            final = outcome_from(entry.body.get("outcome"), place)
        else:
            raise InputError(f"{place}: an entry {entry.kind!r} cannot follow the entries before it")
    return State(
        answers=tuple(runs.answers),
        spent=runs.spent,
        left=max(0.0, rules.budget - runs.spent),
        commitment=commitment,
        final=final,
        notes=tuple(notes),
        unfinished=tuple(runs.begun),
    )


class _Runs:
    """Runs up to an entry: their answers, those that were begun with what they may cost, and what all have cost."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.answers = rules, list[Answer]()
        self.begun: dict[Ask, float] = {}
        self._answered: set[Ask] = set()
        self._charged = 0.0

    @property
    def spent(self) -> float:
        """In the unit of the budget."""
        return self._charged + sum(self.begun.values())

    def take(self, entry: Entry, place: str) -> bool:
        """Take in an entry about a run; false if it cannot follow the others."""
        if self.rules.backend != TRAINING:
            if entry.kind == "ask":
                self._answer(entry.body, place)
            return entry.kind == "ask"
        fields = {"begin": {"ask"}, "ask": {"ask", "outcome"}, "drop": {"ask", "reason"}}[entry.kind]
        ask = _ask_of(entry.body, fields, self.rules, place)
        if (ask in self.begun) != (entry.kind != "begin") or ask in self._answered:
            return False
        if entry.kind == "begin":
            self.begun[ask] = cost_of(ask, self.rules).charged(self.rules)
        else:
            most = self.begun.pop(ask)
            if entry.kind == "ask":
                self._answer(entry.body, place)
                self._check_trained(self.answers[-1], most, place)
        return True

    def _answer(self, body: Mapping[str, Any], place: str) -> None:
        ask = _ask_of(body, {"ask", "outcome"}, self.rules, place)
        answer = Answer(ask=ask, outcome=outcome_from(body["outcome"], place))
        self.answers.append(answer)
        self._answered.add(ask)
        self._charged += answer.outcome.cost.charged(self.rules)

    def _check_trained(self, answer: Answer, most: float, place: str) -> None:
        """Raise unless a run has the FLOP of the steps that it made, and costs no more than was set aside for it."""
        outcome = answer.outcome
        made = outcome.share_done * cost_of(answer.ask, self.rules).train_flops
        if outcome.share_done > 1 or not math.isclose(outcome.train_flops, made, rel_tol=ROUNDING):
            raise InputError(f"{place}: train_flops is not that of the steps of this run")
        if outcome.cost.charged(self.rules) > (1 + ROUNDING) * most:
            raise InputError(f"{place}: the run costs more than was set aside for it")


def _ask_of(body: Mapping[str, Any], names: set[str], rules: Rules, place: str) -> Ask:
    """The ask of an entry with these fields: one that the rules allow."""
    if set(body) != names or not isinstance(body["ask"], dict):
        raise InputError(f"{place}: is not an ask{' with its outcome' if 'outcome' in names else ''}")
    ask = ask_from(body["ask"], place)
    try:
        allowed = ask.checked(rules) == ask
    except InputError:
        allowed = False
    if not allowed:
        raise InputError(f"{place}: the run is not one that the rules allow")
    return ask


def outcome_from(read: Any, place: str) -> Outcome:
    """The outcome in an entry.

    Raises
    ------
    InputError
        that begins with `place` if it is none.
    """
    names = ("val_loss", "train_flops", "gpu_hours", "share_done")
    if not isinstance(read, dict) or set(read) != set(names):
        raise InputError(f"{place}: holds no outcome")
    for name in names:
        value = read[name]
        missing = value is None and name == "val_loss"
        if not missing and not (is_number(value) and value > 0):
            raise InputError(f"{place}: {name} is not a positive number")
    return Outcome(**read)
