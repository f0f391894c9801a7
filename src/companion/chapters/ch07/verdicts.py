"""Which shifts of the best size N\\* the law explains, without and with a worth of tokens."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch07.worth import TOKEN_WORTH, TokenWorth, with_token_worth
from companion.fitting.context.prediction import INSIDE, NOTHING_MOVES, OUTSIDE, SAME_RUNS, Explanation

#: How the worth of a token was fitted.
LEVEL_AND_SHAPE, SHAPE_ALONE = "to level and shape", "to the shape alone"


def shift_verdicts(explanations: Mapping[str, Explanation]) -> pd.DataFrame:
    """Measured over predicted shift of N\\* at every context but that of the law, pooled over the budgets.

    Returns
    -------
    DataFrame
        one row per architecture and context: `architecture`, `start` (context of the law), `context_length`, `ratio`
        with `ratio_low`, `ratio_high` and `verdict` (prediction for the same runs), `null_ratio` and `null_verdict`
        (prediction that nothing moves), `explained` (the verdict is inside).
    """
    rows = []
    for name, explanation in explanations.items():
        pooled = _sizes(explanation)
        null = pooled[pooled["method"] == NOTHING_MOVES].set_index("context_length")
        for row in pooled[pooled["method"] == SAME_RUNS].sort_values("context_length").to_dict("records"):
            kept = {key: row[key] for key in ("context_length", "ratio", "ratio_low", "ratio_high", "verdict")}
            other = null.loc[row["context_length"]]
            kept |= {"null_ratio": other["ratio"], "null_verdict": other["verdict"]}
            start = {"architecture": name, "start": explanation.fit_context}
            rows.append(start | kept | {"explained": row["verdict"] == INSIDE})
    return pd.DataFrame(rows)


def mostly_explained(verdicts: pd.DataFrame) -> bool:
    """Whether prices take at least half of every shift, in logarithms; rows of one architecture."""
    return bool((np.log(verdicts["ratio"]).abs() < np.log(verdicts["null_ratio"]).abs() / 2).all())


def shifts_with_worth(explanation: Explanation, worths: Sequence[TokenWorth]) -> pd.DataFrame:
    """Shifts of N\\* with a worth of tokens, by context length; columns of `Explanation.pooled_shifts`."""
    later = _sizes(with_token_worth(explanation, worths))
    return later[later["method"] == TOKEN_WORTH].set_index("context_length")


def worth_verdicts(
    explanations: Mapping[str, Explanation], worths: Mapping[str, Mapping[str, Sequence[TokenWorth]]]
) -> pd.DataFrame:
    """What a worth of tokens does to the verdict on every shift of N\\*.

    Parameters
    ----------
    worths
        by kind (`LEVEL_AND_SHAPE`, `SHAPE_ALONE`) and architecture.

    Returns
    -------
    DataFrame
        `architecture`, `context_length`, `kind`, `worth`, `ratio` (with `_low`, `_high`) and `verdict`, and
        `ratio_before` and `verdict_before`.
    """
    before = shift_verdicts(explanations).set_index(["architecture", "context_length"])
    rows = []
    for name, explanation in explanations.items():
        for kind, by_name in worths.items():
            later = shifts_with_worth(explanation, by_name[name])
            for each in by_name[name]:
                length = each.context_length
                if length != explanation.fit_context:
                    row = {"architecture": name, "context_length": length, "kind": kind, "worth": each.worth}
                    row |= {f"{key}_before": before.loc[(name, length), key] for key in ("ratio", "verdict")}
                    found = ("ratio", "ratio_low", "ratio_high", "verdict")
                    rows.append(row | {key: later.loc[length, key] for key in found})
    return pd.DataFrame(rows)


def cured(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Rows of `worth_verdicts` by level and shape whose shift was outside and is inside with the worth."""
    return _changed(verdicts, OUTSIDE, INSIDE)


def spoiled(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Rows of `worth_verdicts` by level and shape whose shift was inside and is outside with the worth."""
    return _changed(verdicts, INSIDE, OUTSIDE)


def _changed(verdicts: pd.DataFrame, before: str, after: str) -> pd.DataFrame:
    kept = (verdicts["kind"] == LEVEL_AND_SHAPE) & (verdicts["verdict_before"] == before)
    return verdicts[kept & (verdicts["verdict"] == after)]


def _sizes(explanation: Explanation) -> pd.DataFrame:
    pooled = explanation.pooled_shifts()
    return pooled[pooled["quantity"] == "num_params"]
