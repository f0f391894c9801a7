"""The folder of a laboratory: made, opened, checked.

It holds `lab.json` (the rules, public), `ledger.jsonl` with its head (what happened), `sealed.json` (the key of the
hidden world) and, once there is one, `prediction.json`. Where runs are trained, there is no key; their records and
checkpoints are in `training/`.

What this protects against: accidents and careless edits show in the ledger, and in a class invented answers do too,
since the instructor runs every ask again. It cannot keep a student from reading `sealed.json` and calling the simulator
beside the ledger, unless the class is closed: then the key stays with the instructor, who answers asks in rounds. Nor
can it keep a student from training models beside the ledger: a laboratory that trains is kept by honor alone.
"""

import json
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

from companion.errors import InputError
from companion.formatting import quoted
from companion.hardware import get_hardware
from companion.paths import write_whole
from companion.study.laboratory.backend import Backend, Referee, Simulator
from companion.study.laboratory.chain import next_entry, read_json
from companion.study.laboratory.chance import canonical, derived_key
from companion.study.laboratory.game import Laboratory
from companion.study.laboratory.journal import RULES, SEALED, FolderJournal
from companion.study.laboratory.rules import SIMULATOR, TRAINING, Rules, rules_from
from companion.study.laboratory.training import Trainer

#: Folder of the records and checkpoints of runs that are trained.
TRAINED_RUNS = "training"


def new_laboratory(folder: Path, rules: Rules, key: str | None = None, backend: Backend | None = None) -> Laboratory:
    """Make the folder of a laboratory; its world is that of `key`, by default a new one.

    Rules of `companion.study.laboratory.training.training_rules` make a laboratory that trains.

    Parameters
    ----------
    backend
        what answers instead of the simulator or of training; `rules.backend` then has another name.

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
    simulated = rules.backend == SIMULATOR and backend is None
    if simulated:
        Simulator(chosen, rules).world.best_run(rules.target_flops)
    make_folder(folder, rules, chosen if simulated else None)
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
        what answers, where it is neither the simulator nor training. If it also has the methods of a `Referee`, it runs
        the target.

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
    if (rules.backend in (SIMULATOR, TRAINING)) != (backend is None):
        raise InputError(
            f"{folder / RULES}: backend {quoted(rules.backend)}: its runs are not made by what was to answer; "
            f"{SIMULATOR} and {TRAINING} need no other, and any other name needs its own"
        )
    if rules.backend == TRAINING:
        backend = Trainer(rules, folder / TRAINED_RUNS)
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
