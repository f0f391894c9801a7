"""The decision table of chapter 10 from synthetic records: what is fastest, what is missing, what is never compared."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from companion.benchmarks.kernels.other_cells import GATED_DELTA_RULE, GATED_DELTA_RULE_NAME
from companion.benchmarks.kernels.results import Timings, load_timings
from companion.chapters.ch10 import choice
from companion.chapters.ch10.shown import Shown

HEADS = {"n_heads": 2, "d_qk": 16, "d_hv": 32}
OF = "2 × (16, 32)"


def cell(name: str, seconds: float, *, part: str = "forward", size: int = 64, **fields: Any) -> dict[str, Any]:
    """A timed cell with quartiles 5 % apart; `size` is T of a sequence (128 tokens in all) or B of a step."""
    computation = fields.pop("computation", "exponential")
    spread = fields.pop("spread", 0.05)
    sizes: dict[str, Any] = {"batch_size": 128 // size, "context_length": size, "case": f"2x16x32-T{size}"}
    if part == "step":
        sizes = {"batch_size": size, "case": f"2x16x32-B{size}", "launch": "graph", "state_dtype": "float32"}
        computation = None
    times = {"seconds_quartile_1": seconds * (1 - spread), "seconds_quartile_3": seconds * (1 + spread)}
    row = {"part": part, "implementation": name, "computation": computation, "seconds_median": seconds, **HEADS}
    return row | sizes | times | fields


def timings(tmp_path: Path, *cells: dict[str, Any]) -> Timings:
    peaks = {"peak_flops_per_s": 1e15, "peak_bytes_per_s": 4e12, "memory_bytes": 1e11, "num_multiprocessors": 100}
    record = {
        "benchmark": "kernels", "date": "2026-01-01", "git_commit": "c", "versions": {}, "command": "c",
        "machine": {}, "results": list(cells),
        "parameters": {"gpu": "A reader's GPU", "code": "x", **peaks},
    }  # fmt: skip
    path = tmp_path / "kernels.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return load_timings(path)


def chosen(found: Timings) -> pd.DataFrame:
    return choice.choices(choice.cell_candidates(found))


def plain(page: Any) -> str:
    return str(page.markup).replace("\N{NO-BREAK SPACE}", " ")


def test_the_fastest_and_the_next(tmp_path: Path) -> None:
    found = timings(
        tmp_path,
        cell("companion", 2e-3),
        cell("mlstm_kernels xl_chunk, chunk 128", 3e-3),
        cell("torch chunkwise, chunk 64", 9e-3),
        cell("companion step", 1e-4, part="step", size=2),
    )
    row = chosen(found).query("use == 'reading a prompt'").iloc[0]
    assert row["fastest"] == "chunkwise (ours)"
    assert row["next"] == "chunkwise (xl_chunk, L = 128)"
    assert row["next_ratio"] == pytest.approx(1.5)
    assert row["other"] == "recurrent step (ours; CUDA graph) T times"
    assert row["kind"] == "recurrent step, CUDA graph"
    assert row["other_ratio"] == pytest.approx(64 * 1e-4 / 2e-3), "64 steps with both sequences at once"
    assert row["clear"]
    markup = plain(choice.show_choice(found))
    assert "chunkwise (xl_chunk, L = 128): 1.50" in markup
    assert "A reader’s GPU" in markup


def test_only_the_same_cell_is_compared(tmp_path: Path) -> None:
    """Attention, a sigmoid gate, another cell and a narrower state may be faster; they are no form of this cell."""
    found = timings(
        tmp_path,
        cell("companion", 2e-3),
        cell("companion, detached normaliser", 1.9e-3),
        cell("attention, flash", 1e-6, computation="attention"),
        cell("companion, sigmoid", 1e-6, computation="sigmoid"),
        cell("simple_gla, chunk 64", 1e-6, computation="forget_only"),
        cell(GATED_DELTA_RULE_NAME, 1e-6, computation=GATED_DELTA_RULE),
        cell("companion step", 2e-5, part="step", size=1),
        cell("companion step, bfloat16 state", 1e-6, part="step", size=1, state_dtype="bfloat16"),
    )
    rows = chosen(found)
    assert list(rows["fastest"]) == ["chunkwise (ours)", "recurrent step (ours; CUDA graph)"]
    assert (rows["next"] == "").all()
    assert rows["next_ratio"].isna().all()
    assert "–" in plain(choice.show_choice(found))


def test_training_keeps_the_detached_pass_apart(tmp_path: Path) -> None:
    training = {"part": "training"}
    names = ("companion", "companion, detached normaliser")
    found = timings(tmp_path, *(cell(x, s, **training) for x, s in zip(names, (2e-3, 1.95e-3), strict=True)))
    (row,) = chosen(found).to_dict("records")
    assert row["fastest"] == "chunkwise (ours, detached)"
    assert not row["clear"], "5 % of spread, 3 % of difference"
    assert "1.03 (overlapping)" in plain(choice.show_choice(found))


def test_sizes_with_the_same_answer_are_one_row(tmp_path: Path) -> None:
    slow = "torch chunkwise, chunk 64"
    times = {16: (1e-3, 2e-3), 32: (2e-3, 3e-3), 64: (4e-3, 3e-3), 128: (1e-3, 5e-3)}
    pairs = [(cell("companion", a, size=t), cell(slow, b, size=t)) for t, (a, b) in times.items()]
    markup = plain(choice.show_choice(timings(tmp_path, *(x for pair in pairs for x in pair))))
    assert markup.count("<tr") == 1 + 3, "the fastest changes twice"
    assert "T = 16 to 32" in markup
    assert "1.00 to 2.00 ms" in markup
    assert "chunkwise (plain torch, L = 64): 1.50 to 2.00" in markup
    facts = choice.choice_verdict(chosen(timings(tmp_path, *(x for pair in pairs for x in pair))), OF)
    assert facts == (
        f"For heads of {OF}, the fastest in the records is the chunkwise form (ours) or the chunkwise form "
        "(plain torch, L = 64), depending on the shape, for reading a prompt"
    )


def test_what_no_record_holds_is_named(tmp_path: Path) -> None:
    sequences = timings(tmp_path, cell("companion", 2e-3), cell("companion", 2e-3, size=32, skipped="out of memory"))
    words = choice.missing_verdict(choice.cell_candidates(sequences))
    assert words == (
        "The records hold no times of the recurrent step form, of the parallel form, or of sequences under "
        "torch.compile or in a CUDA graph, and the table says nothing about these"
    )
    found = choice.cell_candidates(sequences)
    every = pd.concat(
        [found, *(found.assign(form=f, launch=x) for f in choice.FORMS for x in choice.WAYS)], ignore_index=True
    )
    assert choice.missing_verdict(every) == "Every form and every way to launch it is in the records"
    assert choice.choice_verdict(chosen(sequences), "8 × (1, 1)") == "The records hold no time of heads of 8 × (1, 1)"


def test_nothing_timed(tmp_path: Path) -> None:
    empty = timings(tmp_path, cell("companion", 1.0) | {"seconds_median": None, "skipped": "fault of the GPU"})
    assert "no time of the mLSTM cell is recorded" in plain(choice.show_choice(empty))
    facts = choice.choice_facts(Shown.of(empty, (2, 16, 32), 64), tmp_path)
    assert facts["c10_choice"] == f"The records hold no time of heads of {OF}"
    assert facts["c10_choice_launch"] == "No record compares ways to launch the training of a whole model"
    assert "no training of a whole xLSTM model" in plain(choice.show_launches(tmp_path))
    assert "no prompt or token of a whole xLSTM model" in plain(choice.show_serving(tmp_path))


# ---- whole models --------------------------------------------------------------------------------


def model(launch: str | None, seconds: float | None, **fields: Any) -> dict[str, Any]:
    row = {"part": "training", "model": "xlstm", "size": "5m", "implementation": "companion", "launch": launch}
    row |= {"batch_size": 4, "context_length": 1024, "vocabulary": 2048}
    times = {f"seconds_{name}": seconds for name in ("low", "median", "high")} if seconds else {"skipped": "too large"}
    return row | times | fields


def write(folder: Path, name: str, *results: dict[str, Any], device: str = "G") -> None:
    about = {"date": "2026-01-01", "git_commit": "c", "versions": {}, "command": "c", "machine": {}}
    record = {"benchmark": name, **about, "parameters": {"device": device}, "results": list(results)}
    with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def test_launches_of_whole_models(tmp_path: Path) -> None:
    write(tmp_path, "model_training", model("eager", 1e-9), device="another")
    write(tmp_path, "model_training", model("compiled", 9.0))
    other = model("eager", 1e-9, model="transformer")
    write(tmp_path, "model_training", model("eager", 3.0), model("compiled", 2.0), model("compiled graph", None), other)
    prompt = {"part": "prefill", "prompt_tokens": 128, "context_length": None, "vocabulary": None}
    step = prompt | {"part": "step"}
    write(
        tmp_path,
        "model_inference",
        model("compiled graph", 0.5, batch_size=8, **prompt),
        model("compiled", 4e-3, batch_size=8, **prompt | {"prompt_tokens": 512}),
        model("graph", 1e-4, batch_size=1, **step),
        model(None, None, batch_size=64, **step),
    )
    training = plain(choice.show_launches(tmp_path))
    assert "5m, vocabulary 2,048" in training
    assert "eager: 1.50" in training, "the last record of a cell, on the last device"
    serving = plain(choice.show_serving(tmp_path))
    assert "compiled, CUDA graph: 500 ms at T = 128; compiled: 4.00 ms at T = 512" in serving
    assert "CUDA graph: 100 µs" in serving
    assert "B = 64" not in serving, "nothing was timed there"
    words = choice.launch_verdict(choice.choices(choice.model_choice_candidates(tmp_path)))
    assert words == (
        "For training whole xLSTM models, “compiled” is the fastest in the only recorded case; the next takes "
        "1.50 times as long"
    )


def test_the_records_of_the_book_are_read() -> None:
    from companion.paths import data_dir

    folder = data_dir() / "benchmarks"
    found = load_timings(folder / "kernels.jsonl", "NVIDIA H200")
    rows = chosen(found)
    best = found.table.query("part == 'forward' and case == '8x256x512-T8192' and computation == 'exponential'")
    row = rows.query("use == 'reading a prompt' and size == 8192 and of == '8 × (256, 512)'").iloc[0]
    assert row["seconds"] == pytest.approx(best["seconds_median"].min(), rel=0.02)
    assert (rows["next_ratio"].dropna() >= 1).all()
    assert (rows["other_ratio"].dropna() >= rows.loc[rows["other_ratio"].notna(), "next_ratio"]).all()
