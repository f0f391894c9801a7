"""Chapter 16: how strategies look in its figures, and what its axes and tables call things."""

from typing import Any

#: seaborn's colorblind palette; marker and dashes differ as well.
LOOKS: dict[str, dict[str, Any]] = {
    "V-optimal": {"color": "#0173b2", "marker": "o", "linestyle": "-"},
    "D-optimal": {"color": "#cc78bc", "marker": "D", "linestyle": "-."},
    "largest affordable": {"color": "#de8f05", "marker": "s", "linestyle": "--"},
    "random": {"color": "#949494", "marker": "v", "linestyle": ":"},
    "by budget": {"color": "#029e73", "marker": "^", "linestyle": (0, (5, 1, 1, 1))},
    "IsoFLOP grid": {"color": "#029e73", "marker": "^", "linestyle": (0, (5, 1, 1, 1))},
    "isoflop_profiles": {"color": "#029e73", "marker": "^"},
    "parametric_law": {"color": "#0173b2", "marker": "o"},
    "ladder": {"color": "#de8f05", "marker": "s"},
}
#: The strategies of the laboratory in words.
LAB_LABELS = {"isoflop_profiles": "IsoFLOP profiles", "parametric_law": "parametric law", "ladder": "ladder"}
#: Kinds of simulated laboratories in words.
WORLD_LABELS = {"chinchilla": "usual", "misfit": "with a term"}
#: Laws of the replay and of the simulation with the symbol of the text.
LAW_LABELS = {
    "gamma = 1": "γ = 1",
    "gamma free": "γ free",
    "further term": "γ = 1 + term",
    "product": "product",
}
HALF_WIDTH = "half width of the interval (%)"
