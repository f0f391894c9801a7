"""What a laboratory that trains adds to its rules: a corpus, the sizes of models, a device. Needs no torch.

Sizes are those of the ladder of a study (`companion.study.sweep.ladder`): an ask is trained with the nearest one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from companion.accounting import num_params
from companion.architectures import Architecture
from companion.errors import InputError
from companion.formatting import listed, quoted
from companion.study.laboratory.chance import is_number
from companion.study.sweep.ladder import LADDER, sizes_of, study_architecture
from companion.study.train.recipe import flops_per_token

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class TrainingRules:
    """What is trained in a laboratory whose backend is `training`.

    Attributes
    ----------
    corpus
        name, as `companion.study.corpus.open_corpus` takes it.
    vocab_size
        tokens of the corpus.
    corpus_digest
        SHA-256 of what the corpus says of its tokens, 64 hex digits: other tokens give other answers.
    sizes
        of `companion.study.sweep.ladder.LADDER`.
    device
        of `DEVICES`.
    held_out_sequences
        on which the loss of a run is measured.

    Raises
    ------
    InputError
        that names the field at fault.

    Examples
    --------
    >>> source = {"corpus": "source", "vocab_size": 1024, "corpus_digest": "0" * 64}
    >>> rules = TrainingRules(**source, sizes=("0.1m", "1.2m"), device="cpu")
    >>> rules.nearest("transformer", 2e5), rules.num_params("transformer", 2e5)
    ('0.1m', 114912)
    """

    corpus: str
    vocab_size: int
    corpus_digest: str
    sizes: tuple[str, ...]
    device: str
    held_out_sequences: int = 256

    def __post_init__(self) -> None:
        for name in ("corpus", "corpus_digest"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise InputError(f"{name} {quoted(getattr(self, name))} is not a name")
        for name in ("vocab_size", "held_out_sequences"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**24:
                raise InputError(f"{name} {quoted(value)} is not a whole number from 1 to 2^24")
        if self.device not in DEVICES:
            raise InputError(f"device {quoted(self.device)} is not one of {listed(DEVICES)}")
        if not self.sizes:
            raise InputError(f"sizes: none is given; there are {', '.join(LADDER)}")
        if unknown := [size for size in self.sizes if size not in LADDER]:
            raise InputError(f"sizes: {quoted(unknown[0])} is not one of {', '.join(LADDER)}")
        if list(self.sizes) != [size for size in LADDER if size in self.sizes]:
            raise InputError("sizes: they go from small to large, each once")

    def sizes_of(self, kind: str) -> tuple[str, ...]:
        """The sizes of an architecture: a hybrid needs enough layers for one of attention."""
        return sizes_of(kind, self.sizes)

    def nearest(self, kind: str, wanted: float) -> str:
        """The size of an architecture whose number of parameters has the smallest ratio to the wanted one.

        Raises
        ------
        InputError
            for an architecture that is not known, or that no size of the laboratory is deep enough for.
        """
        sizes = self.sizes_of(kind)
        if not sizes:
            raise InputError(f"architecture {quoted(kind)}: none of the sizes {', '.join(self.sizes)} is deep enough")
        counts = {size: _num_params(kind, size, self.vocab_size) for size in sizes}
        return min(sizes, key=lambda size: abs(math.log(counts[size] / wanted)))

    def architecture(self, kind: str, wanted: float) -> Architecture:
        """The model of the nearest size."""
        return study_architecture(kind, self.nearest(kind, wanted), self.vocab_size)

    def num_params(self, kind: str, wanted: float) -> int:
        """N of the model of the nearest size."""
        return _num_params(kind, self.nearest(kind, wanted), self.vocab_size)

    def flops_per_token(self, kind: str, wanted: float, context_length: int) -> float:
        """Training FLOP per token of the model of the nearest size, by the accounting convention `paper`."""
        return _flops_per_token(kind, self.nearest(kind, wanted), self.vocab_size, context_length)


def training_rules_from(read: Any) -> TrainingRules:
    """The rules in the field `training` of a `lab.json`.

    Raises
    ------
    InputError
        that begins with `training` and names what is missing, unknown or wrong.

    Examples
    --------
    >>> training_rules_from({"corpus": "source"})
    Traceback (most recent call last):
        ...
    companion.errors.InputError: training: 'corpus_digest' is missing
    """
    if not isinstance(read, Mapping):
        raise InputError("training: is not an object")
    names = {each.name for each in fields(TrainingRules)}
    if fault := sorted(names ^ set(read)):
        raise InputError(f"training: {quoted(fault[0])} is {'missing' if fault[0] in names else 'not known'}")
    sizes = read["sizes"]
    if not (isinstance(sizes, list) and all(isinstance(each, str) for each in sizes)):
        raise InputError("training: sizes is not a list of names")
    if not all(is_number(read[name]) for name in ("vocab_size", "held_out_sequences")):
        raise InputError("training: vocab_size and held_out_sequences must be whole numbers")
    try:
        return TrainingRules(**{**read, "sizes": tuple(sizes)})
    except InputError as error:
        raise InputError(f"training: {error}") from None


@lru_cache(maxsize=256)
def _num_params(kind: str, size: str, vocab_size: int) -> int:
    return int(num_params(study_architecture(kind, size, vocab_size)))


@lru_cache(maxsize=256)
def _flops_per_token(kind: str, size: str, vocab_size: int, context_length: int) -> float:
    return flops_per_token(study_architecture(kind, size, vocab_size), context_length)
