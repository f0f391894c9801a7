"""A laboratory as it is played: asks within a budget, a committed prediction, the target, the score.

Where runs are trained, the ledger is written around each of them: an entry sets its cost aside before the first step,
and another one holds the outcome. A process may end anywhere between: the run goes on from its checkpoint, or its
record is found, when it is asked for again, and it is paid for once.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from tqdm import tqdm

from companion.errors import InputError
from companion.formatting import cut, plural
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.backend import Backend, Cautious, Cost, Outcome, Referee, Simulator
from companion.study.laboratory.chain import Entry, next_entry
from companion.study.laboratory.journal import LEDGER, PREDICTION, Journal, MemoryJournal
from companion.study.laboratory.predictions import Prediction, commitment, opened, prediction_from
from companion.study.laboratory.rules import TRAINING, Rules
from companion.study.laboratory.scoring import Score, score
from companion.study.laboratory.state import ROUNDING, Answer, State, state_of


@dataclass(frozen=True)
class Laboratory:
    """Ask for runs within a budget, commit a prediction, reveal the target, read the score.

    Attributes
    ----------
    rules
        budget, target and limits.
    backend
        answers asks; None in a closed laboratory.
    referee
        runs the target; None where only the instructor can.
    journal
        where entries are kept.
    name
        how messages call it: the folder.

    Examples
    --------
    >>> lab = practice_laboratory("a key")
    >>> ask = Ask(architecture="xlstm", num_params=10**7, num_tokens=10**9, learning_rate=2e-3, batch_size_seqs=64)
    >>> [answer] = lab.ask([ask])
    >>> lab.state().spent == answer.outcome.train_flops
    True
    """

    rules: Rules
    backend: Backend | None
    referee: Referee | None
    journal: Journal
    name: str = "laboratory"

    def state(self) -> State:
        """What has happened so far.

        Raises
        ------
        InputError
            if the ledger was changed: file and line.
        """
        entries, notes = self.journal.read()
        return state_of(entries, self.rules, f"{self.name}/{LEDGER}", notes)

    def cost(self, ask: Ask) -> Cost:
        """What a run would take.

        Raises
        ------
        InputError
            if the ask breaks the rules, or the laboratory is closed.
        """
        return self._backend().cost(ask.checked(self.rules))

    def ask(self, asks: Sequence[Ask], *, progress: bool = False) -> list[Answer]:
        """Run all of these, or none: their whole costs must fit into what is left.

        Every outcome is in the ledger before the next run begins, so nothing that was paid for is lost if the process
        ends. A run that was asked before has the same answer and costs nothing: asking again goes on where it stopped.
        A run that diverges costs what was spent. Other processes wait. A run that is trained is paid for when it
        begins; one that turns out to be impossible costs nothing.

        Parameters
        ----------
        progress
            show a progress bar on stderr once two seconds have passed.

        Raises
        ------
        InputError
            if an ask breaks the rules or the budget, cannot be run here, a prediction was committed already, or the
            ledger was changed.
        """
        backend = self._backend()
        wanted = list(dict.fromkeys(_checked(asks, self.rules)))
        with self.journal.locked():
            entries, notes = self.journal.read()
            state = state_of(entries, self.rules, f"{self.name}/{LEDGER}", notes)
            if state.commitment:
                raise InputError(f"{self.name}: a prediction was committed, so no more runs can be asked for")
            answers = state.known()
            new = [ask for ask in wanted if ask not in answers]
            unpaid = [ask for ask in new if ask not in state.unfinished]
            needed = sum(backend.cost(ask).charged(self.rules) for ask in unpaid)
            self._refuse_overspending(needed, len(unpaid), state.left)
            if isinstance(backend, Cautious):
                backend.check_possible(new)
            for ask in tqdm(new, desc="runs", unit="run", delay=2, disable=not progress, file=sys.stderr):
                outcome = self._run(backend, ask, entries, begun=ask in state.unfinished)
                answers[ask] = Answer(ask=ask, outcome=outcome)
        return [answers[ask] for ask in wanted]

    def _run(self, backend: Backend, ask: Ask, entries: list[Entry], begun: bool) -> Outcome:
        """The outcome of an ask, run now and entered; entries grow by what was written."""
        trains = self.rules.backend == TRAINING
        if trains and not begun:
            self._enter("begin", {"ask": ask.as_dict()}, entries)
        try:
            outcome = backend.run(ask)
        except InputError as error:
            if trains:  # it cannot be made: nothing is paid for it
                self._enter("drop", {"ask": ask.as_dict(), "reason": cut(str(error), 300)}, entries)
            raise
        self._enter("ask", {"ask": ask.as_dict(), "outcome": outcome.as_dict()}, entries)
        return outcome

    def _enter(self, kind: str, body: Mapping[str, Any], entries: list[Entry]) -> None:
        """Write one entry behind the others."""
        entry = next_entry(entries, kind, body)
        self.journal.append([entry], entries)
        entries.append(entry)

    def _refuse_overspending(self, needed: float, num_runs: int, left: float) -> None:
        if needed > left + ROUNDING * self.rules.budget:
            raise InputError(
                f"{self.name}: {plural(num_runs, 'run')} would cost {self.rules.amount(needed)}, and "
                f"{self.rules.amount(left)} of {self.rules.amount(self.rules.budget)} is left; nothing was run"
            )

    def predict(self, prediction: Prediction) -> str:
        """Commit a prediction; return its hash. Nothing can be asked or predicted after it.

        Raises
        ------
        InputError
            if the prediction breaks the rules, its run is impossible here, or there is one already.
        """
        checked = prediction.checked(self.rules)
        if isinstance(self.referee, Cautious):
            self.referee.check_possible([checked.ask])
        with self.journal.locked():
            entries, notes = self.journal.read()
            state = state_of(entries, self.rules, f"{self.name}/{LEDGER}", notes)
            if state.commitment:
                raise InputError(f"{self.name}: a prediction was committed already; it cannot be changed")
            value = opened(checked)
            self.journal.save_prediction(value)  # before the entry: a crash between both leaves nothing committed
            self.journal.append([next_entry(entries, "predict", {"commitment": commitment(value)})], entries)
        return commitment(value)

    def prediction(self) -> Prediction:
        """The committed prediction.

        Raises
        ------
        InputError
            if there is none, or the file is not what was committed.
        """
        committed = self.state().commitment
        if not committed:
            raise InputError(f"{self.name}: there is no prediction yet; commit one with `companion lab predict`")
        source = f"{self.name}/{PREDICTION}"
        return prediction_from(self.journal.load_prediction(), committed, source).checked(self.rules)

    def reveal(self) -> Outcome:
        """Run the target, free of charge; the same outcome every time.

        Raises
        ------
        InputError
            if there is no prediction yet, or nobody here can run the target: in a class the instructor does.
        """
        prediction = self.prediction()
        if self.referee is None:
            raise InputError(
                f"{self.name}: the target is not run here; in a class the instructor does: hand in the folder"
            )
        with self.journal.locked():
            entries, notes = self.journal.read()
            found = state_of(entries, self.rules, f"{self.name}/{LEDGER}", notes).final
            if found is None:
                found = self.referee.final(prediction.ask)
                self.journal.append([next_entry(entries, "reveal", {"outcome": found.as_dict()})], entries)
        return found

    def score(self) -> Score:
        """What the prediction and the choice were worth.

        Raises
        ------
        InputError
            if the target was not revealed yet.
        """
        final = self.state().final
        if final is None or self.referee is None:
            raise InputError(f"{self.name}: the target is not revealed yet; run `companion lab reveal` first")
        return judged(self.prediction(), final, self.rules, self.referee)

    def runs(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Two tables: finished runs as a run table (`companion.runs`), and runs that diverged, without a loss."""
        rows = [_row(answer, self.rules) for answer in self.state().answers]
        table = pd.DataFrame(rows, columns=list(_COLUMNS))
        done = table["val_loss"].notna()
        return table[done].reset_index(drop=True), table[~done].drop(columns="val_loss").reset_index(drop=True)

    def _backend(self) -> Backend:
        if self.backend is None:
            raise InputError(
                f"{self.name}: the laboratory is closed: hand in a table of asks, your instructor answers it"
            )
        return self.backend


