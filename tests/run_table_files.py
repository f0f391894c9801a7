"""Small run tables as files, and the message that loading one ends in."""

import warnings
from pathlib import Path

import pytest

from companion.errors import InputError
from companion.runs.load import load_runs

HEADER = "architecture,num_params,num_tokens,train_flops,val_loss"
ROW = "xlstm,100000000,2000000000,1.2e18,3.5"
OTHER = "transformer,200000000,2000000000,2.4e18,3.25"


def write(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def failure(path: Path, strict: bool = False) -> str:
    """The message of loading `path`, less the path it must begin with."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            load_runs(path, strict=strict)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def table(row: str, header: str = HEADER) -> str:
    return f"{header}\n{OTHER}{',1' * (header.count(',') - HEADER.count(','))}\n{row}\n"
