"""One configuration counted by several conventions, and the difference between an exact count and 6·N·D."""

from collections.abc import Sequence

import pandas as pd

from companion.accounting.conventions import CONVENTIONS, PAPER, Convention
from companion.accounting.flops import count_flops
from companion.accounting.params import count_params, num_params
from companion.architectures import Architecture
from companion.numeric import Numeric


def convention_table(
    architecture: Architecture,
    context_length: Numeric,
    conventions: Sequence[str | Convention] = tuple(CONVENTIONS),
) -> pd.DataFrame:
    """One configuration under several conventions.

    Returns
    -------
    DataFrame
        with `convention`, `train_flops_per_token` (FLOP), `ratio` to the first convention, and `core_share`, the share
        of the mixer core.

    Raises
    ------
    InputError
        if a convention is not known, or the context is too short.
    """
    counts = [count_flops(architecture, context_length, convention) for convention in conventions]
    return pd.DataFrame(
        [
            {
                "convention": count.convention.name,
                "train_flops_per_token": float(count.train_flops_per_token),
                "ratio": float(count.train_flops_per_token / counts[0].train_flops_per_token),
                "core_share": float(count.share("mixer_core")),
            }
            for count in counts
        ]
    )


def six_nd_gap(
    architecture: Architecture, context_length: Numeric, convention: str | Convention = PAPER
) -> dict[str, float]:
    """Why C differs from 6·N·D, component by component: FLOPs counted, minus 6 per weight, over 6·N.

    Returns
    -------
    dict
        by component; the values add up to C / (6·N·D) − 1. −0.1 for the embedding: a tenth of the weights is looked
        up and not multiplied.
    """
    flops = count_flops(architecture, context_length, convention).components.as_dict()
    weights, total = count_params(architecture).as_dict(), num_params(architecture)
    return {name: float((flops.get(name, 0) / context_length - 6 * weights[name]) / (6 * total)) for name in weights}
