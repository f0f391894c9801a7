"""`companion lab class`: laboratories for a class, rounds of answers, grades."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from companion.cli.commands import print_json, print_table
from companion.cli.laboratory_options import add_rules, rules_of
from companion.cli.options import add_json
from companion.errors import InputError
from companion.formatting import plural
from companion.paths import check_target, write_whole
from companion.study.laboratory.classroom import (
    STUDENTS,
    answer_asks,
    new_class,
    open_class,
    read_secret,
    read_students,
)
from companion.study.laboratory.grading import grade_class, leaderboard, leaderboard_markdown, strangers
from companion.study.laboratory.rules import SIMULATOR


def add_class(command: Callable[..., argparse.ArgumentParser], to: Any) -> None:
    """Register the commands of `companion lab class` below `companion lab`."""
    summary = "laboratories for a class: make them, answer asks, grade"
    group = to.add_parser("class", help=summary, description=summary[0].upper() + summary[1:] + ".")
    inner = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = command(
        "new",
        new,
        "make a laboratory for every student, each with a world of its own",
        "  companion lab class new spring --students names.txt --secret-file secret.txt\n"
        "  companion lab class new spring --students names.txt --secret-file secret.txt --closed --budget 3e18\n"
        "\n"
        "The secret file is made if there is none; keep it out of what you hand out. Hand out the folders in\n"
        "CLASS/students. In a closed class these hold no world: students hand in asks.csv, and you answer.",
        to=inner,
    )
    parser.add_argument("folder", type=Path, metavar="CLASS", help="folder to make")
    parser.add_argument("--students", required=True, type=Path, metavar="FILE", help="one name per line")
    parser.add_argument("--closed", action="store_true", help="keep the worlds: you answer asks in rounds")
    _add_secret(parser)
    add_rules(parser)
    parser.add_argument("--backend", default=SIMULATOR, help=argparse.SUPPRESS)  # refused by a line that says why
    add_json(parser)
    parser = command(
        "answer",
        answer,
        "answer the asks that a closed class handed in, SUBMISSIONS/NAME/asks.csv",
        "  companion lab class answer spring submissions --secret-file secret.txt\n"
        "\n"
        "Hand back CLASS/students/NAME: its ledger and runs.csv hold the answers.",
        to=inner,
    )
    _add_submissions(parser)
    parser = command(
        "grade",
        grade,
        "check every folder that was handed in, run its asks again, score its prediction, write a leaderboard",
        "  companion lab class grade spring submissions --secret-file secret.txt --out leaderboard\n"
        "\n"
        "SUBMISSIONS holds a folder per student, by name. --out writes leaderboard.csv and leaderboard.md. The exit\n"
        "status is 1 if a folder is missing or broken; the reasons are below the table.",
        to=inner,
    )
    _add_submissions(parser)
    parser.add_argument("--out", type=Path, metavar="NAME", help="without suffix (default: CLASS/leaderboard)")


def _add_secret(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--secret-file", required=True, type=Path, metavar="FILE", help="text that only you know")


def _add_submissions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="CLASS", help="folder of the class")
    parser.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="folder with a folder per student")
    _add_secret(parser)
    add_json(parser)


def new(arguments: argparse.Namespace) -> None:
    """`companion lab class new`: make all folders."""
    if arguments.backend != SIMULATOR:
        raise InputError(
            f"--backend {arguments.backend}: a class has simulated worlds, since runs that are trained cannot be "
            "graded; each student makes a laboratory with `companion lab new`"
        )
    rules, students = rules_of(arguments), read_students(arguments.students)
    if arguments.folder.exists():  # before a secret is made
        raise InputError(f"{arguments.folder}: exists already; nothing was changed")
    made_secret = not arguments.secret_file.exists()
    secret = read_secret(arguments.secret_file, make=True)
    made = new_class(arguments.folder, students, secret, replace(rules, closed=arguments.closed))
    if arguments.json:
        return print_json(
            {"folder": str(made.folder), "students": list(made.students), "rules": made.rules.as_dict(),
             "secret_made": made_secret}
        )  # fmt: skip
    if made_secret:
        print(f"{arguments.secret_file}: a new secret; without it nothing can be graded")
    number = "1 laboratory" if len(students) == 1 else f"{len(students):,} laboratories"
    print(f"{made.folder / STUDENTS}: {number}")
    return None


def answer(arguments: argparse.Namespace) -> int:
    """`companion lab class answer`: one round; 1 if a table was refused."""
    classroom = open_class(arguments.folder, read_secret(arguments.secret_file))
    found = answer_asks(classroom, arguments.submissions)
    refused = sum(text.startswith("refused: ") for _, text in found)
    if arguments.json:
        print_json({"answered": [{"student": name, "result": text} for name, text in found], "refused": refused})
    else:
        for name, text in found:
            print(f"{name}: {text}")
        print(f"{plural(len(found), 'table')}, {refused} refused")
    return 1 if refused else 0


def grade(arguments: argparse.Namespace) -> int:
    """`companion lab class grade`: the leaderboard; 1 if a folder is missing or broken."""
    classroom = open_class(arguments.folder, read_secret(arguments.secret_file))
    out = arguments.out or arguments.folder / "leaderboard"
    files = [out.with_name(f"{out.name}{suffix}") for suffix in (".csv", ".md")]
    for path in files:
        check_target(path)
    grades = grade_class(classroom, arguments.submissions)
    table = leaderboard(grades)
    for path, text in zip(files, (table.to_csv(index=False), leaderboard_markdown(table)), strict=True):
        write_whole(path, text)
    unknown = strangers(classroom, arguments.submissions)
    if arguments.json:
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        print_json({"files": [str(path) for path in files], "grades": rows, "strangers": unknown})
    else:
        shown = table[["rank", "student", "total", "covered", "num_runs"]].astype(object)
        print_table(shown.where(shown.notna(), "–").assign(total=table["total"].map("{:.1f}".format)))
        for each in grades:
            if each.fault:
                print(f"{each.student}: {each.fault}")
        for name in unknown:
            print(f"note: {arguments.submissions / name} belongs to nobody of the class")
    return 1 if any(each.fault for each in grades) else 0
