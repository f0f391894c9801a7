"""A sweep from its plan to its tables: what is trained, what is not trained again, and what a crash leaves behind."""

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import pytest
from commands import error_line, run_json

from companion import cli
from companion.errors import InputError
from companion.hardware import get_hardware
from companion.paths import data_dir
from companion.runs import load_runs
from companion.study.sweep.collect import collect, write_collected
from companion.study.sweep.design import Design, read_design
from companion.study.sweep.execute import FAILED, Ended, Workers, run_plan, train_run
from companion.study.sweep.plan import PLAN_FILE, Plan, make_plan, read_plan, write_plan
from companion.study.sweep.status import run_states, seconds_left, summary
from companion.study.train import read_record, record_path
from companion.study.train.needed import START_SECONDS, predicted_step
from companion.training.logs import load_training_curves, load_training_logs

CPU = Workers(device="cpu")
GRID = {
    "architectures": ["transformer", "xlstm"],
    "sizes": ["0.1m"],
    "context_lengths": [16],
    "tokens_per_param": [0.005, 0.01],
    "tokens_per_step": 64,
}
#: What differs between two runs of the same recipe.
MEASURED = (
    "seconds", "seconds_compile", "tokens_per_s", "utilization", "peak_memory_bytes", "date", "checksum", "machine",
)  # fmt: skip


def design_of(*grids: dict[str, Any], **study: Any) -> Design:
    fixed = {"corpus": "source:vocab_size=64", "held_out_sequences": 4, "evaluations": 1}
    return Design.from_dict({"study": {**fixed, **study}, "grid": [{**GRID, **grid} for grid in grids or ({},)]})


def plan_of(*grids: dict[str, Any], **study: Any) -> Plan:
    return make_plan(design_of(*grids, **study), get_hardware("h200-sxm"))


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """What was trained, without what was measured of the machine."""
    found = {}
    for path in folder.glob("*.json"):
        if path.name != PLAN_FILE:
            found[path.stem] = {k: v for k, v in read_record(path).items() if k not in MEASURED}
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plan and all records of a small sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    plan = plan_of()
    write_plan(plan, folder)
    ended = run_plan(plan, folder, CPU, progress=False)
    assert [each.status for each in ended] == ["finished"] * 4
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


# ---- plans ---------------------------------------------------------------------------------------


def test_a_plan_says_what_every_run_takes() -> None:
    grid = {name: value for name, value in GRID.items() if name != "tokens_per_param"}
    grid |= {"budgets": [1e9, 4e9], "tokens_per_step": [64, 128]}
    design = Design.from_dict({"study": {"corpus": "source:vocab_size=64"}, "grid": [grid]})
    plan = make_plan(design, get_hardware("h200-sxm"))
    table = plan.table()
    assert table["train_flops"].is_monotonic_increasing
    assert len(table) == 4
    step = table["train_flops"] / table["train_steps"]
    assert ((table["train_flops"] - table["isoflop_budget"]).abs() <= step).all(), "to the nearest step"
    assert set(table["batch_size_seqs"]) == {4, 8}
    assert plan.train_flops == pytest.approx(table["train_flops"].sum())
    assert (table["memory_bytes"] > 16 * table["num_params"]).all()
    hardware = get_hardware("h200-sxm")
    for run in plan.runs:
        step = predicted_step(run.recipe, hardware.peak_flops_per_s, hardware.peak_bytes_per_s)
        assert run.seconds == pytest.approx(START_SECONDS + run.recipe.train_steps * step.total, rel=0.01)
    assert plan.seconds == pytest.approx(sum(run.seconds for run in plan.runs))
    flat = make_plan(design, hardware, utilization=1e-9)
    assert flat.seconds == pytest.approx(plan.train_flops / 989_500 + 4 * START_SECONDS, rel=0.01)


def test_a_run_that_two_grids_ask_for_is_planned_once() -> None:
    assert len(plan_of({}, {"experiment": "again", "seeds": [0, 1]}).runs) == 8
    assert {run.experiment for run in plan_of({}, {"experiment": "again"}).runs} == {"tokenparam"}


