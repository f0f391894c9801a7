"""What the page of the explorer says about its settings (`notebooks/91_explorer.md`): facts, links, laws compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from companion.chapters.applicability import Selection, select_runs
from companion.chapters.labels import label_of
from companion.explorer import CONTROLS, Explorer, Setting
from companion.formatting import count, interval, listed, power_of_ten, significant
from companion.hardware import get_hardware
from companion.inference.timings import load_inference
from companion.plotting import Html, show_table
from companion.plotting.explorer_page import duration, gibibytes, setting_links
from companion.runs.context_length import PAPER_CONTEXT
from companion.training.logs import load_training_logs

#: Context (tokens) and tokens per parameter that the opening setting is moved to.
LONG_CONTEXT = 131072
LARGE_RATIO = 220.0
_NO_BREAK = "\u00a0"
#: Experiments of the run table, as the page calls their runs.
_DESIGNS = {"isoflop": "IsoFLOP", "tokenparam": "Token/Param"}
#: What `Explorer.evaluate` returns: results by architecture.
Results = Mapping[str, Mapping[str, Any]]


def steps_of(name: str) -> tuple[float, ...]:
    """The values at which a slider of the page stops; `name`: a field of `Setting`."""
    return next(control.steps for control in CONTROLS if control.name == name)


def load_tables(
    runs_file: str | Path | None, inference_file: str | Path | None
) -> tuple[Selection, pd.DataFrame | None, pd.DataFrame | None]:
    """The selection of the runs, then runs and timings as `Explorer.of` takes them: None for those of the paper.

    Raises
    ------
    InputError
        if a file cannot be read or is not such a table.
    """
    selection = select_runs(runs_file)
    timings = load_inference(inference_file) if inference_file else None
    return selection, None if selection.of_paper else selection.runs, timings


def load_logs(logs_file: str | Path | None) -> pd.DataFrame | None:
    """The training logs as `Explorer.of` takes them: None for those of the authors.

    Raises
    ------
    InputError
        if the file cannot be read or is not a table of training logs.
    """
    return None if logs_file is None else load_training_logs(logs_file)


def opening_context(selection: Selection, context_length: int | None = None) -> int:
    """T in tokens of the opening setting: the one asked for, that of the runs, or the paper's if they name none."""
    return context_length or selection.context_length or PAPER_CONTEXT


def explorer_facts(explorer: Explorer, num_resamples: int, logs_file: str | Path | None = None) -> dict[str, str]:
    """The opening setting in words, what a longer context or more tokens per parameter change, and the laws behind."""
    start, shown = explorer.default, explorer.evaluate()
    long = explorer.evaluate(replace(start, context_length=LONG_CONTEXT))
    lean = explorer.evaluate(replace(start, tokens_per_param=LARGE_RATIO))
    laws = {f"T = {one.law_context:,}" if one.law_context else "every context" for one in explorer.known.values()}
    first = next(iter(explorer.known.values()))
    return {
        "c91_answer": context_verdict(shown, long),
        "c91_law_context": listed(sorted(laws)),
        "c91_long": f"{LONG_CONTEXT:,}",
        "c91_large": f"{LARGE_RATIO:g}",
        "c91_ratio": _ratio_words(start),
        "c91_long_context": sizes_verdict(shown, long),
        "c91_large_ratio": trade_verdict(shown, lean),
        "c91_reference": first.times[0].hardware.label,
        "c91_resamples": f"{num_resamples}",
        "c91_logs": logs_words(explorer, logs_file),
    }


def logs_words(explorer: Explorer, logs_file: str | Path | None) -> str:
    """Whose logs the utilization comes from, and of which GPUs."""
    whose = "the authors' training logs" if logs_file is None else f"the training logs in {Path(logs_file).name}"
    return f"{whose}, measured on {get_hardware(explorer.logs_hardware).label}"


