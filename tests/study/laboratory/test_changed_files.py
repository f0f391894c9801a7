"""What the files of a laboratory must not be changed into, by hand or by a crash."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_laboratory import SMALL, target

from companion.errors import InputError
from companion.study.laboratory import (
    Laboratory,
    Outcome,
    Rules,
    new_laboratory,
    open_laboratory,
)
from companion.study.laboratory.chain import next_entry
from companion.study.laboratory.journal import FolderJournal
from companion.study.laboratory.predictions import commitment


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
