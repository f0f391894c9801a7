"""Tables of chapter 1: shares and conventions of every run of a table, and the captions of all tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting import PAPER, Convention, count_flops, count_params, num_params
from companion.accounting.explain import convention_table
from companion.architectures import Architecture, preset
from companion.chapters.ch01.formulas import chunk_table, convention_fields, formula_table
from companion.errors import InputError
from companion.formatting import count, percent, power_of_ten
from companion.plotting import ARCHITECTURE_LABELS, Html, show_table
from companion.runs.conventions import countable
from companion.runs.recount import models_of

_CONVENTION_COLUMNS = ["model", "convention", "train_flops_per_token", "ratio", "core_share"]
_CONVENTION_LABELS = {"train_flops_per_token": "FLOP per token", "ratio": "over paper", "core_share": "mixer core"}


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


def median_ratios(runs: pd.DataFrame, ratios: pd.DataFrame) -> pd.DataFrame:
    """Medians of `companion.runs.conventions.convention_ratios` by architecture, and how far apart they lie.

    Returns
    -------
    DataFrame with `context_length` (where the table has it), `convention`, one column per architecture, named as it,
    and `apart`: the largest of these medians over the smallest. A comparison of architectures at equal compute moves
    by this factor when the convention changes. Conventions without any value are left out.
    """
    by = ["context_length"] if "context_length" in runs and runs["context_length"].notna().any() else []
    long = ratios.join(runs[["architecture", *by]]).melt(["architecture", *by], var_name="convention").dropna()
    table = long.pivot_table("value", [*by, "convention"], "architecture", aggfunc="median", sort=False)
    table["apart"] = table.max(axis=1) / table.min(axis=1)
    return table.rename_axis(columns=None).reset_index()


# ---- the rules, block by block -------------------------------------------------------------------


def show_formulas(architecture: str, convention: Convention) -> Html:
    """Parameters and FLOPs of every component of an architecture as formulas."""
    label = ARCHITECTURE_LABELS[architecture]
    chunks = "; contexts of whole chunks" if architecture == "xlstm" else ""
    return show_table(
        formula_table(architecture, convention),
        caption=f"{label}, convention {convention.name}: every component, all layers{chunks}.",
        labels={"num_params": "parameters", "forward_flops_per_token": "forward FLOP per token"},
    )


def show_chunk_terms(model: Architecture, size: str, convention: Convention) -> Html:
    """The terms of one chunk of the mLSTM with their shares; `size` is what the caption calls the model."""
    return show_table(
        chunk_table(model, convention).drop(columns="matrix_product"),
        caption=f"One head, one chunk of {convention.chunk_size} tokens, xLSTM {size}, convention "
        f"{convention.name}: forward FLOP, and the share of each term.",
        formats={"share": lambda share: f"{100 * share:.3f}"},
        labels={"formula": "FLOP", "share": "percent", "meaning": "what it is for"},
    )


# ---- checks against published numbers ------------------------------------------------------------


def show_check(check: pd.DataFrame) -> Html:
    """The rows of `companion.runs.conventions.check_counts`."""
    return show_table(
        check.assign(architecture=check["architecture"].map(ARCHITECTURE_LABELS)),
        caption="Runs counted again from their shapes under the convention paper: how many have exactly the "
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
        totals.assign(quantity=totals["quantity"].str.replace("_quantiles.", " "))[columns],
        caption="Sum and quantiles (percent) of the paper's run table as published, and ours from shapes "
        "(FLOP; parameters).",
        formats={name: "{:.8g}" for name in ("published", "ours")} | {"difference": "{:.1e}"},
    )


def timed_models(sizes: pd.DataFrame) -> pd.DataFrame:
    """Rows of the ledger on the timed models, with `model`, `d_ff`, and the `d_ff_of_N` that the printed N belongs to.

    Parameters
    ----------
    sizes
        the ledger's section `inference_model_sizes`, as a table.
    """
    words = sizes["entry"].str.split(expand=True)
    return sizes.assign(
        model=words[0].map(ARCHITECTURE_LABELS) + " " + words[1],
        d_ff=sizes["entry"].str.extract(r"d_ff=(\d+)", expand=False).astype(int),
        d_ff_of_N=sizes["note"].str.extract(r"belongs to d_ff (\d+)", expand=False),
    )


def show_timed_models(sizes: pd.DataFrame) -> Html:
    """N of the timed models as printed and by their shapes; `sizes` from the ledger."""
    return show_table(
        timed_models(sizes)[["model", "d_ff", "published", "ours", "d_ff_of_N", "verdict"]],
        caption="The timed models: N as printed, N of the shapes printed beside it, and the inner width d_ff "
        "that would give the printed N where the two differ.",
        formats={"published": "{:.0f}", "ours": "{:.0f}"},
        labels={"published": "printed N", "ours": "N of the shapes", "d_ff_of_N": "d_ff for it"},
    )


# ---- 6ND, contexts, conventions ------------------------------------------------------------------


def show_six_nd_gaps(gaps: Mapping[str, Mapping[str, float]], context_length: int, convention: Convention) -> Html:
    """Results of `companion.accounting.explain.six_nd_gap` side by side, and their sums.

    Parameters
    ----------
    gaps
        by what the heading calls the model.
    """
    table = pd.DataFrame(gaps)
    table.loc["all: C / (6ND) − 1"] = table.sum()
    table = table.reset_index(names="component")
    return show_table(
        table.assign(component=table["component"].str.replace("_", " ")),
        caption=f"What 6ND misses (+) and what it overcounts (−), percent of 6ND, at T = {context_length}, "
        f"convention {convention.name}.",
        formats=dict.fromkeys(gaps, lambda gap: f"{100 * gap:+.2f}"),
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
        caption="Context lengths (tokens) above which attention costs more than the core of the mLSTM, the "
        "whole Transformer more than the whole xLSTM, and attention more than the rest of the Transformer.",
        formats=dict.fromkeys(("equal_cores", "equal_cost", "half"), "{:.0f}"),
        labels={
            "equal_cores": "core above mLSTM core",
            "equal_cost": "model above xLSTM",
            "half": "core above the rest",
        },
    )


def show_convention_fields() -> Html:
    """What the four conventions count, in words."""
    return show_table(
        convention_fields(),
        caption="The four conventions: share of the T × T matrix of attention that counts, FLOP of the "
        "softmax per score, how a chunk of the mLSTM is counted, whether the look-up counts as a product, "
        "FLOP per inner unit of SwiGLU.",
        labels={
            "attention": "attention counted",
            "softmax": "softmax",
            "mlstm": "mLSTM chunk",
            "embedding": "look-up",
            "elementwise": "SwiGLU",
        },
    )


def show_conventions(tables: Mapping[str, pd.DataFrame], caption: str) -> Html:
    """Models under several conventions, one below the other.

    Parameters
    ----------
    tables
        from `companion.accounting.explain.convention_table`, by what the model is called.
    """
    rows = pd.concat(table.assign(model=name) for name, table in tables.items())
    return show_table(
        rows[_CONVENTION_COLUMNS],
        caption=caption,
        formats={
            "train_flops_per_token": lambda flops: power_of_ten(flops, 4),
            "ratio": "{:.4f}",
            "core_share": lambda share: percent(share, 2),
        },
        labels=_CONVENTION_LABELS,
    )


def show_side_by_side(
    models: Mapping[str, Architecture], smallest: Mapping[str, Architecture], size: str, context_length: int
) -> Html:
    """The models of one size and the smallest ones of a table under the four conventions."""
    tables = {
        f"{ARCHITECTURE_LABELS[name]}, N = {count(float(num_params(model)))}": convention_table(model, context_length)
        for chosen in (models, smallest)
        for name, model in chosen.items()
    }
    caption = f"The {size} models and the smallest ones of the table at T = {context_length}: FLOP per token of "
    return show_conventions(tables, f"{caption}training, and the ratio to the convention paper.")


def show_own_convention(own: Mapping[str, pd.DataFrame], size: str, context_length: int) -> Html:
    """Models under a convention of the reader's own; `own` by architecture."""
    tables = {ARCHITECTURE_LABELS[name]: table for name, table in own.items()}
    return show_conventions(tables, f"The {size} models at T = {context_length} under a convention made on the spot.")


