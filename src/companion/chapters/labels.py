"""Names that chapters print: those of architectures, of designs of runs, and of the optima of an IsoFLOP budget."""

from collections.abc import Iterable, Mapping

from companion.plotting.style import ARCHITECTURE_LABELS

#: Symbols of the optimal parameters and the optimal training tokens, in tables.
SYMBOLS = {"num_params": "N*", "num_tokens": "D*"}
#: The same on an axis.
OPTIMUM_LABELS = {"num_params": "optimal parameters N*", "num_tokens": "optimal training tokens D*"}

#: Designs of runs, as pages call them.
DESIGN_LABELS = {"isoflop": "IsoFLOP", "tokenparam": "Token/Param", "all": "all runs"}


def label_of(name: str) -> str:
    """What a page calls an architecture: `xLSTM` for `xlstm`; a name that the book does not know stays as it is."""
    return ARCHITECTURE_LABELS.get(name, name)


def the(name: str) -> str:
    """An architecture inside a sentence: the Transformer, the xLSTM; one that the book does not know as it is.

    >>> the("transformer"), the("xLSTM"), the("gpt")
    ('the Transformer', 'the xLSTM', 'gpt')
    """
    return f"the {label_of(name)}" if label_of(name) in ARCHITECTURE_LABELS.values() else name


def design_name(design: str) -> str:
    """A design of runs as a page calls it: IsoFLOP, Token/Param; a reader's own as the table spells it."""
    return DESIGN_LABELS.get(design, design)


def labels_of(names: Iterable[str]) -> dict[str, str]:
    """`label_of` by name."""
    return {name: label_of(name) for name in names}


def by_label(texts: Mapping[str, str], joint: str = " and ") -> str:
    """One text for every architecture, such as `0.58 (Transformer) and 0.56 (xLSTM)`."""
    return joint.join(f"{text} ({label_of(name)})" for name, text in texts.items())
