"""`companion inference fit` and `count` as a user runs them."""

from pathlib import Path

import pytest
from commands import error_line, run_json

from companion import cli
from companion.accounting.inference import cache_bytes, count_prefill, count_step
from companion.architectures import make_architecture, preset
from companion.inference.one_size import fit_inference
from companion.inference.timings import load_paper_inference
from companion.paths import data_dir

TIMINGS = str(data_dir() / "inference.csv")
FIT = ["inference", "fit", TIMINGS, "--architecture"]
COUNT = ["inference", "count", "--architecture"]
TTFT = ["--model-size", "7b", "--quantity", "ttft"]
SEVEN = ["--size", "7b", "--context-length", "8192"]


def test_fit_json(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["transformer", "--model-size", "7b", "--quantity", "ttft", "--bootstrap", "50", "--seed", "3"]
    result = run_json(capsys, *FIT, *options)
    ours = fit_inference(load_paper_inference(), "transformer", "7b", "ttft", num_resamples=50, seed=3)
    assert result["parameters"] == pytest.approx(ours.parameters)
    assert result["intervals"]["eps_s"] == pytest.approx(list(ours.interval("eps_s")))
    assert result["identified"] == {"alpha_eff_flops_per_s": True, "eps_s": True}
    assert (result["architecture"], result["model_size"], result["quantity"]) == ("transformer", "7b", "ttft")
    assert (result["num_resamples"], result["seed"], result["level"]) == (50, 3, 0.95)
    assert result["num_rows"] == 57
    assert result["rms_log_error"] == pytest.approx(ours.rms_log_error)
    assert "alpha_eff" in result["form"]
    assert (result["reasons"], result["warnings"]) == ({}, [])
    narrow = run_json(capsys, *FIT, *options, "--level", "0.5")
    assert narrow["intervals"]["eps_s"][0] > result["intervals"]["eps_s"][0]


def test_fit_says_what_is_not_identified(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["xlstm", "--model-size", "7b", "--quantity", "step_time", "--bootstrap", "20"]
    result = run_json(capsys, *FIT, *options)
    assert result["identified"] == {"beta_eff_bytes_per_s": False, "eps_s": True, "eps_bp_s": False}
    assert result["parameters"]["beta_eff_bytes_per_s"] is None
    assert result["intervals"]["eps_bp_s"] == [None, None]
    assert set(result["reasons"]) == {"beta_eff_bytes_per_s", "eps_bp_s"}
    assert any("not identified: trades off exactly" in note for note in result["warnings"])
    assert cli.main([*FIT, *options]) == 0
    out = capsys.readouterr().out
    assert "undefined" in out
    assert "nan" not in out


def test_fit_in_milliseconds_warns_of_times_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["transformer", "--model-size", "830m", "--quantity", "ttft", "--bootstrap", "0"]
    result = run_json(capsys, *FIT, *options, "--objective", "milliseconds")
    assert result["parameters"]["eps_s"] < 0
    assert result["rms_log_error"] is None
    assert any("eps_s is negative" in note for note in result["warnings"])
    assert any("predicted times are not above 0" in note for note in result["warnings"])


def test_the_published_procedure(capsys: pytest.CaptureFixture[str]) -> None:
    """The published number (arXiv 2510.02228, notebook of the xLSTM's time to first token, cell 19)."""
    options = ["xlstm", "--model-size", "160m", "--quantity", "ttft", "--bootstrap", "20"]
    usual = run_json(capsys, *FIT, *options)
    result = run_json(capsys, *FIT, *options, "--procedure", "published")
    assert list(result) == list(usual), "the same keys"
    assert (usual["procedure"], usual["objective"]) == ("all-rows", "relative")
    assert (result["procedure"], result["objective"]) == ("published", "milliseconds")
    assert result["parameters"]["alpha_eff_flops_per_s"] == pytest.approx(1.629115e14, rel=2e-6)
    assert result["parameters"]["eps_s"] == pytest.approx(1.249236e-3, rel=5e-5)
    low, high = result["intervals"]["eps_s"]
    assert low < 1.249e-3 < high
    assert result["num_rows"] == usual["num_rows"] == 60
    other = ["xlstm", "--model-size", "400m", "--quantity", "ttft", "--bootstrap", "0", "--procedure", "published"]
    logarithms = run_json(capsys, *FIT, *other, "--objective", "relative")
    assert logarithms["parameters"]["eps_s"] == pytest.approx(2.25324e-3, rel=1e-5)
    steps = ["transformer", "--model-size", "830m", "--quantity", "step_time", "--bootstrap", "0"]
    step = run_json(capsys, *FIT, *steps, "--procedure", "published")
    assert step["parameters"]["eps_bp_s"] == pytest.approx(4.018147781e-05, rel=2e-6)
    assert cli.main([*FIT, *options, "--procedure", "published"]) == 0
    assert "one resample of the timings, as published" in capsys.readouterr().out


def test_count_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, *COUNT, "transformer", *SEVEN, "--batch-size", "4", "--hardware", "h200-sxm")
    model = preset("transformer", "7b")
    for kind, counted in (("prefill", count_prefill(model, 8192, 4)), ("step", count_step(model, 8192, 4))):
        part = result[kind]
        assert part["flops"] == counted.flops.total == pytest.approx(sum(part["flops_breakdown"].values()))
        assert part["traffic_bytes"] == counted.traffic.total == pytest.approx(sum(part["traffic_breakdown"].values()))
        assert part["memory_bytes"] == counted.memory.total == pytest.approx(sum(part["memory_breakdown"].values()))
        assert part["arithmetic_intensity"] == counted.arithmetic_intensity
        roofline = part["roofline"]
        assert roofline["seconds"] == max(roofline["compute_seconds"], roofline["memory_seconds"])
        assert roofline["seconds"] == counted.roofline("h200-sxm").seconds
        assert (part["fits"], part["message"]) == (True, "")
    assert result["prefill"]["roofline"]["bound"] == "compute"
    assert result["step"]["roofline"]["bound"] == "memory"
    assert result["cache_bytes_per_sequence"] == 8192 * 512 * 1024
    assert result["hardware"] == "h200-sxm"
    assert result["shapes"]["n_kv_heads"] == 32


def test_grouped_heads_and_narrow_numbers_shrink_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    full = run_json(capsys, *COUNT, "transformer", *SEVEN)
    grouped = run_json(capsys, *COUNT, "transformer", *SEVEN, "--n-kv-heads", "8", "--bytes-per-cache", "1")
    assert grouped["cache_bytes_per_sequence"] * 8 == full["cache_bytes_per_sequence"]
    assert grouped["num_params"] < full["num_params"]
    shapes = ["--d-model", "64", "--n-layers", "2", "--n-heads", "4", "--n-kv-heads", "2", "--context-length", "8"]
    small = run_json(capsys, *COUNT, "transformer", *shapes)
    assert small["cache_bytes_per_sequence"] == 2 * 2 * 2 * (16 + 16) * 8


def test_what_does_not_fit_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["transformer", "--size", "7b", "--context-length", "131072", "--batch-size", "8"]
    result = run_json(capsys, *COUNT, *options)
    assert result["step"]["fits"] is False
    assert "does not fit, needs 524.8 GiB" in result["step"]["message"]
    assert cli.main([*COUNT, *options]) == 0
    out = capsys.readouterr().out
    assert "warning: does not fit, needs 524.8 GiB" in out
    assert "keys and values of one sequence: 64 GiB" in out


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["gated_deltanet", *SEVEN], "state"),
        (["gated_deltanet_3to1", *SEVEN], "state, keys and values"),
        (["xlstm", *SEVEN, "--attention-every", "8", "--window", "1024"], "state, keys and values"),
        (["transformer", *SEVEN, "--window", "1024"], "keys and values"),
    ],
)
def test_mixers_and_hybrids(arguments: list[str], kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, *COUNT, *arguments)
    assert result["kept"] == kept
    model = make_architecture(result["architecture"], **result["shapes"])
    T = result["context_length"]
    assert result["step"]["flops"] == count_step(model, T).flops.total
    assert result["prefill"]["traffic_bytes"] == count_prefill(model, T).traffic.total
    assert result["cache_bytes_per_sequence"] == cache_bytes(model, T)
    assert cli.main([*COUNT, *arguments]) == 0
    assert f"{kept} of one sequence" in capsys.readouterr().out


