"""Chapter 8: what a prompt and a token cost, by exact accounting; no timing is needed here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting import PAPER
from companion.accounting.inference import (
    BF16,
    InferencePass,
    Precision,
    context_of_equal_cache,
    count_prefill,
    count_step,
)
from companion.accounting.mlstm_forms import MEASURES, best_chunk_size, chunkwise_per_token
from companion.chapters.ch08 import figures
from companion.chapters.ch08.common import NAMES, crossover_text, with_groups
from companion.formatting import listed, number_word, power_of_ten, significant
from companion.hardware import Hardware, hardware_table
from companion.inference.compare import crossover
from companion.plotting import Html, show
from companion.plotting.embed import show_table

_NO_BREAK = "\u00a0"
#: Contexts (tokens) of the passes on the roofline, and of the steps on other devices.
ROOFLINE_CONTEXTS = (512, 16384)
DEVICE_CONTEXTS = (2048, 32768)


def pass_table(passes: Iterable[tuple[str, InferencePass]], peaks: Hardware) -> Html:
    """Work, traffic and roofline time of passes of one sequence at one context.

    Parameters
    ----------
    passes
        pairs of the model's label and `count_prefill` or `count_step` of it.
    """
    passes, rows = list(passes), []
    for label, one in passes:
        row = {"model": label, "pass": one.kind, "FLOP": one.flops.total, "moved": one.traffic.total / 1e9}
        row |= {"cache": one.traffic.cache / 1e9, "intensity": one.arithmetic_intensity}
        rows.append(row | {"ms": 1e3 * one.roofline(peaks).seconds})
    tokens = figures.tokens_text(float(passes[0][1].context_length))
    return show_table(
        pd.DataFrame(rows),
        name="inference-passes",
        caption=f"A prompt of {tokens} tokens, and the step after it: one sequence on {peaks.label}. Weights and cache "
        "have 2 bytes per number, the state 4.",
        formats={"FLOP": power_of_ten, "ms": significant, "intensity": significant}
        | dict.fromkeys(("moved", "cache"), lambda v: significant(v, 2)),
        labels={"moved": "moved (GB)", "cache": "of which cache or state (GB)", "intensity": "FLOP per byte"}
        | {"ms": "roofline (ms)"},
    )


def costs_figure(
    models: Mapping[str, Any],
    example: Mapping[str, Any],
    batch_sizes: Sequence[int],
    peaks: Hardware,
    longest: int,
    model_size: str,
) -> Html:
    """Bytes kept per sequence over the context, beside the roofline of a device with prefills and steps on it.

    Parameters
    ----------
    models
        by label: a Transformer, one with grouped heads, an xLSTM.
    example
        the models on the roofline, by architecture.
    longest
        context, tokens.
    """
    grid = np.geomspace(64, longest, 60).round()
    curves = {
        label: pd.DataFrame(
            {
                "architecture": model.name,
                "context_length": grid,
                "cache_bytes": np.broadcast_to(np.asarray(count_step(model, grid).memory.cache), grid.shape),
            }
        )
        for label, model in models.items()
    }
    plain, grouped, xlstm = models.values()
    equal = float(context_of_equal_cache(plain, xlstm))
    batches = " and ".join(map(str, _with_one(batch_sizes)))
    return show(
        figures.memory_and_roofline(curves, equal, intensities(example, batch_sizes), peaks),
        name="inference-costs",
        alt="First: bytes per sequence over context in log-log axes, two rising lines for keys and values, a flat one "
        "for the state. Second: attainable FLOP/s rise with arithmetic intensity up to the ridge; prefills lie right "
        "of it, steps left.",
        caption=f"First panel: what one sequence keeps, {model_size} models. The state equals the keys and values of "
        f"{equal:,.0f} tokens ({context_of_equal_cache(grouped, xlstm):,.0f} with {grouped.n_kv_heads} K/V heads). "
        f"Second: roofline of {peaks.label}; below it the intensity of passes at T = 512 and 16k, B = {batches}. "
        "Dotted: equal bytes, ridge.",
    )


def intensities(example: Mapping[str, Any], batch_sizes: Iterable[int]) -> pd.DataFrame:
    """Arithmetic intensity of prefills and steps at two contexts, a batch of one among the batches.

    Returns
    -------
    DataFrame with `architecture`, `kind` (`prefill`, `step`), `T`, `B` and `arithmetic_intensity` (FLOP per byte).
    """
    points = [
        {
            "architecture": name,
            "kind": one.kind,
            "T": T,
            "B": batch,
            "arithmetic_intensity": float(one.arithmetic_intensity),
        }
        for name, model in example.items()
        for batch in _with_one(batch_sizes)
        for T in ROOFLINE_CONTEXTS
        for one in (count_prefill(model, T, batch), count_step(model, T, batch))
    ]
    return pd.DataFrame(points)


def cost_facts(
    models: Mapping[str, Any], example: Mapping[str, Any], batch_sizes: Sequence[int], peaks: Hardware
) -> dict[str, str]:
    """Facts of the accounting: room for sequences, and intensities of prefills and steps."""
    room = []
    for label, model in models.items():
        held = count_step(model, ROOFLINE_CONTEXTS[-1]).memory
        room.append(f"{int(max(0, (peaks.memory_bytes - held.weights) // held.cache)):,} ({label})")
    ends: dict[tuple[str, str], str] = {}
    for kind, values in intensities(example, batch_sizes).groupby("kind")["arithmetic_intensity"]:
        ends[str(kind), "min"], ends[str(kind), "max"] = (significant(f(values), 2) for f in (min, max))
    return {
        "c8_device_name": peaks.label,
        "c8_ridge": f"{peaks.ridge:.0f}",
        "c8_room": listed(room),
        "c8_room_context": figures.tokens_text(ROOFLINE_CONTEXTS[-1]),
        "c8_prefill_intensity": f"{ends['prefill', 'min']} to {ends['prefill', 'max']}",
        "c8_step_intensity": f"{ends['step', 'min']} to {ends['step', 'max']}",
        "c8_prefill_least": ends["prefill", "min"],
        "c8_step_most": ends["step", "max"],
    }


def chunk_costs(xlstm: Any, context_length: int, peaks: Hardware) -> pd.DataFrame:
    """Cost per token over the chunk length: `chunk_size`, `flops`, `bytes`, `seconds` (roofline)."""
    sizes = np.unique(np.geomspace(1, context_length, 300).round())
    counted = chunkwise_per_token(xlstm, context_length, sizes)
    costs = pd.DataFrame(
        {"chunk_size": sizes, "flops": counted["flops_per_token"], "bytes": counted["bytes_per_token"]}
    )
    return costs.assign(
        seconds=np.maximum(costs["flops"] / peaks.peak_flops_per_s, costs["bytes"] / peaks.peak_bytes_per_s)
    )


def chunk_facts(xlstm: Any, context_length: int, peaks: Hardware) -> dict[str, str]:
    """The best chunks by several measures, the rule of thumb for one, and a verdict on the paper's chunk."""
    costs = chunk_costs(xlstm, context_length, peaks)
    at_paper = costs.iloc[(costs["chunk_size"] - PAPER.chunk_size).abs().argmin()]
    return {
        "c8_chunk_rule": f"{np.sqrt(xlstm.d_qk * xlstm.d_hv / (xlstm.d_qk + xlstm.d_hv)):.1f}",
        **{
            f"c8_chunk_{measure}": f"{best_chunk_size(xlstm, context_length, measure, hardware=peaks):,}"
            for measure in MEASURES
        },
        "c8_chunk": chunk_verdict(at_paper["seconds"] / costs["seconds"].min()),
    }


