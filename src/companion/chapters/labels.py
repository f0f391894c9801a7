"""Names of architectures in a chapter's tables and sentences."""

from collections.abc import Iterable, Mapping

from companion.plotting.style import ARCHITECTURE_LABELS


def label_of(name: str) -> str:
    """What a page calls an architecture: `xLSTM` for `xlstm`; a name that the book does not know stays as it is."""
    return ARCHITECTURE_LABELS.get(name, name)


def labels_of(names: Iterable[str]) -> dict[str, str]:
    """`label_of` by name."""
    return {name: label_of(name) for name in names}


def by_label(texts: Mapping[str, str], joint: str = " and ") -> str:
    """One text for every architecture, such as `0.58 (Transformer) and 0.56 (xLSTM)`."""
    return joint.join(f"{text} ({label_of(name)})" for name, text in texts.items())
