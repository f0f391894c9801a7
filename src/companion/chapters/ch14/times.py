"""Chapter 14: times of first token and step, how much of the device they use, and the memory that they take."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.chapters.ch14.labels import (
    QUANTITY_NAMES,
    THE,
    crossover_text,
    gib,
    milliseconds,
    or_dash,
    peaks_text,
    tokens_text,
)
from companion.chapters.ch14.measured import LIBRARY, PARTS, Measured
from companion.chapters.timed_models import LOOKS, MODEL_LABELS
from companion.errors import NotApplicable
from companion.formatting import percent, significant
from companion.plotting import LABELS as AXIS_LABELS
from companion.plotting import Html, show, show_table, subplots
from companion.plotting.style import count_ticks, percent_ticks

#: Which share of the device limits a part: FLOP/s of a prefill, bytes/s of a step.
SHARE = {"prefill": "share_of_matmul_peak", "step": "share_of_copy_bandwidth"}


def _lines(ax: Axes, measured: Measured, part: str, column: str, size: str, batch: int, scale: float = 1.0) -> None:
    """A line per model over the tokens."""
    for model in measured.models:
        rows = measured.series(part, model, size, batch)
        rows = rows[rows["prompt_tokens"] > 0]
        ax.plot(rows["prompt_tokens"], scale * rows[column], label=MODEL_LABELS[model], markersize=4.5, **LOOKS[model])
    ax.set_xscale("log", base=2)
    ax.set_xlabel(AXIS_LABELS["context_length"])


def _token_ticks(ax: Axes, measured: Measured) -> None:
    """Every other power of two from 512 tokens on: 512, 2k, 8k."""
    longest = measured.best["prompt_tokens"].max()
    ticks = [2**n for n in range(9, 21, 2) if 2**n <= 1.01 * longest]
    ax.set_xticks(ticks, [tokens_text(tick) for tick in ticks])


def times_panels(measured: Measured, size: str, batch: int) -> Figure:
    """Time of the first token and of a step over the context, a line per model."""
    figure, (left, right) = subplots(1, 2, height=3.4)
    for ax, (quantity, part) in zip((left, right), PARTS.items(), strict=True):
        _lines(ax, measured, part, "seconds_median", size, batch, 1e3)
        ax.set_yscale("log")
        ax.set_title(QUANTITY_NAMES[quantity])
        ax.set_ylabel("time (ms)")
        count_ticks(ax.yaxis)
        _token_ticks(ax, measured)
    left.legend(loc="upper left")
    return figure


def show_times(measured: Measured, size: str, batch: int) -> Html:
    """Time of the first token and of a step over the context."""
    return show(
        times_panels(measured, size, batch),
        name="measured-times",
        alt="Two panels over the context, a line for each of the models: time to first token, which rises for all, and "
        "step time, which rises where a cache is read.",
        caption=f"Time to first token (left) and of one step (right) of the {size} models, B = {batch}, in bf16 on "
        f"{measured.device}: the fastest setting of each. Only a step that reads a cache grows with the context.",
    )


def show_summary(measured: Measured, size: str, tokens: int, batch: int = 1) -> Html:
    """A row per model at one context: times, shares of the device, memory."""
    rows = []
    for model in measured.models:
        cells = {part: measured.at(part, model, size, tokens, batch) for part in PARTS.values()}
        row = {"model": MODEL_LABELS[model]}
        for part, cell in cells.items():
            row[part] = "–" if cell is None else milliseconds(cell["seconds_median"])
            row[f"{part} share"] = "–" if cell is None else or_dash(cell[SHARE[part]], percent)
        held = None if cells["prefill"] is None else cells["prefill"]["peak_memory_bytes"]
        rows.append(row | {"memory": or_dash(held, gib)})
    return show_table(
        pd.DataFrame(rows),
        name="measured-summary",
        caption=f"The {size} models at {tokens_text(tokens)} tokens, B = {batch}. FLOP/s are a share of what a product "
        f"of 8192 × 8192 matrices reaches ({peaks_text(measured.peaks)[0]}), bytes/s of what a copy reaches "
        f"({peaks_text(measured.peaks)[1]}), both measured in the same runs.",
        labels={
            "prefill": "first token (ms)",
            "prefill share": "FLOP/s reached",
            "step": "step (ms)",
            "step share": "bytes/s reached",
            "memory": "memory at most (GiB)",
        },
    )


def show_shares(measured: Measured, size: str, batch: int) -> Html:
    """Share of the measured peaks over the context: FLOP/s of a prefill, bytes/s of a step."""
    figure, axes = subplots(1, 2, height=3.2)
    titles = {"prefill": "prefill: share of matmul FLOP/s (%)", "step": "step: share of copy bytes/s (%)"}
    for ax, part in zip(axes, titles, strict=True):
        _lines(ax, measured, part, SHARE[part], size, batch)
        ax.set_ylim(0, max(1.0, ax.get_ylim()[1]))
        percent_ticks(ax.yaxis)
        ax.set_ylabel(titles[part])
        _token_ticks(ax, measured)
    axes[0].legend(loc="lower right")
    return show(
        figure,
        name="measured-shares",
        alt="Share of the peak over the context, in two panels: FLOP/s of prefills and bytes/s of steps, a line for "
        "each model.",
        caption=f"How much of the device the {size} models use, B = {batch}: FLOPs counted by the paper's rules per "
        "second of prefill over those of a large product, and bytes of weights, cache and state per second of a step "
        "over those of a copy.",
    )


def show_ratios(measured: Measured, tokens: int, second: str = "transformer", first: str = "xlstm") -> Html:
    """Time of one model over that of another at one context, by size and batch."""
    rows = []
    for size in measured.sizes:
        row = {"size": size}
        for quantity, part in PARTS.items():
            for batch in measured.batches:
                sides = [measured.at(part, model, size, tokens, batch) for model in (second, first)]
                known = all(side is not None for side in sides)
                ratio = sides[0]["seconds_median"] / sides[1]["seconds_median"] if known else None  # type: ignore[index]
                row[f"{QUANTITY_NAMES[quantity]}, B = {batch}"] = or_dash(ratio, lambda r: f"{r:.2f}")
        rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="measured-ratios",
        caption=f"Time of {THE[second]} over that of {THE[first]} at {tokens_text(tokens)} tokens, equal size: above 1 "
        f"{THE[first]} is faster. –: one of the two did not fit in memory, or was left out.",
    )


def library_rows(measured: Measured, tokens: int, batch: int = 1) -> pd.DataFrame:
    """Prefill of the library beside ours: `model`, `size`, `ours`, `library` in seconds, `ratio`, `launch`."""
    found = []
    for size in measured.sizes:
        for model in measured.models:
            ours = measured.at("prefill", model, size, tokens, batch)
            library = measured.at("prefill", model, size, tokens, batch, LIBRARY)
            if ours is not None and library is not None:
                row = {"model": model, "size": size, "ours": ours["seconds_median"]}
                row |= {"library": library["seconds_median"], "launch": library["launch"]}
                found.append(row | {"ratio": library["seconds_median"] / ours["seconds_median"]})
    return pd.DataFrame(found, columns=["model", "size", "ours", "library", "ratio", "launch"])


def show_library(measured: Measured, tokens: int) -> Html:
    """Time to first token of the `transformers` library with the same shapes, beside ours."""
    rows = library_rows(measured, tokens)
    return show_table(
        rows.assign(model=rows["model"].map(MODEL_LABELS)),
        name="measured-library",
        caption=f"Time to first token of the same shapes in the transformers library "
        f"({measured.versions.get('transformers', 'version unknown')}), its fastest attention and launch, B = 1, "
        f"{tokens_text(tokens)} tokens. Ratio: library over ours.",
        formats={"ours": milliseconds, "library": milliseconds, "ratio": "{:.2f}"},
        labels={"ours": "ours (ms)", "library": "library (ms)", "launch": "launch of the library"},
    )


def show_memory(measured: Measured, size: str, batch: int) -> Html:
    """Most memory that a prefill and a step held, over the context."""
    figure, axes = subplots(1, 2, height=3.2, sharey=True)
    for ax, part in zip(axes, PARTS.values(), strict=True):
        _lines(ax, measured, part, "peak_memory_bytes", size, batch, 2.0**-30)
        ax.axhline(measured.peaks.memory_bytes / 2**30, color="0.5", linestyle=":", linewidth=1.2)
        ax.set_yscale("log")
        ax.set_title(part)
        count_ticks(ax.yaxis)
        _token_ticks(ax, measured)
    axes[0].set_ylabel("memory at most (GiB)")
    axes[0].legend(loc="upper left", bbox_to_anchor=(0, 0.93))  # below the dotted line
    return show(
        figure,
        name="measured-memory",
        alt="Memory over the context for prefills and steps: it rises with the context where a cache is kept, and in "
        "prefills of every model.",
        caption=f"Most memory that torch held, {size} models, B = {batch}: weights, cache or state, and activations. "
        "Dotted: memory of the device.",
    )


def show_longest(measured: Measured) -> Html:
    """The longest context that ran, by model, size and batch, in a prefill and in a step."""
    rows = []
    asked = set(zip(measured.table["size"], measured.table["model"], strict=True))
    for size in measured.sizes:
        for model in [model for model in measured.models if (size, model) in asked]:
            row = {"size": size, "model": MODEL_LABELS[model]}
            for quantity, part in PARTS.items():
                for batch in measured.batches:
                    series = measured.series(part, model, size, batch)
                    longest = series["prompt_tokens"].max() if len(series) else None
                    row[f"{QUANTITY_NAMES[quantity]}, B = {batch}"] = or_dash(longest, tokens_text)
            rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="measured-longest",
        caption="Longest context in tokens that was timed. What is longer did not fit in memory, or was left out for "
        "the time that it takes.",
    )


def show_checks(measured: Measured) -> Html:
    """What was checked before anything was timed: the largest error of each kind of check."""
    checks = measured.checks
    grouped = (
        checks.assign(over=checks["error"] / checks["tolerance"]).sort_values("over").groupby("quantity", sort=False)
    )
    rows = grouped.tail(1).assign(
        number=lambda table: table["quantity"].map(checks["quantity"].value_counts()),
        failed=lambda table: table["quantity"].map((checks["verdict"] != "pass").groupby(checks["quantity"]).sum()),
    )
    return show_table(
        rows[["quantity", "number", "error", "reference_error", "tolerance", "failed"]],
        name="measured-checks",
        caption="Checks of the models before they were timed. Errors are relative. Of each kind, the check that comes "
        "closest to its tolerance is shown, beside the error of plain torch in the same dtype.",
        formats={name: (lambda value: significant(value, 2)) for name in ("error", "reference_error", "tolerance")},
        labels={"number": "checks", "reference_error": "error of plain torch"},
    )


def show_beside(own: Measured, recorded: Measured, size: str, batch: int = 1) -> Html:
    """The reader's device beside the recorded one: times and shares of peaks at a short, middle and long context."""
    size = common_size(own, recorded, size)
    rows = []
    for model in [model for model in own.models if model in recorded.models]:
        for tokens in _common_tokens(own, recorded, model, size, batch):
            row = {"model": MODEL_LABELS[model], "tokens": tokens_text(tokens)}
            for part in PARTS.values():
                cells = [measured.at(part, model, size, tokens, batch) for measured in (own, recorded)]
                texts = ["–" if cell is None else milliseconds(cell["seconds_median"]) for cell in cells]
                shares = ["–" if cell is None else or_dash(cell[SHARE[part]], percent) for cell in cells]
                row |= {part: " / ".join(texts), f"{part} share": " / ".join(shares)}
            rows.append(row)
    return show_table(
        pd.DataFrame(rows, columns=["model", "tokens", "prefill", "prefill share", "step", "step share"]),
        name="measured-beside",
        caption=f"Your {own.device} / {recorded.device}: {size} models, B = {batch}. Shares are those of the peak that "
        "each device reached in its own run.",
        labels={
            "prefill": "first token (ms)",
            "prefill share": "FLOP/s reached",
            "step": "step (ms)",
            "step share": "bytes/s reached",
        },
    )


