"""Chapter 10: which form of the cell, launched in which way, is the fastest recorded for a use and a shape.

Everything comes from the records: a form that no record holds is named as missing, and nothing is said of it. Only
forms of the same cell are compared, with the state in float32 where it is carried from call to call.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from companion.benchmarks.kernels.results import OURS_DETACHED, Timings
from companion.benchmarks.records import read_records
from companion.chapters.ch10.shown import Shown
from companion.chapters.kernel_tables import label, nothing, short_name
from companion.formatting import listed, share_in_words, significant
from companion.plotting import Html, show_table

#: Uses by the part of the records.
USES = {"training": "training", "forward": "reading a prompt", "step": "one token at a time"}
MODEL_USES = {"training": "training", "prefill": "reading a prompt", "step": "one token at a time"}
IN_PROSE = {
    "training": "in training",
    "reading a prompt": "for reading a prompt",
    "one token at a time": "for one token at a time",
}
IN_TABLES = {"training": "training", "reading a prompt": "prompt", "one token at a time": "token"}
CHUNKWISE, RECURRENT, PARALLEL = "chunkwise", "recurrent step", "parallel"
FORMS = (RECURRENT, PARALLEL, CHUNKWISE)
#: Ways to launch, by their name in the records: kernels one by one, `torch.compile`, a CUDA graph, or both of these.
LAUNCHES = {
    "calls": "eager", "eager": "eager", "compiled": "compiled", "graph": "CUDA graph",
    "compiled graph": "compiled, CUDA graph",
}  # fmt: skip
#: What the records of a cell could hold, and how a sentence says it.
WAYS = {"eager": "launched eagerly", "compiled": "under torch.compile", "CUDA graph": "in a CUDA graph"}
#: Columns of candidates: what is chosen for, what can be chosen, and how long it takes (seconds).
_FOR, _WHAT = ["use", "of", "batch", "size"], ["form", "launch", "name"]
_TIMES = ["low", "seconds", "high"]


def cell_candidates(timings: Timings) -> pd.DataFrame:
    """Every recorded way to compute the cell.

    Returns
    -------
    DataFrame
        a row per way with `use`, `of` (the heads), `batch`, `size` (T of sequences, B of steps), `form`, `launch`,
        `name` (in words), and seconds: `low`, `seconds`, `high` (quartiles and median). A prompt can also be read by T
        steps: their time is T times that of a recorded step of the same batch.
    """
    table = timings.table
    timed = table[table["seconds_median"].notna()] if "seconds_median" in table else table.iloc[:0]
    rows = [row for _, one in timed.iterrows() if (row := _cell_row(one)) is not None]
    steps = [row for row in rows if row["use"] == USES["step"]]
    prompts = {(row["of"], row["batch"], row["size"]) for row in rows if row["use"] == USES["forward"]}
    for heads, batch, tokens in sorted(prompts):
        for step in steps:
            if (step["of"], step["batch"]) == (heads, batch):
                longer = {name: tokens * step[name] for name in _TIMES}
                repeated = {"use": USES["forward"], "size": tokens, "name": f"{step['name']} T times"}
                rows.append({**step, **repeated, **longer})
    return pd.DataFrame(rows, columns=[*_FOR, *_WHAT, *_TIMES])


def model_candidates(records: Sequence[Mapping[str, Any]], model: str = "xlstm") -> pd.DataFrame:
    """Every recorded way to launch whole models with this name, on the device of the last record; as `cell_candidates`.

    `of` is the size of the model and `size` the context or the prompt in tokens; of several records of a cell the last
    one counts.
    """
    device = records[-1]["parameters"].get("device") if records else None
    last: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        for result in record["results"] if record["parameters"].get("device") == device else []:
            if result.get("model") == model and result.get("part") in MODEL_USES and result.get("launch") in LAUNCHES:
                row = _model_row(result)
                last[tuple(row[name] for name in (*_FOR, *_WHAT))] = row
    rows = [row for row in last.values() if row["seconds"] is not None]
    return pd.DataFrame(rows, columns=[*_FOR, *_WHAT, *_TIMES])


def choices(candidates: pd.DataFrame) -> pd.DataFrame:
    """For every use and shape the fastest candidate, the next, and the fastest of another form or launch.

    Returns
    -------
    DataFrame
        with `use`, `of`, `batch`, `size`, `fastest`, `seconds`; `next` and `other` (empty if there is none) with
        `next_ratio` and `other_ratio`, their times over that of the fastest; `kind`, how the other differs; and
        `clear`: the times of the fastest and the next do not overlap.
    """
    rows = []
    for key, group in candidates.groupby(_FOR, sort=False):
        first, *rest = group.sort_values("seconds").to_dict("records")
        others = [one for one in rest if (one["form"], one["launch"]) != (first["form"], first["launch"])]
        row = dict(zip(_FOR, key, strict=True)) | {"fastest": first["name"], "seconds": first["seconds"]}
        for name, found in (("next", rest), ("other", others)):
            row[name] = found[0]["name"] if found else ""
            row[f"{name}_ratio"] = found[0]["seconds"] / first["seconds"] if found else float("nan")
        row["kind"] = ""
        if others:
            form, launch = others[0]["form"], others[0]["launch"]
            row["kind"] = launch if form == first["form"] else form if launch == "eager" else f"{form}, {launch}"
        rows.append(row | {"clear": not rest or first["high"] < rest[0]["low"]})
    names = ["fastest", "seconds", "next", "next_ratio", "other", "other_ratio", "kind", "clear"]
    return pd.DataFrame(rows, columns=[*_FOR, *names])


def runs_of_sizes(found: pd.DataFrame, within: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Rows of `choices` with neighboring sizes and the same fastest way, one group each, `within` these columns."""
    for _, group in found.groupby(list(within), sort=False):
        ordered = group.sort_values("size")
        number = (ordered["fastest"] != ordered["fastest"].shift()).cumsum()
        yield from (part for _, part in ordered.groupby(number, sort=False))


