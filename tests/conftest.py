"""What holds for all tests."""

import json
from pathlib import Path
from typing import Any

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
    "benchmarks/kernels/test_kernel_benchmark.py",
    "book/test_visits.py",
    "fitting/test_multistart.py",
    "chapters/test_ch06_mistakes.py",
)
#: What `make check` leaves out besides them: notebooks, pages, other processes, and fits by the hundred.
NOT_QUICK = (
    "book",
    "gpu",
    "kernels/interpreted",
    "fitting",
    "plotting",
    "benchmarks/test_fits.py",
    "benchmarks/test_large_tables.py",
    "kernels/test_torch_forms.py",
    "chapters/test_ch04_figures.py",
    "chapters/test_ch05_figures.py",
    "chapters/test_ch06_figures.py",
    "chapters/test_ch06_objectives.py",
    "cli/test_fits_designs.py",
    "cli/test_isoflop.py",
    "cli/test_streams.py",
    "test_explorer.py",
    "test_progress.py",
    "test_readme.py",
    "test_wheel.py",
    "benchmarks/kernels/test_kernel_timing.py",
    "chapters/ch07/test_figures.py",
    "chapters/ch14",
    "chapters/test_ch10.py",
    "cli/test_fits.py",
    "kernels/test_checks.py",
    "planner/test_tables.py",
    "test_foreign_tables.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quick` is what `make check` runs, `--record` what `make test` adds."""
    parser.addoption("--quick", action="store_true", help="leave out what takes long: see tests/conftest.py")
    parser.addoption("--record", type=Path, metavar="FILE", help="leave the counts for the page Reproducibility")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a file or folder is left out; not even its imports are paid for."""
    if not config.getoption("--quick"):
        return None
    return collection_path in _places(*LONGEST, *NOT_QUICK) or None


def _places(*names: str) -> dict[Path, int]:
    """Paths below this folder with their places in the list; a name that is gone is an error, not silence."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(names)}
    if gone := [str(path) for path in places if not path.exists()]:
        raise pytest.UsageError(f"tests/conftest.py names {', '.join(gone)}: no such file")
    return places


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they were."""
    places = _places(*LONGEST)
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Leave how many tests passed, at which commit, and whether all of them ran."""
    path = config.getoption("--record")
    if path is None:
        return
    from companion.benchmarks.records import git_commit

    stats = terminalreporter.stats
    counts = {name: len(stats.get(name, [])) for name in ("passed", "failed", "error", "skipped", "deselected")}
    chosen = counts["deselected"] or config.getoption("--quick") or config.getoption("keyword") or config.option.lf
    record = {
        "commit": git_commit(Path(__file__).resolve().parent),
        "passed": counts["passed"],
        "failed": counts["failed"] + counts["error"],
        "skipped": counts["skipped"],
        "whole": not chosen and [Path(name).name for name in config.args] == ["tests"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
