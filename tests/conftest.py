"""What holds for all tests."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Before numpy is imported: threads of its library wait for each other in a loop, and there are more workers than cores.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# How long an example takes says more about the machine than about the code: nothing here is judged by time.
settings.register_profile("companion", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("companion")

HERE = Path(__file__).parent
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
#: What `make check` leaves out besides them, files and folders, or single tests and classes: notebooks, pages, other
#: processes, and fits by the hundred.
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
    "benchmarks/models",
    "chapters/ch14",
    "chapters/ch15",
    "chapters/ch16",
    "chapters/test_ch13.py",
    "chapters/test_ch13_learning.py",
    "models/test_weights.py",
    "chapters/test_ch10.py",
    "cli/test_fits.py",
    "kernels/test_checks.py",
    "planner/test_tables.py",
    "test_foreign_tables.py",
    "benchmarks/kernels/test_kernel_checks.py",
    "benchmarks/kernels/test_kernel_identity.py::test_what_makes_records_of_the_operator_stale",
    "benchmarks/test_coverage.py",
    "benchmarks/test_identified.py",
    "benchmarks/test_records.py::test_appends_of_several_processes_do_not_mix",
    "chapters/ch03/test_figures.py",
    "chapters/ch07",
    "chapters/ch08/test_all_sizes.py",
    "chapters/test_ch01_figures.py",
    "chapters/test_ch04_fits.py",
    "chapters/test_ch09.py",
    "chapters/test_ch09_figures.py",
    "chapters/test_ch11.py",
    "chapters/test_ch12.py",
    "chapters/test_ch12_curves.py",
    "chapters/test_ch91.py",
    "chapters/test_ch92.py::test_the_log_needs_no_torch",
    "cli/test_main.py::test_core_needs_neither_torch_nor_the_book_tools",
    "cli/test_main.py::test_installed_command_and_a_reader_that_stops_reading",
    "cli/test_main.py::test_ledger_json",
    "cli/test_plan.py",
    "cli/test_training.py",
    "inference/test_checks.py::test_any_small_table_answers_or_says_why",
    "inference/test_terms.py::TestWaves",
    "kernels/test_api.py::test_one_graph",
    "ledger/test_ledger.py",
    "planner/test_planner.py::test_more_traffic_never_makes_the_model_larger",
    "planner/test_planner.py::test_the_loss_optimal_model_spends_the_budget_best",
    "planner/test_sweeps.py",
    "planner/test_utilization.py",
    "runs/test_accepted.py",
    "runs/test_choosing.py::test_where_reaches_every_name_without_a_backquote",
    "runs/test_findings.py::test_every_table_that_loads_can_be_checked",
    "runs/test_fuzz.py",
    "runs/test_import_fuzz.py",
    "test_explorer_hours.py",
    "study/test_claims.py::test_any_part_of_a_table_gets_six_verdicts",
    "study/train/test_group.py",
    "study/train/test_step.py",
    "study/train/test_trainer.py",
    "training/test_batch.py",
    "training/test_batch_effects.py",
    "training/test_curves.py::test_every_value_is_the_mean_of_its_window",
    "training/test_early_loss.py",
    "training/test_fronts.py::test_intervals_cover_the_true_hours_and_those_of_resampled_runs_do_not",
    "training/test_import_logs.py",
    "training/test_measured.py",
    "training/test_selection.py",
    "benchmarks/kernels/test_kernel_host.py::test_first_call_in_a_process_of_its_own",
    "study/laboratory",
    "cli/test_laboratory.py",
    "cli/test_laboratory_training.py",
    "study/corpus/test_conditional.py::test_entropy_of_a_distribution_and_surprise_of_what_is_drawn",
    "study/corpus/test_source_kernel.py",
    "cli/test_design.py",
    "study/next_runs/test_information.py",
    "study/next_runs/test_records.py",
    "study/test_recorded_study.py::test_tables_are_what_the_records_hold",
    "study/next_runs/test_replay.py",
    "study/next_runs/test_simulate.py",
    "study/sweep/test_pace.py::test_a_sweep_that_is_stopped_leaves_checkpoints",
    "study/sweep/test_pace.py::test_with_an_end_no_run_waits_in_a_queue",
    "study/sweep/test_pace.py::test_workers_take_runs_in_the_order_of_the_plan",
    "study/sweep/test_pace.py::test_workers_leave_signals_to_the_process_that_began_them",
    "study/sweep/test_sweep.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quick` is what `make check` runs, `--record` what `make test` adds."""
    parser.addoption("--quick", action="store_true", help="leave out what takes long: see tests/conftest.py")
    parser.addoption("--record", type=Path, metavar="FILE", help="leave the counts for the page Reproducibility")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One worker more than cores: some wait for a browser, or for the book, which is built once."""
    if config.getoption("--quick"):
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + 1


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a file or folder is left out; not even its imports are paid for."""
    if not config.getoption("--quick"):
        return None
    return collection_path in _places(*LONGEST, *(name for name in NOT_QUICK if "::" not in name)) or None


def _places(*names: str) -> dict[Path, int]:
    """Paths below this folder with their places in the list; a name that is gone is an error, not silence."""
    places = {HERE / name: place for place, name in enumerate(names)}
    if gone := [str(path) for path in places if not path.exists()]:
        raise pytest.UsageError(f"tests/conftest.py names {', '.join(gone)}: no such file")
    return places


def _left_out(items: list[pytest.Item]) -> list[pytest.Item]:
    """Single tests that are not quick; a name that is gone is an error, not silence."""
    found = []
    for file, test in (name.split("::") for name in NOT_QUICK if "::" in name):
        (path,) = _places(file)
        if not re.search(rf"^(def|class) {test}\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            raise pytest.UsageError(f"tests/conftest.py names {file}::{test}: no such test")
        found += [item for item in items if item.path == path and test in re.split(r"::|\[", item.nodeid)]
    return found


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """The longest files first, the others as they were."""
    if config.getoption("--quick"):
        left_out = _left_out(items)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
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
