"""A laboratory as it is played: budget, ledger, commitment, reveal, and what its files must not be changed into."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companion import LossSurface, fit
from companion.errors import InputError
from companion.runs import load_runs
from companion.study.laboratory import (
    Ask,
    Laboratory,
    Outcome,
    Prediction,
    Rules,
    ask_from,
    new_laboratory,
    open_laboratory,
    practice_laboratory,
    tokens_within,
)
from companion.study.laboratory.backend import Cost
from companion.study.laboratory.chain import next_entry
from companion.study.laboratory.journal import FolderJournal
from companion.study.laboratory.predictions import commitment

SMALL = Ask(architecture="xlstm", num_params=10**7, num_tokens=10**9, learning_rate=1e-3, batch_size_seqs=64)


def target(rules: Rules = Rules()) -> Prediction:  # noqa: B008 - frozen
    size, batch = 9 * 10**8, 128
    tokens = tokens_within(rules.target_flops, size, batch, rules.context_length)
    ask = replace(SMALL, num_params=size, num_tokens=tokens, batch_size_seqs=batch)
    return Prediction(ask=ask, loss=2.7, low=2.6, high=2.8)


@pytest.fixture
def lab(tmp_path: Path) -> Laboratory:
    return new_laboratory(tmp_path / "lab", Rules(), "a key")


def test_from_asks_to_a_score(lab: Laboratory) -> None:
    answers = lab.ask([SMALL, replace(SMALL, seed=1), replace(SMALL, architecture="transformer", learning_rate=0.3)])
    assert [answer.outcome.diverged for answer in answers] == [False, False, True]
    assert answers[0].outcome.val_loss != answers[1].outcome.val_loss
    state = lab.state()
    assert state.spent == pytest.approx(sum(answer.outcome.train_flops for answer in answers))
    assert state.left == pytest.approx(lab.rules.budget - state.spent)
    commitment = lab.predict(target())
    again = open_laboratory(Path(lab.name))
    assert again.state().commitment == commitment
    assert again.prediction() == target().checked(lab.rules)
    first = again.reveal()
    assert again.reveal() == first == lab.reveal()
    assert again.state().spent == state.spent
    found = again.score()
    assert found.covered == (2.6 <= (first.val_loss or 0) <= 2.8)
    assert 0 < found.compute_share <= 1


def test_the_same_ask_twice_costs_once(lab: Laboratory) -> None:
    [first] = lab.ask([SMALL])
    spent = lab.state().spent
    again, new = lab.ask([SMALL, replace(SMALL, seed=5)])
    assert again.outcome == first.outcome
    assert (again.repeated, new.repeated) == (True, False)
    assert len(lab.state().answers) == 2
    assert lab.ask([SMALL, SMALL]) == [again]
    assert lab.state().spent == pytest.approx(2 * spent)


def test_the_ledger_gives_the_answers_of_memory(lab: Laboratory) -> None:
    memory = practice_laboratory("a key", lab.rules)
    assert memory.ask([SMALL])[0].outcome == lab.ask([SMALL])[0].outcome


@given(shares=st.lists(st.floats(0.01, 0.7), min_size=1, max_size=8), unit=st.sampled_from(["flops", "gpu_hours"]))
@settings(max_examples=25)
def test_a_budget_is_never_overspent(shares: list[float], unit: str) -> None:
    lab = practice_laboratory("a key", Rules(unit=unit, budget=2.0 if unit == "gpu_hours" else 1e18))
    for seed, share in enumerate(shares):
        size = 10**7
        ask = replace(SMALL, num_params=size, num_tokens=round(share * 1e18 / 6 / size), seed=seed).checked(lab.rules)
        left, needed = lab.state().left, lab.cost(ask).charged(lab.rules)
        if needed <= left:
            lab.ask([ask])
            assert lab.state().left == pytest.approx(left - needed)
        else:
            with pytest.raises(InputError, match="left; nothing was run"):
                lab.ask([ask])
            assert lab.state().left == left


def test_of_several_runs_all_fit_or_none_is_made(lab: Laboratory) -> None:
    half = replace(SMALL, num_params=10**8, num_tokens=10**10)
    before = lab.journal.read()
    with pytest.raises(InputError, match="2 runs would cost"):
        lab.ask([half, replace(half, seed=1)])
    assert lab.journal.read() == before


def test_nothing_follows_a_prediction(lab: Laboratory) -> None:
    lab.predict(target())
    with pytest.raises(InputError, match="no more runs"):
        lab.ask([SMALL])
    with pytest.raises(InputError, match="cannot be changed"):
        lab.predict(replace(target(), loss=2.65))


def test_order_of_steps(lab: Laboratory) -> None:
    for step, message in ((lab.prediction, "no prediction yet"), (lab.reveal, "no prediction"), (lab.score, "reveal")):
        with pytest.raises(InputError, match=message):
            step()
    lab.predict(target())
    with pytest.raises(InputError, match="not revealed yet"):
        lab.score()


@pytest.mark.parametrize(
    "change", [("2.7", "2.6999"), ("900000000", "900000001"), ('"nonce":"', '"nonce":"0'), ("}", "")]
)
def test_a_changed_prediction_is_refused(lab: Laboratory, change: tuple[str, str]) -> None:
    lab.predict(target())
    path = Path(lab.name) / "prediction.json"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(InputError, match=r"prediction\.json"):
        lab.reveal()
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        lab.reveal()
    path.write_text(text)
    assert lab.reveal().val_loss


def test_a_prediction_file_without_an_entry_commits_nothing(lab: Laboratory) -> None:
    """What a crash between both leaves."""
    FolderJournal(Path(lab.name)).save_prediction({"prediction": {}, "nonce": "0"})
    with pytest.raises(InputError, match="no prediction yet"):
        lab.prediction()
    lab.predict(target())
    assert lab.prediction().loss == 2.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 1e25}, "belongs to other rules"),
        ({"target_flops": 1e19}, "belongs to other rules"),
        ({"budget": "1e25"}, "budget '1e25' is not a positive"),
        ({"budget": float("nan")}, "NaN is no number of JSON"),
        ({"budget": 10**400}, "budget 1000"),
        ({"context_length": 10**400}, "context_length 1000"),
        ({"limits": {}}, "limits must hold"),
        ({"limits": 3}, "limits must hold"),
        ({"architectures": "xlstm"}, "architectures is not a list"),
        ({"architectures": ["mamba"]}, "architectures mamba: there are"),
        ({"law": []}, "law '\\[\\]' is not text"),
        ({"law_in_words": "any"}, "law_in_words"),
        ({"version": 99}, "version 99"),
        ({"closed": 1}, "closed must be true or false"),
        ({"context_length": 20.5}, "context_length"),
        ({"more": 1}, "'more' is not known"),
        ({"identity": "0"}, "key of another laboratory"),
        ({"backend": "trains"}, "backend 'trains'"),
    ],
)
def test_changed_rules_are_refused(lab: Laboratory, change: dict[str, object], message: str) -> None:
    path = Path(lab.name) / "lab.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        open_laboratory(Path(lab.name)).state()


@given(
    name=st.sampled_from(["lab.json", "sealed.json", "prediction.json"]),
    at=st.integers(0, 10**4),
    byte=st.integers(0, 255),
)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_byte_of_any_file_changes_nothing_or_is_found(tmp_path: Path, name: str, at: int, byte: int) -> None:
    folder = tmp_path / "played"
    if not folder.exists():
        new_laboratory(folder, Rules(), "a key").predict(target())
    path = folder / name
    data = path.read_bytes()
    at %= len(data)
    path.write_bytes(data[:at] + bytes([byte]) + data[at + 1 :])
    try:
        fault = ""
        read = open_laboratory(folder)
        prediction = read.prediction()
    except InputError as error:
        fault = str(error)
    finally:
        path.write_bytes(data)
    if fault:
        assert name in fault or "ledger.jsonl: line 1" in fault
        assert "\n" not in fault
    else:
        # the note of sealed.json, or white space
        assert (read.rules, read.backend, prediction) == (
            Rules(identity=read.rules.identity), open_laboratory(folder).backend, target().checked(Rules())
        )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("ask", {}, "is not an ask with its outcome"),
        ("ask", {"ask": {}, "outcome": {}}, "architecture is missing"),
        ("ask", {"ask": SMALL.as_dict() | {"batch_size_seqs": 0}, "outcome": {}}, "not one that the rules allow"),
        ("ask", {"ask": SMALL.checked(Rules()).as_dict(), "outcome": {}}, "holds no outcome"),
        ("ask", {"ask": 3, "outcome": {}}, "is not an ask"),
        ("predict", {}, "an entry 'predict' cannot follow"),
        ("reveal", {"outcome": None}, "an entry 'reveal' cannot follow"),
        ("open", {}, "an entry 'open' cannot follow"),
    ],
)
def test_entries_with_right_hashes_that_cannot_be(lab: Laboratory, kind: str, body: dict, message: str) -> None:  # type: ignore[type-arg]
    entries, _ = lab.journal.read()
    lab.journal.append([next_entry(entries, kind, body)], entries)
    with pytest.raises(InputError, match=f"line 2: .*{message}"):
        lab.state()


@pytest.mark.parametrize("name", ["val_loss", "train_flops", "gpu_hours", "share_done"])
@pytest.mark.parametrize("value", [10**400, -1.0, "3", True])
def test_outcomes_that_cannot_be(lab: Laboratory, name: str, value: object) -> None:
    outcome = Outcome(val_loss=3.0, train_flops=1e17, gpu_hours=1.0).as_dict() | {name: value}
    entries, _ = lab.journal.read()
    body = {"ask": SMALL.checked(Rules()).as_dict(), "outcome": outcome}
    lab.journal.append([next_entry(entries, "ask", body)], entries)
    with pytest.raises(InputError, match=f"line 2: {name} is not a positive number"):
        lab.state()


def test_a_forged_prediction_is_checked_again(lab: Laboratory) -> None:
    for values in (
        target().as_dict() | {"loss": 10**400},
        target().as_dict() | {"ask": SMALL.as_dict() | {"seed": -1}},
    ):
        entries, _ = lab.journal.read()
        forged = {"prediction": values, "nonce": "0"}
        lab.journal.save_prediction(forged)
        lab.journal.append([next_entry(entries[:1], "predict", {"commitment": commitment(forged)})], entries[:1])
        with pytest.raises(InputError, match=r"loss|seed"):
            lab.reveal()


def test_a_folder_is_never_changed_by_new(lab: Laboratory, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        new_laboratory(Path(lab.name), Rules())
    with pytest.raises(InputError, match="cannot be made"):
        new_laboratory(tmp_path / "no" / "folder", Rules())
    with pytest.raises(InputError, match="h999"):
        new_laboratory(tmp_path / "other", Rules(hardware="h999"))
    assert not (tmp_path / "other").exists()


def test_two_new_laboratories_differ(tmp_path: Path) -> None:
    first, second = (new_laboratory(tmp_path / name, Rules()) for name in "ab")
    assert first.rules.identity != second.rules.identity
    assert first.ask([SMALL])[0].outcome != second.ask([SMALL])[0].outcome


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "mamba"}, "architecture 'mamba': the laboratory has transformer and xlstm"),
        ({"architecture": "hybrid"}, "architecture 'hybrid'"),
        ({"schedule": "linear"}, "schedule 'linear'"),
        ({"num_params": 10}, "num_params 10 is not between"),
        ({"num_tokens": 10**14}, "num_tokens 1e\\+14 is not between"),
        ({"learning_rate": 0.0}, "learning_rate 0 is not between"),
        ({"learning_rate": float("nan")}, "learning_rate nan"),
        ({"batch_size_seqs": 5000}, "batch_size_seqs 5000"),
        ({"num_tokens": 10**7}, "would take 76 steps"),
        ({"warmup_steps": 10**6}, "warmup_steps 1000000"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_asks_outside_the_rules(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        practice_laboratory("a key").ask([replace(SMALL, **change)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 2.75}, "must hold the loss"),
        ({"high": 2.65}, "must hold the loss"),
        ({"low": 2.7, "high": 2.7}, "must hold the loss"),
        ({"loss": float("nan")}, "must be above 0"),
        ({"high": float("inf")}, "must be above 0"),
        (
            {"ask": replace(SMALL, num_params=10**9, num_tokens=2 * 10**10, batch_size_seqs=128)},
            "the target is 1e\\+20",
        ),
        ({"ask": replace(SMALL, seed=-1)}, "seed"),
    ],
)
def test_predictions_outside_the_rules(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        practice_laboratory("a key").predict(replace(target(), **change))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_params": 1e7}, "here: architecture is missing"),
        ({"architecture": 3}, "architecture '?3'? is not text"),
        ({"optimizer": "adam"}, "no field 'optimizer'"),
        ({"num_params": 1.5}, "num_params 1.5 is not a whole number"),
        ({"num_params": "many"}, "num_params 'many' is not a number"),
        ({"num_params": True}, "num_params True is not a number"),
        ({"num_tokens": float("inf")}, "not finite"),
        ({"num_tokens": 10**400}, "is not a number"),
        ({"learning_rate": [1]}, "is not a number"),
    ],
)
def test_fields_that_are_no_ask(values: dict[str, object], message: str) -> None:
    known = {} if values == {"num_params": 1e7} else SMALL.as_dict()
    with pytest.raises(InputError, match=message):
        ask_from(known | values, "here")


def test_runs_are_a_run_table_that_can_be_fitted(tmp_path: Path) -> None:
    lab = practice_laboratory("a key")
    asks = [
        replace(SMALL, num_params=size, num_tokens=ratio * size, learning_rate=1e-3, batch_size_seqs=8)
        for size in (10**7, 2 * 10**7, 4 * 10**7)
        for ratio in (10, 20, 40)
    ]
    lab.ask([*asks, replace(SMALL, learning_rate=0.5)])
    table, diverged = lab.runs()
    assert (len(table), len(diverged)) == (9, 1)
    assert "val_loss" not in diverged
    table.to_csv(tmp_path / "runs.csv", index=False)
    with pytest.warns(UserWarning, match="kept without a check"):
        loaded = load_runs(tmp_path / "runs.csv")
    assert (loaded["train_flops"] == 6.0 * loaded["num_params"] * loaded["num_tokens"]).all()
    assert fit(LossSurface, loaded, gamma=1).num_rows == 9


class Constant:
    """A backend that needs two methods; it stops once at a run, as a machine does."""

    def __init__(self, stop_at: int = -1) -> None:
        self.made, self.stop_at = 0, stop_at

    def cost(self, ask: Ask) -> Cost:
        return Cost(train_flops=ask.train_flops, gpu_hours=1.0)

    def run(self, ask: Ask) -> Outcome:
        self.made += 1
        if self.made == self.stop_at:
            raise KeyboardInterrupt
        return Outcome(val_loss=3.0 + ask.seed, train_flops=ask.train_flops, gpu_hours=1.0)


class Judging(Constant):
    """A backend that runs the target and does not know the best run."""

    def final(self, ask: Ask) -> Outcome:
        return Outcome(val_loss=2.7, train_flops=ask.train_flops, gpu_hours=1.0)

    def regret(self, ask: Ask, outcome: Outcome, target_flops: float) -> None:
        return None


def test_another_backend(tmp_path: Path) -> None:
    rules = Rules(backend="constant")
    lab = new_laboratory(tmp_path / "lab", rules, backend=Constant())
    assert not (tmp_path / "lab" / "sealed.json").exists()
    assert lab.ask([SMALL])[0].outcome.val_loss == 3.0
    lab.predict(target())
    with pytest.raises(InputError, match="the target is not run here"):
        lab.reveal()
    judged = open_laboratory(tmp_path / "lab", Judging())
    judged.reveal()
    assert judged.score().total == pytest.approx(100 * (50 * (1 - math.log(2.8 / 2.6) / 0.15) + 10) / 60)
    for backend, folder in ((None, tmp_path / "lab"), (Constant(), new_folder(tmp_path))):
        with pytest.raises(InputError, match="not made by what was to answer"):
            open_laboratory(folder, backend)


def new_folder(tmp_path: Path) -> Path:
    return Path(new_laboratory(tmp_path / "simulated", Rules()).name)


def test_what_was_run_before_an_interruption_is_kept(tmp_path: Path) -> None:
    lab = new_laboratory(tmp_path / "lab", Rules(backend="constant"), backend=Constant(stop_at=3))
    asks = [replace(SMALL, seed=seed) for seed in range(5)]
    with pytest.raises(KeyboardInterrupt):
        lab.ask(asks)
    assert [answer.ask.seed for answer in lab.state().answers] == [0, 1]
    answers = lab.ask(asks)
    assert [answer.repeated for answer in answers] == [True, True, False, False, False]
    assert [answer.outcome.val_loss for answer in answers] == [3.0, 4.0, 5.0, 6.0, 7.0]
    assert lab.state().spent == pytest.approx(5 * SMALL.checked(lab.rules).train_flops)


ASKING = """
import sys
from dataclasses import replace
from pathlib import Path
from companion.errors import InputError
from companion.study.laboratory import Ask, open_laboratory
lab = open_laboratory(Path(sys.argv[1]))
ask = Ask(architecture="xlstm", num_params=10**8, num_tokens=2*10**9, learning_rate=1e-3, batch_size_seqs=64)
done = 0
print("ready", flush=True)
sys.stdin.readline()
for seed in range(6):
    try:
        lab.ask([replace(ask, seed=100 * int(sys.argv[2]) + seed)])
        done += 1
    except InputError as error:
        assert "left; nothing was run" in str(error), error
print(done)
"""


def test_processes_that_ask_at_once_never_overspend(lab: Laboratory) -> None:
    """Eight runs of 1.2e18 fit into 1e19; three processes want six each."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASKING, lab.name, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    done = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(done) == 8
    state = lab.state()
    assert len(state.answers) == 8
    assert state.spent <= lab.rules.budget


def test_a_laboratory_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "import companion.cli.laboratory, companion.study.laboratory.coverage, companion.study.laboratory.grading\n"
        "from companion.study.laboratory.coverage import play\n"
        "assert play('ladder', 'paper', 0)['fault'] == ''\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
