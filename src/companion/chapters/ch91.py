"""What the page of the explorer says about its settings (`notebooks/91_explorer.md`): facts, links, laws compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from companion.explorer import CONTROLS, Explorer, Setting
from companion.formatting import count, interval, power_of_ten, significant
from companion.hardware import get_hardware
from companion.plotting import Html, show_table
from companion.plotting.explorer_page import duration, gibibytes, setting_links
from companion.plotting.style import architecture_label

#: Context (tokens) and tokens per parameter that the opening setting is moved to.
LONG_CONTEXT = 131072
LARGE_RATIO = 220.0
#: What `Explorer.evaluate` returns: results by architecture.
Results = Mapping[str, Mapping[str, Any]]


def steps_of(name: str) -> tuple[float, ...]:
    """The values at which a slider of the page stops; `name`: a field of `Setting`."""
    return next(control.steps for control in CONTROLS if control.name == name)


def explorer_facts(explorer: Explorer, num_resamples: int) -> dict[str, str]:
    """The opening setting in words, its numbers, and what a longer context or more tokens per parameter change."""
    start, shown = explorer.default, explorer.evaluate()
    long = explorer.evaluate(replace(start, context_length=LONG_CONTEXT))
    lean = explorer.evaluate(replace(start, tokens_per_param=LARGE_RATIO))
    laws = {f"T = {one.law_context:,}" if one.law_context else "every context" for one in explorer.known.values()}
    first = next(iter(explorer.known.values()))
    return {
        "c91_setting": setting_words(start),
        "c91_ratio": _ratio_words(start),
        "c91_law_context": " and ".join(sorted(laws)),
        "c91_loss": _each(shown, _loss_words),
        "c91_times": _each(shown, _time_words),
        "c91_memory": _each(shown, _memory_words),
        "c91_long_context": "; ".join(_moved_words(name, shown[name], long[name]) for name in shown),
        "c91_large_ratio": "; ".join(_traded_words(name, shown[name], lean[name]) for name in shown),
        "c91_reference": first.times[0].hardware.label,
        "c91_resamples": f"{num_resamples}",
    }


def setting_words(setting: Setting) -> str:
    """A setting as the prose writes it."""
    text = {control.name: control.text for control in CONTROLS}
    budget, context = text["train_flops"](setting.train_flops), text["context_length"](setting.context_length)
    device = get_hardware(setting.hardware).label
    return f"C = {budget}, T = {context}, {_ratio_words(setting)}, a batch of {setting.batch_size} on {device}"


def links(explorer: Explorer, settings: Mapping[str, Setting]) -> Html:
    """Links to settings worth a look, each with what to see there.

    Parameters
    ----------
    settings
        by what they show: `long` context, large `batch`, `small` model, `far` beyond the runs.
    """
    words: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], str]]] = {
        "long": ("A long context", "a step reads a cache that grows with T, or a state that does not", _step_words),
        "batch": (
            "A large batch",
            "every sequence brings its own cache or state, which takes this much of the memory",
            _cache_words,
        ),
        "small": ("Far over-trained", "what a small model costs in loss", _optimum_words),
        "far": ("Far beyond the runs", "losses of laws that are extrapolated", _interval_words),
    }
    return setting_links(
        (setting, words[key][0], f"{words[key][1]}. {_each(explorer.evaluate(setting), words[key][2])}.")
        for key, setting in settings.items()
    )


def compare_designs(designs: Mapping[str, Explorer], budgets: Sequence[float]) -> pd.DataFrame:
    """Compute-optimal models under the laws of several sets of runs.

    Parameters
    ----------
    designs
        by the words for the runs behind the laws.
    budgets
        training compute, FLOP.

    Returns
    -------
    DataFrame with `train_flops`, `design`, `architecture` (its label), `num_params`, `loss` (nats per token),
    `interval` of the loss, and `data`: whether the optimum lies `inside` or `outside` of what the runs cover.
    """
    rows = []
    for flops in budgets:
        for design, explorer in designs.items():
            for name, one in explorer.evaluate(Setting(train_flops=flops, tokens_per_param=None)).items():
                row = {"train_flops": flops, "design": design, "architecture": architecture_label(name)}
                row |= {key: one["numbers"][key] for key in ("num_params", "loss")}
                left = any(entry["of"] == "optimum" for entry in one["outside"])
                row |= {"interval": one["intervals"]["optimal_loss"], "data": "outside" if left else "inside"}
                rows.append(row)
    return pd.DataFrame(rows)


def designs_table(compared: pd.DataFrame) -> Html:
    """The table of `compare_designs`."""
    gaps = ", ".join(
        f"{gap:.3f} nats per token at {power_of_ten(float(str(flops)))} FLOP"
        for flops, gap in _widest_gaps(compared).items()
    )
    return show_table(
        compared,
        caption="Compute-optimal size and loss in nats per token by the runs behind the law; data: whether inside of "
        f"their range. The laws of an architecture differ by up to {gaps}.",
        formats={"train_flops": power_of_ten, "num_params": count, "loss": "{:.3f}", "interval": interval},
        labels={"train_flops": "C (FLOP)", "design": "runs", "num_params": "N*", "interval": "95 % interval"},
    )


def designs_verdict(compared: pd.DataFrame) -> str:
    """Which architecture has the lower loss at every budget, and whether all laws agree."""
    if compared["architecture"].nunique() < 2:
        widest = _widest_gaps(compared).max()
        return (
            f"With one architecture there is no other to compare; its loss moves by up to {widest:.3f} nats per token"
        )
    found = []
    for flops, part in compared.groupby("train_flops"):
        best = [group.sort_values("loss")["architecture"].iloc[0] for _, group in part.groupby("design")]
        agree = len(set(best)) == 1
        verdict = f"{best[0]} has the lower loss under every law" if agree else "the laws disagree who is lower"
        found.append(f"at {power_of_ten(float(str(flops)))} FLOP {verdict}")
    return f"Compute-optimal, {'; '.join(found)}"


def step_ratios_text(results: Mapping[float, Results]) -> str:
    """Solution of an exercise: ratio of the step times (or the one step time) by context in tokens."""
    lines = []
    for length, result in results.items():
        times = [one["numbers"]["step_time_s"] for one in result.values()]
        text = f"ratio {significant(times[0] / times[-1])}" if len(times) > 1 else duration(times[0])
        lines.append(f"T = {length:9,.0f}: {text}")
    return "\n".join(lines)


def largest_batches_text(results: Mapping[int, Results]) -> str:
    """Solution of an exercise: the largest batch that fits, by architecture; `results` by batch."""
    names = next(iter(results.values()))
    fitting = {name: [batch for batch, result in results.items() if result[name]["fits"]] for name in names}
    return "\n".join(
        f"{architecture_label(name)}: {max(each) if each else 'none fits'}" for name, each in fitting.items()
    )


def overtraining_text(small: Results, best: Results) -> str:
    """Solution of an exercise: what an over-trained model costs in loss, and both step times."""
    lines = []
    for name in small:
        one, other = small[name]["numbers"], best[name]["numbers"]
        lines.append(f"{architecture_label(name)}: loss {one['loss'] - other['loss']:+.3f} nats per token,")
        lines.append(f"  step {duration(one['step_time_s'])} instead of {duration(other['step_time_s'])}")
    return "\n".join(lines)


def _each(results: Results, words: Callable[[Mapping[str, Any]], str]) -> str:
    """One phrase for each architecture; `words` makes it of a result."""
    return "; ".join(f"{architecture_label(name)} {words(one)}" for name, one in results.items())


def _ratio_words(setting: Setting) -> str:
    ratio = setting.tokens_per_param
    return "the compute-optimal M" if ratio is None else f"M = {ratio:g}"


def _loss_words(one: Mapping[str, Any]) -> str:
    low, high = one["intervals"]["loss"]
    return f"{count(one['numbers']['num_params'])} parameters, {one['numbers']['loss']:.3f} [{low:.3f}, {high:.3f}]"


def _time_words(one: Mapping[str, Any]) -> str:
    return " and ".join(duration(one["numbers"][key]) for key in ("ttft_s", "step_time_s"))


def _memory_words(one: Mapping[str, Any]) -> str:
    return gibibytes(one["numbers"]["memory_bytes"]) + ("" if one["fits"] else ", does not fit")


def _step_words(one: Mapping[str, Any]) -> str:
    return f"{duration(one['numbers']['step_time_s'])} a step"


def _cache_words(one: Mapping[str, Any]) -> str:
    return f"{gibibytes(one['numbers']['cache_bytes'])} of {_memory_words(one)}"


def _optimum_words(one: Mapping[str, Any]) -> str:
    return f"{one['numbers']['loss']:.3f} against {one['numbers']['optimal_loss']:.3f} at best"


def _interval_words(one: Mapping[str, Any]) -> str:
    return f"{one['numbers']['loss']:.2f} {[round(bound, 2) for bound in one['intervals']['loss']]}"


def _moved_words(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    before, after = one["numbers"], other["numbers"]
    start = f"{count(before['num_params'])} parameters and a loss of {before['loss']:.3f}"
    return f"{architecture_label(name)} from {start} to {count(after['num_params'])} and {after['loss']:.3f}"


def _traded_words(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    before, after = one["numbers"], other["numbers"]
    return (
        f"{architecture_label(name)} {after['loss'] - before['loss']:+.3f} nats per token for a step of "
        f"{duration(after['step_time_s'])} instead of {duration(before['step_time_s'])}"
    )


def _widest_gaps(compared: pd.DataFrame) -> pd.Series:
    """By budget: the largest difference between the losses of one architecture under several laws."""
    losses = compared.groupby(["train_flops", "architecture"])["loss"]
    return (losses.max() - losses.min()).groupby("train_flops").max()