def chunk_verdict(slower: float) -> str:
    """Whether memory limits the cell at the paper's chunk; `slower`: roofline time there over the least."""
    times = f"At L = {PAPER.chunk_size}, the paper's chunk, the cell's roofline time is {slower:.2f} times the least"
    if slower > 1.02:
        return f"{times}. Memory still limits the cell there, and a longer chunk trades traffic for arithmetic"
    return times


def cache_choices(
    example: Mapping[str, Any],
    choices: Mapping[str, tuple[int | None, Precision]],
    batch_sizes: Sequence[int],
    peaks: Hardware,
    longest: int,
) -> pd.DataFrame:
    """Where cache and state, and the roofline steps, are equal for several ways to hold them.

    Parameters
    ----------
    choices
        by label: heads of keys and values (None: as many as of queries), and bytes per number.

    Returns
    -------
    DataFrame with `cache` (label), `groups` (heads of keys and values), `equal` (tokens) and a column `B = b` per
    batch: the crossover of the step in words.
    """
    T = np.unique(np.geomspace(16, longest, 200).round())
    transformer, xlstm = (example[name] for name in NAMES)
    rows = []
    for label, (wanted, precision) in choices.items():
        heads = min(wanted or transformer.n_heads, transformer.n_heads)
        while transformer.n_heads % heads:
            heads += 1  # the heads of keys and values must divide those of queries
        grouped = with_groups(transformer, heads)
        row = {"cache": label, "groups": heads, "equal": context_of_equal_cache(grouped, xlstm, precision)}
        for batch in batch_sizes:
            steps = [count_step(m, T, batch, precision=precision).roofline(peaks).seconds for m in (xlstm, grouped)]
            row[f"B = {batch}"] = crossover_text(float(crossover(T, steps[1] / steps[0])), longest)
        rows.append(row)
    return pd.DataFrame(rows)


