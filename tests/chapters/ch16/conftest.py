"""The recorded experiments of chapter 16."""

import pytest

from companion.chapters.ch16.records import Records, load_records


@pytest.fixture(scope="session")
def records() -> Records:
    return load_records()
