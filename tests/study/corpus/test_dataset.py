"""Shards of tokens, on a disk and by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from companion.errors import InputError
from companion.study.corpus import DatasetCorpus, dataset
from companion.study.corpus.dataset import CHECKSUMS, PUBLIC, PublicDataset, read_shard


def write_shard(
    path: Path, tokens: np.ndarray, magic: int = 20240520, version: int = 1, count: int | None = None
) -> Path:
    header = np.zeros(256, dtype="<i4")
    header[:3] = magic, version, len(tokens) if count is None else count
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Tokens count on from shard to shard; the last 300 are held out."""
    for i in range(3):
        write_shard(tmp_path / f"set_train_{i}.bin", np.arange(1000 * i, 1000 * i + 1000))
    write_shard(tmp_path / "set_val_0.bin", np.arange(5000, 5300))
    return tmp_path


@pytest.mark.parametrize("place", ["{}", "{}/*.bin", "{}/set_*_?.bin"])
def test_local_shards(shards: Path, place: str) -> None:
    name = place.format(shards)
    corpus = DatasetCorpus(name)
    assert (corpus.name, corpus.vocab_size) == (f"dataset:{name}", 50257)
    assert corpus.num_sequences(100) == 27  # nine in each: none crosses
    found = corpus.sequences(0, 27, 100)
    assert sorted(found[:, 0].tolist()) == [1000 * i + 100 * j for i in range(3) for j in range(9)]
    assert (found == found[:, :1] + torch.arange(101)).all()
    assert corpus.held_out(2, 100).min() >= 5000
    told = corpus.describe()
    assert json.loads(json.dumps(told)) == told
    assert (told["training_tokens"], told["held_out_tokens"], len(told["sha256"])) == (3000, 300, 4)


def test_without_val_the_last_is_held_out(tmp_path: Path) -> None:
    for i in range(2):
        write_shard(tmp_path / f"{i}.bin", np.full(50, i))
    corpus = DatasetCorpus(str(tmp_path))
    assert corpus.sequences(0, 1, 10).max() == 0
    assert corpus.held_out(1, 10).min() == 1
    (tmp_path / "1.bin").unlink()
    with pytest.raises(InputError, match="1 file, and one has to be held out"):
        DatasetCorpus(str(tmp_path))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"magic": 1}, "does not begin with 20240520"),
        ({"version": 2}, "version 2 of the format"),
        ({"count": 9}, "the header says 9 tokens, the file has 10"),
        ({"count": 11}, "the header says 11 tokens, the file has 10"),
        ({"count": -1}, "the header says -1 tokens"),
    ],
)
def test_headers_that_are_wrong(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    path = write_shard(tmp_path / "x.bin", np.arange(10), **wrong)
    with pytest.raises(InputError, match=rf"x\.bin: .*{message}"):
        read_shard(path)


@pytest.mark.parametrize("size", [0, 3, 11, 1000, 1024, 1025, 1043])
def test_files_cut_short(tmp_path: Path, size: int) -> None:
    path = write_shard(tmp_path / "x.bin", np.arange(10))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"x\.bin: "):
        read_shard(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.bin: cannot be read"):
        read_shard(tmp_path / "gone.bin")
    with pytest.raises(InputError, match="no such data set \\(known: fineweb10B-gpt2, finewebedu10B-gpt2\\)"):
        DatasetCorpus("wikipedia")
    with pytest.raises(InputError, match="no file fits that path"):
        DatasetCorpus(str(tmp_path))
    with pytest.raises(InputError, match="shards=3: that is an option of public data sets"):
        DatasetCorpus(str(tmp_path), shards=3)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="is no shard of tokens"):
        read_shard(tmp_path / "x.npy")


class TestByName:
    @pytest.fixture
    def served(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A public data set of three shards, served from a folder."""
        folder = tmp_path / "served"
        write_shard(folder / "val.bin", np.arange(100))
        for i in range(1, 4):
            write_shard(folder / f"train_{i}.bin", np.arange(100 * i, 100 * i + 100))
        public = PublicDataset(folder.as_uri(), "train_{}.bin", "val.bin", 3, 500, "CC0")
        monkeypatch.setitem(PUBLIC, "small", public)
        monkeypatch.setenv(dataset.CACHE_VARIABLE, str(tmp_path / "cache"))
        return folder

    def test_fetched_once(self, served: Path, tmp_path: Path) -> None:
        corpus = DatasetCorpus("small", shards=2)
        assert (corpus.name, corpus.vocab_size, corpus.num_sequences(9)) == ("dataset:small,shards=2", 500, 22)
        cache = tmp_path / "cache" / "datasets" / "small"
        known = json.loads((cache / CHECKSUMS).read_text())
        assert known == corpus.describe()["sha256"]
        assert sorted(path.name for path in cache.iterdir()) == [CHECKSUMS, "train_1.bin", "train_2.bin", "val.bin"]
        for path in served.iterdir():
            path.unlink()
        assert DatasetCorpus("small", shards=2).sequences(0, 22, 9).equal(corpus.sequences(0, 22, 9))
        with pytest.raises(InputError, match=r"train_3\.bin: cannot be fetched"):
            DatasetCorpus("small")

    def test_a_file_that_changed_is_refused(self, served: Path, tmp_path: Path) -> None:
        DatasetCorpus("small", shards=1)
        cache = tmp_path / "cache" / "datasets" / "small"
        (cache / "train_1.bin").unlink()
        write_shard(served / "train_1.bin", np.arange(7, 107))
        with pytest.raises(InputError, match="the data set has changed"):
            DatasetCorpus("small", shards=1)
        assert not (cache / "train_1.bin").exists()
        (cache / CHECKSUMS).write_text("[]")
        with pytest.raises(InputError, match="is damaged"):
            DatasetCorpus("small", shards=1)
        (cache / CHECKSUMS).write_text("{")
        with pytest.raises(InputError, match="is damaged"):
            DatasetCorpus("small", shards=1)

    def test_a_page_instead_of_a_shard_leaves_nothing(self, served: Path, tmp_path: Path) -> None:
        (served / "val.bin").write_text("<html>not here</html>")
        with pytest.raises(InputError, match="is no shard of tokens"):
            DatasetCorpus("small", shards=1)
        assert list((tmp_path / "cache" / "datasets" / "small").iterdir()) == []

    @pytest.mark.parametrize("shards", [0, 4, -1])
    def test_numbers_of_shards(self, served: Path, shards: int) -> None:
        with pytest.raises(InputError, match=f"shards={shards}: use a number from 1 to 3"):
            DatasetCorpus("small", shards=shards)

    def test_tokens_beyond_the_vocabulary(self, served: Path) -> None:
        write_shard(served / "train_1.bin", np.full(100, 501))
        with pytest.raises(InputError, match="token 501 is not below the vocabulary size 500"):
            DatasetCorpus("small", shards=1).sequences(0, 1, 9)

    def test_a_cache_that_cannot_be_made(self, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv(dataset.CACHE_VARIABLE, str(tmp_path / "file"))
        with pytest.raises(InputError, match=r"cannot be made: .*; set COMPANION_CACHE"):
            DatasetCorpus("small")


def test_public_data_sets_have_names_for_all_shards() -> None:
    for public in PUBLIC.values():
        assert public.url.startswith("https://")
        assert public.license
        assert public.training.format(public.shards).endswith(f"_{public.shards:06d}.bin")
        assert "val" in public.held_out
        assert "val" not in public.training
