"""Chapter 14: values and verdicts of the sections on times."""

import numpy as np
import pandas as pd

from companion.accounting.inference import count_step
from companion.chapters.ch14.labels import DECIDES, from_words, peaks_text, tokens_text
from companion.chapters.ch14.measured import PARTS, Measured
from companion.chapters.ch14.times import SHARE, library_rows
from companion.chapters.timed_models import since_then
from companion.formatting import listed, number_word, percent, plural, significant, span_text


def time_facts(measured: Measured, size: str, tokens: int, batch: int = 1) -> dict[str, object]:
    """Values of the answer and of the sections on times."""
    shares = {part: shares_at(measured, part, size, tokens, batch) for part in PARTS.values()}
    rows = library_rows(measured, tokens)
    library = rows[rows["size"] == size].set_index("model")["ratio"]
    skipped = measured.skipped
    facts: dict[str, object] = {
        "c14_device": measured.device,
        "c14_size": size,
        "c14_at": tokens_text(tokens),
        "c14_first_from": from_words(measured.crossover("ttft", "xlstm", "transformer", size, batch)),
        "c14_step_from": from_words(measured.crossover("step_time", "xlstm", "transformer", size, batch)),
        "c14_first_from_grouped": from_words(measured.crossover("ttft", "xlstm", "grouped", size, batch)),
        "c14_step_from_grouped": from_words(measured.crossover("step_time", "xlstm", "grouped", size, batch)),
        "c14_flops_span": span_text(shares["prefill"].values()),
        "c14_bytes_span": span_text(shares["step"].values()),
        "c14_kinds": "; ".join(KINDS[model] for model in measured.models),
        "c14_num_models": number_word(len(measured.models)),
        "c14_num_cells": f"{len(measured.cells):,}",
        "c14_sizes": listed(measured.sizes),
        "c14_batches": listed(measured.batches),
        "c14_torch": measured.versions.get("torch", "an unknown release") + since_then(measured.records[-1:]),
        "c14_dates": " to ".join(dict.fromkeys(measured.dates)),
        "c14_peak_flops": peaks_text(measured.peaks)[0],
        "c14_peak_bytes": peaks_text(measured.peaks)[1],
        "c14_stated": stated_verdict(measured),
        "c14_skipped": skipped_verdict(skipped),
        "c14_checks": check_verdict(measured.checks),
        "c14_library": library_verdict(library, tokens),
        "c14_target_first": target_verdict(shares["prefill"].get("xlstm"), 0.45),
        "c14_target_step": target_verdict(
            min((share for model, share in shares["step"].items() if model in ("transformer", "xlstm")), default=None),
            0.85,
        ),
        "c14_batches_share": batch_verdict(measured, size),
    }
    return facts


def shares_at(measured: Measured, part: str, size: str, tokens: int, batch: int) -> dict[str, float]:
    """Share of the peak that limits a part at one context, by model."""
    cells = {model: measured.at(part, model, size, tokens, batch) for model in measured.models}
    return {
        model: float(cell[SHARE[part]])
        for model, cell in cells.items()
        if cell is not None and not np.isnan(cell[SHARE[part]])
    }


def target_verdict(share: float | None, target: float) -> str:
    """A verdict: whether a share reaches a target that was set before measuring."""
    if share is None:
        return "not timed"
    return f"{'reached' if share >= target else 'missed'}: {percent(share)}"


def batch_verdict(measured: Measured, size: str) -> str:
    """A verdict: how much of the bandwidth steps reach at larger batches, over all contexts."""
    parts = []
    for batch in [batch for batch in measured.batches if batch > 1]:
        series = {model: measured.series("step", model, size, batch) for model in ("transformer", "xlstm")}
        spans = {model: span_text(rows[SHARE["step"]]) for model, rows in series.items() if len(rows)}
        texts = [f"{OWN[model]} {span}" for model, span in spans.items()]
        parts += [f"with {batch} sequences {' and '.join(texts)}"] if texts else []
    if not parts:
        return "Steps of several sequences were not timed"
    first, *others = parts
    return "; ".join([f"{first[0].upper()}{first[1:]} of the bandwidth, depending on the context", *others])


def stated_verdict(measured: Measured) -> str:
    """A verdict: the peaks that the vendor states for the device."""
    if measured.datasheet is None:
        return "Our table of hardware lacks this device, so there are no stated peaks to compare with"
    return "The vendor states {} and {}".format(*peaks_text(measured.datasheet))


def library_verdict(ratios: pd.Series, tokens: int) -> str:
    """A verdict: whether the library is faster than ours for the same shapes."""
    if "transformer" not in ratios:
        return "The library was not timed beside these models"
    ratio = float(ratios["transformer"])
    start = f"At {tokens_text(tokens)} tokens the library's Transformer takes {ratio:.2f} times as long as ours"
    if ratio >= 1:
        return f"{start}, so the baseline here is no weaker than the one that people use"
    return f"{start}: with the library as baseline the Transformer would look better than in this chapter"


#: Whose steps, in a list, and what each model is.
OWN = {"transformer": "those of the Transformer reach", "xlstm": "those of the xLSTM"}
KINDS = {
    "transformer": "the Transformer with as many heads of keys and values (K/V heads) as of queries",
    "grouped": "the same with four query heads to one K/V head",
    "xlstm": "the xLSTM",
    "hybrid": "a hybrid in which every eighth layer is attention with grouped heads",
}
#: What the reason of a cell that was left out says, and how a sentence puts it.
_REASONS = {
    "GiB": "for want of memory",
    "the limit is": "for the time that they would take",
    "is not installed": "because a package was not installed",
    "failed": "because they failed",
}


def skipped_verdict(skipped: pd.DataFrame) -> str:
    """A verdict: how many cells were left out, and why."""
    if not len(skipped):
        return "No cell was left out"
    words = [
        next((words for part, words in _REASONS.items() if part in reason), "for other reasons")
        for reason in skipped["skipped"]
    ]
    parts = [f"{number:,} {why}" for why, number in pd.Series(words).value_counts().items()]
    were = "was" if len(skipped) == 1 else "were"
    return f"{plural(len(skipped), 'cell')} {were} left out: {listed(parts)}"


def check_verdict(checks: pd.DataFrame) -> str:
    """A verdict: how many checks there were, how many failed, and how many could not."""
    if not len(checks):
        return "These records hold no checks"
    failed = int((checks["verdict"] != "pass").sum())
    words = "passed all" if not failed else f"failed {number_word(failed)} of the"
    found = f"The models {words} {plural(len(checks), 'check')} against plain PyTorch before anything was timed"
    idle = int((checks["reference_error"] > DECIDES).sum())
    if idle:
        few = f"{number_word(idle)} of these decide nothing"
        return f"{found}, but {few}: in bf16 plain PyTorch itself loses every digit there"
    return found


def step_facts(measured: Measured, size: str, tokens: int, model: str = "xlstm") -> dict[str, object]:
    """Bytes of a step, its least time, and the share of the weights, for an exercise."""
    cell = measured.at("step", model, size, tokens)
    if cell is None:
        return {}
    weights = float(count_step(measured.architectures[model, size], tokens + 1).traffic.weights)
    return {
        "c14_ex_bytes": f"{significant(cell['bytes'] / 1e9)} GB",
        "c14_ex_floor": f"{significant(1e3 * cell['bytes'] / measured.peaks.peak_bytes_per_s)} ms",
        "c14_ex_weights": percent(weights / cell["bytes"]),
    }
