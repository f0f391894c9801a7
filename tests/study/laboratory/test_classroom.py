"""A class from its list of names to its leaderboard: honest folders, forged ones, broken ones."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.study.laboratory import Ask, Laboratory, Prediction, Rules, open_laboratory, tokens_within
from companion.study.laboratory.asks_table import read_asks
from companion.study.laboratory.chain import Chain, Entry, next_entry
from companion.study.laboratory.classroom import (
    Classroom,
    answer_asks,
    new_class,
    open_class,
    read_secret,
    read_students,
)
from companion.study.laboratory.grading import Grade, grade_class, grade_student, leaderboard, strangers

SECRET = "0123456789abcdef"
ASK = Ask(architecture="xlstm", num_params=10**7, num_tokens=10**9, learning_rate=1e-3, batch_size_seqs=64)


def prediction(low: float = 2.2, high: float = 3.2) -> Prediction:
    rules = Rules()
    tokens = tokens_within(rules.target_flops, 9 * 10**8, 128, rules.context_length)
    ask = replace(ASK, num_params=9 * 10**8, num_tokens=tokens, batch_size_seqs=128)
    return Prediction(ask=ask, loss=2.6, low=low, high=high)


@pytest.fixture
def classroom(tmp_path: Path) -> Classroom:
    return new_class(tmp_path / "class", ["ada", "bob", "cy"], SECRET, Rules())


def hand_in(classroom: Classroom, tmp_path: Path, student: str, play: bool = True) -> Path:
    """A student's folder, played if wished, in the folder of submissions."""
    folder = tmp_path / "in" / student
    shutil.copytree(classroom.folder_of(student), folder)
    if play:
        lab = open_laboratory(folder)
        lab.ask([ASK, replace(ASK, seed=1)])
        lab.predict(prediction())
    return folder


def rewritten(folder: Path, change: Callable[[Entry], tuple[str, dict[str, object]]]) -> None:
    """The ledger written anew with right hashes: what a student who knows the format can do."""
    chain = Chain(folder / "ledger.jsonl")
    entries: list[Entry] = []
    for entry in chain.read()[0]:
        kind, body = change(entry)
        entries.append(next_entry(entries, kind, body))
    chain.create(entries[0])
    chain.append(entries[1:], entries[:1])


def fault_of(classroom: Classroom, folder: Path) -> str:
    grade = grade_student(classroom, folder.name, folder)
    assert grade.score is None
    assert "\n" not in grade.fault
    return grade.fault


def test_round_trip(classroom: Classroom, tmp_path: Path) -> None:
    folder = hand_in(classroom, tmp_path, "ada")
    with pytest.raises(InputError, match="in a class the instructor does"):
        open_laboratory(folder).reveal()
    hand_in(classroom, tmp_path, "bob", play=False)
    (tmp_path / "in" / "eve").mkdir()
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    grades = grade_class(open_class(classroom.folder, SECRET), tmp_path / "in")
    assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()} == before
    assert [grade.student for grade in grades] == ["ada", "bob", "cy"]
    ada, bob, cy = grades
    assert ada.score is not None
    assert ada.score.covered
    assert (ada.num_runs, ada.fault) == (2, "")
    assert "no prediction yet" in bob.fault
    assert cy.fault == "nothing was handed in"
    assert strangers(classroom, tmp_path / "in") == ["eve"]
    table = leaderboard(grades)
    assert list(table["rank"].fillna(-1)) == [1, -1, -1]
    assert table["total"].iloc[0] == ada.score.total


def test_worlds_and_target_noise_are_a_students_own(classroom: Classroom) -> None:
    labs = [classroom.laboratory_of(name) for name in classroom.students]
    assert len({lab.ask([ASK])[0].outcome.val_loss for lab in labs}) == 3
    checked = prediction().ask.checked(Rules())
    simulator = classroom.simulator_of("ada")
    folder_only = open_laboratory(classroom.folder_of("ada")).backend
    other = replace(classroom, secret=SECRET[::-1]).simulator_of("ada")
    assert folder_only is not None
    # the key in the folder gives every ask, and not the noise of the target
    assert folder_only.run(ASK.checked(Rules())) == simulator.run(ASK.checked(Rules()))
    assert folder_only.final(checked) != simulator.final(checked)  # type: ignore[attr-defined]
    assert other.final(checked) != simulator.final(checked)


