"""`companion lab` with models that are trained, as a user runs it."""

import json
from pathlib import Path

import pytest
from commands import error_line, run_json

from companion import cli

NEW = [
    *("--backend", "training", "--device", "cpu", "--corpus", "source:vocab_size=16", "--context-length", "16"),
    *("--sizes", "0.1m,0.2m", "--budget", "1e10", "--target", "1.5e9"),
]
RUN = ["--architecture", "xlstm", "--num-params", "6e4", "--learning-rate", "1e-2", "--batch", "8"]
ASK = [*RUN, "--num-tokens", "2560"]
NOTE = "note: xlstm of 60,000 parameters: the nearest size that is trained has 50,694\n"


@pytest.fixture
def lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    folder = str(tmp_path / "lab")
    assert cli.main(["lab", "new", folder, *NEW]) == 0
    capsys.readouterr()
    return folder


def test_new_states_the_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "new", str(tmp_path / "a"), *NEW, "--hybrid"]) == 2
    assert "architecture 'hybrid': none of the sizes 0.1m, 0.2m is deep enough" in capsys.readouterr().err
    assert cli.main(["lab", "new", str(tmp_path / "a"), *NEW]) == 0
    out = capsys.readouterr().out
    assert "runs are trained on cpu; corpus source:vocab_size=16" in out
    assert "sizes: 0.1m, 0.2m, 40.3k to " in out
    assert "choose a run of 1.5×10⁹ FLOP of low loss" in out
    assert not (tmp_path / "a" / "sealed.json").exists()


def test_asks_say_which_model_is_trained(lab: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "ask", lab, *ASK, "--cost-only"]) == 0
    captured = capsys.readouterr()
    assert captured.err == NOTE
    assert captured.out.splitlines()[0] == "1 run would cost 8.65×10⁸ FLOP; 1×10¹⁰ FLOP of 1×10¹⁰ FLOP left"
    assert captured.out.splitlines()[1] == "predicted: about 0.043 s of training on cpu"
    assert cli.main(["lab", "ask", lab, *ASK]) == 0
    captured = capsys.readouterr()
    assert captured.err == NOTE
    assert "CPU-hours" in captured.out
    assert "50.7k" in captured.out
    assert captured.out.splitlines()[-1] == "9.13×10⁹ FLOP of 1×10¹⁰ FLOP left"
    again = run_json(capsys, "lab", "ask", lab, *ASK)
    assert (again["runs"][0]["repeated"], again["runs"][0]["num_params"]) == (True, 50_694)
    out = str(Path(lab).parent / "runs.csv")
    assert run_json(capsys, "lab", "runs", lab, "--out", out)["runs"] == 1
    assert run_json(capsys, "data", "check", out)["num_runs"] == 1


