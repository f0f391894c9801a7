"""Chapter 13: models beside the accounting, steps and profiles of records, a reader's own, and none at all."""

import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import training_records as made
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from companion.accounting import count_flops  # noqa: E402
from companion.benchmarks.records import append_record, read_records  # noqa: E402
from companion.chapters import ch13  # noqa: E402
from companion.chapters.ch13 import figures, here, profile, records, shown, steps, training  # noqa: E402
from companion.chapters.ch13.counts import count_facts, counts_verdict  # noqa: E402
from companion.errors import InputError, NotApplicable  # noqa: E402
from companion.plotting import Html  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture
def timed(folder: Path) -> steps.Steps:
    return steps.Steps(records.load_suite(records.TRAINING, folder), 8192)


@pytest.fixture
def profiled(folder: Path) -> profile.Profile:
    return profile.Profile(records.load_suite(records.PROFILE, folder))


def ratios(*values: float) -> pd.Series:
    return pd.Series(values, index=[512 * 4**n for n in range(len(values))])


# ---- models and counts ---------------------------------------------------------------------------------------------


def test_models_have_what_the_accounting_counts() -> None:
    table = ch13.checks("160m", 200)
    assert (table["module"] == table["accounting"]).all()
    assert len(table) == 4 * 4
    parameters = ch13.parameter_checks()
    assert (parameters["module"] == parameters["accounting"]).all()
    assert parameters["model"].nunique() == 4


def test_a_count_that_differs_is_named() -> None:
    rows = [
        {"model": "xlstm", "quantity": "bytes", "module": 2, "accounting": 1.0},
        {"model": "hybrid", "quantity": "forward", "module": 3, "accounting": 3.0},
    ]
    table = pd.DataFrame(rows)
    assert counts_verdict(table.iloc[:1]) == "All counts are equal but bytes of the xLSTM"
    assert "2,\xa0not 1" in ch13.checks_table(table, "160m", 10).markup
    errors = pd.DataFrame([{"model": "xlstm", "steps": 2e-15, "copied": 1e-15, "rounded": 0.02, "rounded_pass": 0.01}])
    facts = count_facts(table, table, errors)
    assert facts["c13_presets"] == "one of the two"
    assert (facts["c13_steps_exact"], facts["c13_steps_rounded"]) == ("2×10⁻¹⁵", "0.02")
    answer = ch13.answer_facts(ch13.Shown(None, None), table, table)
    assert answer["c13_first"] == "Not all counts of the models equal the accounting's"


def test_steps_are_one_pass_in_float64_and_rounded_in_bfloat16() -> None:
    errors = ch13.step_errors()
    assert (errors[["steps", "copied"]] < 1e-11).all().all()
    assert errors["rounded"].between(1e-4, 0.3).all()


# ---- training steps ------------------------------------------------------------------------------------------------


def test_crossings() -> None:
    assert steps.crossing(ratios(0.5, 2.0)).at == pytest.approx(1024)
    assert steps.crossing(ratios(0.5, 2.0)).text == "1100"
    assert steps.crossing(ratios(1.1, 2.0)).text == "below 512"
    assert steps.crossing(ratios(0.5, 0.9)).text == "above 2048"
    # faster once, and not for good: the last crossing counts
    assert 2048 < steps.crossing(ratios(1.1, 0.9, 1.2)).at < 8192
    with pytest.raises(NotApplicable, match="no context"):
        steps.crossing(ratios())


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6))
def test_a_crossing_lies_between_the_contexts_that_surround_it(values: list[float]) -> None:
    found, table = steps.crossing(ratios(*values)), ratios(*values)
    assert (table[table.index > found.at] > 1).all()
    if 0 < found.at < np.inf:
        assert table[table.index <= found.at].iloc[-1] <= 1


