"""Records of a made-up device, and what chapter 14 reads from them."""

from pathlib import Path

import pytest
from model_records import write_records

from companion.chapters.ch14.measured import Measured, load


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records without noise."""
    return write_records(tmp_path_factory.mktemp("records"), noise=0.0)


@pytest.fixture(scope="session")
def measured(path: Path) -> Measured:
    return load(path)


@pytest.fixture(scope="session")
def slower(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A device of half the speed, unknown to the table of hardware, with two sizes."""
    folder = tmp_path_factory.mktemp("slower")
    return load(write_records(folder, device="Some GPU", sizes=("160m", "400m"), slower=2.0, noise=0.0, library=False))