def test_a_plan_comes_back_from_its_file_and_grows(tmp_path: Path) -> None:
    plan = plan_of()
    write_plan(plan, tmp_path)
    assert read_plan(tmp_path) == plan
    write_plan(plan_of({"seeds": [1]}), tmp_path)
    assert len(read_plan(tmp_path).runs) == 8
    write_plan(plan, tmp_path, replace_all=True)
    assert read_plan(tmp_path) == plan


@pytest.mark.parametrize(
    ("grid", "study", "words"),
    [
        ({}, {"warmup_steps": 50}, "train_steps: 4 are fewer than 50 steps of warm-up"),
        ({"tokens_per_step": 50}, {}, "tokens_per_step 50 is no whole number of sequences"),
        ({"tokens_per_param": [1e-6]}, {}, "less than one step of 64"),
        ({"tokens_per_step": 2**33, "tokens_per_param": [1e8]}, {}, "bytes of memory are needed"),
        ({}, {"shedule": "wsd"}, "[study]: 'shedule' is not one of corpus, "),
        ({}, {"seed": 3}, "[study]: seed: every run has its own"),
        ({}, {"schedule": "linear"}, "schedule: 'linear' is not one of"),
        ({"architectures": ["mamba"]}, {}, "architecture 'mamba' is not known"),
        ({}, {"corpus": "nothing"}, "nothing"),
    ],
)
def test_a_run_that_cannot_be_trained_is_named(grid: dict[str, Any], study: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        plan_of(grid, **study)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_more_tokens_than_the_corpus_has(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(
            f"All work and no play makes {name} short corpus. " * 20, encoding="utf-8"
        )
    with pytest.raises(InputError, match="sequences are needed, the corpus"):
        plan_of({"tokens_per_param": [1.0]}, corpus=f"text:{tmp_path}")


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edited(lambda content: content["runs"].pop()), "changed by hand"),
        (edited(lambda content: content["runs"][0]["recipe"].update(seed=7)), "changed by hand"),
        (edited(lambda content: content.update(schema=2)), "no plan of layout 1"),
        (lambda path: path.write_text(path.read_text(encoding="utf-8")[:500], encoding="utf-8"), "is not JSON"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "not UTF-8"),
        (lambda path: path.unlink(), "there is no plan"),
    ],
)
def test_a_plan_that_was_changed_is_refused(tmp_path: Path, edit: Callable[[Path], None], words: str) -> None:
    edit(write_plan(plan_of(), tmp_path))
    with pytest.raises(InputError) as error:
        read_plan(tmp_path)
    assert words in str(error.value)


def test_the_study_of_the_project_is_planned_as_its_readme_says() -> None:
    plan = make_plan(read_design(data_dir() / "study_design.toml"), get_hardware("h200-sxm"))
    readme = (data_dir() / "README.md").read_text(encoding="utf-8")
    assert f"| {len(plan.runs)} runs |" in readme
    profiles = plan.table().query("experiment == 'isoflop' and context_length == 1024 and seed == 0")
    counts = profiles.groupby(["architecture", "isoflop_budget"]).size()
    assert set(counts) == {6}
    assert len(counts) == 3 * 4


# ---- runs ----------------------------------------------------------------------------------------


