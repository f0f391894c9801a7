"""Sizes of models of a study: widths and depths from 0.1M to 90M parameters. Needs no torch."""

from collections.abc import Iterable

from companion.architectures import Architecture, architecture_class, make_architecture
from companion.errors import InputError
from companion.formatting import quoted

#: Size: d_model and n_layers. Names say about how many parameters there are with a vocabulary of 1,024 tokens.
LADDER: dict[str, tuple[int, int]] = {
    "0.1m": (32, 3),
    "0.2m": (48, 3),
    "0.3m": (64, 4),
    "0.6m": (96, 4),
    "1.2m": (128, 5),
    "3m": (192, 6),
    "5m": (256, 6),
    "10m": (320, 8),
    "17m": (384, 9),
    "32m": (512, 10),
    "55m": (640, 11),
    "87m": (768, 12),
}
#: Names of the architectures of a study: that of the accounting, and how often a layer is attention.
KINDS: dict[str, tuple[str, int | None]] = {
    "transformer": ("transformer", None),
    "xlstm": ("xlstm", None),
    "hybrid": ("xlstm", 4),
}
#: Heads of attention are this wide, and half as wide in models narrower than the second number.
_HEAD_WIDTH, _WIDE = 64, 128
#: Heads of the mLSTM are few and wide, as in arXiv 2510.02228: their number from a width of the model on.
_CELL_HEADS = ((256, 4), (64, 2), (0, 1))


def sizes_of(kind: str, sizes: Iterable[str] = tuple(LADDER)) -> tuple[str, ...]:
    """Those of the sizes that an architecture can have: a hybrid is as deep as its first layer of attention.

    Examples
    --------
    >>> sizes_of("hybrid")[0], sizes_of("xlstm")[0]
    ('0.3m', '0.1m')
    """
    _, every = KINDS.get(kind, (kind, None))
    return tuple(size for size in sizes if every is None or LADDER[size][1] >= every)


def study_architecture(kind: str, size: str, vocab_size: int) -> Architecture:
    """An architecture of a study at a size of the ladder.

    Parameters
    ----------
    kind
        `transformer`, `xlstm`, or `hybrid`: an xLSTM of which every fourth layer is attention. Any other architecture
        of the accounting takes the shapes of an xLSTM.
    size
        of `LADDER`.
    vocab_size
        tokens of the corpus.

    Raises
    ------
    InputError
        for an architecture or a size that is not known, or a hybrid too shallow for a layer of attention.

    Examples
    --------
    >>> from companion.accounting import num_params
    >>> int(num_params(study_architecture("transformer", "5m", vocab_size=1024)))
    5344512
    """
    if size not in LADDER:
        raise InputError(f"size {quoted(size)} is not one of {', '.join(LADDER)}")
    d_model, n_layers = LADDER[size]
    name, every = KINDS.get(kind, (kind, None))
    architecture_class(name)  # says which names there are
    if size not in (known := sizes_of(kind)):
        raise InputError(
            f"size {quoted(size)} of a {kind}: every {every}th layer is attention, and it has {n_layers} layers; "
            f"use {', '.join(known)}"
        )
    width = _HEAD_WIDTH if d_model >= _WIDE else _HEAD_WIDTH // 2
    n_heads = max(d_model // width, 1)
    shapes = {"d_model": d_model, "n_layers": n_layers, "n_heads": n_heads, "vocab_size": vocab_size}
    if name == "transformer":
        return make_architecture(name, **shapes)
    shapes["n_heads"] = next(number for least, number in _CELL_HEADS if d_model >= least)
    if every is not None:
        shapes |= {"attention_every": every, "attention_heads": n_heads}
    return make_architecture(name, **shapes)
