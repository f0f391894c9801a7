"""Folders of text."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.study.corpus import TextCorpus, text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty files of their own contents, some in folders."""
    for i in range(60):
        path = tmp_path / f"part{i % 3}" / f"{i:02d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"file {i}: " + "words and more " * (i + 1), encoding="utf-8")
    return tmp_path


def everything(corpus: TextCorpus, part: str) -> bytes:
    return b"".join(file.content + b"\0" for file in corpus.files[part])


def test_bytes_and_ends_of_files(folder: Path) -> None:
    corpus = TextCorpus(folder)
    assert corpus.vocab_size == 256
    assert [len(corpus.files[part]) for part in ("training", "held_out")] == [57, 3]
    names = [file.path for part in corpus.files.values() for file in part]
    assert sorted(names) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.txt"))
    assert [x.path for x in corpus.files["training"]] == sorted(x.path for x in corpus.files["training"])
    for part, draw in (
        ("training", lambda n: corpus.sequences(0, n, 20)),
        ("held_out", lambda n: corpus.held_out(n, 20)),
    ):
        stream = everything(corpus, part)
        windows = {stream[i : i + 21] for i in range(0, len(stream) - 20, 20)}
        count = (len(stream) - 1) // 20
        assert {bytes(row.tolist()) for row in draw(count)} == windows
    told = corpus.describe()
    assert (told["training_files"], told["held_out_files"]) == (57, 3)
    assert told["held_out_tokens"] == len(everything(corpus, "held_out"))
    assert corpus.num_sequences(20) == (len(everything(corpus, "training")) - 1) // 20


def test_held_out_files_do_not_depend_on_names_or_neighbors(folder: Path) -> None:
    before = {file.digest for file in TextCorpus(folder).files["held_out"]}
    (folder / "part0").rename(folder / "zz")
    assert {file.digest for file in TextCorpus(folder).files["held_out"]} == before
    assert before == set(sorted(x.digest for x in text.read_folder(folder))[:3])


def test_checksum_changes_with_a_name_or_a_byte(folder: Path) -> None:
    sums = [TextCorpus(folder).describe()["sha256"], TextCorpus(folder).describe()["sha256"]]
    (folder / "part0" / "00.txt").rename(folder / "part0" / "0.txt")
    sums.append(TextCorpus(folder).describe()["sha256"])
    (folder / "part0" / "0.txt").write_text("other", encoding="utf-8")
    sums.append(TextCorpus(folder).describe()["sha256"])
    assert sums[0] == sums[1]
    assert len(set(sums)) == 3


def test_what_is_left_out_is_named(folder: Path) -> None:
    (folder / "image.png").write_bytes(b"\x89PNG\0\1")
    (folder / "copy.txt").write_bytes((folder / "part1" / "01.txt").read_bytes())
    (folder / "nothing").write_bytes(b"")
    (folder / ".hidden").write_text("hidden")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("hidden too")
    with pytest.warns(UserWarning, match="left out") as found:
        corpus = TextCorpus(folder)
    told = "\n".join(str(warning.message) for warning in found)
    assert "(with a zero byte): image.png" in told
    assert "(empty): nothing" in told
    # the copy comes first by its name: the other one is left out
    assert "(a copy of another file): part1/01.txt" in told
    assert "hidden" not in told
    assert "config" not in told
    assert sum(len(files) for files in corpus.files.values()) == 60


def test_many_names_are_not_all_shown(folder: Path) -> None:
    for i in range(9):
        (folder / f"b{i}").write_bytes(bytes([0, i]))
    with pytest.warns(UserWarning, match="b0, b1, b2 and 6 more"):
        TextCorpus(folder)


def test_no_utf_8_is_needed(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"{i}.txt").write_bytes(bytes(range(1, 256)) * (i + 1))
    corpus = TextCorpus(tmp_path)
    assert corpus.sequences(0, 1, 200).max() > 200


def test_folders_that_give_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: there is no such folder"):
        TextCorpus(tmp_path / "gone")
    with pytest.raises(InputError, match="files with text of their own: 0 of 0: put two"):
        TextCorpus(tmp_path)
    (tmp_path / "one").write_text("text")
    with pytest.raises(InputError, match="with text of their own: 1 of 1"):
        TextCorpus(tmp_path)
    (tmp_path / "two").write_bytes(b"\0")
    with pytest.warns(UserWarning, match="two"), pytest.raises(InputError, match="with text of their own: 1 of 2"):
        TextCorpus(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        TextCorpus(tmp_path / "one")


def test_too_short_for_a_context_length(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / str(i)).write_text("text" + str(i))
    with pytest.raises(
        InputError, match=r"no sequence of T = 100 for training: that takes 101 tokens in a row, .* 6 at"
    ):
        TextCorpus(tmp_path).sequences(0, 1, 100)


def test_a_file_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"00\.txt: cannot be read: Permission denied"):
        TextCorpus(folder)


def test_a_folder_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(place: object, onerror: object) -> list[object]:
        onerror(PermissionError(13, "Permission denied", "inner"))  # type: ignore[operator]
        return []

    monkeypatch.setattr(os, "walk", refuse)
    with pytest.raises(InputError, match="inner: cannot be read: Permission denied"):
        TextCorpus(folder)


def test_a_file_that_changes_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fstat, []

    def grown(number: int) -> os.stat_result:
        found = real(number)
        calls.append(number)
        return os.stat_result([*found[:6], found.st_size + (len(calls) % 2 == 0), *found[7:10]])

    monkeypatch.setattr(text.os, "fstat", grown)
    with pytest.raises(InputError, match="changed while it was read"):
        TextCorpus(folder)


def test_too_much_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MOST_BYTES", 5000)
    with pytest.raises(InputError, match="more than 0 GiB of text"):
        TextCorpus(folder)
    monkeypatch.setattr(text, "MOST_BYTES", 10)
    with pytest.raises(InputError, match=r"00\.txt: larger than 0 GiB"):
        TextCorpus(folder)


@settings(max_examples=25)
@given(contents=st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_any_contents_give_a_corpus_or_say_why(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("any")
    for i, content in enumerate(contents):
        (folder / str(i)).write_bytes(content)
    texts = {content for content in contents if content and b"\0" not in content}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if len(texts) < 2:
            with pytest.raises(InputError):
                TextCorpus(folder)
            return
        corpus = TextCorpus(folder)
    assert {file.content for files in corpus.files.values() for file in files} == texts
    assert np.isin(0, corpus.held_out(1, 1).numpy()) or len(corpus.files["held_out"][0].content) > 1
