"""A laboratory in a folder, for several files."""

from pathlib import Path

import pytest

from companion.study.laboratory import Laboratory, Rules, new_laboratory


@pytest.fixture
def lab(tmp_path: Path) -> Laboratory:
    """The simulated world of one key."""
    return new_laboratory(tmp_path / "lab", Rules(), "a key")