def show_choice(timings: Timings) -> Html:
    """For every use, heads and range of sizes the fastest recorded form, and how many times as long others take."""
    found = choices(cell_candidates(timings))
    if not len(found):
        return nothing(f"no time of the mLSTM cell is recorded on {timings.gpu}", name="kernel-choice")
    rows = []
    for use in USES.values():
        symbol = "B" if use == USES["step"] else "T"
        for group in runs_of_sizes(found[found["use"] == use], ["of"]):
            first = group.iloc[0]
            row = {"use": IN_TABLES[use], "of": first["of"], "size": _sizes(group, symbol), "fastest": first["fastest"]}
            row |= {"time": durations(group["seconds"]), "next": _slower(group, "next")}
            rows.append(row | {"other": _slower(group, "other", names="kind")})
    return show_table(
        pd.DataFrame(rows),
        name="kernel-choice",
        caption=f"The fastest recorded form of the cell by use and shape, {timings.gpu}, bf16; in brackets whose "
        "kernel it is, and how it is launched if not eagerly. T: tokens of a sequence; B: sequences of a step. Behind "
        "a name: its time over that of the fastest; overlapping: the quartiles of the two times. Detached, and all of "
        "mlstm_kernels in training: without the normalizer's gradient. Steps for a prompt: one for each token.",
        labels={"of": "heads", "size": "shape", "next": "next fastest", "other": "another form or launch"},
    )


def show_launches(folder: Path) -> Html:
    """How whole xLSTM models are launched fastest in training, and by how much the next way is slower."""
    found = choices(model_choice_candidates(folder))
    training = found[found["use"] == MODEL_USES["training"]]
    if not len(training):
        return nothing("no training of a whole xLSTM model is recorded", name="kernel-launches")
    rows = []
    for group in runs_of_sizes(training.sort_values("seconds"), ["of"]):
        first = group.iloc[0]
        row = {"of": first["of"], "size": _sizes(group, "T"), "fastest": first["fastest"]}
        rows.append(row | {"time": durations(group["seconds"]), "next": _slower(group, "next")})
    return show_table(
        pd.DataFrame(rows),
        name="kernel-launches",
        caption=f"The fastest recorded way to launch a training step of a whole xLSTM model, "
        f"{listed(device_names(folder))}. Behind a name: how many times as long it takes. A dash: no other way is "
        "recorded.",
        labels={"of": "model", "size": "context", "next": "next fastest"},
    )


