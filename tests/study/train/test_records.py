"""Records: written whole, read back, and every kind of damage seen."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from study_runs import Counting, tiny_recipe

from companion.errors import InputError
from companion.study.train.records import (
    FIELDS,
    LATER_FIELDS,
    MAX_RECORD_BYTES,
    DamagedRecord,
    checksum_of,
    read_record,
    record_path,
    write_record,
)
from companion.study.train.result import Progress, evaluation_of, record_of


@cache
def finished() -> dict[str, Any]:
    recipe = tiny_recipe()
    losses, norms = (np.linspace(high, 1, recipe.train_steps, dtype=np.float32) for high in (4, 2))
    evaluation = {"step": recipe.train_steps, "val_loss": 1.5, "val_loss_stderr": 0.25}
    progress = Progress(recipe.train_steps, losses, norms, [evaluation], seconds=3.0)
    where: Any = {"launch": "eager", "device": torch.device("cpu"), "num_gpus": 0, "processes_per_gpu": 1}
    return record_of(recipe, progress, Counting(), diverged=False, **where)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_record(tmp_path, finished())
    assert path == record_path(tmp_path, tiny_recipe().run_id)
    record = read_record(path)
    assert record.pop("checksum") == checksum_of(finished())
    assert record == finished()
    assert set(record) == {*FIELDS, *LATER_FIELDS}
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_values_of_a_record() -> None:
    record, recipe = finished(), tiny_recipe()
    assert (record["val_loss"], record["val_loss_stderr"]) == (1.5, 0.25)
    assert (record["train_loss"], record["train_loss_steps"]) == (1.0, 1)
    assert record["tokens_per_s"] == recipe.num_tokens / 3
    assert record["num_tokens"] == record["curve"]["num_tokens"][-1] == recipe.num_tokens
    assert record["train_flops"] == recipe.train_flops
    assert record["loss_floor"] == pytest.approx(math.log(2) / 32)
    assert record["utilization"] is None


def test_an_evaluation_by_hand() -> None:
    found = evaluation_of(7, torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64))
    assert found == {"step": 7, "val_loss": 3.0, "val_loss_stderr": pytest.approx(math.sqrt(14 / 3) / 2)}
    assert evaluation_of(7, torch.tensor([1.0]))["val_loss_stderr"] is None
    assert evaluation_of(7, torch.tensor([1.0, math.nan]))["val_loss"] is None


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_record(tmp_path_factory.mktemp("record"), finished()).read_bytes()


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_seen(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(content) - 2))  # a file may lose the line feed at its end
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    path = record_path(tmp_path, tiny_recipe().run_id)
    path.write_bytes(content[:place] + bytes([other]) + content[place + 1 :])
    if json_equal(path, content):
        return  # a space for another
    with pytest.raises(DamagedRecord) as caught:
        read_record(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def json_equal(path: Path, content: bytes) -> bool:
    try:
        return bool(json.loads(path.read_bytes().decode()) == json.loads(content))
    except ValueError:
        return False


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_record_that_is_cut_short(tmp_path: Path, content: bytes, share: float) -> None:
    path = record_path(tmp_path, tiny_recipe().run_id)
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedRecord, match=r"is not JSON.*delete the file"):
        read_record(path)


EDITS: list[tuple[dict[str, Any], str]] = [
    ({"val_loss": 1.4}, "the checksum does not match"),
    ({"status": "best"}, "status 'best' is not one of finished, diverged"),
    ({"record_version": 9}, "record_version '9' is not 1"),
    ({"run_id": "0" * 16}, "run_id '0000000000000000' is not that of its recipe"),
    ({"recipe": tiny_recipe(seed=5).to_dict()}, "is not that of its recipe"),
    ({"recipe": {}}, "recipe: recipe: field 'architecture' is missing|field 'architecture' is missing"),
    ({"curve": {"step": [1]}}, "curve: is not an object with step"),
    ({"curve": {**finished()["curve"], "loss": [1.0]}}, "curve: its lists differ in length"),
    ({"checksum": None}, "the checksum does not match"),
]


@pytest.mark.parametrize(("edit", "words"), EDITS)
def test_an_edited_record(tmp_path: Path, content: bytes, edit: dict[str, Any], words: str) -> None:
    path = record_path(tmp_path, tiny_recipe().run_id)
    path.write_text(json.dumps({**json.loads(content), **edit}))
    with pytest.raises(DamagedRecord, match=words):
        read_record(path)


def test_a_number_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = record_path(tmp_path, tiny_recipe().run_id)
    path.write_text(json.dumps({**json.loads(content), "val_loss": math.nan}))
    with pytest.raises(DamagedRecord, match="the checksum does not match"):
        read_record(path)


def test_a_record_under_the_name_of_another_run(tmp_path: Path, content: bytes) -> None:
    path = record_path(tmp_path, "0" * 16)
    path.write_bytes(content)
    with pytest.raises(DamagedRecord, match=f"is the record of run {tiny_recipe().run_id}"):
        read_record(path)


FILES: list[tuple[bytes, str]] = [
    (b"", "is not JSON"),
    (b"\xff\xfe{", "byte 0 is not UTF-8"),
    (b"[1]", "is not an object"),
    (b"[" * 100_000, "is not JSON"),
    (b"1" * 5000, "is not JSON"),
    (b"{}", "field 'record_version' is missing"),
]


@pytest.mark.parametrize(("raw", "words"), FILES)
def test_files_that_are_no_records(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(raw)
    with pytest.raises(DamagedRecord, match=words) as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_record(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_record(tmp_path / "missing.json")
    with pytest.raises(InputError, match="is not a file name"):
        read_record(str(tmp_path / "a\0b"))
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(MAX_RECORD_BYTES + 1)
    with pytest.raises(InputError, match="the file is too large"):
        read_record(large)


def test_what_is_no_record_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="field 'status' is missing"):
        write_record(tmp_path, {name: value for name, value in finished().items() if name != "status"})
    with pytest.raises(InputError, match="cannot be written as JSON"):
        write_record(tmp_path, {**finished(), "seconds": math.nan})
    with pytest.raises(InputError, match="cannot be written as JSON"):
        write_record(tmp_path, {**finished(), "corpus": {"file": Path("x")}})
    with pytest.raises(InputError, match="cannot be written"):
        write_record(tmp_path / "missing", finished())
    assert not list(tmp_path.iterdir())


def test_what_was_there_stays_if_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_record(tmp_path, finished())
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("companion.paths.os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_record(tmp_path, {**finished(), "seconds": 4.0})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