def context_verdict(shown: Results, long: Results) -> str:
    """What a generated token takes at the opening context and at a long one: the answer of the page."""
    length = f"at a context of {LONG_CONTEXT:,} tokens"
    if len(shown) < 2:
        [before], [after] = ([duration(_step(one)) for one in result.values()] for result in (shown, long))
        return f"At the opening setting a generated token takes {before}; {length} it takes {after}"
    first, *_, second = shown
    ratios = [_step(result[first]) / _step(result[second]) for result in (shown, long)]
    return (
        f"At the opening setting a generated token takes the {label_of(first)} {significant(ratios[0], 2)} times as "
        f"long as the {label_of(second)}; {length} it takes {significant(ratios[1], 2)} times as long"
    )


def sizes_verdict(shown: Results, long: Results) -> str:
    """To which size and loss a longer context moves the model of the same budget."""
    moved = []
    for name, one in shown.items():
        before, after = one["numbers"], long[name]["numbers"]
        sizes = f"from {count(before['num_params'])} to {count(after['num_params'])} parameters"
        losses = f"from a loss of {before['loss']:.3f} to {after['loss']:.3f}"
        same = count(before["num_params"]) == count(after["num_params"])
        at = f"{count(before['num_params'])} parameters and a loss of {before['loss']:.3f}"
        moved.append(
            f"leaves the {label_of(name)} at {at}" if same else f"moves the {label_of(name)} {sizes} and {losses}"
        )
    return ", and ".join(moved)


def trade_verdict(shown: Results, lean: Results) -> str:
    """What more tokens per parameter cost in loss (nats per token), and what they save in step time."""
    traded = []
    for name, one in shown.items():
        before, after = one["numbers"], lean[name]["numbers"]
        traded.append(
            f"the loss of the {label_of(name)} changes by {after['loss'] - before['loss']:+.3f} and its step takes "
            f"{duration(after['step_time_s'])} instead of {duration(before['step_time_s'])}"
        )
    return "; ".join(traded)


def settings_table(explorer: Explorer) -> Html:
    """The models of the opening setting, at a longer context and with more tokens per parameter."""
    start = explorer.default
    settings = {
        "opening": start,
        f"T = {LONG_CONTEXT:,}": replace(start, context_length=LONG_CONTEXT),
        f"M = {LARGE_RATIO:g}": replace(start, tokens_per_param=LARGE_RATIO),
    }
    rows = []
    for words, setting in settings.items():
        for name, one in explorer.evaluate(setting).items():
            numbers, bounds = one["numbers"], interval(one["intervals"]["loss"])
            row = {
                "setting": words.replace(" ", _NO_BREAK),
                "architecture": label_of(name),
                "N": count(numbers["num_params"]),
            }
            row |= {"loss (nats/token)": f"{numbers['loss']:.3f} {bounds}", "first token": duration(numbers["ttft_s"])}
            row |= {"step": duration(numbers["step_time_s"]).replace(" ", _NO_BREAK), "memory": _memory_words(one)}
            rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="explorer-settings",
        caption=f"The opening setting ({setting_words(start)}), and what changes with one slider: the context T, or "
        "the tokens per parameter M. The loss with its 95 % interval.",
    )


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
            "every sequence has its own cache or state, which takes this much of the memory",
            _cache_words,
        ),
        "small": ("Far over-trained", "what a small model costs in loss", _optimum_words),
        "far": ("Far beyond the runs", "losses that the laws extrapolate", _interval_words),
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
                row = {"train_flops": flops, "design": design, "architecture": label_of(name)}
                row |= {key: one["numbers"][key] for key in ("num_params", "loss")}
                left = any(entry["of"] == "optimum" for entry in one["outside"])
                row |= {"interval": one["intervals"]["optimal_loss"], "data": "outside" if left else "inside"}
                rows.append(row)
    return pd.DataFrame(rows)


def designs_table(compared: pd.DataFrame) -> Html:
    """The table of `compare_designs`."""
    loss = compared["loss"].map("{:.3f}".format) + " " + compared["interval"].map(interval)
    columns = ["train_flops", "design", "architecture", "num_params", "loss", "data"]
    return show_table(
        compared.assign(loss=loss, design=compared["design"].replace(_DESIGNS))[columns],
        name="explorer-designs",
        caption="Compute-optimal size and loss, with its 95 % interval, by the runs behind the law. Data: whether the "
        "optimum is inside the range of the runs.",
        formats={"train_flops": power_of_ten, "num_params": count},
        labels={"train_flops": "C (FLOP)", "design": "runs", "num_params": "N*", "loss": "loss (nats/token)"},
    )


