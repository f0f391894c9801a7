"""What a log can get wrong: one clear line, nothing lost."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from log_files import MAP, SETTINGS, event_file, failure, lines_of, one, records, write, written

from companion.errors import InputError
from companion.training.import_ import import_logs
from companion.training.import_.events import masked_crc32c, read_scalars
from companion.training.import_.run_log import attempts, make_history


@pytest.mark.filterwarnings("ignore:.*no place in comparisons of loss")
def test_a_log_that_is_cut_off_keeps_what_is_whole(tmp_path: Path) -> None:
    rows = records()
    text = lines_of(rows)
    table = pd.DataFrame(rows).to_csv(index=False)
    events = event_file(rows)
    for name, content in {
        "a.jsonl": text[: text.rindex('"step"') + 20],
        "a.csv": table[: table.rindex(",")][:-8],
        "events.out.tfevents.1": events[:-5],
    }.items():
        imported = import_logs(write(tmp_path, name, content), MAP | {"train_steps": "1000"})
        assert any("cut off" in note and "left out" in note for note in imported.notes), name
        assert len(imported.curves) >= 39
        assert one(imported)["status"] == "stopped"
        assert pd.isna(one(imported)["val_loss"])
        written(imported, tmp_path)


def test_a_restart_counts_the_later_record_and_keeps_both(tmp_path: Path) -> None:
    again = [row | {"train_loss": 3.0, "step_time_s": 0.5} for row in records() if row["step"] > 300]
    imported = import_logs(write(tmp_path, "a.csv", records() + again), MAP)
    assert any("restarted 1 time" in note for note in imported.notes)
    with pytest.warns(UserWarning, match="restarted"):
        _, curves = written(imported, tmp_path)
    assert curves["attempt"].value_counts().to_dict() == {0: 40, 1: 10}
    assert curves.loc[curves["step"] == 400, "train_loss"].tolist() == [4.0, 3.0]
    assert one(imported)["train_loss"] == 3.0
    assert one(imported)["step_time_q75_s"] == 0.5


def test_a_validation_written_late_is_no_restart() -> None:
    steps, nothing = [10, 20, 10, 30, 20, 30], np.nan
    losses = {"train_loss": [3, 2, nothing, 2, 1, 1], "val_loss": [nothing, nothing, 3, nothing, nothing, 9]}
    table = make_history({"step": steps, **losses})
    assert attempts(table).tolist() == [0, 0, 0, 0, 1, 1]


def test_losses_that_are_not_finite(tmp_path: Path) -> None:
    rows = [row | {"train_loss": "NaN"} if row["step"] > 350 else row for row in records()]
    imported = import_logs(write(tmp_path, "a.csv", rows), MAP)
    logs, curves = written(imported, tmp_path)
    assert logs["status"].tolist() == ["diverged"]
    assert logs["train_loss"].isna().all()
    assert curves["train_loss"].isna().sum() == 5
    assert any("train_loss: 5 records not finite" in note for note in imported.notes)


def test_a_long_first_step_is_left_out_and_named(tmp_path: Path) -> None:
    rows = records(every=1)
    rows[0]["step_time_s"] = 90.0
    imported = import_logs(write(tmp_path, "a.csv", rows), MAP)
    assert one(imported)["step_time_s"] == one(imported)["step_time_q75_s"] == 0.25
    assert any("the first step took 90 s" in note for note in imported.notes)
    few = import_logs(write(tmp_path, "b.csv", rows[:3]), MAP)
    assert one(few)["step_time_s"] == 0.25
    assert any("no step time after step 200" in note for note in few.notes)


def test_a_run_without_a_gpu_count_is_kept(tmp_path: Path) -> None:
    imported = import_logs(write(tmp_path, "a.csv", records()), {n: v for n, v in MAP.items() if n != "num_gpus"})
    assert any("no GPU count" in note for note in imported.notes)
    with pytest.warns(UserWarning, match="num_gpus"):
        logs, _ = written(imported, tmp_path)
    assert logs["num_gpus"].isna().all()


def test_two_runs_of_one_key(tmp_path: Path) -> None:
    first, second = (write(tmp_path, name, records(run="a")) for name in ("x.csv", "y.csv"))
    line = failure([first, second], MAP)
    assert all(text in line for text in ("'a'", "x.csv", "y.csv", "--distinguish"))
    assert import_logs([first, second], MAP, distinguish=True).logs["run"].tolist() == ["a", "a#2"]


def test_settings_that_disagree_are_named(tmp_path: Path) -> None:
    log = write(tmp_path, "a.csv", records(run="a"))
    twice = [SETTINGS | {"run": "a", "num_gpus": number} for number in (2, 64)]
    of_all = [SETTINGS | {"num_gpus": number} for number in (2, 64)]
    nested = {name: json.dumps([{**row, "history": [{"step": 1}]} for row in twice]) for name in ("s.json",)}
    for name, rows in {"s.csv": twice, "t.csv": of_all, **nested}.items():
        imported = import_logs(log, settings=write(tmp_path, name, rows))
        assert one(imported)["num_gpus"] == 64
        (note,) = [note for note in imported.notes if "num_gpus" in note]
        assert note.startswith(f"{tmp_path / name}: ")
        assert note.endswith("64: the last one is kept")
    alone = import_logs(log, settings=write(tmp_path, "v.csv", of_all[:1]))
    assert one(alone)["num_gpus"] == 2  # a row of no run in particular counts for all
    same = import_logs(log, settings=write(tmp_path, "u.csv", twice[:1] * 2))
    assert not any("num_gpus" in note for note in same.notes)


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("a.json", '[{"step": %s}]', "is not JSON of runs: a whole number has more digits than Python reads"),
        ("a.jsonl", '{"step": 1}\n{"step": %s}', "row 2: is not JSON: a whole number has more digits"),
        ("a.jsonl", '{"step": 1}\n' + "[" * 100_000, "row 2: is not JSON: nested too deeply"),
    ],
)
def test_json_that_python_does_not_read(tmp_path: Path, name: str, text: str, part: str) -> None:
    assert part in failure(write(tmp_path, name, text.replace("%s", "9" * 5000)), MAP)


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([{"loss": 3.0}], "no column of steps"),
        ([{"step": 1, "speed": 3}], "no column of a loss"),
        ([{"step": 1.5, "loss": 3}], "row 2, column 'step': 1.5 is not a whole number"),
        ([{"step": 10**18, "loss": 3}], "1e+18 is not a whole number of steps, at most 2^53"),
        ([{"step": 1, "loss": "low"}], "row 2, column 'loss': 'low' is not a number"),
        ([{"step": -3, "loss": 3}], "-3 is not a whole number"),
        ([{"step": 1, "train_loss": 3, "train/loss": 2}], "several columns may be train_loss"),
        ([{"step": step % 2, "loss": 3} for step in range(200)], "the steps go back"),
        ([{"step": 1, "loss": ""}], "logged no loss"),
    ],
)
def test_tables_that_are_no_log(tmp_path: Path, rows: list[dict[str, Any]], part: str) -> None:
    line = failure(write(tmp_path, "a.csv", rows), MAP)
    assert part in line
    assert "a.csv" in line


def test_options_that_are_wrong(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", records())
    assert "'speed' is not a column of a log" in failure(path, MAP | {"speed": "x"})
    assert "no column 'x y'" in failure(path, MAP | {"step_time_s": "`x y` / 2"})
    assert "neither a column nor" in failure(path, MAP | {"step_time_s": "(x / 2"})
    assert "no context_length" in failure(path, {})
    assert "preset 'x' is not known" in failure(path, MAP, preset="x")
    assert "num_tokens 1.6384e+35 is larger than 2^53" in failure(path, MAP | {"batch_size_seqs": "8e29"})
    assert "no such file" in failure(tmp_path / "none.csv", MAP)
    assert failure(tmp_path / "none", MAP).endswith("none: no such file")
    (tmp_path / "empty").mkdir()
    assert "without logs" in failure(tmp_path / "empty", MAP)
    packed = gzip.compress(path.read_bytes())
    assert "cut off" in failure(write(tmp_path, "b.csv.gz", packed[:-20]), MAP)
    assert "damaged" in failure(write(tmp_path, "c.csv.gz", packed[:12] + b"\xff" * 40), MAP)


def test_checksums_are_compared(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", records())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert import_logs(path, MAP, sha256=[digest, f"a.csv={digest.upper()}"]).files[0]["sha256"] == digest
    assert "is not the checksum of the file" in failure(path, MAP, sha256=["0" * 64])
    assert "no file of that name" in failure(path, MAP, sha256=[f"b.csv={digest}"])
    assert "64 hexadecimal digits" in failure(path, MAP, sha256=["123"])


def test_an_event_file_that_is_damaged() -> None:
    data = bytearray(event_file(records()))
    data[200] ^= 1
    with pytest.raises(InputError, match="checksum is wrong"):
        read_scalars(bytes(data), "events")
    with pytest.raises(InputError, match="not an event file"):
        read_scalars(b"step,loss\n1,2\n3,4\n", "events")


def test_the_checksum_of_the_format() -> None:
    """CRC-32C of 32 bytes of zeros is 0x8A9136AA (RFC 3720, appendix B.4)."""
    crc = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
