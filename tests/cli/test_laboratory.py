"""`companion lab` as a user runs it."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from commands import error_line, run_json

from companion import cli

RUN = ["--architecture", "xlstm", "--num-params", "1e7", "--learning-rate", "1e-3", "--batch", "64"]
ASK = [*RUN, "--num-tokens", "1e9"]
TARGET = ["--architecture", "xlstm", "--num-params", "9e8", "--learning-rate", "1e-3", "--batch", "128"]
PREDICTION = ["--loss", "2.6", "--low", "2.2", "--high", "3.2", *TARGET]
TABLE = (
    "architecture,num_params,num_tokens,learning_rate,batch_size_seqs,schedule,warmup_steps,seed\n"
    "xlstm,1e7,1e9,1e-3,64,,,\n"
    "transformer,2e7,4e8,1e-3,16,wsd,100,1\n"
    "transformer,2e7,4e8,5e-1,16,constant,0,2\n"
)


@pytest.fixture
def lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    folder = str(tmp_path / "lab")
    assert cli.main(["lab", "new", folder, "--world", "a key"]) == 0
    capsys.readouterr()
    return folder


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "asks.csv"
    path.write_text(TABLE)
    return str(path)


def test_new_states_the_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "new", str(tmp_path / "a"), "--law", "misfit", "--gpu-hours", "20", "--level", "0.8"]) == 0
    out = capsys.readouterr().out
    assert "budget: 20.0 GPU-hours; architectures: transformer, xlstm" in out
    assert "a further, slower term is possible" in out
    assert "1×10²⁰ FLOP (6 N D) of low loss, and predict its loss with an interval at the 80 % level" in out
    rules = run_json(capsys, "lab", "new", str(tmp_path / "b"), "--hybrid", "--target", "1e21")
    assert (rules["architectures"], rules["target_flops"]) == (["transformer", "xlstm", "hybrid"], 1e21)


def test_the_next_command_can_be_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["lab", "new", "my lab"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "next: companion lab ask 'my lab' --help"
    with pytest.raises(SystemExit) as exited:
        cli.main(shlex.split(last)[2:])
    assert exited.value.code == 0


def test_the_same_world_by_name(lab: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = str(tmp_path / "other")
    run_json(capsys, "lab", "new", other, "--world", "a key")
    assert run_json(capsys, "lab", "ask", lab, *ASK) == run_json(capsys, "lab", "ask", other, *ASK)


def test_one_ask(lab: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "ask", lab, *ASK]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "1 run, 6×10¹⁶ FLOP at most; 1×10¹⁹ FLOP of 1×10¹⁹ FLOP left"
    assert last == "9.94×10¹⁸ FLOP of 1×10¹⁹ FLOP left"
    again = run_json(capsys, "lab", "ask", lab, *ASK)
    assert again["runs"][0]["repeated"]
    assert again["spent"] == again["runs"][0]["train_flops"]


def test_a_table_of_asks(lab: str, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    costs = run_json(capsys, "lab", "ask", lab, "--table", table, "--cost-only")
    assert costs["spent"] == 0
    assert len(costs["costs"]) == 3
    found = run_json(capsys, "lab", "ask", lab, "--table", table)
    assert [run["diverged"] for run in found["runs"]] == [False, False, True]
    assert found["runs"][2]["val_loss"] is None
    assert found["spent"] < costs["cost"]
    assert cli.main(["lab", "ask", lab, "--table", table]) == 0
    assert "diverged" in capsys.readouterr().out
    assert cli.main(["lab", "ask", lab, "--table", table, "--cost-only"]) == 0
    assert "3 runs would cost" in capsys.readouterr().out


def test_runs_feed_the_other_commands(lab: str, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_json(capsys, "lab", "ask", lab, "--table", table)
    assert cli.main(["lab", "runs", lab]) == 0
    captured = capsys.readouterr()
    assert "runs.csv: 2 runs" in captured.out
    assert captured.err == "note: 1 run diverged and left out; --diverged FILE writes them\n"
    out, apart = str(tmp_path / "out.csv"), str(tmp_path / "apart.csv")
    assert run_json(capsys, "lab", "runs", lab, "--out", out, "--diverged", apart)["diverged"] == 1
    assert len(pd.read_csv(apart)) == 1
    assert run_json(capsys, "data", "check", out)["num_runs"] == 2


def test_a_whole_game(lab: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_json(capsys, "lab", "ask", lab, *ASK)
    made = run_json(capsys, "lab", "predict", lab, *PREDICTION)
    assert made["train_flops"] == pytest.approx(1e20, rel=1e-3)
    shown = run_json(capsys, "lab", "show", lab)
    assert shown["commitment"] == made["commitment"]
    assert len(shown["runs"]) == 1
    revealed = run_json(capsys, "lab", "reveal", lab)
    assert revealed["covered"]
    found = run_json(capsys, "lab", "score", lab)
    assert found["total"] == pytest.approx(found["interval_points"] + found["accuracy_points"] + found["choice_points"])
    for command in ("show", "reveal", "score"):
        assert cli.main(["lab", command, lab]) == 0
    out = capsys.readouterr().out
    assert "the interval holds it" in out
    assert f"total {found['total']:.1f} of 100" in out


def test_a_target_that_diverges(lab: str, capsys: pytest.CaptureFixture[str]) -> None:
    cold = [*PREDICTION[:6], *TARGET[:4], "--learning-rate", "1.0", "--batch", "128"]
    assert cli.main(["lab", "predict", lab, *cold]) == 0
    assert "of 900M parameters on 18.5B tokens" in capsys.readouterr().out
    assert cli.main(["lab", "reveal", lab]) == 0
    assert "the run diverged after" in capsys.readouterr().out
    assert run_json(capsys, "lab", "score", lab)["total"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "LAB"], "a run needs --architecture, --num-params"),
        (["ask", "LAB", *RUN], "a run needs --num-tokens"),
        (["ask", "LAB", "--table", "TABLE", "--seed", "1"], "leave out --seed"),
        (["ask", "LAB", "--table", "none.csv"], "none.csv: no such file"),
        (["ask", "none", *ASK], "none: there is no such folder"),
        (["ask", "LAB", *ASK, "--batch", "0"], "0 is not a positive whole number"),
        (["ask", "LAB", *ASK, "--num-tokens", "1e13"], "would take"),
        (["ask", "LAB", *ASK, "--num-params", "1e10"], "left; nothing was run"),
        (["ask", "LAB", *ASK, "--schedule", "linear"], "invalid choice: 'linear'"),
        (["ask", "LAB", *ASK, "--num-params", "nan"], "nan"),
        (["new", "LAB"], "exists already"),
        (["new", "new", "--budget", "1", "--gpu-hours", "1"], "exclude each other"),
        (["new", "new", "--budget", "inf"], "budget inf"),
        (["new", "new", "--target", "1e40"], "the limits of the rules allow no run"),
        (["new", "new", "--hardware", "h999"], "h999"),
        (["new", "new", "--level", "0.2"], "level 0.2"),
        (["runs", "LAB"], "no run has ended with a loss yet"),
        (["predict", "LAB", *PREDICTION, "--low", "2.7"], "must hold the loss 2.6 between them"),
        (["predict", "LAB", *PREDICTION, "--loss", "nan"], "nan is not positive"),
        (["predict", "LAB", *PREDICTION, "--num-tokens", "1e12", "--batch", "4096"], "the target is 1e+20"),
        (["predict", "LAB", "--loss", "2"], "required"),
        (["reveal", "LAB"], "there is no prediction yet"),
        (["score", "LAB"], "not revealed yet"),
        (["show", "."], "is not a laboratory: it has no lab.json"),
        (["class", "new", "new", "--students", "none", "--secret-file", "key"], "none: no such file"),
        (["class", "grade", "none", ".", "--secret-file", "none"], "none: no such file"),
    ],
)
def test_bad_input(
    lab: str, table: str, arguments: list[str], message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = [{"LAB": lab, "TABLE": table}.get(word, word) for word in arguments]
    assert cli.main(["lab", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "new").exists()
    assert len(run_json(capsys, "lab", "show", lab)["runs"]) == 0


def test_a_changed_ledger_stops_every_command(lab: str, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_json(capsys, "lab", "ask", lab, *ASK)
    path = Path(lab) / "ledger.jsonl"
    good = path.read_text()
    path.write_text(good.replace('"seed":0', '"seed":1'))
    for arguments in (["ask", lab, *ASK], ["show", lab], ["runs", lab], ["predict", lab, *PREDICTION], ["reveal", lab]):
        assert cli.main(["lab", *arguments]) == 2
        assert f"{path}: line 2 was changed after it was written" in capsys.readouterr().err
    path.write_text(good)
    assert len(run_json(capsys, "lab", "show", lab)["runs"]) == 1


def test_a_line_that_a_crash_cut_off_is_noted(lab: str, capsys: pytest.CaptureFixture[str]) -> None:
    with (Path(lab) / "ledger.jsonl").open("a") as file:
        file.write('{"body":{"ask"')
    assert cli.main(["lab", "show", lab]) == 0
    assert "line 2 was cut off" in capsys.readouterr().err
    assert cli.main(["lab", "ask", lab, *ASK]) == 0
    capsys.readouterr()
    assert cli.main(["lab", "show", lab]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("closed", [False, True])
def test_a_class(tmp_path: Path, table: str, closed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    names, key, folder, handed = (tmp_path / name for name in ("names.txt", "key", "class", "in"))
    names.write_text("ada\nbob\n")
    handed.mkdir()
    words = [str(folder), "--students", str(names), "--secret-file", str(key)]
    made = run_json(capsys, "lab", "class", "new", *words, *(["--closed"] if closed else []))
    assert made["students"] == ["ada", "bob"]
    assert made["secret_made"]
    secret = key.read_text().strip()
    assert not any(secret in path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "exists already" in error_line(capsys, "lab", "class", "new", *words)
    common = [str(folder), str(handed), "--secret-file", str(key)]
    if closed:
        (handed / "ada").mkdir()
        shutil.copy(table, handed / "ada" / "asks.csv")
        assert run_json(capsys, "lab", "class", "answer", *common)["refused"] == 0
        shutil.rmtree(handed / "ada")
    shutil.copytree(folder / "students" / "ada", handed / "ada")
    if not closed:
        run_json(capsys, "lab", "ask", str(handed / "ada"), "--table", table)
    run_json(capsys, "lab", "predict", str(handed / "ada"), *PREDICTION)
    (handed / "eve").mkdir()
    assert cli.main(["lab", "class", "grade", *common]) == 1  # nothing from bob
    out = capsys.readouterr().out
    assert "bob: nothing was handed in" in out.splitlines()
    assert re.search(r" ada +\d+\.\d +", out), "points have one decimal"
    assert "belongs to nobody of the class" in out
    board = pd.read_csv(folder / "leaderboard.csv")
    assert list(board["student"]) == ["ada", "bob"]
    assert board["total"][0] > 0 == board["total"][1]
    assert board["num_runs"][0] == 3
    assert "| 1 | ada |" in (folder / "leaderboard.md").read_text()
    assert cli.main(["lab", "class", "grade", *common, "--json", "--out", str(tmp_path / "board")]) == 1
    grades = json.loads(capsys.readouterr().out)
    assert grades["strangers"] == ["eve"]
    assert grades["grades"][0]["total"] == pytest.approx(board["total"][0])
    key.write_text("another secret of sixteen letters")
    assert "secret is not the one" in error_line(capsys, "lab", "class", "grade", *common)
