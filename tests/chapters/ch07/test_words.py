"""Small pieces of text: names of contexts, changes, ranges and intervals."""

import pytest

from companion.chapters.ch07.words import change_text, context_label, count_text, named_contexts, value_text
from companion.chapters.labels import the
from companion.formatting import span_text


@pytest.mark.parametrize(
    ("length", "text"), [(2048, "2k"), (131072, "128k"), (2**20, "1M"), (3000, "3000"), (512, "512")]
)
def test_context_label(length: int, text: str) -> None:
    assert context_label(length) == text


def test_named_contexts() -> None:
    assert named_contexts([8192, 131072, 2**20]) == [131072, 2**20]
    assert named_contexts([4096, 65536]) == [65536]


def test_change() -> None:
    assert change_text(0.72, 0.69, 0.75, ("larger", "smaller")) == "28 % [25, 31] smaller"
    assert change_text(0.72, 0.69, 0.75, ("larger", "smaller"), bounds=False) == "28 % smaller"
    assert change_text(1.022, 1.002, 1.04, ("larger", "smaller"), 1) == "2.2 % [0.2, 4.0] larger"


def test_range_and_interval() -> None:
    assert span_text([0.12, 0.15]) == "12 to 15 %"
    assert span_text([0.12, 0.1201]) == "12 %"
    assert span_text([0.12, float("nan")]) == "12 %"
    assert span_text([-0.01, 0.02], "{:+.3f}".format) == "-0.010 to +0.020"
    assert value_text(1, 0.5, 2) == "1.000 [0.500, 2.000]"
    assert count_text(4e8, (390e6, 1.1e9)) == "400M [390M, 1.10B]"
    assert count_text(4e8, (float("nan"), float("nan"))) == "400M (no interval)"


def test_words_of_sentences() -> None:
    assert [the(name) for name in ("transformer", "Transformer", "xlstm", "gpt")] == [
        "the Transformer",
        "the Transformer",
        "the xLSTM",
        "gpt",
    ]