def test_conventions_and_chunks(capsys: pytest.CaptureFixture[str]) -> None:
    base = run_json(capsys, *COUNT, "xlstm", *SEVEN)
    tight = run_json(capsys, *COUNT, "xlstm", *SEVEN, "--convention", "tfla", "--chunk-size", "128")
    assert tight["prefill"]["flops_breakdown"]["mixer_core"] != base["prefill"]["flops_breakdown"]["mixer_core"]
    assert tight["prefill"]["traffic_breakdown"]["cache"] * 2 == base["prefill"]["traffic_breakdown"]["cache"]
    assert tight["step"] == base["step"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*COUNT, "xlstm", "--size", "7b", "--context-length", "32"], "context_length 32 is shorter than one chunk"),
        ([*COUNT, "xlstm", *SEVEN, "--batch-size", "0"], "--batch-size: 0 is not a positive whole number"),
        ([*COUNT, "xlstm", *SEVEN, "--hardware", "tpu"], "hardware 'tpu' is not known; there are a100-sxm"),
        ([*COUNT, "xlstm", "--size", "9b", "--context-length", "64"], "invalid choice: '9b'"),
        ([*COUNT, "xlstm", "--context-length", "64"], "missing --d-model, --n-layers, --n-heads (or give --size)"),
        ([*COUNT, "xlstm", *SEVEN, "--n-kv-heads", "2"], "--n-kv-heads: this xlstm has no keys and values to share"),
        ([*COUNT, "transformer", *SEVEN, "--n-kv-heads", "5"], "n_kv_heads 5 does not divide n_heads 32"),
        ([*COUNT, "transformer", *SEVEN, "--bytes-per-weight", "0"], "--bytes-per-weight: 0 is not positive"),
        ([*COUNT, "transformer", "--size", "7b"], "--context-length"),
        ([*FIT, "xlstm", "--model-size", "9b", "--quantity", "ttft"], "no rows with model_size 9b; there are 160m"),
        ([*FIT, "xlstm", "--model-size", "7b", "--quantity", "speed"], "invalid choice: 'speed'"),
        ([*FIT[:2], "gone.csv", "--architecture", "xlstm", *TTFT], "gone.csv: no such file"),
        ([*FIT, "xlstm", *TTFT, "--smallest-batch", "999"], "0 ttft timings"),
        (["inference"], "COMMAND"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in error_line(capsys, *arguments)


def test_a_table_of_runs_is_no_table_of_timings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--architecture", "xlstm", "--model-size", "7b", "--quantity", "ttft"]
    line = error_line(capsys, "inference", "fit", str(data_dir() / "runs.csv"), *options)
    assert "column 'model_size', 'batch_size'" in line
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    assert "the file is empty" in error_line(capsys, "inference", "fit", str(empty), *options)