# ---- slopes, factors, exercises ------------------------------------------------------------------


def slope_shifts(
    slopes: Mapping[str, Sequence[float]], ratios: Sequence[int], published: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """Changes of the over-training slope from the convention paper to others, beside the printed ones.

    Parameters
    ----------
    slopes
        by convention: one slope per ratio. The convention `paper` is what the changes are measured from.
    ratios
        tokens per parameter.
    published
        entries `overtraining_slopes` of the published file.

    Returns
    -------
    DataFrame with `ratio`, `printed` (tfla minus paper, as the authors print them), and a column per other convention.
    """
    printed = {
        (entry["token_param_ratio"], "tfla" in entry["flop_mode"]): entry["eta"]
        for entry in published
        if entry.get("architecture") == "xlstm"
    }
    shifts = pd.DataFrame({"ratio": ratios, "printed": [printed[M, True] - printed[M, False] for M in ratios]})
    for name in (name for name in slopes if name != "paper"):
        shifts[name] = [after - before for after, before in zip(slopes[name], slopes["paper"], strict=True)]
    return shifts


def show_slope_shifts(shifts: pd.DataFrame) -> Html:
    """Rows of `slope_shifts`."""
    return show_table(
        shifts,
        caption="Change of the slope eta at M tokens per parameter when the xLSTM is counted by tfla instead "
        "of paper: as printed by the authors, and ours with three causal factors F.",
        formats=dict.fromkeys(map(str, shifts.columns[1:]), lambda shift: power_of_ten(shift, 3)),
        labels={"ratio": "M"},
    )


def show_tfla_slopes(tfla_slopes: pd.DataFrame) -> Html:
    """Published slopes under tfla and ours; `tfla_slopes` from the ledger."""
    ratio = tfla_slopes["entry"].str.extract(r"ratio=(\d+)", expand=False)
    return show_table(
        tfla_slopes.assign(ratio=ratio)[["ratio", "published", "ours", "difference", "tolerance", "verdict"]],
        caption="The slopes themselves, by tfla with the causal factor 1.",
        formats=dict.fromkeys(("published", "ours"), "{:.8f}") | dict.fromkeys(("difference", "tolerance"), "{:.1e}"),
        labels={"ratio": "M"},
    )


def show_median_ratios(medians: pd.DataFrame) -> Html:
    """Rows of `median_ratios`."""
    names = [name for name in medians.columns if name not in ("context_length", "convention", "apart")]
    contexts = "context_length" in medians
    return show_table(
        medians,
        caption="Medians of these ratios, and how far the architectures are moved apart: the largest median "
        "over the smallest.",
        formats=dict.fromkeys([*names, "apart"], "{:.3f}") | ({"context_length": "{:.0f}"} if contexts else {}),
        labels={name: ARCHITECTURE_LABELS.get(name, name) for name in names}
        | ({"context_length": "T (tokens)"} if contexts else {}),
    )


def show_factors(factors: pd.DataFrame) -> Html:
    """Rows of `companion.fitting.equal_loss.compute_factors` of the Transformer over the xLSTM."""
    return show_table(
        factors,
        caption="Compute of the Transformer over compute of the xLSTM at equal loss, on the hulls of the "
        "IsoFLOP runs: median over the losses that both reach, least and largest value, and the share of "
        "compute at which the xLSTM has the lower loss.",
        formats=dict.fromkeys(("flops_factor", "smallest", "largest"), "{:.2f}")
        | {"share_lower": lambda share: percent(share, 3)},
        labels={"flops_factor": "median factor", "smallest": "least", "share_lower": "xLSTM lower"}
        | ({"context_length": "T (tokens)"} if "context_length" in factors else {}),
    )


def show_norm_increase(increases: Sequence[Mapping[str, Any]]) -> Html:
    """How much C rises when norms count: `size`, and the relative increase by architecture, a row per size."""
    table = pd.DataFrame(increases).rename(columns=ARCHITECTURE_LABELS)
    return show_table(
        table,
        caption="Relative increase of C when norms count. Norms grow with d, everything else at least with d "
        "times a width, so the increase falls with the width; the xLSTM has one norm more per block.",
        formats=dict.fromkeys(map(str, table.columns[1:]), lambda share: percent(share, 2)),
    )