def test_steps_of_records(timed: steps.Steps) -> None:
    assert timed.sizes == ["160m", "400m"]
    assert timed.models == ["transformer", "xlstm", "hybrid"]
    assert set(timed.fastest["launch"]) == {"compiled graph"}
    models = made.models_of("160m")
    flops = [count_flops(models[name], 8192).train_flops_per_token for name in ("transformer", "xlstm")]
    assert timed.ratio_at("160m", 8192) == pytest.approx(flops[0] / flops[1] / 1.2)
    assert np.isnan(timed.ratio_at("160m", 1000))
    costs = steps.launch_costs(timed)
    assert costs["beyond"].to_numpy() == pytest.approx(0.04)
    assert set(costs["context_length"]) == {8192}


def test_steps_of_one_vocabulary_are_compared(timed: steps.Steps) -> None:
    other = timed.suite.results.head(6).assign(vocabulary=1024, seconds_median=1e-9)
    results = pd.concat([timed.suite.results, other], ignore_index=True)
    both = steps.Steps(records.Suite("GPU", 1.0, 1.0, results, ""), 8192)
    assert both.fastest["seconds_median"].min() > 1e-3


def test_sentences_about_steps(timed: steps.Steps) -> None:
    facts = ch13.training_facts(timed) | ch13.launch_facts(timed)
    assert facts["c13_growth_first"] == "0 %"
    assert facts["c13_checks"] == "All 6 comparisons passed"
    assert facts["c13_eager"] == "1.5"
    assert facts["c13_close"] == "At 160M and 400M a compiled step is within a tenth of its graph"
    assert facts["c13_other_vocabulary"] == "No other vocabulary was timed"
    text = training.answer_verdict(timed)
    worst = max(steps.crossing(timed.ratios(size)).at for size in timed.sizes)
    assert f"from a context of {steps.round_context(worst)} tokens on, at every size; at 32768 tokens" in text


@pytest.mark.parametrize(
    ("handicap", "words"),
    [
        (0.5, "at 160M, the only size timed for both, and at every context that was timed"),
        (9.0, "at some sizes only"),
    ],
)
def test_other_answers(handicap: float, words: str, tmp_path: Path) -> None:
    suite = records.load_suite(records.TRAINING, made.write_records(tmp_path, ("160m",), handicap=handicap))
    assert words in training.answer_verdict(steps.Steps(suite, 8192))


def test_a_size_that_was_timed_at_one_context_has_no_curve(timed: steps.Steps) -> None:
    results = timed.suite.results
    some = results[(results["size"] == "160m") | (results["context_length"] == 32768)]
    found = steps.Steps(records.Suite("GPU", 1.0, 1.0, some, ""), 8192)
    assert (found.sizes, found.curves) == (["160m", "400m"], ["160m"])
    assert "tokens on, at every size (400M: timed at longer contexts only); at 32768" in training.answer_verdict(found)
    growth = training.training_facts(found)["c13_growth_second"]
    assert isinstance(growth, str)
    assert "to" not in growth  # one size, not from 1.0 for the other
    assert "1 more size: in the table" in training.steps_figure(found)._repr_html_()


@pytest.mark.parametrize(
    ("close", "text"),
    [
        (["15m", "160m"], "From 15M on"),
        (["5m", "15m", "160m"], "At 5M, 15M and 160M a"),
        ([], "At no size"),
        (["5m", "160m"], "At two of 3 sizes"),
    ],
)
def test_sizes_whose_launches_are_hidden(close: list[str], text: str) -> None:
    assert training.close_verdict(close, ["5m", "15m", "160m"]).startswith(text)


def test_a_size_that_was_not_timed_in_both_ways_is_not_within_a_tenth(timed: steps.Steps) -> None:
    results = timed.suite.results
    some = results[(results["size"] == "160m") | (results["launch"] == "compiled")]
    suite = records.Suite("GPU", 1.0, 1.0, some, "")
    verdict = training.launch_facts(steps.Steps(suite, 8192))["c13_close"]
    assert verdict == "At 160M a compiled step is within a tenth of its graph"
    assert training.close_verdict([], []) == "No step was timed in both ways"


