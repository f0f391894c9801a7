"""Records of a study in one file: written, read elsewhere, and refused when they are not what was written."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from companion.architectures import make_architecture
from companion.errors import InputError
from companion.study.sweep import archive
from companion.study.sweep.archive import packed_records, unpack_records
from companion.study.train import DamagedRecord, Recipe, read_record, record_path, train

Edit = Callable[[list[bytes]], list[bytes]]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    a = make_architecture("transformer", d_model=16, n_layers=1, n_heads=1, vocab_size=64)
    run = {"corpus": "source:vocab_size=64", "context_length": 8, "batch_size_seqs": 2, "train_steps": 2}
    recipes = [Recipe(architecture=a, **run, learning_rate=rate, held_out_sequences=2) for rate in (1e-3, 2e-3, 3e-3)]  # type: ignore[arg-type]
    folder = tmp_path_factory.mktemp("records")
    return [train(recipe, folder, device="cpu", progress=False) for recipe in recipes]


def test_what_was_packed_comes_back(records: list[dict[str, object]], tmp_path: Path) -> None:
    file, folder = tmp_path / "records.jsonl.gz", tmp_path / "elsewhere"
    file.write_bytes(packed_records(records))
    assert unpack_records(file, folder) == 3
    for record in records:
        assert read_record(record_path(folder, str(record["run_id"]))) == record


def test_records_that_are_there_stay_as_they_are(records: list[dict[str, object]], tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl.gz"
    file.write_bytes(packed_records(records))
    there = record_path(tmp_path, str(records[1]["run_id"]))
    there.write_text("not a record", encoding="utf-8")
    assert unpack_records(file, tmp_path) == 2
    assert there.read_text(encoding="utf-8") == "not a record"
    assert unpack_records(file, tmp_path) == 0


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda lines: [lines[0], lines[1][:100]], "line 2: is not JSON"),
        (lambda lines: [lines[0].replace(b'"finished"', b'"diverged"')], "line 1: the checksum does not match"),
        (lambda lines: [lines[0], b"[1, 2]\n"], "line 2: is not an object"),
        (lambda lines: [b'{"run_id": "../../elsewhere"}\n'], "line 1: field 'record_version' is missing"),
        (lambda lines: [b"[" * 100_000], "line 1: is not JSON"),
    ],
)
def test_damaged_lines(records: list[dict[str, object]], tmp_path: Path, edit: Edit, words: str) -> None:
    lines = gzip.decompress(packed_records(records)).splitlines(keepends=True)
    file, folder = tmp_path / "records.jsonl.gz", tmp_path / "study"
    file.write_bytes(gzip.compress(b"".join(edit(lines))))
    with pytest.raises(DamagedRecord) as error:
        unpack_records(file, folder)
    assert str(error.value).startswith(f"{file}: ")
    assert words in str(error.value)
    assert not folder.exists(), "every record is checked before the first is written"


def test_a_name_that_leads_out_of_the_folder(records: list[dict[str, object]], tmp_path: Path) -> None:
    wrong = {**records[0], "run_id": "../outside"}
    file = tmp_path / "records.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps(wrong).encode()))
    with pytest.raises(DamagedRecord, match=r"run_id .*outside. is not that of its recipe"):
        unpack_records(file, tmp_path / "study")


def test_files_that_are_no_archives(
    records: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "records.jsonl.gz"
    packed = packed_records(records)
    for content in (b"plain text", packed[:-30], packed[:30] + b"\x00" * 40 + packed[70:]):
        file.write_bytes(content)
        with pytest.raises(InputError, match="is not a whole gzip file"):
            unpack_records(file, tmp_path / "study")
    with pytest.raises(InputError, match="no such file"):
        unpack_records(tmp_path / "missing", tmp_path / "study")
    with pytest.raises(InputError, match="is a folder"):
        unpack_records(tmp_path, tmp_path / "study")
    file.write_bytes(packed)
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(InputError, match="holds more than records do"):
        unpack_records(file, tmp_path / "study")
