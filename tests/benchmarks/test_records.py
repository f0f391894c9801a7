"""Records: whole lines or none, readable again, no names of hosts; and bad input."""

import json
import multiprocessing
import os
import platform
import socket
from pathlib import Path

import numpy as np
import pytest

from companion.benchmarks.records import FIELDS, append_record, git_commit, latest_record, machine, new_record
from companion.benchmarks.records import read_records as read
from companion.errors import InputError


def record(number: int = 0, benchmark: str = "test") -> dict:
    return new_record(benchmark, "python -m nothing", {"number": number}, [{"seconds_median": 0.5}])


def append_many(path: Path, first: int) -> None:
    base = record()
    for number in range(first, first + 50):
        append_record(path, {**base, "parameters": {"number": number, "filler": "x" * 5000}})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "records.jsonl"
    written = [record(1), record(2, "other"), record(3)]
    for one in written:
        append_record(path, one)
    assert read(path) == written
    assert latest_record(path, "test")["parameters"] == {"number": 3}
    assert latest_record(path, "other")["parameters"] == {"number": 2}


def test_what_a_record_says() -> None:
    made = record()
    assert tuple(made) == FIELDS
    assert made["versions"] == {"python": platform.python_version(), "numpy": np.__version__}
    assert made["machine"]["cores"] >= 1
    assert made["machine"]["cpu"]
    assert made["date"].endswith("Z")
    text = json.dumps(made)
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"


def test_machine_has_no_name() -> None:
    assert set(machine()) == {"cpu", "cores", "system", "architecture"}


def test_git_commit(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    assert git_commit(tmp_path / "nowhere") is None
    found = git_commit()  # a checkout, or an installed package
    assert found is None or len(found.removesuffix("+changes")) == 40


def test_appends_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append_many, args=(path, first)) for first in (0, 50, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sorted(one["parameters"]["number"] for one in read(path)) == list(range(150))


def test_last_line_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record(1)))
    append_record(path, record(2))
    assert [one["parameters"]["number"] for one in read(path)] == [1, 2]


def test_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, record(1))
    before, write, calls = path.read_bytes(), os.write, []

    def disk_full_after_twenty_bytes(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:20])

    monkeypatch.setattr(os, "write", disk_full_after_twenty_bytes)
    with pytest.raises(InputError, match=r"records\.jsonl: cannot be written: No space left"):
        append_record(path, record(2))
    monkeypatch.undo()
    assert len(calls) == 2
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"results": [{"seconds_median": float("nan")}]}, "cannot be written as JSON"),
        ({"results": [{"seconds_median": np.float32(1)}]}, "cannot be written as JSON"),
    ],
)
def test_what_json_cannot_hold_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    path = tmp_path / "records.jsonl"
    with pytest.raises(InputError, match=words):
        append_record(path, {**record(), **change})
    assert not path.exists()


def test_missing_field_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no field machine, results"):
        append_record(tmp_path / "r.jsonl", {k: v for k, v in record().items() if k not in ("machine", "results")})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n{]\n", "line 2: is not JSON"),
        ("9" * 5000, "line 1: is not JSON: a whole number has more digits"),
        ("[" * 100_000, "line 1: is not JSON: nested too deeply"),
        ("[1]\n", "line 1: is not an object"),
        ('{"benchmark": "x"}\n', "line 1: no field date"),
    ],
)
def test_wrong_files_name_the_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read(path)


def test_missing_file_and_missing_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read(path)
    append_record(path, record())
    with pytest.raises(InputError, match="no record of benchmark 'speed'"):
        latest_record(path, "speed")