def test_another_vocabulary_is_told_apart(timed: steps.Steps) -> None:
    results = timed.suite.results
    small = results[results["part"] == "training"].assign(vocabulary=2048.0)
    slow = small["launch"].eq("compiled") & small["model"].eq("xlstm")
    small["seconds_median"] = small["seconds_median"].where(~slow, 1.4 / 1.04 * small["seconds_median"])
    both = records.Suite("GPU", 1.0, 1.0, pd.concat([results, small], ignore_index=True), "")
    (other,) = steps.Steps(both, 8192, 50304).others
    assert (other.vocabulary, other.sizes) == (2048, ["160m", "400m"])
    verdict = training.vocabulary_verdict(steps.Steps(both, 8192, 50304))
    assert verdict.startswith("With a vocabulary of 2,048 (160M) the Transformer's step takes ")
    assert verdict.endswith("at contexts of 512, 2048, 8192 and 32768 tokens; and without a graph "
                            "the xLSTM's compiled step takes 40 % longer")  # fmt: skip
    assert training.vocabulary_verdict(other).startswith("With a vocabulary of 50,304 (160M)")


def test_panels_for_some_sizes() -> None:
    assert figures.some_sizes({"5m": 2, "15m": 3, "160m": 2, "400m": 2}) == ["5m", "15m", "400m"]
    assert figures.some_sizes({"5m": 2, "15m": 2, "160m": 2, "400m": 3}) == ["5m", "15m", "400m"]
    assert figures.some_sizes({"5m": 2, "400m": 3}) == ["5m", "400m"]


def test_what_did_not_fit_is_said(folder: Path) -> None:
    suite = records.load_suite(records.TRAINING, folder)
    assert training.skipped_verdict(suite) == "Everything that was asked for fits in memory"
    rows = suite.results.iloc[:2].assign(skipped="needs 210.3 GiB, 138.6 GiB are free", seconds_median=np.nan)
    cut = records.Suite("GPU", 1.0, 1.0, rows, "")
    assert training.skipped_verdict(cut) == (
        "2 cells did not fit, of Transformer 160M (the first needs 210.3 GiB, 138.6 GiB are free)"
    )
    assert cut.timed.empty


# ---- profiles ------------------------------------------------------------------------------------------------------


def test_components_add_up(profiled: profile.Profile) -> None:
    row = profiled.row("step", "xlstm")
    components = dict(made.COMPONENTS) | {"mlstm": (0.6, 0.2)}
    assert 1e3 * row["seconds"] == pytest.approx(sum(seconds for seconds, _ in components.values()))
    assert 1e3 * row["least"] == pytest.approx(sum(least for _, least in components.values()))
    assert (row["largest"], row["worst"]) == ("feed-forward", "attention or mLSTM")
    assert 1e3 * row["lost"] == pytest.approx(0.4)
    assert set(profile.GROUPS) >= {*made.COMPONENTS, "attention", "mlstm", "optimizer"}
    with pytest.raises(NotApplicable, match="one layer of a prefill of the xLSTM was not profiled"):
        profiled.row("prefill_layer", "xlstm")


def test_sentences_about_profiles(profiled: profile.Profile) -> None:
    facts = ch13.profile_facts(profiled)
    assert facts["c13_prefill_layer_pass"] == "One layer of a prefill was not profiled"
    text = str(facts["c13_step_pass"])
    assert text.startswith("7B, 16384 tokens, 1 sequence: 6.40 ms (Transformer) and 5.00 ms (xLSTM). The roofline")
    assert "Most time goes to the feed-forward layers (36 % and 46 %)" in text
    assert text.endswith("lost in the projections (3.1 %) and the mLSTM (8.0 %)")
    assert facts["c13_worst"] == "the mLSTM in one generated token of the xLSTM, 8.0 % of its time"
    assert str(facts["c13_outside"]).startswith("Up to 4.0 % of a pass lies outside of kernels")
    filled = profiled.suite.results[profiled.suite.results["component"] != "gaps"]
    full = profile.Profile(records.Suite("GPU", 1.0, 1.0, filled, ""))
    assert profile.outside_verdict(full).startswith("No pass loses time between its kernels")


# ---- records -------------------------------------------------------------------------------------------------------


