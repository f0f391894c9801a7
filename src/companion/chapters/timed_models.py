"""The models that `companion bench` times, as chapters call and draw them."""

from collections.abc import Mapping, Sequence
from typing import Any

from companion.benchmarks.models.identity import is_of_earlier_code
from companion.plotting.style import ARCHITECTURE_COLORS

#: What pages call them.
MODEL_LABELS = {
    "transformer": "Transformer",
    "grouped": "Transformer, grouped heads",
    "xlstm": "xLSTM",
    "hybrid": "hybrid 7:1",
}
#: How they are drawn: colors, markers and dashes differ.
LOOKS: dict[str, dict[str, Any]] = {
    "transformer": {"color": ARCHITECTURE_COLORS["transformer"], "marker": "s", "linestyle": "-"},
    "grouped": {"color": "#029e73", "marker": "^", "linestyle": "--"},
    "xlstm": {"color": ARCHITECTURE_COLORS["xlstm"], "marker": "o", "linestyle": "-"},
    "hybrid": {"color": "#cc78bc", "marker": "D", "linestyle": "-."},
}


def since_then(records: Sequence[Mapping[str, Any]]) -> str:
    """What a page says behind the versions of records, if the code is no longer that of all of them."""
    return "; models or kernels have changed since" if any(map(is_of_earlier_code, records)) else ""
