"""Chapter 8: which architecture is faster, at equal size and at equal loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch08.common import (
    METHOD_NAMES,
    QUANTITY_NAMES,
    crossover_text,
    extremes,
    from_words,
    interval_words,
    note_table,
)
from companion.chapters.ch08.figures import tokens_text
from companion.chapters.ch08.ratio_figure import ratio_over_context
from companion.chapters.ch08.trained import TrainedPairs
from companion.formatting import count, listed, number_word, power_of_ten, span_text
from companion.inference.compare import Comparison, Trained
from companion.plotting import Html, show
from companion.plotting.embed import show_table
from companion.plotting.style import architecture_label

#: Comparisons by title and batch.
Comparisons = Mapping[tuple[str, int], Comparison]
#: Ratios of sizes closer to 1 than this count as nearly equal.
NEARLY_EQUAL = 1.15
#: Context (tokens) at which the prose compares.
_AT = 16384


def equal_loss_figure(
    comparisons: Comparisons, title: str, batch_sizes: Sequence[int], timed_to: float, *, name: str
) -> Html:
    """Ratios of times over the context at one loss, a row per batch; a note where there is nothing to compare.

    Parameters
    ----------
    title
        of the comparisons that are drawn.
    timed_to
        longest context of the timings (tokens).
    name
        anchor of the figure.
    """
    if not comparisons:
        return note_table(
            "It needs two laws, and times of first token and step for both.", "No comparison at equal loss."
        )
    if not batch_sizes:
        return note_table("There is one batch size only; the figure at the top of the page shows it.", "No figure.")
    batches = " and ".join(map(str, batch_sizes))
    return show(
        ratio_over_context({f"B = {batch}": comparisons[title, batch] for batch in batch_sizes}, timed_to),
        name=name,
        alt="Ratio of Transformer to xLSTM time over context at equal loss, with intervals; it crosses one and "
        "rises steeply.",
        caption=f"Time of the Transformer over that of the xLSTM at equal loss ({title.removeprefix('loss ')} nats per "
        f"token), B = {batches}: above 1 the xLSTM is faster. Bands: 95 %, from laws, fits to timings and residuals "
        "(roofline: laws only).",
    )


def answer_table(
    comparisons: Comparisons,
    title: str,
    batch_sizes: Sequence[int],
    longest: int,
    grouped: Mapping[str, str] | None = None,
) -> Html:
    """Crossovers with intervals at one loss, and ratios of steps at a long context, a column per batch.

    Arguments as for `equal_loss_figure`.

    Parameters
    ----------
    grouped
        one more row of crossovers: that of a Transformer with grouped heads.
    """
    if not comparisons:
        return note_table("See above.", "No crossovers.")
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for batch in batch_sizes:
        for row in comparisons[title, batch].crossovers.to_dict("records"):
            key = (QUANTITY_NAMES[row["quantity"]], METHOD_NAMES[row["method"]])
            named = rows.setdefault(key, dict(zip(("what", "by"), key, strict=True)))
            named[f"B = {batch}"] = _with_interval(row, longest)
    ratios = [
        {"what": f"ratio of steps at {tokens_text(_AT)}", "by": METHOD_NAMES[method]}
        | {f"B = {batch}": _ratio_at(comparisons[title, batch], "step_time", method) for batch in batch_sizes}
        for method in ("measured", "roofline")
    ]
    caption = (
        f"Context (tokens) from which the xLSTM is faster, or needs less memory, at {title}, with 95 % intervals "
        "(always: from 128 tokens on). Last rows: step time of the Transformer over that of the xLSTM."
    )
    if grouped:
        caption += " K/V heads: a Transformer with grouped heads, at equal size instead of equal loss."
    return show_table(
        pd.DataFrame([*rows.values(), *([dict(grouped)] if grouped else []), *ratios]),
        name="inference-answer",
        caption=caption,
    )


def crossover_table(comparisons: Comparisons, longest: int) -> Html:
    """Crossovers with intervals, a column per title; `longest`: context (tokens) up to which was compared."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (title, batch), comparison in comparisons.items():
        for row in comparison.crossovers.to_dict("records"):
            key = {"what": QUANTITY_NAMES[row["quantity"]], "by": METHOD_NAMES[row["method"]], "B": batch}
            rows.setdefault(tuple(key.values()), key)[title] = _with_interval(row, longest)
    return show_table(
        pd.DataFrame(rows.values()),
        name="inference-crossovers",
        caption="The same at every loss and at equal compute: context (tokens) from which the xLSTM is faster, or "
        "needs less memory, with 95 % intervals. always: from 128 tokens on.",
    )


