"""Grading a class: every folder that was handed in is checked, its asks are run again, and its prediction is scored."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from companion.errors import InputError
from companion.formatting import cut
from companion.study.laboratory.backend import Outcome, Simulator
from companion.study.laboratory.classroom import Classroom
from companion.study.laboratory.folder import read_rules
from companion.study.laboratory.game import Laboratory, judged
from companion.study.laboratory.journal import FolderJournal
from companion.study.laboratory.scoring import Score
from companion.study.laboratory.state import Answer

#: Relative difference of a replayed number from that in a ledger: other machines round the last digits otherwise.
SAME = 1e-9


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What a student's folder was worth. `score` is None and `fault` says why, where there is no valid prediction."""

    student: str
    score: Score | None
    fault: str = ""
    num_runs: int = 0
    spent_share: float = math.nan


def grade_class(classroom: Classroom, submissions: Path) -> list[Grade]:
    """The grades of all students of a class, best first, those without a score last; nothing is written.

    `submissions` holds a folder per student, by name. A broken folder costs its owner the score, never the others.

    Raises
    ------
    InputError
        if there is no such folder.
    """
    if not submissions.is_dir():
        raise InputError(f"{submissions}: there is no such folder")
    grades = [grade_student(classroom, student, submissions / student) for student in classroom.students]
    return sorted(grades, key=lambda grade: (-grade.score.total if grade.score else math.inf, grade.student))


def strangers(classroom: Classroom, submissions: Path) -> list[str]:
    """Names of folders that belong to no student of the class, in order."""
    return sorted(each.name for each in submissions.iterdir() if each.is_dir() and each.name not in classroom.students)


def grade_student(classroom: Classroom, student: str, folder: Path) -> Grade:
    """The grade of one folder; a reason in `fault` where it breaks a rule or a file."""
    if not folder.exists():
        return Grade(student=student, score=None, fault="nothing was handed in")
    try:
        return _graded(classroom, student, folder)
    except (InputError, OSError) as error:
        return Grade(student=student, score=None, fault=cut(str(error), 300))


def _graded(classroom: Classroom, student: str, folder: Path) -> Grade:
    rules, simulator = classroom.rules_of(student), classroom.simulator_of(student)
    if (found := read_rules(folder)) != rules:
        whose = f"of {found.student!r}" if found.student != student else "changed"
        raise InputError(f"{folder}: the rules in lab.json are {whose}, not those that {student} was given")
    lab = Laboratory(rules, simulator, simulator, FolderJournal(folder), str(folder))
    state = lab.state()
    if state.final is not None:
        raise InputError(f"{folder}: the ledger holds a revealed target, which only the instructor can reveal")
    for number, answer in enumerate(state.answers, 2):  # the first line opens the ledger
        _replay(simulator, answer, f"{folder}: ledger line {number}")
    if classroom.rules.closed:
        _check_answers(classroom.laboratory_of(student).state().answers, state.answers, str(folder))
    prediction = lab.prediction()
    return Grade(
        student=student,
        score=judged(prediction, simulator.final(prediction.ask), rules, simulator),
        num_runs=len(state.answers),
        spent_share=state.spent / rules.budget,
    )


def _replay(simulator: Simulator, answer: Answer, place: str) -> None:
    """Raise unless the world gives this answer to this ask."""
    if not _same(simulator.run(answer.ask), answer.outcome):
        raise InputError(f"{place}: the outcome is not that of this run; it was invented, or comes from another world")


def _same(first: Outcome, second: Outcome) -> bool:
    pairs = zip(first.as_dict().values(), second.as_dict().values(), strict=True)
    return all(a is b if a is None or b is None else math.isclose(a, b, rel_tol=SAME) for a, b in pairs)


def _check_answers(given: Sequence[Answer], claimed: Sequence[Answer], place: str) -> None:
    """Raise unless the runs of a folder are those that the instructor answered."""
    if [each.ask for each in given] != [each.ask for each in claimed]:
        raise InputError(
            f"{place}: the ledger holds {len(claimed)} runs, {len(given)} were answered: they must be the same"
        )


LEADERBOARD = (
    "rank", "student", "total", "interval_points", "accuracy_points", "choice_points", "covered", "log_error",
    "interval_score", "regret_nats", "compute_share", "num_runs", "spent_share", "fault",
)  # fmt: skip


def leaderboard(grades: Sequence[Grade]) -> pd.DataFrame:
    """The grades as a table with the columns `LEADERBOARD`; a student without a score has total 0 and no rank.

    Equal totals share a rank.
    """
    rows = []
    for grade in grades:
        values = grade.score.as_dict() if grade.score else {"total": 0.0}
        rank = 1 + sum(each.score.total > grade.score.total for each in grades if each.score) if grade.score else None
        rows.append(
            {
                "rank": rank,
                "student": grade.student,
                "num_runs": grade.num_runs,
                "spent_share": grade.spent_share,
                "fault": grade.fault,
                **values,
            }
        )
    table = pd.DataFrame(rows, columns=list(LEADERBOARD))
    return table.assign(rank=table["rank"].astype("Int64"))


def leaderboard_markdown(table: pd.DataFrame) -> str:
    """The leaderboard as a Markdown table.

    Examples
    --------
    >>> print(leaderboard_markdown(leaderboard([Grade(student="ada", score=None, fault="nothing | was handed in")])))
    | rank | student | total | interval | accuracy | choice | interval held the truth | runs | note |
    |--:|:--|--:|--:|--:|--:|:--|--:|:--|
    | – | ada | 0.0 | – | – | – | – | 0 | nothing \\| was handed in |
    <BLANKLINE>
    """
    lines = [
        "| rank | student | total | interval | accuracy | choice | interval held the truth | runs | note |",
        "|--:|:--|--:|--:|--:|--:|:--|--:|:--|",
    ]
    for row in table.to_dict("records"):
        points = [_points(row[name]) for name in ("interval_points", "accuracy_points", "choice_points")]
        held = "–" if pd.isna(row["covered"]) else "yes" if row["covered"] else "no"
        rank = "–" if pd.isna(row["rank"]) else str(row["rank"])
        note = str(row["fault"]).replace("|", "\\|")
        cells = [rank, str(row["student"]), f"{row['total']:.1f}", *points, held, str(row["num_runs"]), note]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _points(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.1f}"
