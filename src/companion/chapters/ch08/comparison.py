"""Chapter 8: which architecture is faster, at equal size and at equal loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch08.common import crossover_text, extremes, note_table
from companion.chapters.ch08.ratio_figure import ratio_over_context
from companion.formatting import count, percent, power_of_ten
from companion.inference.compare import Comparison, Trained
from companion.plotting import Html, show, show_table
from companion.plotting.style import architecture_label

#: The compute-optimal model of each architecture, by architecture.
Pair = Mapping[str, Trained]
#: Comparisons by title and batch.
Comparisons = Mapping[tuple[str, int], Comparison]
#: Ratios of sizes closer to 1 than this count as nearly equal.
NEARLY_EQUAL = 1.15
#: Context (tokens) at which the prose compares.
_AT = 16384
_MISSING = "This table lacks timings of one architecture or quantity: no comparison"


def size_crossover_table(
    timings: pd.DataFrame,
    crossings: Mapping[str, pd.DataFrame],
    modeled: Mapping[str, pd.DataFrame],
    batch_sizes: Sequence[int],
    longest: int,
) -> Html:
    """Crossovers at equal size, a column per size in the order of the weights.

    Parameters
    ----------
    crossings, modeled
        by quantity: `companion.inference.compare.measured_crossovers`, and `size_crossovers` where there are models.
    longest
        context (tokens) of the models.
    """
    weight = timings["d_model"] ** 2 * timings["n_layers"]
    sizes = list(dict.fromkeys(timings.loc[weight.sort_values(kind="stable").index, "model_size"]))
    rows = []
    for quantity, table in crossings.items():
        sources = [("timings", table.assign(longest=table["longest"]))]
        if quantity in modeled:
            sources += [(str(m), part.assign(longest=longest)) for m, part in modeled[quantity].groupby("method")]
        for source, part in sources:
            for batch, group in part[part["batch_size"].isin([1, *batch_sizes])].groupby("batch_size"):
                row = {"quantity": quantity, "times from": source, "B": batch} | dict.fromkeys(sizes, "–")
                texts = map(crossover_text, group["crossover"], group["longest"])
                rows.append(row | dict(zip(group["model_size"], texts, strict=True)))
    return show_table(
        pd.DataFrame(rows) if rows else pd.DataFrame({"note": ["one architecture only"]}),
        caption="Context (tokens) from which the xLSTM is faster at equal size: timings themselves, runtime models "
        "fitted to them (measured), roofline. always: at every context from the shortest; >: not up to there.",
    )


def equal_size_facts(
    crossings: Mapping[str, pd.DataFrame], modeled: Mapping[str, pd.DataFrame], longest: int, *, of_paper: bool
) -> dict[str, str]:
    """The verdict at equal size; `of_paper`: the timings are the authors'."""
    return {"c8_equal_size": equal_size_verdict(crossings, modeled, longest, of_paper=of_paper)}


def equal_size_verdict(
    crossings: Mapping[str, pd.DataFrame], modeled: Mapping[str, pd.DataFrame], longest: int, *, of_paper: bool
) -> str:
    """How much shorter the xLSTM's times are at equal size, and what perfect kernels would change."""
    if not crossings:
        return "This table times one architecture only"
    found = _shorter_words(crossings, of_paper=of_paper)
    if "step_time" in modeled:
        steps = modeled["step_time"]
        roof = steps[steps["method"] == "roofline"]["crossover"]
        always = crossings["step_time"]["crossover"] == 0
        found += (
            f". Steps of the xLSTM are faster at every timed context in {always.sum()} of {len(always)} pairs of "
            f"size and batch, but perfect kernels would cross at {crossover_text(roof.min(), longest)} to "
            f"{crossover_text(roof.max(), longest)} tokens: below, what is measured is software"
        )
    return found


def _shorter_words(crossings: Mapping[str, pd.DataFrame], *, of_paper: bool) -> str:
    claim = " (the paper says 30 to 50 % at a prompt of 16k)" if of_paper else ""
    found: list[str] = []
    for quantity, table in crossings.items():
        one = table[table["batch_size"] == table["batch_size"].min()]
        lower = 1 - 1 / one["ratio_at_longest"]
        if len(one):
            whose, more = ("its", "") if found else ("the xLSTM's", claim)
            what = "time to first token" if quantity == "ttft" else "step"
            found.append(f"{whose} {what} is {percent(lower.min())} to {percent(lower.max())} shorter{more}")
    return f"At the smallest batch and the longest context timed, by size, {' and '.join(found)}"