_COLUMNS = (
    "architecture", "context_length", "num_params", "num_tokens", "train_flops", "val_loss", "batch_size_seqs",
    "train_steps", "learning_rate", "seed", "schedule", "warmup_steps", "gpu_hours",
)  # fmt: skip


def _row(answer: Answer, rules: Rules) -> dict[str, object]:
    ask, outcome = answer.ask, answer.outcome
    return {
        "context_length": rules.context_length,
        "train_steps": ask.train_steps(rules.context_length),
        **ask.as_dict(),
        **{name: getattr(outcome, name) for name in ("train_flops", "val_loss", "gpu_hours")},
    }


def _checked(asks: Sequence[Ask], rules: Rules) -> list[Ask]:
    """The asks as they would be run; of several, a message names the number of the one at fault."""
    checked = []
    for number, ask in enumerate(asks, 1):
        try:
            checked.append(ask.checked(rules))
        except InputError as error:
            raise InputError(f"ask {number}: {error}" if len(asks) > 1 else str(error)) from None
    return checked


def judged(prediction: Prediction, final: Outcome, rules: Rules, referee: Referee) -> Score:
    """The score of a prediction, from the outcome of its target run."""
    regret = referee.regret(prediction.ask, final, rules.target_flops)
    return score(prediction.loss, prediction.low, prediction.high, rules.level, final, regret)


def practice_laboratory(key: str, rules: Rules | None = None) -> Laboratory:
    """A laboratory in memory with the world of a key, for simulations.

    Examples
    --------
    >>> practice_laboratory("a key").state().left
    1e+19
    """
    chosen = rules or Rules()
    simulator = Simulator(key, chosen)
    journal = MemoryJournal([next_entry([], "open", {"rules": chosen.fingerprint()})])
    return Laboratory(chosen, simulator, simulator, journal)