def show_serving(folder: Path) -> Html:
    """How whole xLSTM models are launched fastest for prompts and for single tokens, by batch."""
    found = choices(model_choice_candidates(folder))
    found = found[found["use"] != MODEL_USES["training"]]
    if not len(found):
        return nothing("no prompt or token of a whole xLSTM model is recorded", name="kernel-serving")
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for group in runs_of_sizes(found, ["use", "of", "batch"]):
        first = group.iloc[0]
        row = cells.setdefault((str(first["use"]), str(first["of"])), {})
        text = f"{first['fastest']}: {durations(group['seconds'])}"
        text += f" at {_sizes(group, 'T')}" if first["use"] != MODEL_USES["step"] else ""
        batch = f"B = {first['batch']}"
        row[batch] = f"{row[batch]}; {text}" if batch in row else text
    batches = sorted({batch for row in cells.values() for batch in row}, key=lambda name: int(name.split()[-1]))
    order = sorted(cells, key=lambda key: list(MODEL_USES.values()).index(key[0]))
    rows = [{"use": use, "model": of} | {b: cells[use, of].get(b, "–") for b in batches} for use, of in order]
    return show_table(
        pd.DataFrame(rows),
        name="kernel-serving",
        caption=f"The fastest recorded way to launch a whole xLSTM model, and its time, by batch B: "
        f"{listed(device_names(folder))}. T: tokens of the prompt. A dash: not recorded.",
    )


def choice_facts(shown: Shown, folder: Path) -> dict[str, object]:
    """What the prose says: the fastest forms for the heads of the page, and what no record holds."""
    candidates = cell_candidates(shown.timings)
    return {
        "c10_choice": choice_verdict(choices(candidates), shown.label),
        "c10_choice_missing": missing_verdict(candidates),
        "c10_choice_launch": launch_verdict(choices(model_choice_candidates(folder))),
    }


def choice_verdict(found: pd.DataFrame, heads: str) -> str:
    """A verdict: for every use the fastest recorded form of these heads; several where it depends on the shape."""
    parts = []
    for use in USES.values():
        rows = found[(found["use"] == use) & (found["of"] == heads)]
        names = [re.sub(r"^\w+( step)? ", _with_article, str(name)) for name in rows["fastest"].unique()]
        if names:
            parts.append(f"{' or '.join(names)}{', depending on the shape,' if len(names) > 1 else ''} {IN_PROSE[use]}")
    if not parts:
        return f"The records hold no time of heads of {heads}"
    return f"For heads of {heads}, the fastest in the records is {listed(parts)}"


def _with_article(start: re.Match[str]) -> str:
    """The start of a name in a sentence: `the chunkwise form`, `the recurrent step`."""
    form = start[0].strip()
    return f"the {form} " if form == RECURRENT else f"the {form} form "


def missing_verdict(candidates: pd.DataFrame) -> str:
    """A verdict: which forms and ways to launch the cell no record holds."""
    missing = [f"the {form} form" for form in FORMS if form not in set(candidates["form"])]
    for kind, steps in (("sequences", False), ("steps", True)):
        known = set(candidates.loc[(candidates["form"] == RECURRENT) == steps, "launch"])
        if known and (absent := [words for launch, words in WAYS.items() if launch not in known]):
            missing.append(f"{kind} {' or '.join(absent)}")
    if not missing:
        return "Every form and every way to launch it is in the records"
    *first, last = missing
    holds = f"{', of '.join(first)}{', or of ' if first else ''}{last}"
    return f"The records hold no times of {holds}, and the table says nothing about {'these' if first else 'that'}"


def launch_verdict(found: pd.DataFrame) -> str:
    """A verdict: how often which way to launch the training of whole models is the fastest."""
    training = found[(found["use"] == MODEL_USES["training"]) & found["next_ratio"].notna()]
    if not len(training):
        return "No record compares ways to launch the training of a whole model"
    total, counts = len(training), training["fastest"].value_counts()
    slower = _range(training["next_ratio"], significant)
    if total == 1:
        parts, cases = [f"“{counts.index[0]}” is the fastest in the only"], "recorded case"
    else:
        parts = [f"“{name}” is the fastest in {share_in_words(number, total)}" for name, number in counts.items()]
        cases = "recorded cases"
    return f"For training whole xLSTM models, {listed(parts)} {cases}; the next takes {slower} times as long"


