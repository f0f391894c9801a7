"""What was trained, design by design."""

import pandas as pd

from companion.formatting import count, power_of_ten
from companion.plotting import Html, show_table

_DESIGNS = {"isoflop": "IsoFLOP", "tokenparam": "Token/Param"}


def settings_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per design and context of the paper's runs.

    Returns
    -------
    DataFrame with `experiment`, `context_length` (tokens), `num_runs`, and the least and largest `num_params`,
    `num_tokens` and `train_flops` (FLOP), each with the endings `_min` and `_max`.
    """
    groups = runs.groupby(["experiment", "context_length"], as_index=False)
    ranges = {
        f"{column}_{end}": (column, end)
        for column in ("num_params", "num_tokens", "train_flops")
        for end in ("min", "max")
    }
    return groups.agg(num_runs=("val_loss", "size"), **ranges)


def show_settings(settings: pd.DataFrame) -> Html:
    """The table of `settings_table`, ranges as one column each."""
    shown = pd.DataFrame(
        {
            "design": settings["experiment"].map(_DESIGNS) + ", T = " + settings["context_length"].astype(str),
            "runs": settings["num_runs"],
        }
    )
    for column, heading, form in (
        ("num_params", "parameters N", count),
        ("num_tokens", "tokens D", count),
        ("train_flops", "compute C (FLOP)", power_of_ten),
    ):
        ends = zip(settings[f"{column}_min"], settings[f"{column}_max"], strict=True)
        shown[heading] = [f"{form(low)} to {form(high)}" for low, high in ends]
    return show_table(shown, caption="The paper's runs, both architectures together, by design and context length T.")
