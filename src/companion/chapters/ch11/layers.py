"""Chapter 11: what layers take of a step, what does not grow with depth, and what recomputation adds."""

from itertools import pairwise

import numpy as np
import pandas as pd

from companion.accounting import count_flops
from companion.chapters.applicability import need
from companion.chapters.ch11.shown import Costs, each_row
from companion.runs.recount import missing_for_recount, models_of

#: Depths that a line through the step times of one width needs.
_DEPTHS = 3
#: Runs that share these differ in depth alone.
_WIDTH = ("d_model", "n_heads", "d_qk", "d_hv", "d_ff", "num_gpus", "batch_size_seqs")


def layer_split(costs: Costs) -> pd.DataFrame:
    """Step time as a line in the number of layers, for every width with three depths or more.

    A step's time at a width is a + b · layers. FLOPs are such a line too, exactly. Their slopes are those of a layer,
    their values at no layers those of the rest: the logits, the optimizer, and what a step costs whatever it computes.

    Returns
    -------
    DataFrame
        a row for every width: `architecture`, `d_model`, `num_gpus`, `depths` (number), `rest_share` and
        `rest_flops_share` (of the step's time and FLOPs that do not grow with depth, at the middle depth),
        `layer_utilization` (FLOPs of a layer over what the peak allows in its time) and `utilization` (of whole steps,
        median), ascending in width. `off` is the largest distance of a step time from the line, relative.

    Raises
    ------
    NotApplicable
        if the logs name no shapes, or no width has three depths.
    """
    rows = []
    for name in costs.names:
        runs = costs.runs[name]
        need(all(column in runs for column in (*_WIDTH, "n_layers")), "the logs do not name the shapes of their models")
        single = runs.drop_duplicates([*_WIDTH, "n_layers"])
        for _, part in single.groupby(list(_WIDTH)):
            if part["n_layers"].nunique() >= _DEPTHS:
                rows.append(_of_width(part, costs.hardware.peak_flops_per_s) | {"architecture": name})
    need(rows, f"no width was trained at {_DEPTHS} depths")
    table = pd.DataFrame(rows)
    order = table["architecture"].map(costs.names.index)
    return table.assign(order=order).sort_values(["order", "d_model"]).drop(columns="order").reset_index(drop=True)


def _of_width(part: pd.DataFrame, peak: float) -> dict[str, float]:
    layers, seconds = part["n_layers"].to_numpy(float), part["step_time_s"].to_numpy(float)
    flops = (part["train_flops"] / part["train_steps"]).to_numpy(float)
    (slope, rest), (flops_slope, flops_rest) = (np.polyfit(layers, values, 1) for values in (seconds, flops))
    middle = float(np.median(layers))
    gpus = float(part["num_gpus"].iloc[0])
    return {
        "d_model": float(part["d_model"].iloc[0]),
        "num_gpus": gpus,
        "depths": float(len(np.unique(layers))),
        "rest_share": float(rest / (rest + slope * middle)),
        "rest_flops_share": float(flops_rest / (flops_rest + flops_slope * middle)),
        "layer_utilization": float(flops_slope / (slope * gpus * peak)),
        "utilization": float(part["utilization"].median()),
        "off": float(np.max(np.abs((rest + slope * layers) / seconds - 1))),
    }


def width_steps(costs: Costs) -> pd.DataFrame:
    """How the utilization changes from one width of the models to the next wider one.

    Returns
    -------
    DataFrame
        a row for every step: `architecture`, `d_model` and `next_d_model`, `d_qk` and `next_d_qk` (width of a head's
        queries), and `ratio`, the median utilization at the wider over that at the narrower; empty where the logs do
        not name shapes.
    """
    rows = []
    for name in costs.names:
        runs = costs.runs[name]
        if not {"d_model", "d_qk"} <= set(runs):
            continue
        widths = runs.groupby("d_model")[["d_qk", "utilization"]].median().reset_index()
        for one, two in pairwise(each_row(widths)):
            row = {"architecture": name, "d_model": one.d_model, "next_d_model": two.d_model, "d_qk": one.d_qk}
            rows.append(row | {"next_d_qk": two.d_qk, "ratio": two.utilization / one.utilization})
    columns = ["architecture", "d_model", "next_d_model", "d_qk", "next_d_qk", "ratio"]
    return pd.DataFrame(rows, columns=columns)


def intensity(d_model: float, num_tokens: float, bytes_per_number: float = 2.0) -> float:
    """FLOP per byte of a product of `num_tokens` rows of width d with a d × d matrix, each read or written once."""
    flops = 2 * num_tokens * d_model**2
    return flops / (bytes_per_number * (2 * num_tokens * d_model + d_model**2))


def tokens_per_gpu(runs: pd.DataFrame) -> pd.Series:
    """Tokens of a step on each GPU."""
    return runs["num_tokens"] / runs["train_steps"] / runs["num_gpus"]


def recomputed(costs: Costs) -> pd.DataFrame:
    """What running every block forward a second time adds to the counted FLOPs.

    Returns
    -------
    DataFrame
        for the smallest and the largest model of every architecture: `architecture`, `num_params`, `utilization`
        (median over its runs), `factor` (FLOPs done over FLOPs counted; the logits are not recomputed) and
        `hardware_utilization`, the product.

    Raises
    ------
    NotApplicable
        if the models cannot be counted.
    """
    rows = []
    for name in costs.names:
        runs = costs.runs[name]
        reason = missing_for_recount(runs)
        need(not reason, f"the models cannot be counted: {reason}")
        counted = count_flops(models_of(runs, costs.logs.attrs.get("source")), runs["context_length"].to_numpy())
        forward = counted.forward
        again = np.asarray(forward.total - forward.unembedding - forward.embedding, dtype=float)
        factor = pd.Series(1 + again / np.asarray(counted.components.total, dtype=float), index=runs.index)
        for size in dict.fromkeys((runs["num_params"].min(), runs["num_params"].max())):
            own = runs["num_params"] == size
            share = float(runs.loc[own, "utilization"].median())
            times = float(factor[own].iloc[0])
            row = {"architecture": name, "num_params": float(size), "utilization": share, "factor": times}
            rows.append(row | {"hardware_utilization": share * times})
    return pd.DataFrame(rows)