def model_choice_candidates(folder: Path) -> pd.DataFrame:
    """Candidates of the files of whole models in a folder of records, as far as there are any."""
    tables = [model_candidates(records) for records in _model_records(folder)]
    kept = [table for table in tables if len(table)]
    return pd.concat(kept, ignore_index=True) if kept else model_candidates([])


def device_names(folder: Path) -> list[str]:
    """The devices of these candidates."""
    return list(dict.fromkeys(str(records[-1]["parameters"].get("device")) for records in _model_records(folder)))


def _model_records(folder: Path) -> Iterator[list[dict[str, Any]]]:
    for name in ("model_training", "model_inference"):
        path = folder / f"{name}.jsonl"
        records = [record for record in read_records(path) if record["benchmark"] == name] if path.exists() else []
        if records:
            yield records


def _cell_row(one: pd.Series) -> dict[str, Any] | None:
    """A candidate of a timed row; None for another cell, a narrower state, or what repeats another row."""
    part, name = str(one["part"]), str(one["implementation"])
    heads = label((one["n_heads"], one["d_qk"], one["d_hv"]))
    row: dict[str, Any] = {"use": USES.get(part), "of": heads, "batch": int(one["batch_size"])}
    row |= dict(zip(_TIMES, (float(one[f"seconds_{x}"]) for x in ("quartile_1", "median", "quartile_3")), strict=True))
    if part == "step":
        if one["state_dtype"] != "float32":
            return None
        launch = LAUNCHES[str(one["launch"])]
        kernel = short_name(name).replace("torch", "plain torch")
        what = {
            "form": RECURRENT,
            "launch": launch,
            "name": f"{RECURRENT} ({kernel}{'' if launch == 'eager' else f'; {launch}'})",
        }
        return row | what | {"size": row["batch"]}
    if row["use"] is None or one["computation"] != "exponential":
        return None
    if part == "forward" and name.startswith(OURS_DETACHED):
        return None  # its forward pass is that of the other
    kernel = short_name(name).replace("torch chunkwise", "plain torch")
    what = {"form": CHUNKWISE, "launch": "eager", "name": f"{CHUNKWISE} ({kernel})"}
    return row | what | {"size": int(one["context_length"])}


def _model_row(result: Mapping[str, Any]) -> dict[str, Any]:
    launch = LAUNCHES[str(result["launch"])]
    words = result.get("vocabulary")
    size = f"{result['size']}, vocabulary {words:,}" if words else str(result["size"])
    times = [result.get(f"seconds_{x}") for x in ("low", "median", "high")]
    of_implementation = result.get("implementation", "companion")
    name = launch if of_implementation == "companion" else f"{launch} ({of_implementation})"
    tokens = result.get("context_length") or result.get("prompt_tokens") or 0
    use = MODEL_USES[str(result["part"])]
    where = {"use": use, "of": size, "batch": int(result["batch_size"]), "size": int(tokens)}
    return where | {"form": "model", "launch": launch, "name": name} | dict(zip(_TIMES, times, strict=True))


def _sizes(group: pd.DataFrame, symbol: str) -> str:
    return f"{symbol} = {_range(group['size'], lambda x: f'{x:,.0f}')}"


def _slower(group: pd.DataFrame, which: str, names: str | None = None) -> str:
    """Names with how many times as long they take; whether the times of the next overlap with those of the fastest.

    `names` is the column of the names, if it is not `which`.
    """
    known = [str(name) for name in group[names or which].unique() if name]
    if not known:
        return "–"
    text = f"{' or '.join(known)}: {_range(group[f'{which}_ratio'].dropna(), significant)}"
    if which == "next" and not group["clear"].all():
        text += " (some overlapping)" if group["clear"].any() else " (overlapping)"
    return text


def durations(seconds: pd.Series) -> str:
    """From the least to the largest of some times, in µs if all are below a millisecond."""
    factor, unit = (1e6, "µs") if seconds.max() < 1e-3 else (1e3, "ms")
    return f"{_range(factor * seconds, significant)} {unit}"


def _range(values: pd.Series, text: Callable[[float], str]) -> str:
    ends = (text(float(values.min())), text(float(values.max())))
    return " to ".join(dict.fromkeys(ends))