def common_size(own: Measured, recorded: Measured, wanted: str) -> str:
    """The wanted size if both devices have it, else the largest that both have.

    Raises
    ------
    NotApplicable
        if there is none.
    """
    common = [size for size in own.sizes if size in recorded.sizes]
    if not common:
        raise NotApplicable(f"your records have the sizes {', '.join(own.sizes)}, ours {', '.join(recorded.sizes)}")
    return wanted if wanted in common else common[-1]


def _common_tokens(own: Measured, recorded: Measured, model: str, size: str, batch: int) -> list[int]:
    """At most three contexts that both devices have, of both parts if there are such: short, middle and long."""
    by_part = [
        {int(tokens) for tokens in own.series(part, model, size, batch)["prompt_tokens"] if tokens > 0}
        & {int(tokens) for tokens in recorded.series(part, model, size, batch)["prompt_tokens"]}
        for part in PARTS.values()
    ]
    common = sorted(by_part[0] & by_part[1] or by_part[0] | by_part[1])
    return sorted({common[0], common[len(common) // 2], common[-1]}) if common else []


def show_crossovers(measured: Measured, pairs: Sequence[tuple[str, str]]) -> Html:
    """Contexts from which the first model of each pair is faster than the second, by size, at B = 1."""
    rows = []
    for first, second in pairs:
        for quantity in PARTS:
            row = {"faster": MODEL_LABELS[first], "than": MODEL_LABELS[second], "what": QUANTITY_NAMES[quantity]}
            for size in measured.sizes:
                row[size] = crossover_text(measured.crossover(quantity, first, second, size))
            rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="measured-pairs",
        caption="Context in tokens from which one model is faster than another, by size, B = 1. always: at every "
        "context that was timed.",
    )
