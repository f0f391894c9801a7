"""The models that are measured: a Transformer, one with grouped heads, an xLSTM, and a hybrid of both, by size.

All of one size have the width, the layers and the vocabulary of the paper's presets. Weights are random: times do not
depend on them.
"""

from typing import Any

from companion.architectures import Architecture, make_architecture, preset
from companion.errors import InputError

MODELS = ("transformer", "grouped", "xlstm", "hybrid")
#: Sizes of the paper's presets that are served.
SIZES = ("160m", "400m", "1.4b", "7b")
#: The size for tests and trials, 64 wide and two layers deep.
TINY = "tiny"
#: Query heads that share one head of keys and values in grouped attention; of how many layers of a hybrid one is
#: attention.
GROUP, EVERY = 4, 8
#: Width, layers and heads of a model of each kind.
Widths = tuple[int, int, int]


def architecture_of(model: str, size: str) -> Architecture:
    """The architecture of a model of `MODELS` and a size of the paper's presets, or `tiny`.

    Raises
    ------
    InputError
        for a model or a size that is not known.

    Examples
    --------
    >>> architecture_of("grouped", "7b").n_kv_heads
    8
    >>> [(layer.mixer.name, int(layer.number)) for layer in architecture_of("hybrid", "7b").layers]
    [('mlstm', 28), ('attention', 4)]
    """
    if size == TINY:
        return architecture_from(model, (64, 2, 4), (64, 2, 2), every=2, vocab_size=256)
    transformer, xlstm = (preset(name, size) for name in ("transformer", "xlstm"))
    widths = [(int(a.d_model), int(a.n_layers), int(a.n_heads)) for a in (transformer, xlstm)]
    return architecture_from(model, *widths)


def architecture_from(
    model: str, transformer: Widths, xlstm: Widths, *, every: int = EVERY, **shapes: Any
) -> Architecture:
    """The same from widths, layers and heads of the Transformer and of the xLSTM of one size.

    Parameters
    ----------
    every
        of which layers of a hybrid one is attention, with the heads of the Transformer, grouped.
    shapes
        further ones of all models, such as `vocab_size`.

    Raises
    ------
    InputError
        for a model that is not one of `MODELS`, or a shape that is wrong.
    """
    if model not in MODELS:
        raise InputError(f"model {model!r} is not one of {', '.join(MODELS)}")
    attention = model in ("transformer", "grouped")
    d_model, n_layers, n_heads = transformer if attention else xlstm
    shapes |= {"d_model": d_model, "n_layers": n_layers, "n_heads": n_heads}
    heads = transformer[2]
    if model in ("grouped", "hybrid"):
        shapes["n_kv_heads"] = heads // GROUP if heads % GROUP == 0 else heads
    if model == "hybrid":
        shapes |= {"attention_every": every, "attention_heads": heads}
    return make_architecture("transformer" if attention else "xlstm", **shapes)


def shapes_of(architecture: Architecture) -> dict[str, Any]:
    """Keyword arguments of `make_architecture`, `name` included, as JSON can hold them."""
    given = {name: value for name, value in architecture.shapes().items() if value is not None}
    return {"name": architecture.name, **{k: v if isinstance(v, bool) else int(v) for k, v in given.items()}}
