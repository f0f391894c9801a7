"""What was trained at each IsoFLOP budget and how, as chapters 3 and 7 show it."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from companion.formatting import count, power_of_ten
from companion.plotting import Html, show_table

_LABELS = {
    "isoflop_budget": "budget (FLOP)",
    "context_length": "T",
    "num_runs": "runs",
    "mean_train_flops": "mean C (FLOP)",
    "flops_spread": "largest C / smallest C",
    "smallest": "smallest N",
    "largest": "largest N",
    "learning_rate_low": "learning rate from",
    "learning_rate_high": "to",
}


def show_settings(
    settings: pd.DataFrame, columns: Sequence[str], caption: str, *, batch: str, batch_digits: int
) -> Html:
    """Some columns of `companion.fitting.isoflop.select.settings_by_budget`, as far as the table has them.

    Parameters
    ----------
    batch
        heading of the column `batch_tokens`.
    batch_digits
        significant digits of its values.
    """
    shown = settings[[column for column in columns if column in settings]]
    formats: dict[str, str | Callable[[Any], str]] = {
        "isoflop_budget": power_of_ten,
        "mean_train_flops": lambda v: power_of_ten(v, 4),
        "smallest": count,
    }
    formats |= {"largest": count, "batch_tokens": lambda v: count(v, batch_digits), "flops_spread": "{:.3f}"}
    formats |= {"learning_rate_low": "{:.4f}", "learning_rate_high": "{:.4f}"}
    labels = _LABELS | {"batch_tokens": batch}
    return show_table(
        shown,
        caption=caption,
        formats={column: style for column, style in formats.items() if column in shown},
        labels={column: heading for column, heading in labels.items() if column in shown},
    )
