"""Tables of chapter 1 on one convention: the rules, the checks, 6ND and the context length."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting import PAPER, Convention, count_flops, count_params
from companion.architectures import Architecture, preset
from companion.chapters.ch01.formulas import chunk_table, formula_table
from companion.chapters.ch01.words import component_word
from companion.chapters.labels import label_of
from companion.errors import InputError
from companion.formatting import level_text, power_of_ten, signed, significant
from companion.plotting import Html, show_table
from companion.runs.conventions import countable
from companion.runs.recount import models_of

_QUANTITIES = {"train_flops": "C", "num_params": "N"}
_QUANTILES = {"min": "least", "max": "largest"}


# ---- data ----------------------------------------------------------------------------------------


def share_table(runs: pd.DataFrame, convention: str | Convention = PAPER) -> pd.DataFrame:
    """Shares in parameters and in FLOPs for every countable run.

    Returns
    -------
    DataFrame
        index of the countable runs: `architecture`, `num_params`, and between 0 and 1 the shares of embedding and
        unembedding in the parameters (`params_share`) and in the training FLOPs (`flops_share`), and that of the mixer
        core in the FLOPs (`core_share`).
    """
    chosen = countable(runs)
    shares = chosen[["architecture", "num_params"]].assign(params_share=np.nan, flops_share=np.nan, core_share=np.nan)
    for _, group in chosen.groupby("architecture"):
        model = models_of(group)
        weights, flops = count_params(model), count_flops(model, group["context_length"].to_numpy(), convention)
        shares.loc[group.index, "params_share"] = (weights.embedding + weights.unembedding) / weights.total
        shares.loc[group.index, "flops_share"] = flops.share("embedding") + flops.share("unembedding")
        shares.loc[group.index, "core_share"] = np.asarray(flops.share("mixer_core"))
    return shares


def smallest_model(runs: pd.DataFrame, architecture: str) -> Architecture:
    """The countable model of an architecture with the fewest parameters.

    Raises
    ------
    InputError
        if the table has no countable run of it.
    """
    rows = countable(runs)
    rows = rows[rows["architecture"] == architecture]
    if rows.empty:
        raise InputError(f"no run of architecture {architecture!r} has the shapes that a count needs")
    smallest = models_of(rows.sort_values("num_params", kind="stable").iloc[:1])
    return type(smallest)(**{name: np.asarray(value).item() for name, value in smallest.shapes().items()})


def smallest_models(runs: pd.DataFrame, names: Sequence[str]) -> dict[str, Architecture]:
    """The smallest countable model of each architecture; the preset 160m where the table has none."""
    known = set(countable(runs)["architecture"])
    return {name: smallest_model(runs, name) if name in known else preset(name, "160m") for name in names}


# ---- the rules, block by block -------------------------------------------------------------------


def show_formulas(architecture: str, convention: Convention) -> Html:
    """Parameters and FLOPs of every component of an architecture as formulas."""
    chunks = "; c(L): FLOP of one head over one chunk of L tokens, at contexts of whole chunks"
    return show_table(
        formula_table(architecture, convention),
        name=f"flops-formulas-{architecture}",
        caption=f"Formulas of the {label_of(architecture)}: every component, all layers, by the convention "
        f"{convention.name}{chunks if architecture == 'xlstm' else ''}.",
        labels={"num_params": "parameters", "forward_flops_per_token": "forward FLOP per token"},
    )


def show_chunk_terms(model: Architecture, size: str, convention: Convention) -> Html:
    """The terms of one chunk of the mLSTM with their shares; `size` is what the caption calls the model."""
    return show_table(
        chunk_table(model, convention).drop(columns="matrix_product"),
        name="flops-chunk-terms",
        caption="The terms of c(L), forward FLOP of one head over one chunk by the convention "
        f"{convention.name}, and their shares in the xLSTM {size} with chunks of {convention.chunk_size} tokens.",
        formats={"share": lambda share: f"{100 * share:.3f}"},
        labels={"formula": "FLOP", "share": "share (%)", "meaning": "what it is for"},
    )


# ---- checks against published numbers ------------------------------------------------------------


def show_check(check: pd.DataFrame) -> Html:
    """The rows of `companion.runs.conventions.check_counts`."""
    return show_table(
        check.assign(architecture=check["architecture"].map(label_of)),
        name="flops-check",
        caption="Runs counted again from their shapes by the convention paper: how many have exactly the "
        "table's N, how many its C to all six digits, and the largest relative difference of C.",
        formats={"largest_difference": lambda difference: power_of_ten(difference, 2)},
        labels={
            "context_length": "T (tokens)",
            "num_runs": "runs",
            "num_params_equal": "same N",
            "train_flops_equal": "same C",
            "largest_difference": "largest difference",
        },
    )


def show_totals(totals: pd.DataFrame) -> Html:
    """Published sums and quantiles of compute and parameters; `totals` from the ledger."""
    columns = ["quantity", "published", "ours", "difference", "verdict"]
    return show_table(
        totals.assign(quantity=totals["quantity"].map(_quantity))[columns],
        name="flops-totals",
        caption="Published totals, and ours from shapes: sum and quantiles of C (FLOP) and N over the paper's runs.",
        formats={
            "published": lambda value: _whole_or_power(value, 8),
            "ours": lambda value: _whole_or_power(value, 8),
            "difference": lambda value: _whole_or_power(value, 2, 1e4),
        },
    )


def _whole_or_power(value: float, digits: int, below: float = 1e10) -> str:
    """A value below the limit as a whole number, a larger one as a power of ten."""
    return f"{value:,.0f}" if abs(value) < below else power_of_ten(value, digits)


def _quantity(name: str) -> str:
    """A quantity of the ledger as the page calls it: `sum_train_flops` is `C, sum`."""
    if name.startswith("sum_"):
        return f"{_QUANTITIES[name.removeprefix('sum_')]}, sum"
    column, quantile = name.split("_quantiles.")
    which = _QUANTILES.get(quantile) or f"{level_text(float(quantile) / 100)} quantile"
    return f"{_QUANTITIES[column]}, {which}"


def timed_models(sizes: pd.DataFrame) -> pd.DataFrame:
    """Rows of the ledger on the timed models, with `model`, `d_ff`, and the `d_ff_of_N` that the printed N belongs to.

    Parameters
    ----------
    sizes
        the ledger's section `inference_model_sizes`, as a table.
    """
    words = sizes["entry"].str.split(expand=True)
    return sizes.assign(
        model=words[0].map(label_of) + " " + words[1],
        d_ff=sizes["entry"].str.extract(r"d_ff=(\d+)", expand=False).astype(int),
        d_ff_of_N=sizes["note"].str.extract(r"belongs to d_ff (\d+)", expand=False),
    )


def show_timed_models(sizes: pd.DataFrame) -> Html:
    """N of the timed models as printed and by their shapes; `sizes` from the ledger."""
    return show_table(
        timed_models(sizes)[["model", "d_ff", "published", "ours", "d_ff_of_N", "verdict"]],
        name="flops-timed",
        caption="The timed models: N as printed, N of the shapes printed beside it, and, where the two differ, the "
        "inner width d_ff that gives the printed N.",
        formats={"published": "{:,.0f}", "ours": "{:,.0f}"},
        labels={
            "published": "printed N",
            "ours": "N of the shapes",
            "d_ff_of_N": "d_ff of that N",
        },
    )


# ---- 6ND and contexts ----------------------------------------------------------------------------


def show_six_nd_gaps(gaps: Mapping[str, Mapping[str, float]], context_length: int, convention: Convention) -> Html:
    """Results of `companion.accounting.explain.six_nd_gap` side by side, and their sums.

    Parameters
    ----------
    gaps
        by what the heading calls the model.
    """
    table = pd.DataFrame(gaps)
    table.loc["sum: C / (6ND) − 1"] = table.sum()
    table = table.reset_index(names="component")
    return show_table(
        table.assign(component=table["component"].map(component_word)),
        name="flops-six-nd-gaps",
        caption=f"What 6ND misses (+) and what it overcounts (−), in percent of 6ND, at T = {context_length} by the "
        f"convention {convention.name}.",
        formats=dict.fromkeys(gaps, lambda gap: signed(100 * gap, 2)),
    )


def show_crossings(crossings: Sequence[Mapping[str, Any]]) -> Html:
    """Context lengths above which attention costs more than something else, a row per size.

    Parameters
    ----------
    crossings
        `size`, and in tokens `equal_cores`, `equal_cost` and `half`.
    """
    return show_table(
        pd.DataFrame(crossings),
        name="flops-crossings",
        caption="Contexts of equal cost, in tokens: above them attention costs more than the core of the mLSTM, the "
        "whole Transformer more than the whole xLSTM, and attention more than the rest of the Transformer.",
        formats=dict.fromkeys(("equal_cores", "equal_cost", "half"), "{:.0f}"),
        labels={
            "equal_cores": "attention above mLSTM core",
            "equal_cost": "Transformer above xLSTM",
            "half": "attention above the rest",
        },
    )


def show_norm_increase(increases: Sequence[Mapping[str, Any]]) -> Html:
    """How much C rises when norms count: `size`, and the relative increase by architecture, a row per size."""
    table = pd.DataFrame(increases)
    names = table.columns.drop("size")
    return show_table(
        table,
        name="flops-norms",
        caption="Increase of C in percent when norms count.",
        formats=dict.fromkeys(names, lambda share: significant(100 * share, 2)),
        labels={name: label_of(name) for name in names},
    )
