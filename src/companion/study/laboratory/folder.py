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
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from companion.errors import InputError
from companion.formatting import plural
from companion.hardware import get_hardware
from companion.paths import write_whole
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.backend import Backend, Cost, Outcome, Referee, Simulator
from companion.study.laboratory.chain import next_entry, read_json
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

    def ask(self, asks: Sequence[Ask], *, progress: bool = False) -> list[Answer]:
        """Run all of these, or none: their whole costs must fit into what is left.

        Every outcome is in the ledger before the next run begins, so nothing that was paid for is lost if the process
        ends. A run that was asked before has the same answer and costs nothing: asking again goes on where it stopped.
        A run that diverges costs what was spent. Other processes wait.

        Parameters
        ----------
        progress
            show a progress bar on stderr once two seconds have passed.

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
            answers = state.known()
            new = [ask for ask in wanted if ask not in answers]
            self._refuse_overspending(sum(backend.cost(ask).charged(self.rules) for ask in new), len(new), state.left)
            for ask in tqdm(new, desc="runs", unit="run", delay=2, disable=not progress, file=sys.stderr):
                outcome = backend.run(ask)
                entry = next_entry(entries, "ask", {"ask": ask.as_dict(), "outcome": outcome.as_dict()})
                self.journal.append([entry], entries)
                entries.append(entry)
                answers[ask] = Answer(ask=ask, outcome=outcome)
        return [answers[ask] for ask in wanted]

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


def new_laboratory(folder: Path, rules: Rules, key: str | None = None, backend: Backend | None = None) -> Laboratory:
    """Make the folder of a laboratory; its world is that of `key`, by default a new one.

    Parameters
    ----------
    backend
        what answers instead of the simulator; `rules.backend` then has another name.

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
    rules = replace(rules, identity=derived_key(chosen, "identity")[:16])
    get_hardware(rules.hardware)
    if backend is None:
        Simulator(chosen, rules).world.best_run(rules.target_flops)
    make_folder(folder, rules, chosen if backend is None else None)
    return open_laboratory(folder, backend)


def new_folder(folder: Path) -> None:
    """Make a folder that must not be there.

    Raises
    ------
    InputError
        if it exists or cannot be made.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        raise InputError(f"{folder}: exists already; nothing was changed") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be made: {getattr(error, 'strerror', None) or error}") from None


def make_folder(folder: Path, rules: Rules, key: str | None) -> None:
    """Write the files of a laboratory: all of them, or none. Without a key it has no `sealed.json`.

    Raises
    ------
    InputError
        if the folder exists or cannot be made.
    """
    new_folder(folder)
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


def open_laboratory(folder: Path, backend: Backend | None = None) -> Laboratory:
    """The laboratory of a folder.

    Parameters
    ----------
    backend
        what answers, where it is not the simulator. If it also has the methods of a `Referee`, it runs the target.

    Raises
    ------
    InputError
        if the folder or one of its files is missing or not what was written, or the backend is another one.

    Examples
    --------
    >>> open_laboratory(Path("nowhere"))
    Traceback (most recent call last):
        ...
    companion.errors.InputError: nowhere: there is no such folder; make one with `companion lab new`
    """
    rules, journal = read_rules(folder), FolderJournal(folder)
    if (rules.backend == "simulator") != (backend is None):
        raise InputError(f"{folder / RULES}: backend {rules.backend!r}: its runs are not made by what was to answer")
    if backend is not None:
        return Laboratory(rules, backend, backend if isinstance(backend, Referee) else None, journal, str(folder))
    if rules.closed:
        return Laboratory(rules, None, None, journal, str(folder))
    key_file = folder / SEALED
    read = read_json(key_file)
    if not isinstance(read, dict) or not isinstance(read.get("key"), str):
        raise InputError(f"{key_file}: holds no key; restore the file from a copy")
    if rules.student is None and derived_key(read["key"], "identity")[:16] != rules.identity:
        raise InputError(f"{key_file}: is the key of another laboratory; restore the file from a copy")
    simulator = Simulator(read["key"], rules)
    return Laboratory(rules, simulator, None if rules.student else simulator, journal, str(folder))


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