def trained_table(trained: Mapping[str, Pair], at_compute: Pair, train_flops: float, context_length: int) -> Html:
    """Size, tokens, compute and loss of the compute-optimal models, with intervals.

    Parameters
    ----------
    trained, at_compute, train_flops
        as in `trained_facts`.
    context_length
        tokens, of the runs behind the laws.
    """
    rows = []
    for title, pair in {**trained, f"{power_of_ten(train_flops, 1)} FLOP": at_compute}.items():
        for name, one in pair.items():
            row = {"at": title, "architecture": architecture_label(name), "N": _bracketed(one, "num_params", count)}
            row |= {"D": _bracketed(one, "num_tokens", count), "C": _bracketed(one, "train_flops", power_of_ten)}
            row |= {"loss": _bracketed(one, "loss", "{:.3f}".format)}
            rows.append(row | {"sizes": "beyond the runs" if one.extrapolated else "among the runs"})
    return show_table(
        pd.DataFrame(rows),
        caption=f"Compute-optimal models of the laws fitted at T = {context_length}, with 95 % bootstrap intervals.",
        labels={"C": "C (FLOP)", "loss": "loss (nats/token)", "sizes": "the size is"},
    )


def trained_facts(trained: Mapping[str, Pair], at_compute: Pair, train_flops: float) -> dict[str, str]:
    """Ratios of sizes and computes at equal loss, and of sizes and losses at equal compute.

    Parameters
    ----------
    trained
        by title: models of equal loss.
    at_compute
        models of equal training compute, `train_flops`.
    """
    pairs = list(trained.values())
    sizes = [float(p["xlstm"].best.num_params[0] / p["transformer"].best.num_params[0]) for p in pairs]
    costs = [float(p["xlstm"].best.train_flops[0] / p["transformer"].best.train_flops[0]) for p in pairs]
    own = {name: float(one.best.num_params[0]) for name, one in at_compute.items()}
    gap = float(at_compute["transformer"].best.loss[0] - at_compute["xlstm"].best.loss[0])
    near = max(abs(np.log(size)) for size in sizes) < np.log(NEARLY_EQUAL)
    advice = "Compare at equal loss"
    return {
        "c8_size_ratio": extremes(sizes),
        "c8_compute_ratio": extremes(costs),
        "c8_equal_compute": f"{power_of_ten(train_flops, 1)} FLOP",
        "c8_size_ratio_compute": f"{own['xlstm'] / own['transformer']:.2f}",
        "c8_loss_gap": f"{abs(gap):.3f} nats {'lower' if gap > 0 else 'higher'}",
        "c8_size_verdict": "Equal loss means nearly equal size" if near else "Equal loss does not mean equal size",
        "c8_take_loss": f"{advice}. Here the sizes nearly agree, so times of long contexts change little"
        if near
        else advice,
    }