def equal_loss_facts(
    comparisons: Comparisons, pairs: TrainedPairs, batch_sizes: Sequence[int], longest: int
) -> dict[str, str]:
    """Values of the answer and of the section at equal loss; none without comparisons.

    Parameters
    ----------
    comparisons
        of every title and batch.
    pairs
        that are compared; the middle one of equal loss is described, the others give the range.
    batch_sizes
        the first and the last are described.
    """
    if not comparisons:
        return {}
    few, many, title, titles = batch_sizes[0], batch_sizes[-1], pairs.title, list(pairs.at_losses)

    def start(quantity: str, method: str, batch: int = many) -> str:
        return from_words(_crossover_of(comparisons[title, batch], quantity, method), longest)

    prompt = _crossover_row(comparisons[title, many], "ttft", "measured")
    facts = {
        "c8_few": f"{few}",
        "c8_many": f"{many}",
        "c8_loss": title,
        "c8_at": tokens_text(_AT),
        "c8_num_losses": number_word(len(titles)),
        "c8_answer_batch": _sequences(many),
        "c8_few_batch": _sequences(few),
        "c8_answer_interval": interval_words(prompt["crossover_low"], prompt["crossover_high"], longest),
        "c8_answer_step": start("step_time", "measured"),
        "c8_answer_prompt": start("ttft", "measured"),
        "c8_answer_roofline": start("step_time", "roofline"),
        "c8_first_ratio": _ratio_at(comparisons[title, few], "ttft", "measured"),
        "c8_memory_from": crossover_text(_crossover_of(comparisons[title, many], "memory", "count"), longest),
        "c8_memory_from_few": crossover_text(_crossover_of(comparisons[title, few], "memory", "count"), longest),
    }
    for batch, size in (("few", few), ("many", many)):
        ratios = [_row_at(comparisons[title, size], "step_time", m)["ratio"] for m in ("measured", "roofline")]
        facts[f"c8_kernel_{batch}"] = kernel_share(*ratios)
        for method in ("measured", "roofline"):
            facts[f"c8_step_{method}_{batch}"] = _ratio_at(comparisons[title, size], "step_time", method)
            facts[f"c8_step_span_{method}_{batch}"] = _span(comparisons, titles, size, "step_time", method, longest)
            facts[f"c8_first_span_{method}_{batch}"] = _span(comparisons, titles, size, "ttft", method, longest)
    return facts


def kernel_share(timed: float, roofline: float) -> str:
    """How much of a ratio of times kernels explain, in words: what is left at the hardware's peaks is not theirs.

    Shares are those of the logarithm: kernels that multiply the ratio by as much as the architectures do explain half.
    """
    if timed <= max(1, roofline):
        return "none"
    return "most" if np.log(roofline) < np.log(timed) / 2 else "the smaller part"


def trained_table(pairs: TrainedPairs) -> Html:
    """Size, tokens, compute and loss of the compute-optimal models, with intervals."""
    rows = []
    for title, pair in {**pairs.at_losses, f"{power_of_ten(pairs.train_flops, 1)} FLOP": pairs.at_compute}.items():
        for name, one in pair.items():
            row = {"at": title, "architecture": architecture_label(name), "N": _bracketed(one, "num_params", count)}
            row |= {"D": _bracketed(one, "num_tokens", count), "C": _bracketed(one, "train_flops", power_of_ten)}
            rows.append(row | {"loss": _bracketed(one, "loss", "{:.3f}".format)})
    return show_table(
        pd.DataFrame(rows),
        name="inference-trained",
        caption=f"Compute-optimal models by the laws fitted at T = {pairs.context_length}, with 95 % intervals.",
        labels={"N": "parameters N", "D": "tokens D", "C": "C (FLOP)", "loss": "loss (nats/token)"},
    )


