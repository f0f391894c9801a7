"""What a ledger says: runs asked for, what is left of the budget, the prediction, the revealed target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from companion.errors import InputError
from companion.study.laboratory.asks import Ask, ask_from
from companion.study.laboratory.backend import Outcome
from companion.study.laboratory.chain import Entry
from companion.study.laboratory.chance import is_number
from companion.study.laboratory.rules import Rules

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

    `commitment` is the hash of the prediction, empty before there is one; `final` is the revealed target.
    """

    answers: tuple[Answer, ...]
    spent: float
    left: float
    commitment: str
    final: Outcome | None
    notes: tuple[str, ...] = ()

    def known(self) -> dict[Ask, Answer]:
        """The answers by their asks, marked as repeated: what asking again gets."""
        return {answer.ask: replace(answer, repeated=True) for answer in self.answers}


def state_of(entries: Sequence[Entry], rules: Rules, source: str, notes: Sequence[str] = ()) -> State:
    """What the entries say, in the order `open`, `ask` any number of times, `predict`, `reveal`.

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
    answers: list[Answer] = []
    commitment, final, spent = "", None, 0.0
    for entry in entries[1:]:
        place = f"{source}: line {entry.number + 1}"
        if entry.kind == "ask" and not commitment:
            answers.append(_answer(entry.body, rules, place))
            spent += answers[-1].outcome.cost.charged(rules)
            if spent > (1 + ROUNDING) * rules.budget:
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
        answers=tuple(answers),
        spent=spent,
        left=max(0.0, rules.budget - spent),
        commitment=commitment,
        final=final,
        notes=tuple(notes),
    )


def _answer(body: Mapping[str, Any], rules: Rules, place: str) -> Answer:
    if set(body) != {"ask", "outcome"} or not isinstance(body["ask"], dict):
        raise InputError(f"{place}: is not an ask with its outcome")
    ask = ask_from(body["ask"], place)
    try:
        allowed = ask.checked(rules) == ask
    except InputError:
        allowed = False
    if not allowed:
        raise InputError(f"{place}: the run is not one that the rules allow")
    return Answer(ask=ask, outcome=outcome_from(body["outcome"], place))


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
