"""The corpus of a laboratory that trains: opened, and known again by a digest. Needs torch when it is used."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from companion.errors import InputError
from companion.study.laboratory.chance import canonical
from companion.study.laboratory.training_rules import TrainingRules

if TYPE_CHECKING:
    from companion.study.corpus.base import Corpus


def corpus_digest(corpus: "Corpus") -> str:
    """SHA-256 of what a corpus says of its tokens, 64 hex digits."""
    return hashlib.sha256(canonical(corpus.describe()).encode("ascii")).hexdigest()


def open_by_name(name: str) -> "Corpus":
    """The corpus of a name.

    Raises
    ------
    InputError
        as `companion.study.corpus.open_corpus`, or if there is no torch.
    """
    with needs_torch():
        from companion.study.corpus import open_corpus
    return open_corpus(name)


def open_known(training: TrainingRules) -> "Corpus":
    """The corpus of the rules.

    Raises
    ------
    InputError
        as `open_by_name`, or if its tokens are not those that the laboratory was made with.
    """
    found = open_by_name(training.corpus)
    if corpus_digest(found) != training.corpus_digest:
        raise InputError(f"corpus {training.corpus!r}: its tokens are not those that the laboratory was made with")
    return found


@contextmanager
def needs_torch() -> Iterator[None]:
    """Within, an import that needs torch; without torch an error that says what to install."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"a laboratory that trains needs torch: pip install 'xlstm-scaling-companion[kernels]' ({error})"
        ) from error
