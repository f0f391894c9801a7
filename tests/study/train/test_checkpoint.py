"""Checkpoints: written whole, and any damage seen before torch reads them."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.study.train.checkpoint import DamagedCheckpoint, checkpoint_path, read_checkpoint, write_checkpoint

STATE = {"run_id": "abc", "weights": {"w": torch.arange(5.0)}, "step": 3}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, "abc")
    assert read_checkpoint(path, "abc") is None
    write_checkpoint(path, STATE)
    found = read_checkpoint(path, "abc")
    assert found is not None
    assert torch.equal(found["weights"].pop("w"), torch.arange(5.0))
    assert found == {"run_id": "abc", "weights": {}, "step": 3}
    assert [each.name for each in tmp_path.iterdir()] == ["abc.pt"]


@given(data=st.data())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_seen(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "abc.pt"
    write_checkpoint(path, STATE)
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.sampled_from(["byte", "end", "more"]))
    other = bytes([content[place] ^ data.draw(st.integers(1, 255))])
    damaged = {"byte": content[:place] + other + content[place + 1 :], "end": content[:place], "more": content + b"x"}
    path.write_bytes(damaged[change])
    with pytest.raises(DamagedCheckpoint, match=r"abc\.pt"):
        read_checkpoint(path, "abc")


def test_a_checkpoint_of_another_run(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    write_checkpoint(path, STATE)
    with pytest.raises(DamagedCheckpoint, match="is not the checkpoint of run other"):
        read_checkpoint(path, "other")


def test_only_tensors_and_plain_values_are_read(tmp_path: Path) -> None:
    path = tmp_path / "abc.pt"
    write_checkpoint(path, {"run_id": "abc", "folder": tmp_path})
    with pytest.raises(DamagedCheckpoint, match="torch cannot read it"):
        read_checkpoint(path, "abc")


def test_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(tmp_path, "abc")
    with pytest.raises(InputError, match="cannot be written"):
        write_checkpoint(tmp_path, STATE)


def test_what_was_there_stays_if_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "abc.pt"
    write_checkpoint(path, STATE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("companion.study.train.checkpoint.os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_checkpoint(path, {**STATE, "step": 4})
    kept = read_checkpoint(path, "abc")
    assert kept is not None
    assert kept["step"] == 3
    assert len(list(tmp_path.iterdir())) == 1
