"""A corpus by its name. Needs torch."""

from companion.errors import InputError
from companion.study.corpus.base import Corpus
from companion.study.corpus.dataset import PUBLIC, DatasetCorpus
from companion.study.corpus.source import Source
from companion.study.corpus.text import TextCorpus

#: What may follow the kind of a corpus, a folder or a data set, after a comma.
OPTIONS = {"source": ("seed", "vocab_size", "class_bits"), "text": ("repeat",), "dataset": ("shards", "repeat")}
KNOWN = (
    f"source, source:{','.join(f'{name}=NUMBER' for name in OPTIONS['source'])}, text:FOLDER, dataset:NAME or "
    f"dataset:FILES (names: {', '.join(sorted(PUBLIC))})"
)


def open_corpus(text: str) -> Corpus:
    """The corpus of this name; the `name` of a corpus opens the same corpus again.

    Parameters
    ----------
    text
        `source` or `source:seed=3,vocab_size=512,class_bits=4`, the synthetic source;
        `text:FOLDER` or `text:FOLDER,repeat=true`, files of text byte by byte;
        `dataset:NAME`, `dataset:NAME,shards=5` or `dataset:data/*.bin`, tokenized shards; `repeat=true` here too.

    Raises
    ------
    InputError
        if there is no such corpus or option, with what there is.

    Examples
    --------
    >>> open_corpus("source:vocab_size=512").vocab_size
    512
    >>> open_corpus("wikipedia")
    Traceback (most recent call last):
    ...
    companion.errors.InputError: corpus 'wikipedia': unknown; known: source, \
source:seed=NUMBER,vocab_size=NUMBER,class_bits=NUMBER, text:FOLDER, \
dataset:NAME or dataset:FILES (names: fineweb10B-gpt2, finewebedu10B-gpt2)
    """
    kind, colon, rest = text.partition(":")
    if kind not in OPTIONS or (colon and not rest) or (not colon and kind != "source"):
        raise InputError(f"corpus {text!r}: unknown; known: {KNOWN}")
    if kind == "source":
        numbers = _options(text, kind, rest.split(",") if rest else [])
        return Source(**{name: _number(text, name, value) for name, value in numbers.items()})
    place, *options = rest.split(",")
    # a folder may have commas in its name: options are what ends with one of their names
    while options and options[0].partition("=")[0] not in OPTIONS[kind]:
        place += "," + options.pop(0)
    given = _options(text, kind, options)
    repeat = given.pop("repeat", "false")
    if repeat not in ("true", "false"):
        raise InputError(f"corpus {text!r}: repeat={repeat}: use true or false")
    if kind == "text":
        return TextCorpus(place, repeat=repeat == "true")
    shards = {name: _number(text, name, value) for name, value in given.items()}
    return DatasetCorpus(place, repeat=repeat == "true", **shards)


def _options(text: str, kind: str, items: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if name not in OPTIONS[kind] or not equals:
            raise InputError(f"corpus {text!r}: {item!r} is no option: use {' or '.join(OPTIONS[kind])}")
        if name in found:
            raise InputError(f"corpus {text!r}: {name} is given twice")
        found[name] = value
    return found


def _number(text: str, name: str, value: str) -> int:
    # int() takes spaces, signs, underscores and digits of other scripts too
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise InputError(f"corpus {text!r}: {name}={value}: use a whole number")
    return int(value)