def test_nothing_is_trained_twice(trained: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    assert run_plan(read_plan(trained), trained, CPU, progress=False) == []
    assert {path.name: path.stat().st_mtime_ns for path in trained.iterdir()} == before


def test_a_sweep_that_was_stopped_goes_on_with_the_same_records(trained: Path, tmp_path: Path) -> None:
    """A part of the runs first, then the whole plan, with one run interrupted in between."""
    from companion.study.train import train

    plan = plan_of()
    write_plan(plan, tmp_path)
    some = Plan(plan.runs[:2])
    assert len(run_plan(some, tmp_path, CPU, progress=False)) == 2
    stopped = train(plan.runs[2].recipe, tmp_path, device="cpu", progress=False, stop_after=3)
    assert stopped["status"] == "stopped"
    assert {each.state for each in run_states(plan, tmp_path)} == {"finished", "planned"}
    ended = run_plan(plan, tmp_path, CPU, progress=False)
    assert {each.run_id for each in ended} == {run.run_id for run in plan.runs[2:]}
    assert records(tmp_path) == records(trained)


def test_the_workers_of_dask_give_the_same_table(trained: Path, tmp_path: Path) -> None:
    plan = read_plan(trained)
    write_plan(plan, tmp_path)
    ended = run_plan(plan, tmp_path, Workers(device="cpu", number=2), progress=False)
    assert {each.status for each in ended} == {"finished"}
    assert len(ended) == 4
    pd.testing.assert_frame_equal(collect(plan, tmp_path).runs, collect(plan, trained).runs)
    pd.testing.assert_frame_equal(collect(plan, tmp_path).curves, collect(plan, trained).curves)


def test_a_record_that_was_cut_short_is_trained_again(copied: Path) -> None:
    plan = read_plan(copied)
    path = record_path(copied, plan.runs[1].run_id)
    path.write_text(path.read_text(encoding="utf-8")[:300], encoding="utf-8")
    assert [each.state for each in run_states(plan, copied)] == ["finished", "damaged", "finished", "finished"]
    assert len(collect(plan, copied).runs) == 3
    assert any(path.name in note for note in collect(plan, copied).notes)
    with pytest.warns(UserWarning, match="kept as"):
        ended = run_plan(plan, copied, CPU, progress=False)
    assert ended == [Ended(plan.runs[1].run_id, "finished")]
    assert path.with_name(path.name + ".damaged").exists()


def test_a_run_that_another_process_trains_is_left_to_it(copied: Path) -> None:
    plan = read_plan(copied)
    record_path(copied, plan.runs[0].run_id).unlink()
    with filelock.FileLock(copied / f"{plan.runs[0].run_id}.lock"):
        assert run_states(plan, copied)[0].state == "running"
        assert run_plan(plan, copied, CPU, progress=False) == []
    assert run_states(plan, copied)[0].state == "planned"


def test_a_run_that_fails_does_not_end_the_sweep(tmp_path: Path) -> None:
    plan = plan_of({"architectures": ["xlstm"]})
    first, second = (run.run_id for run in plan.runs)
    (tmp_path / f"{first}.pt").mkdir()  # in the way of its checkpoint
    (tmp_path / f"{first}.lock").mkdir()
    ended = run_plan(plan, tmp_path, CPU, progress=False)
    assert [(each.run_id, each.status) for each in ended] == [(first, FAILED), (second, "finished")]
    assert ended[0].reason


def test_no_run_begins_that_would_end_too_late(tmp_path: Path) -> None:
    assert run_plan(plan_of(), tmp_path, CPU, max_seconds=1e-9, progress=False) == []


def test_no_such_scheduler(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scheduler nowhere: "):
        run_plan(plan_of(), tmp_path, Workers(device="cpu", scheduler="nowhere"), progress=False)
    with pytest.raises(InputError, match="workers: 0"):
        Workers(device="cpu", number=0)


def test_a_run_that_diverges_is_recorded_and_kept_out_of_the_run_table(tmp_path: Path) -> None:
    plan = plan_of({"architectures": ["transformer"], "rate_factors": [1.0, 1e6], "tokens_per_param": [0.1]})
    run_plan(plan, tmp_path, CPU, progress=False)
    states = [each.state for each in run_states(plan, tmp_path)]
    assert sorted(states) == ["diverged", "finished"]
    found = collect(plan, tmp_path)
    assert len(found.runs) == 1
    assert sorted(found.logs["status"]) == ["diverged", "finished"]
    assert found.curves["run"].nunique() == 2
    assert any("1 run diverged" in note for note in found.notes)
    assert summary(run_states(plan, tmp_path))["done"].tolist() == [1.0]


# ---- tables --------------------------------------------------------------------------------------


def test_tables_load_like_any_other(trained: Path, tmp_path: Path) -> None:
    found = collect(read_plan(trained), trained)
    runs, logs, curves, _ = write_collected(found, tmp_path / "runs.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_runs(runs)
    assert loaded["val_loss"].tolist() == found.runs["val_loss"].tolist()
    assert (loaded["val_loss"] > loaded["loss_floor"]).all()
    with pytest.warns(UserWarning, match="num_gpus"):
        assert load_training_logs(logs)["status"].tolist() == ["finished"] * 4
    points = load_training_curves(curves)
    ends = points.groupby("run")["val_loss"].last()
    assert ends.to_dict() == dict(zip(found.runs["run"], found.runs["val_loss"], strict=True))
    assert curves.read_bytes()[4:8] == bytes(4), "a gzip file without a date: equal tables give equal files"


def test_nothing_to_collect(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run of its plan has a record yet"):
        collect(plan_of(), tmp_path)


def test_time_left_goes_by_what_runs_took(copied: Path) -> None:
    plan = read_plan(copied)
    record_path(copied, plan.runs[3].run_id).unlink()
    states = run_states(plan, copied)
    took = sum(each.record["seconds"] + each.record["seconds_compile"] for each in states if each.record)
    predicted = sum(run.seconds for run in plan.runs[:3])
    assert seconds_left(states) == pytest.approx(plan.runs[3].seconds * took / predicted)
    for each in states[:3]:
        assert each.record is not None
        each.record["processes_per_gpu"] = 4
    assert seconds_left(states) == pytest.approx(plan.runs[3].seconds * took / predicted / 4)
    for each in states[:3]:
        assert each.record is not None
        del each.record["processes_per_gpu"]  # as in records of before: what was predicted is all that is known
    assert seconds_left(states) == plan.runs[3].seconds


# ---- commands ------------------------------------------------------------------------------------


def test_from_a_design_to_a_table_by_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("design.toml").write_text(
        '[study]\ncorpus = "source:vocab_size=64"\nheld_out_sequences = 4\n[[grid]]\narchitectures = ["xlstm"]\n'
        'sizes = ["0.1m"]\ncontext_lengths = [16]\ntokens_per_param = [0.005]\ntokens_per_step = 64\n',
        encoding="utf-8",
    )
    planned = run_json(capsys, "study", "plan", "design.toml")
    assert [run["size"] for run in planned["runs"]] == ["0.1m"]
    assert error_line(capsys, "study", "collect").startswith("companion: study: no run of its plan has a record yet")
    done = run_json(capsys, "study", "run", "--device", "cpu", "--no-progress")
    assert [each["status"] for each in done["runs"]] == ["finished"]
    assert run_json(capsys, "study", "status")["seconds_left"] == 0
    assert run_json(capsys, "study", "collect")["runs"] == 1
    assert len(load_runs("runs.csv")) == 1
    for words in (["run", "--device", "cpu"], ["status"], ["collect"], ["plan", "design.toml"]):
        assert cli.main(["study", *words]) == 0
        assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["plan"], "give a design, or --example"),
        (["plan", "nothing.toml"], "nothing.toml"),
        (["plan", "--example", "--utilization", "2"], "utilization 2 is not above 0 and at most 1"),
        (["plan", "--example", "--hardware", "h300"], "h300"),
        (["run"], "there is no plan"),
        (["run", "--device", "cuda"], "torch sees no GPU here"),
        (["status", "--folder", "nowhere"], "there is no plan"),
        (["collect"], "there is no plan"),
    ],
)
def test_wrong_commands(
    words: list[str],
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert fault in error_line(capsys, "study", *words)


def test_what_goes_wrong_in_a_run_is_its_result(tmp_path: Path) -> None:
    recipe = plan_of().runs[0].recipe.to_dict()
    (tmp_path / "file").write_text("", encoding="utf-8")
    ended = train_run(recipe, str(tmp_path / "file"), "cpu")
    assert ended.status == FAILED
    assert "file" in ended.reason


def test_training_needs_no_pandera(trained: Path) -> None:
    """A GPU machine may have torch and little else."""
    code = (
        "import sys\n"
        "for name in ('pandera', 'distributed'): sys.modules[name] = None\n"
        "from companion.study.sweep.__main__ import main\n"
        f"sys.exit(main([{str(trained)!r}, '--device', 'cpu']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    wrong = subprocess.run([sys.executable, "-m", "companion.study.sweep", "nowhere"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: nowhere/plan.json: there is no plan")
