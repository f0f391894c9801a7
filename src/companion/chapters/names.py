"""Names that several chapters print: those of architectures and of the two optima of an IsoFLOP budget."""

from companion.plotting.style import ARCHITECTURE_LABELS

#: Symbols of the optimal parameters and the optimal training tokens, in tables.
SYMBOLS = {"num_params": "N*", "num_tokens": "D*"}
#: The same on an axis.
OPTIMUM_LABELS = {"num_params": "optimal parameters N*", "num_tokens": "optimal training tokens D*"}


def label(architecture: str) -> str:
    """An architecture as a page prints it: Transformer, xLSTM, and any other as the run table spells it."""
    return ARCHITECTURE_LABELS.get(architecture, architecture)
