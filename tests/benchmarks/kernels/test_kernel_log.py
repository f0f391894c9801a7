"""The log of predictions: what is looked up, what a row must say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from companion.benchmarks.kernels.log import COLUMNS, against_peer, gains, load_log
from companion.benchmarks.records import new_record
from companion.errors import InputError

HEADER = ",".join((*COLUMNS, "measured_seconds", "measured_on", "measured_by"))
DATA = Path(__file__).resolve().parents[3] / "data/benchmarks"


def line(part: str, kernel: str, implementation: str, predicted: Any, measured: Any = "", gpu: str = "GPU one") -> str:
    return (
        f"2026-01-01,a change,{part},{kernel},8x256x512-T8192,{implementation},128,{predicted},{gpu},why,{measured},,"
    )


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "kernels.jsonl"
    case = {"case": "8x256x512-T8192", "dtype": "bfloat16"}
    mine, other = {"implementation": "companion, chunk 128"}, {"implementation": "companion, chunk 256"}
    tuning = {**case, "part": "tuning", "kernel": "states"}
    before = {**mine, "configuration": "states 3", "seconds_median": 1e-4}  # a candidate that is gone
    runs = [
        [{**tuning, **before}, {**case, "part": "forward", "implementation": "companion", "seconds_median": 6e-3}],
        [{**tuning, **mine, "configuration": "states 0", "seconds_median": 3e-3}],
        [{**tuning, **mine, "configuration": "states 0", "seconds_median": 2e-3}],  # again, later: counts
        [{**tuning, **mine, "configuration": "states 1", "seconds_median": 2.5e-3}],
        [{**tuning, **other, "configuration": "states 0", "seconds_median": 1e-3}],
        [{**tuning, **mine, "configuration": "states 2", "skipped": "too large"}],
        [{**case, "part": "forward", "implementation": "companion", "seconds_median": 4e-3}],
        [{**case, "part": "step", "implementation": "companion step", "launch": "graph", "seconds_median": 5e-3}],
        [{**case, "part": "step", "implementation": "companion step", "launch": "calls", "seconds_median": 9e-9}],
    ]
    for number, rows in enumerate(runs):
        for gpu in ("GPU two", "GPU one"):
            found = rows if gpu == "GPU one" else [{**row, "seconds_median": 1e-9} for row in rows]
            parameters = {"gpu": gpu, "code": "after" if number else "before"}
            record = new_record("kernels", "made up", parameters, found, packages=())
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
    return path


def test_measurements_are_looked_up_where_the_log_has_none(tmp_path: Path, records: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [
        line("tuning", "states", "companion", 1e-3),
        line("forward", "", "companion", 2e-3),
        line("step", "", "companion step", 1e-3),
        line("forward", "", "companion", 2e-3, 1e-3),
        line("training", "", "companion", 2e-3),
    ]
    path.write_text("\n".join([HEADER, *rows]))
    log = load_log(path, records)
    assert log["measured_seconds"].tolist()[:4] == [2e-3, 4e-3, 5e-3, 1e-3]
    assert log["ratio"].tolist()[:4] == pytest.approx([2, 2, 5, 0.5])
    assert np.isnan(log["ratio"].iloc[4])
    assert log["measured_on"].tolist()[:3] == ["GPU one"] * 3
    assert load_log(path)["measured_seconds"].notna().tolist() == [False, False, False, True, False]
    path.write_text(
        "\n".join([HEADER, *(line("tuning", "states", "companion", 1e-3, gpu=f"GPU {n}") for n in ("two", "ten"))])
    )
    log = load_log(path, records)
    assert log["measured_seconds"].iloc[0] == 1e-9, "of the GPU that the row names"
    assert np.isnan(log["measured_seconds"].iloc[1])


def test_a_record_from_before_a_prediction_does_not_measure_it(tmp_path: Path, records: Path) -> None:
    """A change that nobody has timed yet would look as if it had been, by the kernels that it replaces."""
    path = tmp_path / "log.csv"
    rows = [line("forward", "", "companion", 2e-3), line("forward", "", "companion", 2e-3).replace("2026", "2999", 1)]
    path.write_text("\n".join([HEADER, *rows]))
    assert load_log(path, records)["measured_seconds"].notna().tolist() == [True, False]


def test_what_all_changes_brought(records: Path) -> None:
    found = gains(records, "GPU one")
    assert found[["part", "case", "implementation"]].values.tolist() == [["forward", "8x256x512-T8192", "companion"]]
    assert sorted(gains(records)["gpu"]) == ["GPU one", "GPU two"]
    assert found[["first_seconds", "last_seconds", "gain"]].iloc[0].tolist() == pytest.approx([6e-3, 4e-3, 1.5])
    assert gains(records, "GPU three").empty


def test_ours_beside_a_peer_on_every_gpu(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    for gpu, mine, theirs in (("GPU one", (4e-3, 2e-3), (6e-3,)), ("GPU two", (1e-3,), ())):
        for name, times in (("companion", mine), ("peer", theirs)):
            for seconds in times:
                row = {"part": "forward", "case": "8x256x512-T8192", "implementation": name, "seconds_median": seconds}
                parameters = {"gpu": gpu, "code": f"{name} of {seconds}"}
                record = new_record("kernels", "made up", parameters, [{**row, "context_length": 8192}], packages=())
                with path.open("a") as file:
                    file.write(json.dumps(record) + "\n")
    found = against_peer(path, "peer")
    assert found[["gpu", "implementation", "context_length"]].values.tolist() == [["GPU one", "companion", 8192]]
    assert found[["seconds", "peer_seconds", "ratio"]].iloc[0].tolist() == pytest.approx([2e-3, 6e-3, 3.0])
    assert found["code"].tolist() == ["companion of 0.002"], "of ours, not of the peer"
    assert against_peer(path, "nobody").empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("case,", "") + "\n", "no column case"),
        (f"{HEADER}\n{line('forward', '', 'companion', 'soon')}", "predicted_seconds of row 1 is 'soon'"),
        (f"{HEADER}\n{line('forward', '', 'companion', '')}", "predicted_seconds of row 1"),
        (f"{HEADER}\n{line('forward', '', 'companion', 1, -1)}", "measured_seconds of row 1 is '-1'"),
        ("", "log.csv: "),
    ],
)
def test_a_wrong_log_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_log(path)


def test_no_file() -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        load_log(Path("nowhere.csv"))


def test_the_log_of_the_book() -> None:
    log = load_log(DATA / "kernel_predictions.csv", DATA / "kernels.jsonl")
    assert log["ratio"].notna().any()
    assert (log["measured_seconds"].isna() | log["measured_on"].notna()).all()
