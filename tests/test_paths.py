"""Places that cannot be written are found before the work; links are followed; nothing is left behind."""

from pathlib import Path

import pytest

from companion.errors import InputError
from companion.paths import check_target, write_whole


def test_text_is_written_whole_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", "one")
    write_whole(tmp_path / "a.json", "two")
    assert (tmp_path / "a.json").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_whole(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"


@pytest.mark.parametrize("name", ["missing/fit.json", "folder", "file/fit.json", "x" * 300, "nul\0l"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as error:
        check_target(tmp_path / name)
    assert "\n" not in str(error.value)
