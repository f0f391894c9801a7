"""Chapter 14: prefixes that several requests share: bytes, time of a copy, and what a state cannot share."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.accounting.inference import context_of_equal_cache
from companion.architectures import Architecture
from companion.chapters.ch14.labels import DECIDES, gib, milliseconds, tokens_text
from companion.chapters.ch14.measured import Measured
from companion.chapters.timed_models import LOOKS, MODEL_LABELS
from companion.formatting import percent, plural, significant, span_text
from companion.inference.prefix import KeptPerSequence, best_interval, kept_by
from companion.inference.prefix_tree import PrefixTree, Snapshots
from companion.plotting import Html, show, show_table, subplots
from companion.plotting.style import count_ticks

#: Tokens in a block of keys and values of a serving system (vLLM's default).
BLOCK = 16
_POLICIES = {"branches": "where prompts part", "ends": "where prompts end"}
_AXIS = "tokens in the prefix"


def models_of(measured: Measured, size: str) -> dict[str, Architecture]:
    """The timed architectures of one size, by model."""
    return {
        model: measured.architectures[model, size]
        for model in measured.models
        if (model, size) in measured.architectures
    }


def show_kept(models: Mapping[str, Architecture], size: str, longest: int = 2**17) -> Html:
    """Bytes that keep one prefix, over its tokens."""
    figure, (ax,) = subplots(height=3.2)
    tokens = np.unique(np.geomspace(16, longest, 80).round())
    for model, architecture in models.items():
        kept = np.asarray(kept_by(architecture).entry_bytes(tokens)) / 2**20
        look = {name: value for name, value in LOOKS[model].items() if name != "marker"}
        ax.plot(tokens, kept, label=MODEL_LABELS[model], **look)
    ax.set_xscale("log", base=2)
    ticks = [2**n for n in range(4, 18, 2) if 2**n <= longest]
    ax.set_xticks(ticks, [tokens_text(tick) for tick in ticks])
    ax.set_yscale("log")
    count_ticks(ax.yaxis, (1.0,))
    ax.set_xlabel(_AXIS)
    ax.set_ylabel("kept for one prefix (MiB)")
    ax.legend(loc="upper left")
    return show(
        figure,
        name="prefix-kept",
        alt="Bytes over the tokens of a prefix: straight lines for attention, a horizontal line for the state of an "
        "xLSTM, and a hybrid that leaves its state's bytes where its cache outgrows them.",
        caption=f"What one cached prefix takes in the {size} models. Keys and values grow with the prefix, and their "
        "beginning serves shorter prefixes as well. A state takes the same at any length, and serves that length only.",
    )


def show_tree(tree: PrefixTree, models: Mapping[str, Architecture], every: int, name: str = "prefix-tree") -> Html:
    """What caching many prompts takes by model, and by where states are kept."""
    rows = []
    for model, architecture in models.items():
        kept = kept_by(architecture)
        places: tuple[Snapshots, ...] = ("branches", "ends", every) if kept.state_bytes else ("branches",)
        for where in places:
            use = tree.use(kept, where, block_size=1 if kept.state_bytes else BLOCK)
            words = (
                _POLICIES.get(str(where), f"every {tokens_text(every)} tokens") if kept.state_bytes else "none needed"
            )
            row: dict[str, object] = {"model": MODEL_LABELS[model], "where": words, "number": use.num_snapshots or None}
            row |= {"GiB": gib(use.total_bytes), "again": use.reread_tokens / max(use.shared_tokens, 1)}
            rows.append(row)
    return show_table(
        pd.DataFrame(rows).astype({"number": "Int64"}),
        name=name,
        caption=f"Caching {plural(len(tree.prompts), 'prompt')} of {sum(tree.lengths):,} tokens in all, "
        f"{tree.unique_tokens:,} of them different. Read again: of the tokens that prompts share with others, those "
        f"that they still have to read. Keys and values of the Transformers lie in blocks of {BLOCK} tokens.",
        formats={"again": percent, "number": "{:,}"},
        labels={"where": "snapshots", "number": "snapshots kept", "again": "read again"},
    )


def copies(measured: Measured, size: str) -> pd.DataFrame:
    """Measured copies beside the prefills that they spare: `model`, `tokens`, `bytes`, `copy`, `prefill` in seconds."""
    rows = []
    for model in measured.models:
        prefills = measured.series("prefill", model, size).set_index("prompt_tokens")["seconds_median"]
        for _, cell in measured.series("prefix", model, size).iterrows():
            row = {"model": model, "tokens": int(cell["prompt_tokens"]), "bytes": cell["kept_bytes"]}
            row |= {"copy": cell["seconds_median"], "share": cell["share_of_copy_bandwidth"]}
            rows.append(row | {"prefill": _between(prefills, cell["prompt_tokens"])})
    return pd.DataFrame(rows, columns=["model", "tokens", "bytes", "copy", "share", "prefill"])


def num_copies(measured: Measured, size: str) -> int:
    """How many copies of a prefix were timed."""
    return len(copies(measured, size))


def _between(times: pd.Series, tokens: float) -> float:
    """A time at a number of tokens, between timed ones by a straight line in log-log axes; NaN outside of them."""
    times = times[times.index > 0]
    if tokens in times.index:
        return float(times[tokens])
    if not len(times) or not times.index.min() <= tokens <= times.index.max():
        return float("nan")
    return float(np.exp(np.interp(np.log(tokens), np.log(times.index.to_numpy()), np.log(times.to_numpy()))))


def show_copies(measured: Measured, size: str) -> Html:
    """Time of a copy and of the prefill that it spares, over the prefix."""
    table = copies(measured, size)
    figure, (ax,) = subplots(height=3.4)
    for model, rows in table.groupby("model", sort=False):
        look = LOOKS[str(model)]
        ax.plot(
            rows["tokens"], 1e3 * rows["prefill"], label=f"{MODEL_LABELS[str(model)]}: prefill", **look, markersize=4.5
        )
        ax.plot(
            rows["tokens"], 1e3 * rows["copy"], **{**look, "linestyle": ":"}, markersize=4.5, markerfacecolor="none"
        )
    ax.plot([], [], color="0.5", linestyle=":", marker="o", markerfacecolor="none", label="copies")
    ax.set_xscale("log", base=2)
    ticks = sorted(table["tokens"].unique())
    ax.set_xticks(ticks, [tokens_text(tick) for tick in ticks])
    ax.set_yscale("log")
    count_ticks(ax.yaxis, (1.0,))
    ax.set_xlabel(_AXIS)
    ax.set_ylabel("time (ms)")
    ax.legend(loc="upper left", fontsize=8.5)
    return show(
        figure,
        name="prefix-copies",
        alt="Times over the tokens of a prefix: copies lie far below prefills; that of a state does not grow.",
        caption=f"Copying what a {size} model knows of a prefix (dotted) against reading the prefix (lines), B = 1, on "
        f"{measured.device}. Paged attention would not copy keys and values, but read them where they are.",
    )


def show_copy_table(measured: Measured, size: str) -> Html:
    """The same in numbers."""
    table = copies(measured, size).assign(ratio=lambda rows: rows["prefill"] / rows["copy"])
    table["model"] = table["model"].map(MODEL_LABELS)
    return show_table(
        table[["model", "tokens", "bytes", "copy", "share", "prefill", "ratio"]],
        name="prefix-copy-times",
        caption=f"A copy of what the {size} models keep of a prefix, and the prefill that it spares, B = 1. Share: "
        "bytes read and written per second over those of a large copy.",
        formats={
            "tokens": tokens_text,
            "bytes": lambda value: significant(value / 2**20),
            "copy": milliseconds,
            "share": percent,
            "prefill": milliseconds,
            "ratio": lambda value: f"{value:,.0f}",
        },
        labels={
            "bytes": "bytes (MiB)",
            "copy": "copy (ms)",
            "share": "bytes/s reached",
            "prefill": "prefill (ms)",
            "ratio": "prefill / copy",
        },
    )


def seconds_per_token(measured: Measured, size: str, tokens: int) -> dict[str, float]:
    """Seconds of a prefill per token at one length, B = 1, by model."""
    cells = {model: measured.at("prefill", model, size, tokens) for model in measured.models}
    return {model: float(cell["seconds_median"]) / tokens for model, cell in cells.items() if cell is not None}


def show_links(
    models: Mapping[str, Architecture], per_token: Mapping[str, float], links: Mapping[str, float], size: str
) -> Html:
    """The prefix from which loading it over a link is faster than reading it again, by link and model.

    Parameters
    ----------
    per_token
        seconds of a prefill per token, see `seconds_per_token`.
    links
        bytes per second by name.
    """
    rows = []
    for name, rate in links.items():
        row = {"from": name, "rate": f"{significant(rate / 1e9)} GB/s"}
        for model in per_token:
            row[MODEL_LABELS[model]] = _prefix_text(kept_by(models[model]).paying_prefix(per_token[model], rate))
        rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="prefix-links",
        caption=f"Tokens from which a prefix of the {size} models is loaded faster than it is read again, by where it "
        "is kept. always: at any length; never: one token takes longer to load than to read.",
        labels={"rate": "rate of the link"},
    )


def _prefix_text(tokens: float) -> str:
    if tokens == 0:
        return "always"
    return "never" if np.isinf(tokens) else f"{tokens:,.0f}"


def show_intervals(kept: KeptPerSequence, hits: Sequence[float], **costs: float) -> Html:
    """The best distance of snapshots by the number of requests that meet a prefix (`companion.inference.prefix`)."""
    rows = []
    for number in hits:
        every = best_interval(kept, hits=number, **costs)
        snapshots = costs["prefix_tokens"] / every
        row: dict[str, object] = {"hits": number, "every": every, "snapshots": snapshots}
        rows.append(row | {"held": gib(snapshots * kept.state_bytes), "again": (every - 1) / 2})
    return show_table(
        pd.DataFrame(rows),
        name="prefix-intervals",
        caption=f"The distance of snapshots that takes the least time of the device, for a prefix of "
        f"{tokens_text(costs['prefix_tokens'])} tokens that is kept for {costs['seconds_kept']:g} s.",
        formats={"hits": "{:,.0f}", "every": "{:,.0f}", "snapshots": "{:.1f}", "again": "{:,.0f}"},
        labels={
            "hits": "requests",
            "every": "tokens between snapshots",
            "held": "snapshots (GiB)",
            "again": "tokens read again, mean",
        },
    )


def prefix_facts(measured: Measured, models: Mapping[str, Architecture], size: str, tokens: int) -> dict[str, object]:
    """Sizes of snapshots and caches, and what was measured of copies."""
    kept = {model: kept_by(architecture) for model, architecture in models.items()}
    table = copies(measured, size).dropna(subset="prefill")
    facts: dict[str, object] = {
        "c14_equal_cache": _equal(models, "transformer"),
        "c14_equal_cache_grouped": _equal(models, "grouped"),
        "c14_copies": copy_verdict(table),
        "c14_copy_check": copy_check_verdict(measured.checks),
    }
    for model, each in kept.items():
        facts[f"c14_token_{model}"] = f"{significant(each.token_bytes / 2**10)} KiB"
        facts[f"c14_snapshot_{model}"] = f"{significant(each.state_bytes / 2**20)} MiB"
        facts[f"c14_entry_{model}"] = f"{gib(float(each.entry_bytes(tokens)))} GiB"
    if "hybrid" in kept:
        facts["c14_hybrid_snapshot_tokens"] = f"{kept['hybrid'].tokens_of_one_snapshot:,.0f}"
    return facts


def _equal(models: Mapping[str, Architecture], attention: str) -> str:
    if not {attention, "xlstm"} <= set(models):
        return "an unknown number of"
    return f"{float(context_of_equal_cache(models[attention], models['xlstm'])):,.0f}"


def copy_verdict(table: pd.DataFrame) -> str:
    """A verdict: how much longer reading a prefix takes than copying what is kept of it."""
    if table.empty:
        return "No copy was timed in these records"
    ratios = table["prefill"] / table["copy"]
    words = span_text(ratios, lambda value: f"{value:,.0f}")
    if ratios.min() > 1:
        return f"In every case that was timed the prefill takes longer than the copy, {words} times as long"
    return f"The prefill takes {words} times as long as the copy: below one the copy does not pay"


def copy_check_verdict(checks: pd.DataFrame) -> str:
    """A verdict: whether a model that goes on from a copy computes what it would after reading everything."""
    rows = checks[checks["quantity"].fillna("").str.contains("cop")]
    if rows.empty:
        return "These records hold no check of a continued copy"
    if (rows["verdict"] != "pass").any():
        return f"In {plural(int((rows['verdict'] != 'pass').sum()), 'case')} the logits after a continued copy differ"
    decided = rows[rows["reference_error"] <= DECIDES]
    idle = len(rows) - len(decided)
    more = (
        f". In {plural(idle, 'case')} the check decides nothing, because plain PyTorch loses every digit"
        if idle
        else ""
    )
    if decided.empty:
        return f"No check of a continued copy decides{more}"
    worst = decided.iloc[int((decided["error"] / decided["tolerance"]).argmax())]
    error, plain = (significant(float(worst[name]), 2) for name in ("error", "reference_error"))
    return (
        "A model that goes on from a copy computes what it would in one pass over everything: the relative error "
        f"against float32 is at most {error}, that of plain PyTorch {plain}{more}"
    )