def trained_facts(pairs: TrainedPairs) -> dict[str, str]:
    """Ratios of sizes and computes at equal loss, and of sizes and losses at equal compute; none without pairs."""
    if pairs.reason:
        return {}
    equal, at_compute = list(pairs.at_losses.values()), pairs.at_compute
    sizes = [float(p["xlstm"].best.num_params[0] / p["transformer"].best.num_params[0]) for p in equal]
    costs = [float(p["xlstm"].best.train_flops[0] / p["transformer"].best.train_flops[0]) for p in equal]
    own = {name: float(one.best.num_params[0]) for name, one in at_compute.items()}
    gap = float(at_compute["transformer"].best.loss[0] - at_compute["xlstm"].best.loss[0])
    near = max(abs(np.log(size)) for size in sizes) < np.log(NEARLY_EQUAL)
    described = pairs.at_losses[pairs.title]
    every = [one for pair in (*equal, at_compute) for one in pair.values()]
    beyond = sum(one.extrapolated for one in every)
    facts = {
        "c8_pair_sizes": listed(
            [f"{count(float(one.best.num_params[0]), 2)} ({architecture_label(n)})" for n, one in described.items()]
        ),
        "c8_size_lesson": "here it changes little, because models of equal loss have nearly the same size"
        if near
        else "here it matters, because models of equal loss differ in size",
        "c8_size_ratio": extremes(sizes),
        "c8_compute_ratio": extremes(costs),
        "c8_equal_compute": f"{power_of_ten(pairs.train_flops, 1)} FLOP",
        "c8_context": f"{pairs.context_length}",
        "c8_size_ratio_compute": f"{own['xlstm'] / own['transformer']:.2f}",
        "c8_loss_gap": f"{abs(gap):.3f} nats {'lower' if gap > 0 else 'higher'}",
        "c8_beyond": f"{number_word(beyond).capitalize() if beyond else 'None'} of these sizes "
        f"{'lies' if beyond <= 1 else 'lie'} beyond the sizes of the runs",
        "c8_size_verdict": "The sizes nearly agree here, so the comparison at equal size is not far off"
        if near
        else "The sizes differ here, so the comparison at equal size is misleading",
    }
    if pairs.at_tenth:
        tenth = {name: float(one.best.num_params[0]) for name, one in pairs.at_tenth.items()}
        facts["c8_tenth_compute"] = f"{power_of_ten(pairs.train_flops / 10, 1)} FLOP"
        facts["c8_size_ratio_tenth"] = f"{tenth['xlstm'] / tenth['transformer']:.2f}"
    return facts


def size_crossover_table(
    crossings: Mapping[str, pd.DataFrame],
    modeled: Mapping[str, pd.DataFrame],
    batch_sizes: Sequence[int],
    longest: int,
) -> Html:
    """Least and largest crossover over the sizes, at equal size, a column per batch.

    Parameters
    ----------
    crossings, modeled
        by quantity: `companion.inference.compare.measured_crossovers`, and `size_crossovers` where there are models.
    longest
        context (tokens) of the models.
    """
    rows = []
    for quantity, table in crossings.items():
        sources = [("timings", table.assign(longest=table["longest"]))]
        if quantity in modeled:
            sources += [(str(m), part.assign(longest=longest)) for m, part in modeled[quantity].groupby("method")]
        for source, part in sources:
            row = {"what": QUANTITY_NAMES[quantity], "by": METHOD_NAMES[source]}
            for batch in dict.fromkeys((1, *batch_sizes)):
                ordered = part[part["batch_size"] == batch].dropna(subset="crossover").sort_values("crossover")
                texts = list(map(crossover_text, ordered["crossover"], ordered["longest"]))
                row[f"B = {batch}"] = " to ".join(dict.fromkeys([*texts[:1], *texts[-1:]])) or "–"
            rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="inference-equal-size",
        caption="Context (tokens) from which the xLSTM is faster at equal size: least and largest over the sizes. "
        "always: at every context timed or computed.",
    )


