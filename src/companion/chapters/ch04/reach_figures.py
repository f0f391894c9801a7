"""Figures of chapter 4: what a law says away from its runs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.chapters.ch04.figures import DASHES, GREY
from companion.chapters.labels import design_name
from companion.fitting.fit import Fit
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import count, level_text, significant
from companion.plotting.style import INK, LABELS, architecture_look, count_ticks, panels, percent_ticks, subplots


def bands(
    bootstraps: Mapping[str, Bootstrap],
    tables: Mapping[str, pd.DataFrame],
    withheld: Mapping[str, pd.DataFrame],
    num_params: float,
    num_tokens: float,
    level: float = 0.95,
) -> Figure:
    """Loss over tokens at one size: law, confidence band, prediction band, the runs of that size, a panel per name.

    Parameters
    ----------
    bootstraps, tables
        by architecture: refits of a fit and the runs it saw.
    withheld
        by architecture: runs it did not see, drawn hollow.
    num_params
        the size; runs within 10 % of it are drawn.
    num_tokens
        where the bands should reach at least.
    """
    figure, axes = panels(len(bootstraps), height=3.8, sharey=True)
    for ax, (name, look) in zip(axes, architecture_look(bootstraps).items(), strict=True):
        near = {label: t[np.abs(t["num_params"] / num_params - 1) < 0.1] for label, t in
                {"fitted": tables[name], "withheld": withheld[name]}.items()}  # fmt: skip
        seen = pd.concat(near.values())["num_tokens"].tolist() or [num_tokens / 100]
        tokens = np.geomspace(min(*seen, num_tokens) / 1.3, max(*seen, num_tokens) * 1.5, 60)
        for label, band, alpha in (
            ("prediction", bootstraps[name].prediction_band(num_params, tokens, level), 0.18),
            ("confidence", bootstraps[name].confidence_band(num_params, tokens, level), 0.38),
        ):
            ax.fill_between(
                tokens, *band, color=look["color"], alpha=alpha, linewidth=0, label=f"{level_text(level)} {label}"
            )
        ax.plot(tokens, bootstraps[name].fit.law.predict(num_params, tokens), color=look["color"], label="law")
        for label, runs in near.items():
            if len(runs):
                fill = INK if label == "fitted" else "none"
                ax.plot(
                    runs["num_tokens"], runs["val_loss"], look["marker"], color=INK, markerfacecolor=fill,
                    markersize=5.5, linewidth=0, label=f"run, {label}",
                )  # fmt: skip
        ax.set(xscale="log", xlabel=LABELS["num_tokens"], title=f"{look['label']}, N = {count(num_params)}")
        count_ticks(ax.xaxis, (1.0, 3.0))
        ax.legend()
    axes[0].set_ylabel(LABELS["val_loss"])
    return figure


def optima_over_compute(
    parametric: Mapping[str, pd.DataFrame], isoflop: Mapping[str, pd.DataFrame], columns: Sequence[str]
) -> Figure:
    """Optimal N or M per budget: IsoFLOP parabolas against the law along the same runs, with intervals.

    Parameters
    ----------
    parametric
        by architecture, of `companion.fitting.diagnostics.optima_by_budget`.
    isoflop
        by architecture: `train_flops` and, per column, value, `_low`, `_high`.
    columns
        a panel each, e.g. num_params and tokens_per_param.
    """
    figure, axes = subplots(1, len(columns), height=3.9)
    labels = {"num_params": "optimal parameters N*", "num_tokens": "optimal training tokens D*"}
    labels["tokens_per_param"] = "optimal tokens per parameter M*"
    for ax, column in zip(axes, columns, strict=True):
        for name, look in architecture_look(parametric).items():
            for table, filled, shift in ((parametric[name], True, 1.06), (isoflop[name], False, 1 / 1.06)):
                rows = table[np.isfinite(table[column])]
                errors = np.abs(np.stack([rows[column] - rows[f"{column}_low"], rows[f"{column}_high"] - rows[column]]))
                ax.errorbar(
                    rows["train_flops"] * shift, rows[column], yerr=np.nan_to_num(errors), color=look["color"],
                    marker=look["marker"], markersize=5.5, linewidth=1.4 if filled else 0, elinewidth=1.2,
                    markerfacecolor=look["color"] if filled else "none",
                )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel=LABELS["train_flops"], ylabel=labels[column])
        count_ticks(ax.yaxis, (1.0, 2.0, 5.0))
    handles = [
        Line2D([], [], color=look["color"], marker=look["marker"], markersize=5, label=look["label"])
        for look in architecture_look(parametric).values()
    ]
    handles.append(Line2D([], [], color=GREY, marker="o", markersize=5, label="parametric law"))
    handles.append(
        Line2D([], [], color=GREY, marker="o", markerfacecolor="none", linewidth=0, label="IsoFLOP parabola")
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def extrapolation_errors(tables: Mapping[tuple[str, str], pd.DataFrame]) -> Figure:
    """Predicted over observed loss − 1 of withheld runs, over their distance from the cut-off; a panel per name.

    Parameters
    ----------
    tables
        by architecture and variant of the law: `decades` and `log_error` of the furthest run, one row per cut-off.
    """
    names = list(dict.fromkeys(name for name, _ in tables))
    variants = list(dict.fromkeys(variant for _, variant in tables))
    figure, axes = panels(len(names), height=3.6, sharey=True, sharex=True)
    for ax, (name, look) in zip(axes, architecture_look(names).items(), strict=True):
        for variant, dashes, fill in zip(variants, DASHES, (look["color"], "none", "none", "none"), strict=False):
            rows = tables[name, variant].sort_values("decades")
            ax.plot(
                rows["decades"], np.expm1(rows["log_error"]), linestyle=dashes, color=look["color"],
                marker=look["marker"], markerfacecolor=fill, markersize=5, label=variant,
            )  # fmt: skip
        ax.axhline(0, color=GREY, linewidth=0.8)
        percent_ticks(ax.yaxis)
        ax.set(xlabel="decades of compute beyond the cut-off", title=look["label"])
        ax.legend()
    axes[0].set_ylabel("predicted over observed loss − 1 (%)")
    return figure


def design_disagreement(
    fits: Mapping[str, Mapping[str, Fit]],
    tables: Mapping[str, Mapping[str, pd.DataFrame]],
    tokens_per_param: float,
    flops_per_nd: Mapping[str, float],
    reference: str = "all",
) -> Figure:
    """Predictions of fits to different designs over compute at one D/N, against a reference fit.

    Parameters
    ----------
    fits, tables
        by architecture and design. Lines are thick over the range of compute that the design covers.
    tokens_per_param
        M of the line in the plane of N and D along which predictions are compared.
    flops_per_nd
        by architecture: κ of C = κND.
    """
    figure, axes = panels(len(fits), height=3.8, sharey=True, sharex=True)
    flops_all = np.concatenate([t[reference]["train_flops"].to_numpy(dtype=float) for t in tables.values()])
    flops = np.geomspace(flops_all.min() / 3, flops_all.max() * 10, 200)
    for ax, (name, look) in zip(axes, architecture_look(fits).items(), strict=True):
        n = np.sqrt(flops / (flops_per_nd[name] * tokens_per_param))
        base = fits[name][reference].law.predict(n, n * tokens_per_param)
        ax.axhline(0, color=GREY, linewidth=1.0)
        others = [design for design in fits[name] if design != reference]
        for design, dashes, color in zip(others, DASHES, (look["color"], INK, "#029e73"), strict=False):
            ratio = fits[name][design].law.predict(n, n * tokens_per_param) / base - 1
            own = tables[name][design]["train_flops"]
            covered = (flops >= own.min()) & (flops <= own.max())
            label = design_name(design)
            ax.plot(flops, ratio, linestyle=dashes, color=color, linewidth=1.2, label=label)
            ax.plot(flops[covered], ratio[covered], color=color, linewidth=4, alpha=0.5)
        percent_ticks(ax.yaxis)
        ax.set(
            xscale="log", xlabel=LABELS["train_flops"], title=f"{look['label']}, M = {significant(tokens_per_param, 2)}"
        )
        if others:
            ax.legend(title="fitted to")
        else:
            ax.text(0.5, 0.6, "one design only: nothing to compare", transform=ax.transAxes, ha="center")
    axes[0].set_ylabel(f"loss against fit to {design_name(reference)} (%)")
    return figure
