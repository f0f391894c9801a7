"""The loss floor of the source: the mean entropy of a token given all before it. Needs torch."""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from companion.errors import InputError
from companion.paths import data_dir
from companion.study.corpus.conditional import Conditionals
from companion.study.corpus.drawing import MEASURING, draw
from companion.study.corpus.grammar import Grammar

TABLE = "source_entropy.csv"
COLUMNS = (
    "vocab_size",
    "class_bits",
    "seed",
    "context_length",
    "loss_floor",
    "standard_error",
    "documents",
    "positions_per_document",
    "fingerprint",
    "method",
)
NUMBERS = ("context_length", "loss_floor", "standard_error", "documents", "positions_per_document")
METHOD = "mean of exact conditional entropies at random positions of drawn documents"
#: Of every document, at random places in as many equal stretches of it.
POSITIONS = 32
#: Where no row of the table fits: a standard error of about 0.004 nats at V = 1024.
FEW_DOCUMENTS = 64
#: Documents that are drawn at once.
BATCH = 64


@dataclass(frozen=True)
class LossFloor:
    """Lowest mean loss that any predictor can reach, nats per token.

    Attributes
    ----------
    loss, standard_error
        the error is that of the mean over documents, from the scatter of their means.
    documents, positions
        how many documents, and positions of each, the mean is over.
    """

    loss: float
    standard_error: float
    documents: int
    positions: int


def measure_floor(
    grammar: Grammar,
    context_length: int,
    documents: int = FEW_DOCUMENTS,
    positions: int = POSITIONS,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> LossFloor:
    """Mean over targets 1 ... T of the entropy of x_t given x_0 ... x_{t−1}, estimated without bias.

    The entropy of every distribution is exact (a sum over the vocabulary, float64). Which documents it is a mean over
    is chance, and so are the positions: one, uniform, of each of `positions` equal stretches of a document. They are
    documents of a stream of their own: no model trains on them.

    Parameters
    ----------
    context_length
        T: a document has T + 1 tokens, of which the last T are targets.
    documents, positions
        at least 2 and 1; the error falls with the root of the number of documents.

    Raises
    ------
    InputError
        if a number is too small.

    Examples
    --------
    >>> floor = measure_floor(Grammar(vocab_size=16), context_length=8, documents=4)
    >>> bool(0 < floor.loss < np.log(16)), floor.documents, floor.positions
    (True, 4, 8)
    """
    for name, value, least in (
        ("context_length", context_length, 1),
        ("documents", documents, 2),
        ("positions", positions, 1),
    ):
        if value < least:
            raise InputError(f"{name}={value}: use at least {least}")
    exact, number = Conditionals(grammar, device), min(positions, context_length)
    means: list[Tensor] = []
    with tqdm(total=documents, desc=f"T = {context_length}", unit="document", disable=not progress, delay=2) as bar:
        for first in range(0, documents, BATCH):
            chosen = np.arange(first, min(first + BATCH, documents))
            tokens = torch.from_numpy(draw(grammar, chosen, context_length + 1, MEASURING)).to(device)
            places = torch.from_numpy(_places(grammar.seed, chosen, context_length, number)).to(device)
            rows = torch.arange(len(chosen), device=device).repeat_interleave(number)
            means.append(exact.entropies(tokens, rows, places.flatten()).reshape(len(chosen), number).mean(1).cpu())
            bar.update(len(chosen))
    every = torch.cat(means)
    return LossFloor(float(every.mean()), float(every.std() / documents**0.5), documents, number)


def _places(seed: int, chosen: np.ndarray, context_length: int, number: int) -> np.ndarray:
    """(documents, number): a uniform position in each of equal stretches of 1 ... T; the same for the same document."""
    shares = np.stack([np.random.default_rng((seed, context_length, int(i))).random(number) for i in chosen])
    return 1 + np.floor((np.arange(number) + shares) * context_length / number).astype(np.int64)


@cache
def known_floors() -> pd.DataFrame:
    """The table of measured floors; empty where the folder of tables has none."""
    path = data_dir() / TABLE
    return read_floors(path) if path.is_file() else pd.DataFrame(columns=list(COLUMNS))


def read_floors(path: Path) -> pd.DataFrame:
    """A table of measured floors.

    Raises
    ------
    InputError
        that names the column, or the row, at fault.
    """
    try:
        table = pd.read_csv(path, dtype={"fingerprint": str})
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise InputError(f"{path}: no column {missing[0]}; make it again with python -m companion.study.corpus.entropy")
    numbers = table[list(NUMBERS)].apply(pd.to_numeric, errors="coerce")
    if (wrong := ~np.isfinite(numbers.to_numpy(dtype=float))).any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(f"{path}: row {row + 2}, column {NUMBERS[column]}: is no number")
    return table.assign(**numbers)


def floor_of(grammar: Grammar, context_length: int) -> LossFloor:
    """From the table, if it has a row of exactly these parameters; else measured on 64 documents, once.

    Examples
    --------
    >>> floor_of(Grammar(), context_length=1024).documents
    2048
    """
    table = known_floors()
    rows = table[(table["fingerprint"] == grammar.fingerprint) & (table["context_length"] == context_length)]
    if len(rows):
        row = rows.iloc[0]
        numbers = int(row["documents"]), int(row["positions_per_document"])
        return LossFloor(float(row["loss_floor"]), float(row["standard_error"]), *numbers)
    return _measured(grammar, context_length)


@cache
def _measured(grammar: Grammar, context_length: int) -> LossFloor:
    return measure_floor(grammar, context_length, progress=sys.stderr.isatty())
