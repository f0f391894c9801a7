"""Corpora by their names."""

from pathlib import Path

import numpy as np
import pytest

from companion.errors import InputError
from companion.study.corpus import DatasetCorpus, Source, TextCorpus, open_corpus


@pytest.mark.parametrize(
    ("name", "seed", "vocab_size"),
    [
        ("source", 0, 1024),
        ("source:seed=3", 3, 1024),
        ("source:vocab_size=512", 0, 512),
        ("source:seed=3,vocab_size=512", 3, 512),
    ],
)
def test_source(name: str, seed: int, vocab_size: int) -> None:
    corpus = open_corpus(name)
    assert isinstance(corpus, Source)
    assert corpus.name == name
    assert (corpus.grammar.seed, corpus.vocab_size) == (seed, vocab_size)


def test_other_spellings_of_the_source() -> None:
    assert open_corpus("source:vocab_size=512,seed=3").name == "source:seed=3,vocab_size=512"
    assert open_corpus("source:seed=0,vocab_size=1024,class_bits=5").name == "source"
    assert open_corpus("source:class_bits=3,vocab_size=64").name == "source:vocab_size=64,class_bits=3"


@pytest.mark.parametrize("name", ["plain", "with, comma", "repeat=no,really", "a=b,c"])
@pytest.mark.parametrize("options", ["", ",repeat=true"])
def test_text(tmp_path: Path, name: str, options: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for i in range(3):
        (folder / str(i)).write_text(f"some text {i}")
    corpus = open_corpus(f"text:{folder}{options}")
    assert isinstance(corpus, TextCorpus)
    assert corpus.folder == folder
    assert corpus.repeat == bool(options)
    again = open_corpus(corpus.name)
    assert again.name == corpus.name
    assert again.describe() == corpus.describe()


def test_dataset(tmp_path: Path) -> None:
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, 50
    for i in range(2):
        (tmp_path / f"{i}.bin").write_bytes(header.tobytes() + np.arange(50, dtype="<u2").tobytes())
    corpus = open_corpus(f"dataset:{tmp_path}/*.bin,repeat=true")
    assert isinstance(corpus, DatasetCorpus)
    assert corpus.repeat
    assert open_corpus(corpus.name).name == corpus.name
    with pytest.raises(InputError, match="shards=2: that is an option of public"):
        open_corpus(f"dataset:{tmp_path},shards=2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "unknown; known: source, .*text:FOLDER.*fineweb10B-gpt2"),
        ("sources", "unknown"),
        ("text", "unknown"),
        ("text:", "unknown"),
        ("source:", "unknown"),
        ("source:seed", "'seed' is no option: use seed or vocab_size or class_bits"),
        ("source:size=3", "'size=3' is no option"),
        ("source:seed=3,seed=4", "seed is given twice"),
        ("source:class_bits=7", "class_bits=7: use a whole number from 1 to 6"),
        ("source:seed=-3", "seed=-3: use a whole number"),
        ("source:seed=1e3", "seed=1e3: use a whole number"),
        ("source:seed=٣", "use a whole number"),
        ("source:seed=", "seed=: use a whole number"),
        ("source:seed=9999999999999999999", "use a whole number from 0"),
        ("source:vocab_size=1000", "use a power of two"),
        ("text:x,repeat=yes", "repeat=yes: use true or false"),
        ("text:x,repeat=true,more=1", "'more=1' is no option: use repeat"),
        ("dataset:x", "no such data set"),
        ("dataset:fineweb10B-gpt2,shards=many", "shards=many: use a whole number"),
        ("dataset:fineweb10B-gpt2,shards=104", "use a number from 1 to 103"),
    ],
)
def test_names_that_open_nothing(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_corpus(name)
