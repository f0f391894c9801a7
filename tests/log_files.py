"""Small logs in every format that the importer reads, and what a test asks of the result."""

import json
import struct
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from companion.errors import InputError
from companion.training.import_ import ImportedLogs, import_logs
from companion.training.import_.events import masked_crc32c
from companion.training.logs import load_training_curves, load_training_logs

#: What a log needs besides its records; 8 sequences of 512 tokens a step.
SETTINGS = {"context_length": 512, "batch_size_seqs": 8, "num_params": 1e6, "num_gpus": 2, "architecture": "gpt"}
MAP = {name: str(value) for name, value in SETTINGS.items()}


def records(steps: int = 400, every: int = 10, run: str | None = None) -> list[dict[str, Any]]:
    found = []
    for step in range(every, steps + 1, every):
        record = {"step": step, "train_loss": 6 - step / 200, "grad_norm": 0.5, "step_time_s": 0.25}
        if step % 100 == 0:
            record["val_loss"] = 6.1 - step / 200
        found.append(({"run": run} if run else {}) | record)
    return found


def write(folder: Path, name: str, content: str | bytes | list[dict[str, Any]]) -> Path:
    path = folder / name
    if isinstance(content, list):
        pd.DataFrame(content).to_csv(path, index=False)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def one(imported: ImportedLogs) -> pd.Series:
    assert len(imported.logs) == 1
    return imported.logs.iloc[0]


def failure(*arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        import_logs(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(imported: ImportedLogs, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables, written and loaded again."""
    logs, curves = imported.write(folder, "out", overwrite=True)
    return load_training_logs(logs), load_training_curves(curves)


def event_file(rows: list[dict[str, Any]], tensor: bool = False) -> bytes:
    """An event file of TensorBoard, put together here from the format's description."""

    def varint(number: int) -> bytes:
        found = b""
        while number > 127:
            found, number = found + bytes([number & 127 | 128]), number >> 7
        return found + bytes([number])

    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    def record(event: bytes) -> bytes:
        length = struct.pack("<Q", len(event))
        return b"".join(
            [length, struct.pack("<I", masked_crc32c(length)), event, struct.pack("<I", masked_crc32c(event))]
        )

    found = record(b"\x09" + struct.pack("<d", 1e9) + field(3, b"brain.Event:2"))
    for row in rows:
        for tag, value in row.items():
            if tag != "step":
                number = struct.pack("<f", value)
                held = field(8, b"\x08\x01" + field(5, number)) if tensor else b"\x15" + number
                event = b"\x09" + struct.pack("<d", 1e9 + row["step"] / 4) + b"\x10" + varint(row["step"])
                found += record(event + field(5, field(1, field(1, tag.encode()) + held)))
    return found


def cut_out(folder: Path, logs: pd.DataFrame, curves: pd.DataFrame | None = None) -> dict[str, str]:
    """Tables as a reader brings them, cut out of the authors': the parameters of a chapter that reads them."""
    own = logs.drop(columns=["group", "in_runs_csv"])
    own.to_csv(folder / "logs.csv", index=False)
    if curves is None:
        return {"logs_file": str(folder / "logs.csv")}
    curves[curves["run"].isin(own["run"])].drop(columns="attempt").to_csv(folder / "curves.csv", index=False)
    return {"logs_file": str(folder / "logs.csv"), "curves_file": str(folder / "curves.csv")}


def panel(rows: list[dict[str, Any]], metric: str, run: str) -> str:
    """A chart that wandb exported."""
    known = [row for row in rows if metric in row]
    names = [f"{run} - {metric}", f"{run} - {metric}__MIN", f"{run} - {metric}__MAX", f"{run} - _step"]
    header = ",".join(f'"{name}"' for name in ["Step", *names])
    return "\n".join([header, *(f"{r['step']},{r[metric]},{r[metric]},{r[metric]},{r['step']}" for r in known)]) + "\n"
