"""Corpora: a synthetic source of known entropy, folders of text, and tokenized data sets. Needs torch."""

from companion.study.corpus.base import Corpus
from companion.study.corpus.dataset import DatasetCorpus
from companion.study.corpus.floor import LossFloor, measure_floor
from companion.study.corpus.grammar import Grammar
from companion.study.corpus.opening import open_corpus
from companion.study.corpus.source import Source
from companion.study.corpus.text import TextCorpus

__all__ = [
    "Corpus",
    "DatasetCorpus",
    "Grammar",
    "LossFloor",
    "Source",
    "TextCorpus",
    "measure_floor",
    "open_corpus",
]