def test_a_whole_game(lab: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_json(capsys, "lab", "ask", lab, *ASK)
    made = run_json(capsys, "lab", "predict", lab, "--loss", "2.7", "--low", "2.5", "--high", "2.9", *RUN)
    assert 1.4e9 < made["train_flops"] <= 1.5e9
    shown = run_json(capsys, "lab", "show", lab)
    assert (shown["unfinished"], shown["rules"]["training"]["device"]) == ([], "cpu")
    revealed = run_json(capsys, "lab", "reveal", lab)
    assert revealed["loss_floor"] < revealed["val_loss"]
    found = run_json(capsys, "lab", "score", lab)
    assert (found["choice_points"], found["loss_floor"]) == (None, revealed["loss_floor"])
    for command in ("show", "reveal", "score"):
        assert cli.main(["lab", command, lab]) == 0
    out = capsys.readouterr().out
    above = revealed["val_loss"] - revealed["loss_floor"]
    assert out.count(f"nats per token; the run ended {above:.4f} above it") == 2
    assert "of 83.3: interval score" in out
    assert "choice   not scored: nobody knows the best run" in out


def test_a_run_that_was_stopped_is_shown(
    lab: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("companion.study.train.trainer.train", stopped)
    assert cli.main(["lab", "ask", lab, *ASK]) == 130
    capsys.readouterr()
    assert cli.main(["lab", "show", lab]) == 0
    assert (
        "not finished, and paid for: xlstm of 50.7k parameters on 2.56k tokens, learning rate 0.01, batch 8, cosine, "
        "seed 0; ask for it again and it goes on"
    ) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "new", *NEW, "--corpus", "wikipedia"], "corpus 'wikipedia': unknown; known: source,"),
        (["new", "new", *NEW, "--corpus", "text:nowhere"], "nowhere"),
        (["new", "new", *NEW, "--sizes", "0.1m,9b"], "sizes: '9b' is not one of 0.1m"),
        (["new", "new", *NEW, "--sizes", ""], "sizes: '' is not one of 0.1m"),
        (["new", "new", *NEW, "--sizes", "0.2m,0.1m"], "sizes: they go from small to large"),
        (["new", "new", *NEW, "--device", "tpu"], "invalid choice: 'tpu'"),
        (["new", "new", *NEW, "--budget", "1e5"], "budget 100000 pays for no run: the smallest costs"),
        (["new", "new", *NEW, "--target", "1e5"], "target_flops 100000: runs of these sizes have from"),
        (["new", "new", *NEW, "--target", "1e30"], "target_flops 1e+30: runs of these sizes have from"),
        (["new", "new", *NEW[:-4], "--gpu-hours", "1"], "unit gpu_hours: runs are trained on a CPU"),
        (["new", "new", *NEW, "--law", "misfit"], "--law: there is no hidden world where runs are trained"),
        (["new", "new", *NEW, "--world", "a"], "--world: there is no hidden world"),
        (["new", "new", *NEW, "--hardware", "h999"], "h999"),
        (["new", "new", "--backend", "none"], "invalid choice: 'none'"),
        (["new", "new", "--device", "cpu"], "--device: a simulated world has none; it goes with --backend training"),
        (["new", "LAB", *NEW], "exists already"),
        (["ask", "LAB", *ASK, "--num-params", "1e9"], "num_params 1e+09 is not between 40320 and"),
        (["ask", "LAB", *ASK, "--architecture", "mamba"], "architecture 'mamba': the laboratory has"),
        (["ask", "LAB", *ASK, "--num-tokens", "1e7"], "left; nothing was run"),
        (["predict", "LAB", *RUN, "--loss", "2", "--low", "1", "--high", "3", "--num-tokens", "1e6"], "the target is"),
        (["predict", "LAB", *RUN, "--loss", "2", "--low", "1", "--high", "3", "--architecture", "mamba"], "mamba"),
        (
            ["class", "new", "new", "--students", "none", "--secret-file", "key", "--backend", "training"],
            "--backend training: a class has simulated worlds",
        ),
    ],
)
def test_bad_input(
    lab: str, arguments: list[str], message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["lab", *(lab if word == "LAB" else word for word in arguments)]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "new").exists()
    assert len((Path(lab) / "ledger.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2, "more": 1}, "version 2: this package reads laboratories of version 1; a newer package made"),
        ({"backend": "other"}, "training: the backend 'other' needs none"),
        ({"backend": "simulator"}, "training: the backend 'simulator' needs none"),
        ({"training": None}, "training: the backend 'training' needs it"),
        ({"law": "chinchilla"}, "law 'chinchilla': runs that are trained have no law but 'trained'"),
        ({"training": 3}, "training: is not an object"),
        ({"training": {"corpus": 3}}, "training: corpus 3 is not a name"),
        ({"training": {"device": "tpu"}}, "training: device 'tpu' is not one of cpu and cuda"),
        ({"training": {"sizes": ["9b"]}}, "training: sizes: '9b' is not one of"),
        ({"training": {"sizes": []}}, "training: sizes: none is given"),
        ({"training": {"sizes": "0.1m"}}, "training: sizes is not a list"),
        ({"training": {"vocab_size": 1.5}}, "training: vocab_size 1.5 is not a whole number"),
        ({"training": {"more": 1}}, "training: 'more' is not known"),
        ({"training": {"vocab_size": 32}}, "ledger.jsonl: line 1: the ledger belongs to other rules"),
        ({"training": {"corpus": "source"}}, "ledger.jsonl: line 1: the ledger belongs to other rules"),
    ],
)
def test_changed_rules(lab: str, changes: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(lab) / "lab.json"
    rules = json.loads(path.read_text())
    if isinstance(training := changes.get("training"), dict):
        changes = {"training": rules["training"] | training}
    path.write_text(json.dumps(rules | changes))
    assert message in error_line(capsys, "lab", "show", lab)
