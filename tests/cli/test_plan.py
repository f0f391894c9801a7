"""`companion plan` as a user runs it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import error_line, run_json

from companion import cli
from companion.formatting import count, significant
from companion.paths import data_dir

FEW = ["--bootstrap", "20"]


def authors_logs() -> pd.DataFrame:
    """The authors' logs without columns that depend on others."""
    logs = pd.read_csv(data_dir() / "training_logs.csv")
    return logs.drop(columns=["step_time_q25_s", "step_time_q75_s", "batch_size_seqs"])


def test_plan_json(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--train-flops", "1e21", "--prefill-tokens", "1e12", "--generated-tokens", "1e11", *FEW]
    result = run_json(capsys, "plan", *options)
    assert result["request"]["train_flops"] == 1e21
    assert result["request"]["prompt_length"] == round(8192 * 10 / 11)
    plans = {(one["architecture"], one["objective"]): one for one in result["plans"]}
    assert set(plans) == {(a, o) for a in ("transformer", "xlstm") for o in ("loss-optimal", "cost-optimal")}
    for one in plans.values():
        low, high = one["intervals"]["loss"]
        assert low < one["loss"] < high
        assert {"num_params", "num_tokens", "ttft_s", "step_time_s", "memory_bytes", "total_gpu_hours"} <= set(one)
        assert one["fits"]
    assert run_json(capsys, "plan", *options) == result, "the same seed gives the same plan"


def test_utilization_has_two_spellings_and_one_key(capsys: pytest.CaptureFixture[str]) -> None:
    common = ["plan", "--gpu-hours", "100", "--architecture", "xlstm", "--bootstrap", "2"]
    american, british, default = (
        run_json(capsys, *common, *share)
        for share in (["--utilization", "0.2"], ["--utilisation", "0.2"], ["--utilization", "0.4"])
    )
    assert american == british
    assert american["request"]["utilisation"] == 0.2
    assert "utilization" not in american["request"]
    assert default["plans"][0]["train_flops"] == pytest.approx(2 * american["plans"][0]["train_flops"])
    assert american["utilization"] == {"xlstm": {"basis": "given", "logs": None, "words": "20 %, as given"}}


def test_without_a_number_the_utilization_is_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["plan", "--gpu-hours", "100", "--architecture", "xlstm", *FEW]
    result = run_json(capsys, *options)
    assert result["request"]["utilisation"] is None
    assert result["plans"][0]["train_gpu_hours"] == pytest.approx(100)
    low, high = result["plans"][0]["intervals"]["utilization"]
    assert low < result["plans"][0]["utilization"] < high
    where = result["utilization"]["xlstm"]
    assert (where["basis"], where["logs"], where["logs_hardware"]) == ("measured", "training_logs.csv", "h100-sxm")
    assert where["context_lengths"] == [8192, 16384]
    given = run_json(capsys, *options, "--logs", str(data_dir() / "training_logs.csv"))
    note, *others = given.pop("warnings")
    assert note.startswith("column 'val_loss': 2 runs without a value")
    assert (given, others) == ({key: value for key, value in result.items() if key != "warnings"}, result["warnings"])
    logs = authors_logs()
    logs.assign(step_time_s=2 * logs["step_time_s"]).to_csv(tmp_path / "slow.csv", index=False)
    slow = run_json(capsys, *options, "--logs", str(tmp_path / "slow.csv"))
    assert slow["plans"][0]["train_flops"] == pytest.approx(result["plans"][0]["train_flops"] / 2, rel=0.1)
    assert slow["utilization"]["xlstm"]["words"] == (
        "measured at T = 8192 and 16384 (slow.csv): runs on NVIDIA H100 SXM, with their kernels and GPU counts"
    )


def test_hours_to_a_loss_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["plan", "--target-loss", "3.05", "--context-length", "16384", *FEW]
    result = run_json(capsys, *options)
    [ratio] = result["gpu_hours_ratios"]
    hours = {one["architecture"]: one["train_gpu_hours"] for one in result["plans"]}
    assert (ratio["first"], ratio["second"]) == ("xlstm", "transformer")
    assert ratio["ratio"] == pytest.approx(hours["transformer"] / hours["xlstm"])
    assert ratio["interval"][0] < ratio["ratio"] < ratio["interval"][1]
    assert run_json(capsys, "plan", "--train-flops", "1e20", *FEW)["gpu_hours_ratios"] == []
    assert cli.main(options) == 0
    out = capsys.readouterr().out
    low, high = map(significant, ratio["interval"])
    assert out.startswith(
        f"GPU-hours of training to a loss of 3.05: xlstm {count(hours['xlstm'])}, transformer "
        f"{count(hours['transformer'])}, {significant(ratio['ratio'])} times as many (95 %: {low} to {high})\n"
    )
    measured = (
        "measured at T = 8192 and 16384 (training_logs.csv): the authors' runs on NVIDIA H100 SXM, with their kernels, "
        "GPU counts and full recomputation of activations"
    )
    assert f"utilization of xlstm: {measured}\n" in out
    # what the runs themselves took, by `companion training data/training_logs.csv --loss 3.05`
    assert hours == pytest.approx({"transformer": 38.0, "xlstm": 11.7}, rel=0.1)


def test_without_intervals_hours_are_still_compared(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["plan", "--target-loss", "3.05", "--bootstrap", "2"]
    assert run_json(capsys, *options)["gpu_hours_ratios"][0]["interval"] == [None, None]
    assert cli.main(options) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("times as many")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("step_time_s", 1e-3, "would use "),
        ("step_time_s", np.nan, "no finished run"),
        ("num_gpus", -8, "must be positive"),
        ("status", "stopped", "no finished run"),
        ("num_params", 10**9, "no context length has 6 finished runs of four sizes with throughput"),
    ],
)
def test_logs_that_give_no_utilization_are_one_line(
    column: str, value: object, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    logs = authors_logs().assign(**{column: value})
    logs.to_csv(tmp_path / "logs.csv", index=False)
    line = error_line(capsys, "plan", "--train-flops", "1e20", "--logs", str(tmp_path / "logs.csv"), *FEW)
    assert words in line
    assert "logs.csv: " in line


def test_plan_text(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--gpu-hours", "100", "--architecture", "xlstm", "--context-length", "32768", *FEW]
    assert cli.main(["plan", *options]) == 0
    out = capsys.readouterr().out
    assert "xlstm, loss-optimal (95 % intervals)" in out
    assert "loss (nats per token)" in out
    assert "warning: context_length: 32768 is outside the trained 2048 to 16384 (xlstm loss-optimal)" in out
    assert "transformer" not in out


def test_own_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    runs, timings = (str(data_dir() / name) for name in ("runs.csv", "inference.csv"))
    given = run_json(capsys, "plan", "--train-flops", "1e20", "--runs", runs, "--timings", timings, *FEW)
    plain = run_json(capsys, "plan", "--train-flops", "1e20", *FEW)
    assert given["plans"] == plain["plans"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "one of the arguments --train-flops --gpu-hours --target-loss is required"),
        (["--train-flops", "1e21", "--gpu-hours", "3"], "not allowed with argument --train-flops"),
        (["--train-flops", "0"], "--train-flops: 0 is not positive"),
        (["--train-flops", "1e21", "--batch-size", "0"], "--batch-size: 0 is not a positive whole number"),
        (["--train-flops", "1e21", "--hardware", "abacus"], "hardware 'abacus' is not known; there are a100-sxm"),
        (
            ["--train-flops", "1e21", "--context-length", "32", "--architecture", "xlstm"],
            "shorter than one chunk of 64",
        ),
        (["--target-loss", "1.0"], "loss 1 is never reached"),
        (["--train-flops", "1e21", "--runs", "missing.csv"], "missing.csv: no such file"),
        (["--train-flops", "1e21", "--timings", "missing.csv"], "missing.csv: no such file"),
        (["--train-flops", "1e21", "--logs", "missing.csv"], "missing.csv: no such file"),
        (["--train-flops", "1e21", "--logs-hardware", "a100-sxm"], "--logs-hardware needs --logs"),
        (
            ["--train-flops", "1e21", "--logs", str(data_dir() / "training_logs.csv"), "--logs-hardware", "abacus"],
            "hardware 'abacus' is not known",
        ),
        (["--train-flops", "1e21", "--logs", str(data_dir() / "runs.csv")], "runs.csv: "),
        (["--target-loss", "1e300"], "loss 1e+300 needs a d_model outside"),
        (["--gpu-hours", "1e300"], "gpu_hours 1e+300 is too large"),
        (["--train-flops", "1e21", "--bootstrap", "1e13"], "1 to 1000000 can be drawn"),
        (["--gpu-hours", "1e-9"], "at T = 8192 (gpu_hours 1e-09); xlstm: the law has no optimum at"),
        (["--train-flops", "1e21", "--generated-tokens", "1e308"], "generated_tokens 1e+308 is too large"),
        (["--train-flops", "1e21", "--utilization", "1e-9"], "utilization 1e-09 is too small"),
        (["--train-flops", "1e21", "--logs", "a.csv", "--utilization", "0.3"], "--logs and --utilization exclude"),
        (["--train-flops", "1e21", "--utilization", "40"], "utilization 40 is not between 0 and 1"),
        (["--train-flops", "1e21", "--kv-groups", "1000000000"], "kv_groups 1000000000 is too large"),
        (["--train-flops", "1e21", "--price-per-gpu-hour", "1e300"], "price_per_gpu_hour 1e+300 is too large"),
        (["--train-flops", "1e21", "--law-context", "1000"], "no runs with context_length 1000; the table has 2048"),
        (["--train-flops", "1e21", "--runs", "/dev/zero"], "/dev/zero: is not a regular file"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in error_line(capsys, "plan", *arguments)


@pytest.mark.parametrize("value", ["1e32", "1e15"])
def test_extreme_budgets_are_answered(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--train-flops", value, "--prefill-tokens", "1e12", *FEW]) == 0
    assert "is outside the runs'" in capsys.readouterr().out


def test_memory_that_does_not_fit_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--train-flops", "1e23", "--batch-size", "512", "--prefill-tokens", "1e12", "--hardware", "l40s", *FEW]
    assert cli.main(["plan", *options]) == 0
    assert "does not fit, needs " in capsys.readouterr().out