class TestForged:
    def test_an_invented_outcome(self, classroom: Classroom, tmp_path: Path) -> None:
        folder = hand_in(classroom, tmp_path, "ada")

        def better(entry: Entry) -> tuple[str, dict[str, object]]:
            body = json.loads(json.dumps(entry.body))
            if entry.number == 2:
                body["outcome"]["val_loss"] -= 1e-3
            return entry.kind, body

        rewritten(folder, better)
        assert open_laboratory(folder).state().answers  # the chain is right
        assert "ledger line 3: the outcome is not that of this run" in fault_of(classroom, folder)

    def test_cheaper_runs(self, classroom: Classroom, tmp_path: Path) -> None:
        folder = hand_in(classroom, tmp_path, "ada")

        def cheaper(entry: Entry) -> tuple[str, dict[str, object]]:
            body = json.loads(json.dumps(entry.body))
            if entry.kind == "ask":
                body["outcome"]["train_flops"] /= 10
            return entry.kind, body

        rewritten(folder, cheaper)
        assert "the outcome is not that of this run" in fault_of(classroom, folder)

    def test_a_run_that_the_rules_forbid(self, classroom: Classroom, tmp_path: Path) -> None:
        folder = hand_in(classroom, tmp_path, "ada")

        def forbidden(entry: Entry) -> tuple[str, dict[str, object]]:
            body = json.loads(json.dumps(entry.body))
            if entry.kind == "ask":
                body["ask"]["num_tokens"] += 1
            return entry.kind, body

        rewritten(folder, forbidden)
        assert "not one that the rules allow" in fault_of(classroom, folder)

    def test_the_folder_of_another(self, classroom: Classroom, tmp_path: Path) -> None:
        shutil.copytree(hand_in(classroom, tmp_path, "ada"), tmp_path / "in" / "bob")
        assert "are of 'ada', not those that bob was given" in fault_of(classroom, tmp_path / "in" / "bob")

    def test_the_runs_of_another_under_ones_own_rules(self, classroom: Classroom, tmp_path: Path) -> None:
        ada, bob = hand_in(classroom, tmp_path, "ada"), hand_in(classroom, tmp_path, "bob", play=False)
        own = open_laboratory(bob).journal.read()[0][0].body
        for name in ("ledger.jsonl", "ledger.head", "prediction.json"):
            shutil.copy(ada / name, bob / name)
        rewritten(bob, lambda entry: (entry.kind, dict(own) if entry.kind == "open" else dict(entry.body)))
        assert "comes from another world" in fault_of(classroom, bob)

    def test_a_larger_budget(self, classroom: Classroom, tmp_path: Path) -> None:
        folder = hand_in(classroom, tmp_path, "ada", play=False)
        path = folder / "lab.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"budget": 1e21}))
        assert "the rules in lab.json are changed" in fault_of(classroom, folder)

    def test_an_overspent_budget(self, classroom: Classroom, tmp_path: Path) -> None:
        folder = hand_in(classroom, tmp_path, "ada", play=False)
        rules, simulator = classroom.rules_of("ada"), classroom.simulator_of("ada")
        chain = Chain(folder / "ledger.jsonl")
        entries, _ = chain.read()
        kept = len(entries)
        for seed in range(9):
            ask = replace(ASK, num_params=10**8, num_tokens=2 * 10**9, seed=seed).checked(rules)
            body = {"ask": ask.as_dict(), "outcome": simulator.run(ask).as_dict()}
            entries.append(next_entry(entries, "ask", body))
        chain.append(entries[kept:], entries[:kept])
        assert "line 10: the runs up to here cost more than the budget" in fault_of(classroom, folder)

    def test_a_reveal_before_the_prediction_or_at_all(self, classroom: Classroom, tmp_path: Path) -> None:
        folder = hand_in(classroom, tmp_path, "ada")
        rules, simulator = classroom.rules_of("ada"), classroom.simulator_of("ada")
        foreign = Laboratory(rules, simulator, simulator, open_laboratory(folder).journal, str(folder))
        foreign.reveal()
        assert "which only the instructor can reveal" in fault_of(classroom, folder)

    def test_a_changed_prediction(self, classroom: Classroom, tmp_path: Path) -> None:
        folder = hand_in(classroom, tmp_path, "ada")
        path = folder / "prediction.json"
        path.write_text(path.read_text().replace("2.6,", "2.5,"))
        assert "is not the prediction that was committed" in fault_of(classroom, folder)


