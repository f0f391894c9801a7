"""`companion import logs`: the command, its report against a run table, and the authors' repository by git."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import RUNS, error_line, run_json

from companion import cli
from companion.runs import load_runs
from companion.training import load_training_curves, load_training_logs
from companion.training.import_ import by_source, loss_report, update_runs

SETTINGS = ["context_length=512", "batch_size_seqs=8", "num_params=1e6", "num_gpus=2"]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    steps = np.arange(10, 401, 10)
    table = pd.DataFrame({"step": steps, "loss": 5 - steps / 400, "val_loss": 5.5 - steps / 400, "time ms": 250})
    table.to_csv(tmp_path / "mine.csv", index=False)
    return tmp_path / "mine.csv"


def command(*arguments: str) -> list[str]:
    return ["import", "logs", *arguments, "--map", *SETTINGS, "step_time_s=time ms / 1000"]


def test_two_tables_that_the_loaders_accept(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, *command(str(log), "--architecture", "gpt", "--points", "all"))
    assert (result["num_runs"], result["num_points"], result["status"]) == (1, 40, {"finished": 1})
    assert result["files"][0]["file"] == str(log)
    logs, curves = load_training_logs(result["logs"]), load_training_curves(result["curves"])
    assert logs[["architecture", "step_time_s", "val_loss"]].to_numpy().tolist() == [["gpt", 0.25, 4.5]]
    assert curves["step"].tolist() == list(range(10, 401, 10))
    assert {path.name for path in log.parent.iterdir()} == {"mine.csv", "mine_logs.csv", "mine_curves.csv.gz"}
    assert cli.main(["data", "check", result["logs"]]) == 0


def test_the_same_log_gives_the_same_bytes(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run_json(capsys, *command(str(log)))
    before = [Path(first[name]).read_bytes() for name in ("logs", "curves")]
    again = run_json(capsys, *command(str(log), "--force"))
    assert [Path(again[name]).read_bytes() for name in ("logs", "curves")] == before


def test_what_is_there_is_not_overwritten_and_what_fails_leaves_nothing(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_line(capsys, *command(str(log))[:-6])
    assert "no context_length" in line
    assert list(log.parent.iterdir()) == [log]
    Path("mine_curves.csv.gz").write_text("kept")
    assert "--force" in error_line(capsys, *command(str(log)))
    assert Path("mine_curves.csv.gz").read_text() == "kept"


def test_text_says_what_came_from_where(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command(str(log))) == 0
    out = capsys.readouterr().out
    assert "train_loss <- column 'loss'" in out
    assert "mine_logs.csv: 1 run (1 finished)" in out
    assert "sha256 " in out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "give files or folders of logs, or --from-authors"),
        (("mine.csv", "--from-authors"), "give files or folders"),
        (("mine.csv", "--clone", "x"), "--clone needs --from-authors"),
        (("mine.csv", "--update-runs", "x.csv"), "--update-runs needs --report"),
        (("mine.csv", "--output", "nowhere"), "is not a folder"),
        (("mine.csv", "--name", "../x"), "is not the beginning of a file name"),
        (("mine.csv", "--map", "x"), "write COLUMN=NAME"),
        (("mine.csv", "--points", "few"), "'few' is not a number"),
        (("mine.csv", "--points", "1"), "1 is neither 2 or more nor 'all'"),
        (("mine.csv", "--convention", "x"), "convention 'x' is not known"),
    ],
)
def test_options_that_do_not_fit(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], part: str
) -> None:
    assert part in error_line(capsys, "import", "logs", *arguments, "--map", *SETTINGS)


# ---- against a run table -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logs() -> pd.DataFrame:
    return load_training_logs()


def test_the_projects_own_logs_agree_with_its_run_table(logs: pd.DataFrame) -> None:
    report = by_source(loss_report(load_runs(RUNS), logs))
    assert report[["source", "num_runs", "num_different"]].to_numpy().tolist() == [["pickle", 342, 0]]


def test_a_loss_that_disagrees_is_reported_and_replaced(logs: pd.DataFrame) -> None:
    runs = load_runs(RUNS)
    changed = runs.copy()
    row = loss_report(runs, logs)["row"].iloc[7] - 2
    changed.loc[row, "val_loss"] += 0.0125
    changed.loc[row, ["source", "imposed_published_fit"]] = ["figure", 1]
    report = loss_report(changed, logs)
    assert report.loc[0, "row"] == row + 2
    assert report.loc[0, "difference"] == pytest.approx(-0.0125)
    assert report.loc[0, "source"] == "figure"
    updated = update_runs(changed, logs)
    assert (updated["source"] == "log").sum() == 342
    assert updated.loc[row, "val_loss"] == runs.loc[row, "val_loss"]
    assert updated.loc[row, "imposed_published_fit"] == 0
    kept = updated["source"] != "log"
    pd.testing.assert_frame_equal(updated[kept], changed[kept], check_dtype=False)


def test_a_run_table_is_written_that_the_book_can_be_built_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = load_runs(RUNS).head(3)
    runs, target = tmp_path / "runs.csv", tmp_path / "updated.csv"
    table.to_csv(runs, index=False)
    first = table.iloc[0]
    steps = np.arange(200, int(first["train_steps"]) + 1, 200)
    log = pd.DataFrame({"step": steps, "loss": 4.0, "val_loss": 3.5, "step_time": 2.0, "num_gpus": 8})
    for name in ("context_length", "num_params", "num_tokens", "batch_size_seqs", "train_steps", "architecture"):
        log[name] = first[name]
    log.to_csv(tmp_path / "log.csv", index=False)
    options = ["--output", str(tmp_path), "--report", str(runs), "--update-runs", str(target)]
    result = run_json(capsys, "import", "logs", str(tmp_path / "log.csv"), *options)
    assert [row["row"] for row in result["report"]] == [2]
    assert result["report"][0]["difference"] == pytest.approx(3.5 - first["val_loss"])
    updated = load_runs(target)
    assert updated["val_loss"].tolist() == [3.5, *table["val_loss"][1:]]
    assert updated["source"].tolist() == ["log", *table["source"][1:]]


def test_a_report_without_a_run_in_common(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run of the table has a finished log" in error_line(capsys, *command(str(log), "--report", RUNS))
    assert not Path("mine_logs.csv").exists()


# ---- the authors' repository ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository with one log in it, and its commit; it stands for the authors'."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path_factory.mktemp("origin")
    steps = np.arange(50, 401, 50)
    log = {"name": "a", "config": dict(pair.split("=") for pair in SETTINGS), "history": [
        {"step": int(step), "loss": 5 - step / 400, "step_time": 0.5} for step in steps
    ]}  # fmt: skip
    (folder / "log.json").write_text(json.dumps(log))
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "-m", "a log"]):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return folder, done.stdout.strip()


def test_one_command_fetches_and_imports(
    repository: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commit = repository
    source = ["--from-authors", "--address", folder.as_uri(), "--commit", commit, "--clone", str(tmp_path / "clone")]
    result = run_json(capsys, "import", "logs", *source, "--output", str(tmp_path))
    assert result["num_runs"] == 1
    assert len(result["not_in_the_clone"]) == 10
    assert (tmp_path / "authors_logs.csv").is_file()
    # a second time without the network: the clone is used again
    source[2] = (tmp_path / "gone").as_uri()
    again = run_json(capsys, "import", "logs", *source, "--output", str(tmp_path), "--force")
    assert again["files"] == result["files"]


def test_a_clone_that_fails_is_one_line(
    repository: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commit = repository
    given = ["import", "logs", "--from-authors", "--output", str(tmp_path)]
    assert "git fetch" in error_line(capsys, *given, "--address", folder.as_uri(), "--commit", "0" * 40)
    assert "40 hexadecimal digits" in error_line(capsys, *given, "--commit", "main")
    ran = tmp_path / "ran"
    line = error_line(capsys, *given, "--address", f"ext::sh -c 'touch {ran}'", "--commit", commit)
    assert "is not the address" in line
    assert not ran.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert "holds files" in error_line(capsys, *given, "--clone", str(tmp_path / "full"), "--commit", commit)
