"""Architectures by name, and the sizes that have a name.

A further architecture is a file with its mixer and its class, and one line in `ARCHITECTURES`.
"""

from companion.architectures.base import Architecture
from companion.architectures.gated_deltanet import GatedDeltaNet, GatedDeltaNet3To1, GatedDeltaNet7To1
from companion.architectures.mlstm import XLSTM
from companion.architectures.shapes import Shape
from companion.architectures.transformer import Transformer
from companion.errors import InputError

#: All architectures that can be counted, by name.
ARCHITECTURES: dict[str, type[Architecture]] = {
    cls.name: cls
    for cls in (
        Transformer,
        XLSTM,
        GatedDeltaNet,
        GatedDeltaNet3To1,
        GatedDeltaNet7To1,
    )
}
#: The two of the paper (arXiv 2510.02228), of which there are runs and timings.
PAPER_ARCHITECTURES = (Transformer.name, XLSTM.name)

#: Sizes of the paper's Token/Param design. The models timed for inference differ in places (`inference_model_sizes` in
#: data/published.yaml).
PRESET_SIZES = tuple(Transformer.sizes)


def architecture_class(name: str) -> type[Architecture]:
    """The class of an architecture.

    Raises
    ------
    InputError
        if there is no architecture of that name; the message lists those there are.

    Examples
    --------
    >>> architecture_class("xlstm").__name__
    'XLSTM'
    """
    if name not in ARCHITECTURES:
        raise InputError(f"architecture {name!r} is not known; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def make_architecture(name: str, **shapes: Shape) -> Architecture:
    """Architecture by its name, such as `transformer` or `xlstm`.

    Raises
    ------
    InputError
        if there is no architecture of that name, or a shape is wrong.

    Examples
    --------
    >>> make_architecture("transformer", d_model=768, n_layers=12, n_heads=12).d_ff
    2048
    """
    return architecture_class(name)(**shapes)


def preset(name: str, size: str, **shapes: Shape) -> Architecture:
    """One of the models the paper trained in its Token/Param design, e.g. `preset("xlstm", "7b")`.

    Architectures that the paper lacks have sizes of their own by these names. `shapes` are further ones, such as
    `attention_every=4`.

    Raises
    ------
    InputError
        if there is no such architecture or size.

    Examples
    --------
    >>> preset("xlstm", "7b").d_model
    4096
    """
    cls = architecture_class(name)
    if size not in cls.sizes:
        raise InputError(f"size {size!r} is not one of {name}'s: {', '.join(cls.sizes) or 'it has none'}")
    d_model, n_layers, n_heads = cls.sizes[size]
    return cls(**{"d_model": d_model, "n_layers": n_layers, "n_heads": n_heads, **shapes})
