"""Chapter 10, first half: the forms of the cell, the exponent m, and what its gradient must hold."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from companion.chapters.ch10 import figures
from companion.chapters.ch10.experiments import relative_norm, without_exponent
from companion.formatting import listed, percent, power_of_ten
from companion.plotting import Html, show, show_table

#: Ways to compute in the order of the figure, and what its legend calls them.
WAYS = {"with m": "with m", "recurrent": "recurrent, no m", "pairs": "pairs, no m", "factored": "factored pairs, no m"}


def show_pairs() -> Html:
    """Which pairs of tokens each form computes."""
    return show(
        figures.pairs_of_forms(),
        name="kernel-pairs",
        alt="Three triangles of pairs of tokens: all through states; blocks on the diagonal computed, the rest "
        "through states; all computed.",
        caption="Pairs of queries (rows) and keys (columns) of 16 tokens, by how each form computes them. The "
        "recurrent form keeps a state after every token. The parallel form computes every pair. The chunkwise form "
        "computes pairs within a chunk and uses a state between chunks.",
    )


def show_chunks_and_tiles() -> Html:
    """The chain of states over the chunks, and one chunk in tiles."""
    return show(
        figures.chunks_and_tiles(),
        name="kernel-tiles",
        alt="Left: four chunks; a state goes from chunk to chunk, outputs read their chunk and its state. Right: a "
        "chunk in four by four tiles.",
        caption="States, chunks and tiles. First panel: the state moves from chunk to chunk (orange). Then all chunks "
        "compute their outputs at the same time, each from its own queries, keys and values and from the state at its "
        "start (blue). Second panel: the pairs of one chunk in tiles; each row of queries also reads the state.",
    )


def show_form_errors(errors: pd.DataFrame, context_length: int, chunk_size: int) -> Html:
    """Errors of the three forms in every dtype (`experiments.form_errors`)."""
    return show(
        figures.form_error_dots(errors),
        name="kernel-forms",
        alt="Errors of outputs, states and gradients for three forms: near 1e-15 in float64, 1e-7 in float32, 1e-3 in "
        "float16 and bfloat16.",
        caption=f"Errors of the three forms over {context_length} tokens, in chunks of {chunk_size}. With 16-bit "
        "inputs the recurrent form still computes in float32 and only rounds h. The other two multiply matrices in "
        "the dtype of the inputs.",
    )


def form_facts(errors: pd.DataFrame) -> dict[str, object]:
    """The largest error by dtype, and the errors of the chunkwise form in the least exact dtype."""
    worst = errors.pivot_table("error", "dtype", "form", aggfunc="max", sort=False)
    by_dtype = [f"{power_of_ten(row.max(), 1)} in {dtype}" for dtype, row in worst.iterrows()]
    chunked = errors[errors["form"] == "chunkwise"].set_index(["dtype", "quantity"])["error"]
    low = max(worst.index, key=lambda dtype: chunked[dtype, "h"])
    gradients = [q for q in errors["quantity"].unique() if q.startswith("d")]
    return {
        "c10_forms": listed(by_dtype),
        "c10_forms_low": low,
        "c10_forms_output": _share(chunked[low, "h"]),
        "c10_forms_gradient": _share(max(chunked[low, q] for q in gradients)),
    }


def show_overflow(open_input: pd.DataFrame, closing: pd.DataFrame) -> Html:
    """Errors of h with and without m over the means of both gates (`experiments.without_exponent`)."""
    panels = {"mean of ĩ": open_input, "mean of f̃": closing.drop(columns="input_gate")}
    return show(
        figures.overflow_lines(panels, WAYS),
        name="kernel-overflow",
        alt="Errors of h over the means of both gates: without m every way overflows at large input gates, the "
        "factored one also at closed gates.",
        caption="Errors of h with and without m, in float32 over 128 tokens. The pre-activations spread by 1 around "
        "their mean: in the panel over ĩ, f̃ lies around 3; in the panel over f̃, ĩ lies around 0. Hollow marks above "
        "the line stand for numbers that are not finite.",
    )


def overflow_facts(open_input: pd.DataFrame, closing: pd.DataFrame) -> dict[str, object]:
    """Where exp leaves two dtypes, from where the ways without m overflow, and the error at the soft cap."""
    limits = {f"c10_limit_{bits}": np.log(torch.finfo(getattr(torch, f"float{bits}")).max) for bits in (32, 16)}
    half = without_exponent([(mean, 3) for mean in (0, 5, 10, 15)], dtype=torch.float16)
    capped = without_exponent([(15, 3)])["recurrent"].iloc[0]
    return {name: f"{float(value):.1f}" for name, value in limits.items()} | {
        "c10_overflow_32": _overflow(open_input, "recurrent", "input_gate", min),
        "c10_overflow_16": _overflow(half, "recurrent", "input_gate", min),
        "c10_overflow_factored": _overflow(closing, "factored", "forget_gate", max),
        "c10_overflow_capped": power_of_ten(capped, 1),
    }


def show_normalizer_gradient(through: pd.DataFrame) -> Html:
    """Errors of gradients with and without the normalizer's part (`experiments.normalizer_gradient_errors`)."""
    wide = through.pivot_table("error", ["upstream", "parallel", "normalizer_gradient"], "gradient", sort=False)
    wide = wide.rename_axis(columns=None).reset_index()
    wide["normalizer_gradient"] = wide["normalizer_gradient"].map({True: "kept", False: "dropped"})
    columns = ["upstream", "parallel", "normalizer_gradient", "dq", "dk", "dv", "di", "df"]
    return show_table(
        wide[columns],
        name="kernel-normalizer",
        caption="Errors without the normalizer's part. Relative errors of gradients with and without it, in float64 "
        "against the oracle. The loss is linear in what the first column names. The second column is the share of the "
        "upstream gradient that lies along h (root mean square).",
        formats=dict.fromkeys(["parallel", "dq", "dk", "dv", "di", "df"], small),
        labels={"upstream": "loss on", "parallel": "along h", "normalizer_gradient": "normalizer's part"}
        | {"di": "dĩ", "df": "df̃"},
    )