@given(
    name=st.sampled_from(["lab.json", "ledger.jsonl", "ledger.head", "prediction.json"]), data=st.binary(max_size=60)
)
def test_no_folder_stops_the_others(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    base = tmp_path_factory.getbasetemp() / "broken"
    if not base.exists():
        base.mkdir()
        hand_in(new_class(base / "class", ["ada"], SECRET, Rules()), base, "ada")
    path = base / "in" / "ada" / name
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        grade = grade_student(open_class(base / "class", SECRET), "ada", path.parent)
    finally:
        path.write_bytes(before)
    assert grade.score is None
    assert grade.fault


def test_folders_instead_of_files_and_files_instead_of_folders(classroom: Classroom, tmp_path: Path) -> None:
    folder = hand_in(classroom, tmp_path, "ada")
    (folder / "prediction.json").unlink()
    (folder / "prediction.json").mkdir()
    assert "is a folder" in fault_of(classroom, folder)
    (tmp_path / "in" / "bob").write_text("here")
    assert "there is no such folder" in fault_of(classroom, tmp_path / "in" / "bob")
    with pytest.raises(InputError, match="no such folder"):
        grade_class(classroom, tmp_path / "nowhere")


class TestClosed:
    @pytest.fixture
    def closed(self, tmp_path: Path) -> Classroom:
        return new_class(tmp_path / "class", ["ada", "bob"], SECRET, Rules(closed=True))

    @staticmethod
    def ask_for(tmp_path: Path, student: str, text: str) -> None:
        folder = tmp_path / "in" / student
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "asks.csv").write_text(text)

    HEADER = "architecture,num_params,num_tokens,learning_rate,batch_size_seqs,seed\n"

    def test_rounds(self, closed: Classroom, tmp_path: Path) -> None:
        assert not list(closed.folder.rglob("sealed.json"))
        with pytest.raises(InputError, match="closed: hand in a table"):
            open_laboratory(closed.folder_of("ada")).ask([ASK])
        self.ask_for(tmp_path, "ada", self.HEADER + "xlstm,1e7,1e9,1e-3,64,0\nxlstm,1e7,1e9,1e-3,64,\n")
        self.ask_for(tmp_path, "bob", self.HEADER + "mamba,1e7,1e9,1e-3,64,0\n")
        (_, ada), (_, bob) = answer_asks(closed, tmp_path / "in")
        assert ada.startswith("1 new")
        assert "refused: architecture 'mamba'" in bob
        assert answer_asks(closed, tmp_path / "in")[0][1].startswith("0 new")
        assert (closed.folder_of("ada") / "runs.csv").read_text().count("\n") == 2
        shutil.rmtree(tmp_path / "in")
        folder = hand_in(closed, tmp_path, "ada", play=False)
        lab = open_laboratory(folder)
        assert lab.state().answers[0].outcome == closed.simulator_of("ada").run(ASK.checked(Rules()))
        lab.predict(prediction())
        assert grade_student(closed, "ada", folder).score is not None

    def test_answers_that_nobody_gave(self, closed: Classroom, tmp_path: Path) -> None:
        folder = hand_in(closed, tmp_path, "ada", play=False)
        rules, simulator = closed.rules_of("ada"), closed.simulator_of("ada")
        lab = Laboratory(rules, simulator, None, open_laboratory(folder).journal, str(folder))
        lab.ask([ASK])
        lab.predict(prediction())
        assert "1 runs, 0 were answered" in fault_of(closed, folder)


def test_opening_a_class(classroom: Classroom, tmp_path: Path) -> None:
    assert open_class(classroom.folder, SECRET) == classroom
    with pytest.raises(InputError, match="secret is not the one"):
        open_class(classroom.folder, SECRET[::-1])
    with pytest.raises(InputError, match="there is no such folder"):
        open_class(tmp_path / "no", SECRET)
    with pytest.raises(InputError, match="exists already"):
        new_class(classroom.folder, ["ada"], SECRET, Rules())
    path = classroom.folder / "class.json"
    good = json.loads(path.read_text())
    for change in ({"students": []}, {"students": ["../x"]}, {"rules": {}}, {"more": 1}):
        path.write_text(json.dumps(good | change))
        with pytest.raises(InputError, match=r"class\.json"):
            open_class(classroom.folder, SECRET)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "holds 0 names"),
        (b"ada\n../bob\n", "line 2"),
        (b"ada\n.hidden\n", "line 2"),
        (b"ada\n\n# note\nAda\n", "line 4: 'Ada' appears twice"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"a" * 65, "line 1"),
    ],
)
def test_lists_of_students(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "names.txt").write_bytes(text)
    with pytest.raises(InputError, match=message):
        read_students(tmp_path / "names.txt")


def test_secrets(tmp_path: Path) -> None:
    made = read_secret(tmp_path / "key", make=True)
    assert read_secret(tmp_path / "key", make=True) == made == read_secret(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    (tmp_path / "key").write_text("short")
    with pytest.raises(InputError, match="5 characters"):
        read_secret(tmp_path / "key")
    with pytest.raises(InputError, match="no such file"):
        read_secret(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("architecture\nxlstm\n", "'num_params', 'num_tokens'"),
        (TestClosed.HEADER, "no rows"),
        (TestClosed.HEADER + "xlstm,many,1e9,1e-3,64,0\n", "row 2, column 'num_params'"),
        (TestClosed.HEADER + "xlstm,1e7,1e9,1e-3,64.5,0\n", "row 2: batch_size_seqs"),
        (TestClosed.HEADER + "xlstm,1e7,1e9,,64,0\n", "row 2, column 'learning_rate'"),
        (TestClosed.HEADER.replace("seed", "sed") + "xlstm,1e7,1e9,1e-3,64,0\n", "column 'sed'"),
    ],
)
def test_tables_of_asks(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "asks.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_asks(tmp_path / "asks.csv")


def test_equal_totals_share_a_rank(classroom: Classroom, tmp_path: Path) -> None:
    hand_in(classroom, tmp_path, "ada")
    found = grade_student(classroom, "ada", tmp_path / "in" / "ada")
    assert found.score is not None
    better = replace(found.score, total=found.score.total + 1)
    grades = [Grade(student="z", score=better), replace(found, student="a"), replace(found, student="b")]
    assert list(leaderboard(grades)["rank"]) == [1, 2, 2]