def equal_loss_figure(
    comparisons: Comparisons, titles: Sequence[str], batch_sizes: Sequence[int], timed_to: float
) -> Html:
    """Ratios of times over the context at one loss, a row per batch; a note where nothing can be compared.

    Parameters
    ----------
    titles
        of the comparisons at equal loss; the middle one is shown.
    timed_to
        longest context of the timings (tokens).
    """
    if not comparisons:
        return note_table("both quantities must be timed for both architectures", "No comparison.")
    title = titles[len(titles) // 2]
    shown = {f"{title}, B = {batch}": comparisons[title, batch] for batch in batch_sizes}
    return show(
        ratio_over_context(shown, timed_to),
        name="inference-equal-loss",
        alt="Ratio of Transformer to xLSTM time over context at equal loss, with intervals; it crosses one and "
        "rises steeply.",
        caption=f"Two models of equal loss ({title.removeprefix('loss ')} nats per token): time of the Transformer "
        "over that of the xLSTM. Bands: 95 %, from laws, runtime models and their residuals (roofline: laws only).",
    )


def crossover_table(comparisons: Comparisons, longest: int) -> Html:
    """Crossovers with intervals, a column per title; `longest`: context (tokens) up to which was compared."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (title, batch), comparison in comparisons.items():
        for row in comparison.crossovers.to_dict("records"):
            ends = [crossover_text(row[key], longest) for key in ("crossover", "crossover_low", "crossover_high")]
            key = {"quantity": row["quantity"], "times from": row["method"], "B": batch}
            text = ends[0] if len(set(ends)) == 1 else f"{ends[0]} [{ends[1]} to {ends[2]}]"
            rows.setdefault(tuple(key.values()), key)[title] = text
    return show_table(
        pd.DataFrame(rows.values()) if rows else pd.DataFrame({"note": ["no comparison"]}),
        caption="Context (tokens) from which the xLSTM is faster, or smaller in memory, with 95 % intervals; "
        "always: from 128 tokens on.",
    )


def equal_loss_facts(
    comparisons: Comparisons, titles: Sequence[str], batch_sizes: Sequence[int], longest: int
) -> dict[str, str]:
    """Verdicts at equal loss: from which context on the xLSTM is faster, and by how much at 16k tokens.

    Parameters
    ----------
    titles
        of the comparisons at equal loss; the middle one is described.
    """
    if not comparisons:
        names = ("c8_answer_step", "c8_answer_ttft", "c8_equal_loss")
        return dict.fromkeys(names, _MISSING) | {"c8_take_kernel": "Show a roofline beside it"}
    few, many, middle = batch_sizes[0], batch_sizes[-1], titles[len(titles) // 2]

    def ratio(batch: int, method: str) -> str:
        return _ratio_at(comparisons[middle, batch], "step_time", method)

    memory = _crossover_of(comparisons[middle, many], "memory", "count")
    return {
        "c8_answer_step": step_verdict(comparisons, titles, batch_sizes, longest),
        "c8_answer_ttft": first_token_verdict(comparisons, titles, few, longest),
        "c8_equal_loss": (
            f"At {middle}, T = 16k and B = {few} a step of the Transformer takes {ratio(few, 'measured')} times as "
            f"long with the timed kernels and {ratio(few, 'roofline')} times by the roofline; at B = {many} it is "
            f"{ratio(many, 'measured')} and {ratio(many, 'roofline')}. A single sequence leaves most of the device "
            "idle in the timed kernel; a batch fills it. Memory crosses earlier than the step does, at "
            f"{crossover_text(memory, longest)} tokens for B = {many}: a state is held once, but read and written at "
            "every step"
        ),
        "c8_take_kernel": (
            f"Show a roofline beside it: at 16k and B = {few} the ratio of steps is {ratio(few, 'measured')} as "
            f"timed and {ratio(few, 'roofline')} at best"
        ),
    }


def step_verdict(comparisons: Comparisons, titles: Sequence[str], batch_sizes: Sequence[int], longest: int) -> str:
    """From which context on a step of the xLSTM is faster at equal loss, as timed and by the roofline."""
    few, many = batch_sizes[0], batch_sizes[-1]
    roofline = [f"{_from_words(comparisons, titles, few, 'step_time', 'roofline', longest)} (B = {few})"]
    if few != many:
        roofline.append(f"{_span(comparisons, titles, many, 'step_time', 'roofline', longest)} (B = {many})")
    timed = _from_words(comparisons, titles, many, "step_time", "measured", longest)
    return (
        f"Step, at equal loss: as timed (B = {many}) the xLSTM is faster {timed}; by the roofline "
        f"{', '.join(roofline)}, over {len(titles)} losses or budgets; their intervals are wide (table below)"
    )


def first_token_verdict(comparisons: Comparisons, titles: Sequence[str], batch: int, longest: int) -> str:
    """From which prompt on the first token of the xLSTM comes earlier at equal loss, as timed and by the roofline."""
    middle = titles[len(titles) // 2]
    timed = _from_words(comparisons, titles, batch, "ttft", "measured", longest)
    roofline = _span(comparisons, titles, batch, "ttft", "roofline", longest)
    return (
        f"First token, at equal loss, B = {batch}: the xLSTM is faster {timed} (roofline: {roofline}); at 16k and "
        f"{middle} the Transformer takes {_ratio_at(comparisons[middle, batch], 'ttft', 'measured')} times as long"
    )


def _from_words(
    comparisons: Comparisons, titles: Sequence[str], batch: int, quantity: str, method: str, longest: int
) -> str:
    """From which context on, over the titles: "from 200 to 900 tokens", "at every context"."""
    least, most = _ends(comparisons, titles, batch, quantity, method, longest)
    if least == "always":
        return "at every context" if most == least else f"at every context or from up to {most} tokens"
    return f"from {least if most == least else f'{least} to {most}'} tokens"


def _span(comparisons: Comparisons, titles: Sequence[str], batch: int, quantity: str, method: str, longest: int) -> str:
    """Least and largest crossover over the titles, said once where they are the same."""
    return " to ".join(dict.fromkeys(_ends(comparisons, titles, batch, quantity, method, longest)))


def _ends(
    comparisons: Comparisons, titles: Sequence[str], batch: int, quantity: str, method: str, longest: int
) -> tuple[str, str]:
    values = [_crossover_of(comparisons[title, batch], quantity, method) for title in titles]
    return crossover_text(min(values), longest), crossover_text(max(values), longest)


def _crossover_of(comparison: Comparison, quantity: str, method: str) -> float:
    table = comparison.crossovers
    return float(table[(table["quantity"] == quantity) & (table["method"] == method)].iloc[0]["crossover"])


def _ratio_at(comparison: Comparison, quantity: str, method: str, context_length: float = _AT) -> str:
    table = comparison.table
    table = table[(table["quantity"] == quantity) & (table["method"] == method)]
    row = table.iloc[(table["context_length"] - context_length).abs().argmin()]
    return f"{row['ratio']:.2g} [{row['ratio_low']:.2g}, {row['ratio_high']:.2g}]"


def _bracketed(one: Trained, quantity: str, style: Callable[[float], str]) -> str:
    low, high = one.interval(quantity)
    value = float(np.broadcast_to(getattr(one.best, quantity), (1,))[0])
    return f"{style(value)} [{style(low)}, {style(high)}]" if low < high else style(value)