def test_the_newest_time_of_one_gpu_counts(tmp_path: Path) -> None:
    made.write_records(tmp_path, ("160m",), "NVIDIA Old")
    made.write_records(tmp_path, ("160m",))
    again = read_records(tmp_path / "model_training.jsonl")[-1]
    again["results"] = [again["results"][0] | {"seconds_median": 123.0}]
    append_record(tmp_path / "model_training.jsonl", again)
    suite = records.load_suite(records.TRAINING, tmp_path)
    assert (suite.device, suite.short_device) == ("NVIDIA Test", "Test")
    versions = f"{again['date'][:10]}, torch {metadata.version('torch')}"
    assert suite.measured == f"{versions}; models or kernels have changed since", "identity 000..."
    assert len(suite.timed) == 3 * 4 * 3
    assert suite.timed["seconds_median"].max() == 123.0


def test_records_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such file or folder of records"):
        records.load_suite(records.TRAINING, tmp_path / "nowhere")
    with pytest.raises(NotApplicable, match="no records of model_training"):
        records.load_suite(records.TRAINING, tmp_path)
    assert records.own_suite(records.TRAINING, tmp_path) is None
    monkeypatch.setattr(records, "data_dir", lambda: tmp_path)
    nothing = ch13.Shown.of(8192)
    assert nothing == ch13.Shown(None, None)
    for need in (nothing.need_steps, nothing.need_profile):
        with pytest.raises(NotApplicable, match="there are no records of"):
            need()
    assert shown.NO_STEPS in ch13.answer_figure(nothing).data  # type: ignore[union-attr]


def test_figures_and_tables(timed: steps.Steps, profiled: profile.Profile) -> None:
    both = ch13.Shown(timed, profiled)
    pieces = [
        ch13.answer_figure(both),
        ch13.answer_table(both),
        ch13.launches_figure(timed),
        ch13.launches_table(timed),
    ]
    pieces += [ch13.profile_figure(profiled), ch13.profile_table(profiled)]
    assert all(isinstance(piece, Html) for piece in pieces)


# ---- the reader's own GPU ------------------------------------------------------------------------------------------


def test_own_records_beside_ours(timed: steps.Steps, tmp_path: Path) -> None:
    own = made.write_records(tmp_path, ("400m", "160m", "830m"), "NVIDIA Own", handicap=2.4)
    table = here.compared(records.load_suite(records.TRAINING, own), timed.suite)
    assert list(dict.fromkeys(table["size"])) == ["160m", "400m", "830m"]
    xlstm = table[table["model"] == "xlstm"].set_index("size")
    assert (xlstm["own"] / xlstm["ours"]).dropna().to_numpy() == pytest.approx(2.0)
    assert xlstm.loc["830m", "ours"].isna().all()
    page = ch13.show_here(own, False, ch13.Shown(timed, None))
    assert isinstance(page, Html)
    assert "tbl-model-here" in page.markup
    assert "tbl-model-passes-here" in page.markup
    assert "12 more are in your file" in page.markup


def test_nothing_of_the_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = ch13.Shown(None, None)
    assert "Neither" in ch13.show_here(None, False, nothing).data  # type: ignore[union-attr]
    assert "without records" in ch13.show_here(tmp_path, False, nothing).data  # type: ignore[union-attr]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA GPU" in ch13.show_here(None, True, nothing).data  # type: ignore[union-attr]


def test_measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:6] == ["-m", "companion", "bench", "training", "--quick"]
        if command[0]:
            made.write_records(Path(command[-1]).parent, ("160m",), "NVIDIA Here")
        return subprocess.CompletedProcess(command, 1, "", "error: no such option\n")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(here, "subprocess", SimpleNamespace(run=run))
    page = ch13.show_here(None, True, ch13.Shown(None, None))
    assert isinstance(page, Html)
    assert "NVIDIA Here" in page.markup
    monkeypatch.setattr(here.sys, "executable", "")
    with pytest.raises(InputError, match="--quick: error: no such option"):
        ch13.show_here(None, True, ch13.Shown(None, None))