def equal_size_facts(
    crossings: Mapping[str, pd.DataFrame], modeled: Mapping[str, pd.DataFrame], longest: int
) -> dict[str, str]:
    """How much shorter the xLSTM's times are at equal size, and where perfect kernels would cross.

    `crossings` and `modeled` as for `size_crossover_table`; a quantity without timings of both has the value "unknown".
    """
    keys = ("c8_shorter_ttft", "c8_shorter_step_time", "c8_shorter_where", "c8_always", "c8_roofline_crosses")
    facts = dict.fromkeys(keys, "unknown")
    for quantity, table in crossings.items():
        one = table[table["batch_size"] == table["batch_size"].min()]
        if len(one):
            lower = 1 - 1 / one["ratio_at_longest"]
            facts[f"c8_shorter_{quantity}"] = span_text(lower)
            where = f"{_sequences(int(one['batch_size'].iloc[0]))} at {tokens_text(one['longest'].max())} tokens"
            facts["c8_shorter_where"] = where
    if "step_time" in crossings:
        always = crossings["step_time"]["crossover"] == 0
        facts["c8_always"] = f"{always.sum()} of {len(always)}"
    if "step_time" in modeled:
        steps = modeled["step_time"]
        roof = steps.loc[steps["method"] == "roofline", "crossover"]
        ends = [crossover_text(end, longest) for end in (roof.min(), roof.max())]
        facts["c8_roofline_crosses"] = " to ".join(dict.fromkeys(ends))
    return facts


def _with_interval(row: Mapping[Any, Any], longest: float) -> str:
    """A crossover as a cell: 580 [always, 1,700]."""
    ends = [crossover_text(row[key], longest) for key in ("crossover", "crossover_low", "crossover_high")]
    return ends[0] if len(set(ends)) == 1 else f"{ends[0]} [{ends[1]}, {ends[2]}]"


def _span(comparisons: Comparisons, titles: Sequence[str], batch: int, quantity: str, method: str, longest: int) -> str:
    """Least and largest crossover over the titles, tokens: "580 to 1,200 tokens"."""
    values = [_crossover_of(comparisons[title, batch], quantity, method) for title in titles]
    ends = list(dict.fromkeys(crossover_text(end, longest) for end in (min(values), max(values))))
    if ends[0] == "always":
        return "no context (always faster)" if len(ends) == 1 else f"0 (always faster) to {ends[1]} tokens"
    return f"{' to '.join(ends)} tokens"


def _sequences(batch: int) -> str:
    return f"{batch} sequences" if batch > 1 else "one sequence"


def _crossover_row(comparison: Comparison, quantity: str, method: str) -> pd.Series:
    table = comparison.crossovers
    return table[(table["quantity"] == quantity) & (table["method"] == method)].iloc[0]


def _crossover_of(comparison: Comparison, quantity: str, method: str) -> float:
    return float(_crossover_row(comparison, quantity, method)["crossover"])


def _row_at(comparison: Comparison, quantity: str, method: str) -> pd.Series:
    """The ratio of two times at the context that the prose describes."""
    table = comparison.table
    table = table[(table["quantity"] == quantity) & (table["method"] == method)]
    return table.iloc[(table["context_length"] - _AT).abs().argmin()]


def _ratio_at(comparison: Comparison, quantity: str, method: str) -> str:
    row = _row_at(comparison, quantity, method)
    return f"{row['ratio']:.2g} [{row['ratio_low']:.2g}, {row['ratio_high']:.2g}]"


def _bracketed(one: Trained, quantity: str, style: Callable[[float], str]) -> str:
    low, high = one.interval(quantity)
    value = float(np.broadcast_to(getattr(one.best, quantity), (1,))[0])
    return f"{style(value)} [{style(low)}, {style(high)}]" if low < high else style(value)
