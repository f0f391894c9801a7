"""What holds for all tests."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code: nothing here is judged by time.
settings.register_profile("companion", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("companion")

#: Files that take longest, in the order in which workers should begin them: one that begins last is run by one worker
#: while the others have nothing left. The book is built for the first; whoever else reads its pages comes later.
LONGEST = (
    "book/test_explorer.py",
    "book/test_execution.py",
    "kernels/test_triton_kernels.py",
    "kernels/test_compiled.py",
    "benchmarks/test_kernel_benchmark.py",
    "book/test_pages.py",
    "fitting/test_reference_multistart.py",
    "fitting/test_pitfalls.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they were."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    if gone := [str(path) for path in places if not path.is_file()]:
        raise pytest.UsageError(f"LONGEST of tests/conftest.py names {', '.join(gone)}: no such file")
    items.sort(key=lambda item: places.get(item.path, len(places)))