def cache_choices_table(shrunk: pd.DataFrame, peaks: Hardware, model_size: str) -> Html:
    """The table of `cache_choices`."""
    batches = [column for column in map(str, shrunk) if column.startswith("B = ")]
    return show_table(
        shrunk,
        name="inference-cache-choices",
        caption=f"Smaller caches, {model_size} models as trained, {peaks.label}: the context at which cache and state "
        "are equally large, and that from which the xLSTM's step is faster by the roofline.",
        formats={"equal": "{:,.0f}"},
        labels={"cache": "cache and state", "equal": "equal bytes at (tokens)", "groups": "K/V heads"}
        | {column: f"step crosses, {column.replace(' ', _NO_BREAK)} (tokens)" for column in batches},
    )


def cache_choices_facts(shrunk: pd.DataFrame, batch_sizes: Sequence[int]) -> dict[str, str]:
    """Crossovers of the step for all heads, and for four of keys and values with a cache of one byte per number."""
    wide, narrow = shrunk.set_index("cache").loc[["all K/V heads", "4 K/V heads, 1-byte cache"]].to_dict("records")
    few, many = (f"B = {batch_sizes[at]}" for at in (0, -1))
    return {
        "c8_groups_batch": many,
        "c8_groups_moved": f"{wide[many]} to {narrow[many]}",
        "c8_groups_few": few,
        "c8_groups_moved_few": f"{wide[few]} to {narrow[few]}",
    }


def device_facts(example: Mapping[str, Any], batch_size: int) -> dict[str, str]:
    """How many steps memory limits over all devices, and on how many of these a batch at the longer context fits."""
    devices = list(hardware_table()["name"])
    bounds = [
        bool(count_step(model, T, batch_size).roofline(entry).compute_bound)
        for entry in devices
        for model in example.values()
        for T in DEVICE_CONTEXTS
    ]
    facts = {"c8_memory_bound": f"{len(bounds) - sum(bounds)}", "c8_num_steps": f"{len(bounds)}"}
    facts |= {"c8_num_devices": number_word(len(devices)), "c8_far_context": figures.tokens_text(DEVICE_CONTEXTS[-1])}
    for name, model in example.items():
        step = count_step(model, DEVICE_CONTEXTS[-1], batch_size)
        fits = sum(not step.fit_message(entry) for entry in devices)
        facts[f"c8_far_{name}"] = f"{step.memory.total / 2**30:,.0f} GiB"
        facts[f"c8_far_fits_{name}"] = {0: "none", len(devices): "all"}.get(fits, number_word(fits))
    return facts


def grouped_row(
    example: Mapping[str, Any], n_kv_heads: int, batch_sizes: Sequence[int], peaks: Hardware, longest: int
) -> dict[str, str]:
    """Crossovers of the step with grouped heads, by the roofline at equal size: a row of the table of the answer."""
    found = cache_choices(example, {"": (n_kv_heads, BF16)}, batch_sizes, peaks, longest).iloc[0]
    row = {"what": f"step, {found['groups']} K/V heads", "by": "roofline"}
    return row | {f"B = {batch}": found[f"B = {batch}"] for batch in batch_sizes}


def batch_table(models: Mapping[str, Any], batches: Any, peaks: Hardware) -> Html:
    """Solution of an exercise: from which batch on arithmetic limits a step, and the tokens per second that fit."""
    rows = []
    for label, model in models.items():
        for T in ROOFLINE_CONTEXTS:
            one = count_step(model, T, batches)
            roof = one.roofline(peaks)
            first = batches[np.argmax(roof.compute_bound)] if np.any(roof.compute_bound) else 0
            fits = np.asarray(one.memory.total) <= peaks.memory_bytes
            row = {"model": label, "T": figures.tokens_text(T), "from": f"B = {first}" if first else "never"}
            row["limit"] = np.asarray(one.flops.total / (one.traffic.cache + one.traffic.activations))[-1]
            rows.append(row | {"most": float(np.max(np.where(fits, batches / roof.seconds, 0)))})
    return show_table(
        pd.DataFrame(rows),
        caption=f"Batches of powers of two up to {batches[-1]}, {peaks.label}: ridge {peaks.ridge:.0f} FLOP per byte.",
        formats={"limit": significant, "most": "{:,.0f}"},
        labels={
            "from": "limited by arithmetic",
            "limit": "FLOP per byte, large batch",
            "most": "most tokens/s that fit",
        },
    )


def _with_one(batch_sizes: Iterable[int]) -> list[int]:
    return sorted({1, *batch_sizes})
