"""Tables of timings that other people bring: other units, repeated rows, holes; one line or a result, never a crash."""

import contextlib
import io
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import error_line, run_json
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import cli
from companion.errors import InputError, NotApplicable
from companion.inference.checks import gaps_note, repeats_note, unit_note
from companion.inference.runtime_model import fit_runtime_model
from companion.inference.timings import load_inference, load_paper_inference

COLUMNS = ["architecture", "model_size", "d_model", "n_layers", "n_heads", "d_ff", "batch_size", "prefill_length"]
COLUMNS += ["generation_length", "ttft_s", "step_time_s"]


@pytest.fixture(scope="module")
def timings() -> pd.DataFrame:
    return load_paper_inference()[COLUMNS]


def saved(table: pd.DataFrame, folder: Path, name: str = "mine.csv") -> Path:
    path = folder / name
    table.to_csv(path, index=False)
    return path


def notes_of(path: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = load_inference(path)
    assert [str(one.message) for one in caught] == [f"{path}: {note}" for note in table.attrs["notes"]]
    return list(table.attrs["notes"])


class TestUnits:
    def test_the_authors_timings_raise_no_doubt(self, timings: pd.DataFrame, tmp_path: Path) -> None:
        assert notes_of(saved(timings, tmp_path)) == []
        for _, group in timings.groupby(["architecture", "model_size"]):
            assert notes_of(saved(group, tmp_path)) == []

    @pytest.mark.parametrize(("factor", "word"), [(1e3, "milliseconds"), (1e6, "microseconds")])
    @pytest.mark.parametrize("architecture", ["xlstm", "transformer"])
    def test_smaller_units_are_named_with_their_factor(
        self, timings: pd.DataFrame, tmp_path: Path, factor: float, word: str, architecture: str
    ) -> None:
        rows = timings[timings["architecture"] == architecture]
        rows = rows.assign(ttft_s=rows["ttft_s"] * factor, step_time_s=rows["step_time_s"] * factor)
        notes = notes_of(saved(rows, tmp_path))
        assert [note.split(":")[0] for note in notes] == ["column 'ttft_s'", "column 'step_time_s'"]
        assert all(f"in {word}? Divide by {factor:g}" in note for note in notes)

    def test_one_column_in_milliseconds(self, timings: pd.DataFrame, tmp_path: Path) -> None:
        [note] = notes_of(saved(timings.assign(step_time_s=timings["step_time_s"] * 1e3), tmp_path))
        assert note.startswith("column 'step_time_s'")

    def test_faster_than_any_device(self, timings: pd.DataFrame, tmp_path: Path) -> None:
        notes = notes_of(saved(timings.assign(ttft_s=timings["ttft_s"] / 1e3), tmp_path))
        assert len(notes) == 1
        assert "the usual time is" in notes[0]
        assert "is the column in seconds" in notes[0]

    def test_a_slow_device_is_no_other_unit(self, timings: pd.DataFrame, tmp_path: Path) -> None:
        """Twenty times slower throughout: a small accelerator, not another unit."""
        assert notes_of(saved(timings.assign(ttft_s=timings["ttft_s"] * 20), tmp_path)) == []

    def test_thresholds(self) -> None:
        least = np.array([1e-3, 1e-3, np.nan])
        assert unit_note("t", np.array([0.1, 1.0, 5.0]), least, "H100") is None
        assert "Divide by 1000" in str(unit_note("t", np.array([1.0, 2.0, 5.0]), least, "H100"))
        assert "1/100" in str(unit_note("t", np.array([1e-5, 1e-5, 5.0]), least, "H100"))
        assert unit_note("t", np.array([np.nan, np.nan, 1.0]), least, "H100") is None

    def test_the_command_says_it_on_stderr_and_in_json(
        self, timings: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = saved(timings.assign(ttft_s=timings["ttft_s"] * 1e3), tmp_path)
        where = ["--architecture", "xlstm", "--model-size", "7b", "--quantity", "ttft", "--bootstrap", "0"]
        result = run_json(capsys, "inference", "fit", str(path), *where)
        assert "in milliseconds? Divide by 1000" in result["warnings"][0]
        assert cli.main(["inference", "fit", str(path), *where]) == 0
        assert "in milliseconds? Divide by 1000" in capsys.readouterr().err


class TestRows:
    def test_repeated_rows_are_named(self, timings: pd.DataFrame, tmp_path: Path) -> None:
        rows = timings.iloc[10:14]
        [note] = notes_of(saved(pd.concat([rows, rows.iloc[1:3]]), tmp_path))
        assert note.startswith("2 of 6 rows repeat another, times included (row 6 is row 3 again)")
        measured_again = rows.assign(ttft_s=rows["ttft_s"] * 1.01)
        assert notes_of(saved(pd.concat([rows, measured_again]), tmp_path)) == []
        assert repeats_note(rows, COLUMNS) is None

    def test_columns_without_a_time(self, timings: pd.DataFrame, tmp_path: Path) -> None:
        [note] = notes_of(saved(timings.assign(ttft_s=np.nan), tmp_path))
        assert note == "column 'ttft_s' is empty: no row has a time there"
        assert gaps_note({"a": pd.Series([1.0, np.nan])}) is None
        path = saved(timings.assign(ttft_s=np.nan, step_time_s=np.nan), tmp_path)
        with pytest.raises(InputError, match="column 'ttft_s', 'step_time_s' is empty: no times"):
            load_inference(path)

    def test_holes_in_the_batch(self, timings: pd.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="column 'batch_size' is missing"):
            load_inference(saved(timings.drop(columns="batch_size"), tmp_path))
        rows = timings.iloc[:3].astype({"batch_size": object})
        rows.iloc[1, rows.columns.get_loc("batch_size")] = None
        with pytest.raises(InputError, match="row 3, column 'batch_size': the cell is empty"):
            load_inference(saved(rows, tmp_path))

    @pytest.mark.parametrize("text", ["0", "-0.002", "nan", "inf", "n/a"])
    def test_times_that_are_none(self, tmp_path: Path, text: str, timings: pd.DataFrame) -> None:
        rows = timings.iloc[:3].astype({"ttft_s": object})
        rows.iloc[1, rows.columns.get_loc("ttft_s")] = text
        with pytest.raises(InputError, match="row 3, column 'ttft_s'") as raised:
            load_inference(saved(rows, tmp_path))
        assert "\n" not in str(raised.value)


def test_pipes_devices_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    where = ["--architecture", "xlstm", "--model-size", "7b", "--quantity", "ttft"]
    for path, words in ((pipe, "is not a regular file"), ("/dev/zero", "is not a regular file"), (tmp_path, "folder")):
        assert words in error_line(capsys, "inference", "fit", str(path), *where)
        options = ["--target-loss", "2.5", "--timings", str(path)]
        assert words in error_line(capsys, "plan", *options)


class TestRuntimeModels:
    def test_no_timings_of_an_architecture(self, timings: pd.DataFrame) -> None:
        with pytest.raises(NotApplicable, match="runtime model of mamba2, ttft: no terms are known; there are"):
            fit_runtime_model(timings.assign(architecture="mamba2"), "mamba2", "ttft")
        with pytest.raises(NotApplicable, match="no rows with architecture transformer; there are xlstm"):
            fit_runtime_model(timings[timings["architecture"] == "xlstm"], "transformer", "ttft")
        with pytest.raises(NotApplicable, match="no ttft timings of xlstm with a prompt"):
            fit_runtime_model(timings.assign(ttft_s=np.nan), "xlstm", "ttft")
        with pytest.raises(NotApplicable, match="no column 'step_time_s'"):
            fit_runtime_model(timings.drop(columns="step_time_s"), "xlstm", "step_time")

    def test_terms_that_cannot_be_told_apart_have_no_rate(self, timings: pd.DataFrame) -> None:
        """One size: weights and layers are the same in every row, so neither has a rate of its own."""
        rows = timings[(timings["architecture"] == "transformer") & (timings["model_size"] == "400m")]
        model = fit_runtime_model(rows, "transformer", "step_time", num_resamples=20)
        assert set(model.free) >= {"weight_bytes", "layers"}
        assert "trades off with" in model.free["weight_bytes"]
        table = model.table().set_index("term")
        assert table.loc[["weight_bytes", "layers"], "rate"].isna().all()
        assert not table.loc[list(model.free), "identified"].any()
        assert np.isfinite(model.rms_log_error)
        assert model.outside(4.114e8, 1024, 8) == []
        assert "the timings leave free what weight_bytes" in model.outside(4e9, 1024, 8)[-1]

    def test_identical_rows(self, timings: pd.DataFrame) -> None:
        with pytest.raises(NotApplicable, match="1 pairs of size and batch for 4 terms"):
            fit_runtime_model(pd.concat([timings.iloc[[1]]] * 9), "xlstm", "ttft")


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, str]:
    """A small table of timings of one model as people make them, and the quantity to fit."""
    name = draw(st.sampled_from(["xlstm", "transformer"]))
    heads = draw(st.integers(1, 8))
    shapes = {"d_model": 32 * heads, "n_layers": draw(st.integers(1, 12)), "n_heads": heads, "d_ff": 64}
    prompts = draw(st.lists(st.sampled_from([0, 1, 50, 64, 128, 777, 4096]), min_size=1, max_size=3))
    batches = draw(st.lists(st.sampled_from([1, 2, 8, 16, 333]), min_size=1, max_size=3))
    number = draw(st.integers(1, 7))
    pick = st.integers(0, 5)
    rows = [
        {
            "architecture": name,
            "model_size": "mine",
            **shapes,
            "batch_size": batches[draw(pick) % len(batches)],
            "prefill_length": prompts[draw(pick) % len(prompts)],
            "generation_length": 11,
        }
        for _ in range(number)
    ]
    table = pd.DataFrame(rows)
    slope, constant = draw(st.sampled_from([0.0, 1e-9, 1e-5])), draw(st.sampled_from([1e-6, 1e-3, 2.0]))
    exact = constant + slope * table["batch_size"] * (table["prefill_length"] + 1)
    noise = draw(st.sampled_from([0.0, 0.01, 1.5]))
    scatter = np.exp(noise * np.random.default_rng(draw(st.integers(0, 9))).normal(size=number))
    missing = (
        draw(st.lists(st.booleans(), min_size=number, max_size=number)) if draw(st.booleans()) else [False] * number
    )
    times = np.where(missing, np.nan, exact * scatter)
    return table.assign(ttft_s=times, step_time_s=times), draw(st.sampled_from(["ttft", "step_time"]))


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(["all-rows", "published"]), st.sampled_from([None, "relative", "milliseconds"]))
def test_any_small_table_answers_or_says_why(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[pd.DataFrame, str], procedure: str, objective: str | None
) -> None:
    table, quantity = drawn
    path = saved(table, tmp_path_factory.mktemp("timings"))
    arguments = ["inference", "fit", str(path), "--architecture", table["architecture"][0], "--model-size", "mine"]
    arguments += [
        "--quantity",
        quantity,
        "--procedure",
        procedure,
        "--bootstrap",
        "6",
        "--smallest-batch",
        "1",
        "--json",
    ]
    arguments += ["--json", *(["--objective", objective] if objective else [])]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(arguments)
    lines = err.getvalue().splitlines()
    assert all(line.startswith("note: ") for line in lines[: len(lines) - (status != 0)])
    assert not any("encountered" in line for line in lines), "a warning of NumPy is no message"
    if status:
        assert status == 2
        assert lines[-1].startswith("companion: ")
        assert not out.getvalue()
        return
    result = json.loads(out.getvalue(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert set(result["parameters"]) == set(result["identified"]) == set(result["intervals"])
    assert set(result["reasons"]) == {name for name, known in result["identified"].items() if not known}
    if result["num_rows"] < len(result["parameters"]):
        assert not all(result["identified"].values())
    for name, (low, high) in result["intervals"].items():
        if result["parameters"][name] is None:
            assert (low, high) == (None, None)
