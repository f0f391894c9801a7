"""Tables of chapter 1 that compare conventions of counting."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from companion.accounting import num_params
from companion.accounting.explain import convention_table
from companion.architectures import Architecture
from companion.chapters.ch01.formulas import convention_fields
from companion.chapters.labels import label_of
from companion.formatting import count, percent, power_of_ten
from companion.ledger import build_ledger, to_frame
from companion.plotting import Html, show_table


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


# ---- one model by several conventions ------------------------------------------------------------


def show_convention_fields() -> Html:
    """What the four conventions count, in words."""
    return show_table(
        convention_fields(),
        name="flops-conventions",
        caption="The four conventions: counted share of the T × T matrix of attention, FLOP of the "
        "softmax per score, the count of an mLSTM chunk, whether the look-up counts as a product, and "
        "elementwise FLOP per inner unit of SwiGLU.",
        labels={
            "attention": "attention",
            "softmax": "softmax",
            "mlstm": "mLSTM chunk",
            "embedding": "look-up",
            "elementwise": "SwiGLU",
        },
    )


def side_by_side(models: Mapping[str, Architecture], context_length: int) -> pd.DataFrame:
    """Models under every convention: `model`, `flops` (per token, by the first convention), and ratios to it by name.

    Parameters
    ----------
    models
        by what a row calls them.
    """
    rows = []
    for name, model in models.items():
        first, *others = convention_table(model, context_length).to_dict("records")
        ratios = {each["convention"]: each["ratio"] for each in others}
        rows.append({"model": name, "flops": first["train_flops_per_token"], **ratios})
    return pd.DataFrame(rows)


def show_side_by_side(
    models: Mapping[str, Architecture], smallest: Mapping[str, Architecture], size: str, context_length: int
) -> Html:
    """The models of one size and the smallest ones of a table under the four conventions."""
    chosen = [pair for group in (models, smallest) for pair in group.items()]
    named = {f"{label_of(name)}, N = {count(float(num_params(model)))}": model for name, model in chosen}
    table = side_by_side(named, context_length)
    return show_table(
        table,
        name="flops-side-by-side",
        caption=f"The {size} models and the smallest ones of the table at T = {context_length}: training FLOP per "
        "token by the convention paper, and the ratio of the other conventions to it.",
        formats={"flops": lambda flops: power_of_ten(flops, 4)} | dict.fromkeys(table.columns[2:], "{:.4f}"),
        labels={"flops": "FLOP per token, paper"} | {name: f"{name} / paper" for name in table.columns[2:]},
    )


def show_own_convention(own: Mapping[str, pd.DataFrame], size: str, context_length: int) -> Html:
    """Models under a convention of the reader's own; `own` by architecture, from `convention_table`."""
    rows = pd.concat(table.assign(model=label_of(name)) for name, table in own.items())
    return show_table(
        rows[["model", "convention", "train_flops_per_token", "ratio", "core_share"]],
        name="flops-own",
        caption=f"The {size} models at T = {context_length} by the convention paper and by one of our own.",
        formats={
            "train_flops_per_token": lambda flops: power_of_ten(flops, 4),
            "ratio": "{:.4f}",
            "core_share": lambda share: percent(share, 2),
        },
        labels={
            "train_flops_per_token": "training FLOP per token",
            "ratio": "over paper",
            "core_share": "share of the mixer core",
        },
    )


# ---- slopes, medians, factors --------------------------------------------------------------------


def show_slope_shifts(shifts: pd.DataFrame) -> Html:
    """Rows of `slope_shifts`, in 10⁻⁷."""
    columns = list(map(str, shifts.columns[1:]))
    return show_table(
        shifts,
        name="flops-slope-shifts",
        caption="Change of the slope η, in 10⁻⁷, when the xLSTM is counted by tfla instead of paper: as the authors "
        "print it, and ours with three causal factors F.",
        formats=dict.fromkeys(columns, lambda shift: f"{1e7 * shift:.2f}"),
        labels={"ratio": "tokens per parameter M"},
    )


def tfla_slopes() -> pd.DataFrame:
    """The rows of the ledger on the published over-training slopes that were counted by tfla."""
    ledger = to_frame(build_ledger(sections=["overtraining_slopes"]))
    return ledger[ledger["entry"].str.contains("tfla") & (ledger["quantity"] == "eta")]


def show_tfla_slopes(slopes: pd.DataFrame) -> Html:
    """Published slopes under tfla and ours; `slopes` from `tfla_slopes`."""
    ratio = slopes["entry"].str.extract(r"ratio=(\d+)", expand=False)
    return show_table(
        slopes.assign(ratio=ratio)[["ratio", "published", "ours", "difference", "tolerance", "verdict"]],
        name="flops-slopes",
        caption="The slopes η themselves, by tfla with the causal factor F = 1; difference and tolerance in 10⁻⁷.",
        formats=dict.fromkeys(("published", "ours"), "{:.8f}")
        | dict.fromkeys(("difference", "tolerance"), lambda value: f"{1e7 * value:.2f}"),
        labels={"ratio": "M"},
    )


def show_median_ratios(medians: pd.DataFrame) -> Html:
    """Rows of `median_ratios`."""
    names = [name for name in medians.columns if name not in ("context_length", "convention", "apart")]
    contexts = "context_length" in medians
    return show_table(
        medians,
        name="flops-medians",
        caption="Medians of the ratios in the figure above, and the largest of them over the smallest.",
        formats=dict.fromkeys([*names, "apart"], "{:.3f}") | ({"context_length": "{:.0f}"} if contexts else {}),
        labels={name: label_of(name) for name in names}
        | {"apart": "largest / smallest"}
        | ({"context_length": "T (tokens)"} if contexts else {}),
    )


def show_factors(factors: pd.DataFrame, first: str, second: str) -> Html:
    """Rows of `companion.fitting.equal_loss.compute_factors` of the second architecture over the first."""
    spans = [f"{low:.2f}\u2013{high:.2f}" for low, high in zip(factors["smallest"], factors["largest"], strict=True)]
    table = factors.drop(columns=["smallest", "largest", "share_lower"]).assign(
        span=spans, lower=factors["share_lower"]
    )
    return show_table(
        table,
        name="flops-factors",
        caption=f"Compute of the {label_of(second)} over compute of the {label_of(first)} at equal loss: median and "
        "range over the losses that both reach, and the share of the common compute at which the "
        f"{label_of(first)} has the lower loss.",
        formats={"flops_factor": "{:.2f}", "lower": lambda share: percent(share, 3)},
        labels={"flops_factor": "median factor", "span": "range", "lower": f"{label_of(first)} lower"}
        | ({"context_length": "T (tokens)"} if "context_length" in factors else {}),
    )