def gradient_facts(through: pd.DataFrame) -> dict[str, object]:
    """Errors of dq, dk, dĩ and df̃ without the normalizer's part: of a loss on h, and behind a head norm."""
    dropped = through[(through["gradient"] != "dv") & ~through["normalizer_gradient"]]
    lost, kept = (dropped.loc[dropped["upstream"] == loss, "error"] for loss in ("h itself", "head norm"))
    return {
        "c10_lost_least": percent(lost.min()),
        "c10_lost_most": percent(lost.max()),
        "c10_kept": power_of_ten(kept.max(), 1),
    }


def forget_gate_errors(tables: Mapping[float, pd.DataFrame]) -> pd.DataFrame:
    """Relative errors of both sums by mean of f̃: a row per table of `experiments.forget_gate_gradients`."""
    return pd.DataFrame(
        {"forget_gate": mean} | {way: relative_norm(table[way], table["exact"]) for way in ("totals", "pairs")}
        for mean, table in tables.items()
    )


def show_forget_gate(tables: Mapping[float, pd.DataFrame], mean: float) -> Html:
    """Both sums for d log f: errors token by token at one mean of f̃, and relative errors over all means."""
    return show(
        figures.forget_gradient_errors(tables[mean], forget_gate_errors(tables)),
        name="kernel-forget",
        alt="First panel: the error of the totals is as large as the gradient itself, that of the pairs far below. "
        "Second panel: the totals fail at closed gates.",
        caption=f"The gradient of log f by two sums, in bfloat16 over {len(tables[mean])} tokens. First panel: every "
        f"token, at a mean of f̃ = {minus(mean)}. The error of the totals builds up from the last token to the first; "
        "the error of the pairs stays small. Second panel: relative errors over the mean of f̃.",
    )


def forget_facts(tables: Mapping[float, pd.DataFrame]) -> dict[str, object]:
    """Errors of both sums at the most closed and at the most open gates."""
    errors = forget_gate_errors(tables)
    facts: dict[str, object] = {}
    for name, mean in (("closed", min(tables)), ("open", max(tables))):
        facts[f"c10_forget_{name}"] = minus(mean)
        row = errors[errors["forget_gate"] == mean].iloc[0]
        facts |= {f"c10_forget_{name}_{way}": percent(float(row[way])) for way in ("totals", "pairs")}
    return facts


def minus(value: float) -> str:
    """A number with a minus sign of its own length."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def small(value: float) -> str:
    """A relative error: percent from a thousandth on, else a power of ten."""
    return percent(value, 2) if value > 1e-3 else power_of_ten(value, 1)


def _share(value: float) -> str:
    return percent(value) if value > 1e-4 else power_of_ten(value, 1)


def _overflow(table: pd.DataFrame, way: str, gate: str, order: Callable[[Any], Any]) -> Any:
    """The mean of a gate at which a way first overflows, by `order`; None if it never does."""
    lost = table.loc[~np.isfinite(table[way]), gate]
    return order(lost) if len(lost) else None