def designs_facts(compared: pd.DataFrame) -> dict[str, str]:
    """How far the laws of one architecture differ, and whether all laws agree on the lower loss at every budget."""
    gaps = [f"{gap:.3f} at {power_of_ten(float(str(flops)))} FLOP" for flops, gap in _widest_gaps(compared).items()]
    return {"c91_gaps": listed(gaps), "c91_change": designs_verdict(compared)}


def designs_verdict(compared: pd.DataFrame) -> str:
    """Which architecture has the lower loss at every budget, and whether all laws agree."""
    if compared["architecture"].nunique() < 2:
        return "With one architecture there is no other to compare"
    agreed: dict[str, list[str]] = {}
    for flops, part in compared.groupby("train_flops"):
        best = {group.sort_values("loss")["architecture"].iloc[0] for _, group in part.groupby("design")}
        who = f"the {best.pop()} has the lower loss under every law" if len(best) == 1 else "the laws disagree"
        agreed.setdefault(who, []).append(power_of_ten(float(str(flops))))
    return "; ".join(f"{'at' if i else 'At'} {listed(at)} FLOP {who}" for i, (who, at) in enumerate(agreed.items()))


def steps_table(results: Mapping[float, Results]) -> Html:
    """Solution of an exercise: step times by context in tokens, and their ratio if there are two architectures."""
    rows = []
    for length, result in results.items():
        row = {"T (tokens)": length} | {f"{label_of(name)}, step": _step(one) for name, one in result.items()}
        times = [_step(one) for one in result.values()]
        rows.append(row | ({"ratio": times[0] / times[-1]} if len(times) > 1 else {}))
    table = pd.DataFrame(rows)
    formats: dict[str, str | Callable[[Any], str]] = {"T (tokens)": "{:,.0f}", "ratio": significant}
    return show_table(
        table,
        caption="Step times at the contexts of the slider.",
        formats={name: formats.get(name, duration) for name in map(str, table)},
    )


def batches_table(results: Mapping[int, Results]) -> Html:
    """Solution of an exercise: the largest batch that fits, by architecture; `results` by batch."""
    names = next(iter(results.values()))
    fitting = {name: [batch for batch, result in results.items() if result[name]["fits"]] for name in names}
    rows = [
        {"architecture": label_of(name), "largest batch": f"{max(each)}" if each else "none fits"}
        for name, each in fitting.items()
    ]
    return show_table(pd.DataFrame(rows), caption="The largest batch of the slider that fits into the memory.")


def overtraining_table(small: Results, best: Results) -> Html:
    """Solution of an exercise: what an over-trained model costs in loss, and both step times."""
    rows = []
    for name in small:
        one, other = small[name]["numbers"], best[name]["numbers"]
        row = {"architecture": label_of(name), "more loss": f"{one['loss'] - other['loss']:+.3f}"}
        rows.append(row | {"step": duration(one["step_time_s"]), "compute-optimal": duration(other["step_time_s"])})
    return show_table(
        pd.DataFrame(rows),
        caption="Over-trained against compute-optimal: the loss that it costs, and both step times.",
        labels={"more loss": "more loss (nats/token)", "compute-optimal": "step, compute-optimal"},
    )


def _step(one: Mapping[str, Any]) -> float:
    """Step time of a result, in seconds."""
    return float(one["numbers"]["step_time_s"])


def _each(results: Results, words: Callable[[Mapping[str, Any]], str]) -> str:
    """One phrase for each architecture; `words` makes it of a result."""
    return "; ".join(f"{label_of(name)} {words(one)}" for name, one in results.items())


def _ratio_words(setting: Setting) -> str:
    ratio = setting.tokens_per_param
    return "the compute-optimal M" if ratio is None else f"M = {ratio:g}"


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


def _widest_gaps(compared: pd.DataFrame) -> pd.Series:
    """By budget: the largest difference between the losses of one architecture under several laws."""
    losses = compared.groupby(["train_flops", "architecture"])["loss"]
    return (losses.max() - losses.min()).groupby("train_flops").max()
