"""A class: one laboratory per student, whose worlds only the instructor's secret gives.

Every student gets a world of HMAC-SHA-256(secret, student). What a class protects against, in two sentences: the noise
of the target needs the secret, and the instructor runs every ask of a ledger again, so a target cannot be known before
it is predicted, and invented or foreign answers show. In an open class the key of the world is in the student's folder,
and whoever calls the simulator beside the ledger leaves no trace; a closed class keeps the key, and the instructor
answers tables of asks in rounds (`answer_asks`).
"""

import re
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from companion.errors import InputError
from companion.formatting import quoted
from companion.paths import write_whole
from companion.study.laboratory.asks_table import read_asks
from companion.study.laboratory.backend import Simulator
from companion.study.laboratory.chain import read_bytes, read_json
from companion.study.laboratory.chance import canonical, derived_key
from companion.study.laboratory.folder import make_folder, new_folder, read_rules
from companion.study.laboratory.game import Laboratory
from companion.study.laboratory.journal import FolderJournal
from companion.study.laboratory.rules import SIMULATOR, Rules, rules_from

CLASS, STUDENTS, ASKS, ANSWERS = "class.json", "students", "asks.csv", "runs.csv"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Shorter secrets can be guessed.
MIN_SECRET = 16
#: Most students of a class.
MAX_STUDENTS = 5000


@dataclass(frozen=True)
class Classroom:
    """A class: its folder, the rules that all share, the students, and the instructor's secret.

    Attributes
    ----------
    folder
        holds `class.json` and, in `students/`, a laboratory for each student.
    rules
        without a student's name and identity.
    students
        in the order of the list.
    secret
        never written to the folder.
    """

    folder: Path
    rules: Rules
    students: tuple[str, ...]
    secret: str

    def rules_of(self, student: str) -> Rules:
        """The rules of a student's laboratory."""
        return replace(self.rules, student=student, identity=derived_key(self.secret, "identity", student)[:16])

    def simulator_of(self, student: str) -> Simulator:
        """The world of a student, with the noise of the target."""
        final = derived_key(self.secret, "final", student)
        return Simulator(self.world_key(student), self.rules_of(student), final)

    def world_key(self, student: str) -> str:
        """The key of a student's world: in the student's folder, unless the class is closed."""
        return derived_key(self.secret, "world", student)[:32]

    def folder_of(self, student: str) -> Path:
        """The laboratory that was made for a student."""
        return self.folder / STUDENTS / student

    def laboratory_of(self, student: str) -> Laboratory:
        """The laboratory that was made for a student, with the instructor's simulator."""
        rules, simulator = self.rules_of(student), self.simulator_of(student)
        folder = self.folder_of(student)
        if read_rules(folder) != rules:
            raise InputError(f"{folder}: has other rules than the class; restore lab.json from a copy")
        return Laboratory(rules, simulator, simulator, FolderJournal(folder), str(folder))


def new_class(folder: Path, students: list[str], secret: str, rules: Rules) -> Classroom:
    """Make the folder of a class with a laboratory for each student.

    Raises
    ------
    InputError
        if the folder exists or cannot be made, the secret is short, the limits allow no run of the target compute, or
        the rules are not those of a simulated world.
    """
    if rules.backend != SIMULATOR:
        raise InputError(
            f"backend {quoted(rules.backend)}: a class has simulated worlds; runs that are trained cannot be graded"
        )
    made = Classroom(folder, replace(rules, student=None, identity="0" * 16), tuple(students), secret)
    made.simulator_of(students[0]).world.best_run(rules.target_flops)
    new_folder(folder)
    try:
        (folder / STUDENTS).mkdir()
        for student in students:
            key = None if rules.closed else made.world_key(student)
            make_folder(made.folder_of(student), made.rules_of(student), key)
        about = {"rules": made.rules.as_dict(), "students": students, "secret_check": _check(secret)}
        write_whole(folder / CLASS, canonical(about) + "\n")
    except BaseException:
        shutil.rmtree(folder)
        raise
    return made


def open_class(folder: Path, secret: str) -> Classroom:
    """The class of a folder.

    Raises
    ------
    InputError
        if the folder is none of a class, or the secret is another one.
    """
    path = folder / CLASS
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; make one with `companion lab class new`")
    read: Any = read_json(path)
    if not isinstance(read, dict) or set(read) != {"rules", "students", "secret_check"}:
        raise InputError(f"{path}: is not that of a class; restore it from a copy")
    names = read["students"]
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(each, str) and _NAME.fullmatch(each) for each in names)
    ):
        raise InputError(f"{path}: students is not a list of names; restore the file from a copy")
    if read["secret_check"] != _check(secret):
        raise InputError(f"{path}: the secret is not the one that the class was made with")
    return Classroom(folder, rules_from(read["rules"], str(path)), tuple(names), secret)


def _check(secret: str) -> str:
    return derived_key(secret, "check")


def read_students(path: Path) -> list[str]:
    """The names in a text file, one per line; empty lines and lines that begin with # are left out.

    Raises
    ------
    InputError
        that names the line: a name that is no folder name, or one that appears twice (capitals do not count).
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text in UTF-8") from None
    names: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{path}: line {number}: {quoted(name)}: "
                "letters a to z, digits, dots, - and _ only, a letter or digit first"
            )
        if name.lower() in (other.lower() for other in names):
            raise InputError(f"{path}: line {number}: {quoted(name)} appears twice")
        names.append(name)
    if not 1 <= len(names) <= MAX_STUDENTS:
        raise InputError(f"{path}: holds {len(names)} names; from 1 to {MAX_STUDENTS} are possible")
    return names


def read_secret(path: Path, make: bool = False) -> str:
    """The secret in a file; with `make`, a new one is written where there is no file, readable by its owner only.

    Raises
    ------
    InputError
        if the file cannot be read, or the secret is shorter than `MIN_SECRET` characters.
    """
    if make and not path.exists():
        write_whole(path, secrets.token_hex(32) + "\n")
        path.chmod(0o600)
    try:
        secret = read_bytes(path).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text in UTF-8") from None
    if len(secret) < MIN_SECRET:
        raise InputError(f"{path}: the secret has {len(secret)} characters; at least {MIN_SECRET} are needed")
    return secret


def answer_asks(classroom: Classroom, submissions: Path) -> list[tuple[str, str]]:
    """One round of a closed class: answer every `asks.csv` that was handed in; what happened, by student.

    The answers are in the laboratory that the class keeps for the student, as `runs.csv`, to be handed back with its
    ledger. A table that breaks the rules or the budget changes nothing.

    Raises
    ------
    InputError
        if there is no such folder of submissions.
    """
    if not submissions.is_dir():
        raise InputError(f"{submissions}: there is no such folder")
    found = []
    for student in classroom.students:
        path = submissions / student / ASKS
        if not path.exists():
            continue
        try:
            lab = classroom.laboratory_of(student)
            answers = lab.ask(read_asks(path))
            write_whole(classroom.folder_of(student) / ANSWERS, lab.runs()[0].to_csv(index=False))
            new = sum(not answer.repeated for answer in answers)
            found.append((student, f"{new} new, {lab.rules.amount(lab.state().left)} left"))
        except (InputError, OSError) as error:
            found.append((student, f"refused: {error}"))
    return found
