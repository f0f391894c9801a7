"""A laboratory: rules, a backend that answers, a ledger, a committed prediction, a score.

A folder holds `lab.json` (the rules, public), `ledger.jsonl` with its head (what happened), `sealed.json` (the key of
the hidden world) and, once there is one, `prediction.json`.

What this protects against: accidents and careless edits show in the ledger, and in a class invented answers do too,
since the instructor runs every ask again. It cannot keep a student from reading `sealed.json` and calling the simulator
beside the ledger, unless the class is closed: then the key stays with the instructor, who answers asks in rounds.
"""

import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from companion.errors import InputError
from companion.formatting import plural
from companion.hardware import get_hardware
from companion.paths import write_whole
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.backend import Backend, Cost, Outcome, Referee, Simulator
from companion.study.laboratory.chain import Entry, next_entry, read_json
from companion.study.laboratory.chance import canonical, derived_key
from companion.study.laboratory.journal import LEDGER, PREDICTION, RULES, SEALED, FolderJournal, Journal, MemoryJournal
from companion.study.laboratory.predictions import Prediction, commitment, opened, prediction_from
from companion.study.laboratory.rules import Rules, rules_from
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

    def ask(self, asks: Sequence[Ask]) -> list[Answer]:
        """Run all of these, or none: their whole costs must fit into what is left. They are in the ledger on return.

        A run that was asked before has the same answer and costs nothing. A run that diverges costs what was spent.

        Raises
        ------
        InputError
            if an ask breaks the rules or the budget, a prediction was committed already, or the ledger was changed.
        """
        backend = self._backend()
        wanted = list(dict.fromkeys(_checked(asks, self.rules)))
        with self.journal.locked():
            entries, notes = self.journal.read()
            state = state_of(entries, self.rules, f"{self.name}/{LEDGER}", notes)
            if state.commitment:
                raise InputError(f"{self.name}: a prediction was committed, so no more runs can be asked for")
            new = [ask for ask in wanted if state.answer_to(ask) is None]
            needed = sum(backend.cost(ask).charged(self.rules) for ask in new)
            if needed > state.left + ROUNDING * self.rules.budget:
                raise InputError(
                    f"{self.name}: {plural(len(new), 'run')} would cost {self.rules.amount(needed)}, and "
                    f"{self.rules.amount(state.left)} of {self.rules.amount(self.rules.budget)} left; nothing was run"
                )
            outcomes = {ask: backend.run(ask) for ask in new}
            added: list[Entry] = []
            for ask, outcome in outcomes.items():
                body = {"ask": ask.as_dict(), "outcome": outcome.as_dict()}
                added.append(next_entry([*entries, *added], "ask", body))
            if added:
                self.journal.append(added, entries)
        return [state.answer_to(ask) or Answer(ask=ask, outcome=outcomes[ask]) for ask in wanted]

    def predict(self, prediction: Prediction) -> str:
        """Commit a prediction; return its hash. Nothing can be asked or predicted after it.

        Raises
        ------
        InputError
            if the prediction breaks the rules, or there is one already.
        """
        checked = prediction.checked(self.rules)
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
        return prediction_from(self.journal.load_prediction(), committed, f"{self.name}/{PREDICTION}")

    def reveal(self) -> Outcome:
        """Run the target, free of charge; the same outcome every time.

        Raises
        ------
        InputError
            if there is no prediction yet, or only the instructor can reveal.
        """
        prediction = self.prediction()
        if self.referee is None:
            raise InputError(f"{self.name}: the target of a class is revealed by the instructor: hand in the folder")
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
            if the target was not revealed yet, or the revealed outcome is not that of the target.
        """
        final = self.state().final
        if final is None or self.referee is None:
            raise InputError(f"{self.name}: the target is not revealed yet; run `companion lab reveal` first")
        return judged(self.prediction(), self.rules, self.referee)

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


def judged(prediction: Prediction, rules: Rules, referee: Referee) -> Score:
    """The score of a prediction: the target is run again, so that nothing in a folder can improve it."""
    final = referee.final(prediction.ask)
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


def new_laboratory(folder: Path, rules: Rules, key: str | None = None) -> Laboratory:
    """Make the folder of a laboratory; its world is that of `key`, by default a new one.

    Raises
    ------
    InputError
        if the folder exists, cannot be made, or the limits allow no run of the target compute.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lab = new_laboratory(Path(folder) / "lab", Rules(budget=1e18))
    ...     lab.state().left
    1e+18
    """
    chosen = secrets.token_hex(16) if key is None else key
    rules = rules if rules.student else replace(rules, identity=derived_key(chosen, "identity")[:16])
    get_hardware(rules.hardware)
    Simulator(chosen, rules).world.best_run(rules.target_flops)
    make_folder(folder, rules, None if rules.closed else chosen)
    return open_laboratory(folder)


def make_folder(folder: Path, rules: Rules, key: str | None) -> None:
    """Write the files of a laboratory; the folder holds all of them or does not exist. Without a key it is closed.

    Raises
    ------
    InputError
        if the folder exists or cannot be made.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        raise InputError(f"{folder}: exists already; nothing was changed") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be made: {getattr(error, 'strerror', None) or error}") from None
    try:
        write_whole(folder / RULES, _readable(rules))
        if key is not None:
            write_whole(
                folder / SEALED, canonical({"key": key, "note": "reading on is looking at the solution"}) + "\n"
            )
        FolderJournal(folder).chain.create(next_entry([], "open", {"rules": rules.fingerprint()}))
    except BaseException:
        shutil.rmtree(folder)
        raise


def _readable(rules: Rules) -> str:
    return json.dumps(rules.as_dict(), indent=2, allow_nan=False) + "\n"


def open_laboratory(folder: Path) -> Laboratory:
    """The laboratory of a folder.

    Raises
    ------
    InputError
        if the folder or one of its files is missing or not what was written.

    Examples
    --------
    >>> open_laboratory(Path("nowhere"))
    Traceback (most recent call last):
        ...
    companion.errors.InputError: nowhere: there is no such folder; make one with `companion lab new`
    """
    rules = read_rules(folder)
    key_file = folder / SEALED
    backend: Simulator | None = None
    if rules.backend != "simulator":
        raise InputError(f"{folder / RULES}: backend {rules.backend!r}: this command knows the simulator")
    if not rules.closed:
        read = read_json(key_file)
        if not isinstance(read, dict) or not isinstance(read.get("key"), str):
            raise InputError(f"{key_file}: holds no key; restore the file from a copy")
        backend = Simulator(read["key"], rules)
        if rules.student is None and derived_key(read["key"], "identity")[:16] != rules.identity:
            raise InputError(f"{key_file}: is the key of another laboratory; restore the file from a copy")
    return Laboratory(rules, backend, None if rules.student else backend, FolderJournal(folder), str(folder))


def read_rules(folder: Path) -> Rules:
    """The rules in a folder.

    Raises
    ------
    InputError
        if there is no such folder, or its `lab.json` is not that of a laboratory.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; make one with `companion lab new`")
    if not (folder / RULES).exists():
        raise InputError(f"{folder}: is not a laboratory: it has no {RULES}")
    return rules_from(read_json(folder / RULES), str(folder / RULES))
