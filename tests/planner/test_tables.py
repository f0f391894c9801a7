"""Plans from other people's run tables: which context, which architectures, what is refused, what is said first."""

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import error_line, run_json
from foreign import table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companion import cli
from companion.accounting import num_params
from companion.accounting.inference import count_step
from companion.architectures import make_architecture, preset
from companion.errors import InputError, NotApplicable
from companion.laws import LossSurface
from companion.paths import data_dir
from companion.planner.planning import Request, learn, plan
from companion.runs.load import load_paper_runs, load_runs

BUDGET = ["plan", "--train-flops", "1e21", "--bootstrap", "20"]
LAW = LossSurface(E=1.7, A=406.0, B=410.0, alpha=0.34, beta=0.28)


def own(context: int | list[Any] | None = 2048, architecture: str = "xlstm", sizes: int = 5) -> pd.DataFrame:
    """A grid of sizes and ratios with the losses of a known law and a scatter of 0.2 %."""
    size, ratio = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e8, 3e9, sizes), [10.0, 40.0, 160.0, 640.0]))
    frame = pd.DataFrame({"architecture": architecture, "num_params": size, "num_tokens": size * ratio})
    frame = frame.round().astype({"num_params": int, "num_tokens": int})
    scatter = np.exp(np.random.default_rng(3).normal(0, 0.002, len(frame)))
    loss = LAW.predict(frame["num_params"].to_numpy(float), frame["num_tokens"].to_numpy(float)) * scatter
    frame = frame.assign(train_flops=6.0 * frame["num_params"] * frame["num_tokens"], val_loss=loss)
    return frame if context is None else frame.assign(context_length=context)


def saved(frame: pd.DataFrame, folder: Path) -> str:
    frame.to_csv(folder / "own.csv", index=False)
    return str(folder / "own.csv")


# ---- the context length --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "context"), [("context_2048", 2048), ("overtraining_rpj", 2048)])
def test_the_only_context_of_a_table_is_planned_for(
    name: str, context: int, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_json(capsys, *BUDGET, "--runs", str(table(name)))
    assert result["request"]["context_length"] == context
    [law] = result["laws"].values()
    assert law["context_length"] == context
    assert any(f"context_length {context}: the only one of {name}.csv" in note for note in result["warnings"])
    for one in result["plans"]:
        assert not any("the law is that of T" in warning for warning in one["warnings"])
        low, high = one["intervals"]["loss"]
        assert low < one["loss"] < high


@pytest.mark.parametrize("name", ["T_unknown", "xlstm_alone"])
def test_a_table_without_contexts_is_planned_with_all_its_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, *BUDGET, "--runs", str(table(name)))
    [law] = result["laws"].values()
    assert (law["context_length"], law["num_runs"]) == (None, len(load_runs(table(name))))
    assert result["request"]["context_length"] == 8192
    assert "context_length 8192: the runs name none" in result["warnings"]


def test_of_several_contexts_the_requested_one_gives_the_law(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = saved(pd.concat([own(2048), own(4096, sizes=6), own(1024).head(5)]), tmp_path)

    def law(*options: str) -> tuple[int, int, int, str]:
        result = run_json(capsys, *BUDGET, "--runs", path, *options)
        [one] = result["laws"].values()
        return (
            one["context_length"], one["num_runs"], result["request"]["context_length"], " ".join(result["warnings"])
        )  # fmt: skip

    assert law()[:3] == (4096, 24, 4096), "the one with most runs"
    assert "there are also 2048" in law()[3]
    assert law("--context-length", "2048")[:3] == (2048, 20, 2048)
    assert law("--context-length", "1024")[:3] == (4096, 24, 1024), "five runs give no law"
    assert law("--context-length", "2048", "--law-context", "4096")[:3] == (4096, 24, 2048)
    wrong = error_line(capsys, *BUDGET, "--runs", path, "--law-context", "512")
    assert "no runs with context_length 512; the table has 1024, 2048, 4096" in wrong


def test_runs_without_a_context_are_counted() -> None:
    contexts = [2048] * 17 + [np.nan] * 3
    planned = plan(Request(train_flops=1e21), learn(own(contexts), num_resamples=20))
    assert "xlstm: 3 runs without a context_length left out of the law" in planned.first


def test_the_requested_context_without_a_law_falls_back_and_says_so() -> None:
    runs = pd.concat([own(4096), own(2048, sizes=2)])
    planned = plan(Request(train_flops=1e21, context_length=2048), learn(runs, prefer_context=2048, num_resamples=20))
    assert any("no law of the runs at context_length 2048: it is not identified" in note for note in planned.first)
    assert any("the law is that of T = 4096" in warning for warning in planned.models[0].warnings)


def test_the_papers_table_by_name_is_the_papers_table(capsys: pytest.CaptureFixture[str]) -> None:
    options = [*BUDGET, "--context-length", "16384", "--architecture", "xlstm"]
    given_by_name = run_json(capsys, *options, "--runs", str(data_dir() / "runs.csv"))
    assert given_by_name == run_json(capsys, *options)
    assert given_by_name["laws"]["xlstm"]["context_length"] == 8192
    assert given_by_name["warnings"] == []


# ---- laws that are not there, or not to be trusted -----------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two_sizes", "2 different model sizes, at least 3 are needed"),
        ("one_ratio", "all runs have the same ratio of tokens to parameters"),
        ("six_runs", "6 runs for 6 free parameters; at least 7 are needed"),
        ("vocab", "6 runs for 6 free parameters"),
        (
            "two_other_architectures",
            "gpt, mamba2: two_other_architectures.csv: the planner has shapes and costs",
        ),
        ("isoflop_comma", "llama2: isoflop_comma.csv: the planner has"),
    ],
)
def test_a_table_without_a_law_is_refused_in_one_line(
    name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in error_line(capsys, *BUDGET, "--runs", str(table(name)))
    with pytest.raises(NotApplicable):
        learn(load_runs(table(name)), num_resamples=1)


def test_one_architecture_is_planned_and_the_other_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = saved(pd.concat([own(), own(architecture="gpt"), own(architecture="transformer", sizes=2)]), tmp_path)
    result = run_json(capsys, *BUDGET, "--runs", path)
    assert {one["architecture"] for one in result["plans"]} == {"xlstm"}
    assert set(result["left_out"]) == {"gpt", "transformer"}
    assert "not identified" in result["left_out"]["transformer"]
    assert cli.main([*BUDGET, "--runs", path]) == 0
    out = capsys.readouterr().out
    assert out.index("transformer: own.csv: no law") < out.index("parameters N"), "first, before any number"


def test_a_law_at_a_bound_is_said_before_any_number(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    frame = own()
    size, tokens = (frame[name].to_numpy(float) for name in ("num_params", "num_tokens"))
    scatter = np.exp(np.random.default_rng(1).normal(0, 0.002, len(frame)))
    below_zero = LossSurface(E=1e-9, A=40.0, B=60.0, alpha=0.15, beta=0.14).predict(size, tokens) - 0.5
    path = saved(frame.assign(val_loss=below_zero * scatter), tmp_path)
    result = run_json(capsys, *BUDGET, "--runs", path)
    assert result["laws"]["xlstm"]["status"] == "at a bound"
    assert cli.main([*BUDGET, "--runs", path]) == 0
    out = capsys.readouterr().out
    assert out.index("the law is at a bound (E)") < out.index("parameters N")


def test_most_resamples_lost_gives_no_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    """8 runs for 6 parameters: nearly every resample holds too few different runs."""
    result = run_json(capsys, *BUDGET, "--runs", str(table("nominal_budget")))
    assert any("no intervals: " in note for note in result["warnings"])
    for one in result["plans"]:
        assert all(bounds == [None, None] for bounds in one["intervals"].values())
        assert one["num_params"] > 0


def test_shapes_that_make_no_family_are_replaced_and_that_is_said() -> None:
    frame = own().assign(d_model=1024, n_layers=24, n_heads=8, d_qk=64, d_hv=128, d_ff=2752)
    notes = plan(Request(train_flops=1e21), learn(frame, num_resamples=20)).first
    assert "xlstm: shapes are those of the paper's models: 1 different d_model; at least 2 needed" in notes
    frame.loc[frame["num_params"] > 1e9, ["d_model", "n_layers"]] = [1100, 1]
    notes = plan(Request(train_flops=1e21), learn(frame, num_resamples=20)).first
    assert any("depth and heads do not grow with d_model" in note for note in notes)
    bare = plan(Request(train_flops=1e21), learn(own(), num_resamples=20)).first
    assert "xlstm: shapes are those of the paper's models: the table has none" in bare


def test_the_papers_table_needs_no_notes() -> None:
    assert plan(Request(train_flops=1e21), learn(load_paper_runs(), num_resamples=20)).notes == ()


# ---- any design ----------------------------------------------------------------------------------


@st.composite
def designs(draw: st.DrawFn) -> pd.DataFrame:
    """Small tables: grids and IsoFLOP sets with few or equal values, with or without scatter, columns and contexts."""
    first, second = (draw(st.sampled_from([1, 2, 3, 4, 5, 5, 5])) for _ in range(2))
    size, other = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e8, 3e9, first), np.geomspace(10, 500, second)))
    tokens = size * other if draw(st.booleans()) else other * 1e18 / 6 / size
    frame = pd.DataFrame({"num_params": size.round().astype(int), "num_tokens": tokens.round().astype(int)})
    noise = draw(st.sampled_from([0.0, 0.002, 0.05]))
    loss = LAW.predict(frame["num_params"].to_numpy(float), frame["num_tokens"].to_numpy(float))
    loss = loss * np.exp(noise * np.random.default_rng(draw(st.integers(0, 99))).normal(size=len(frame)))
    flops = 6.0 * frame["num_params"] * frame["num_tokens"]
    frame = frame.assign(train_flops=flops, val_loss=loss.round(draw(st.sampled_from([3, 9]))))
    frame["architecture"] = draw(st.sampled_from(["xlstm", "transformer", "mamba2"]))
    if draw(st.booleans()):
        contexts = draw(st.sampled_from([[2048], [2048, 4096], [8192, np.nan]]))
        frame["context_length"] = np.resize(contexts, len(frame))
    if draw(st.booleans()):
        frame["experiment"] = np.resize(draw(st.sampled_from([["tokenparam"], ["isoflop", "tokenparam"]])), len(frame))
    return frame


def answered(*arguments: str) -> dict[str, Any] | None:
    """The JSON of a command; None after one line of error with exit status 2. Nothing else may happen."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([*arguments, "--json"])
    errors = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
    if status == 2:
        assert len(errors) == 1
        assert out.getvalue() == ""
        return None
    assert status == 0
    assert not errors
    return dict(json.loads(out.getvalue(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON")))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(designs())
def test_every_design_has_an_answer_or_one_line(frame: pd.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = saved(frame, Path(folder))
        planned = answered(*BUDGET, "--runs", path)
        slopes = answered("overtraining", path)
    for one in planned["plans"] if planned else []:
        explained = any("outside of its own interval" in warning for warning in one["warnings"])
        for name, (low, high) in one["intervals"].items():
            assert low is None or explained or low * (1 - 1e-6) <= one[name] <= high * (1 + 1e-6), name
    for row in slopes["slopes"] if slopes else []:
        low, high = row["eta_interval"]
        assert low <= row["eta"] <= high
        ratios = frame["num_tokens"] / frame["num_params"]
        assert np.abs(np.log(ratios / row["token_param_ratio"])).min() < 0.1, "a ratio of the table"


# ---- architectures that nobody has timed ---------------------------------------------------------

UNTIMED = ["gated_deltanet", "gated_deltanet_3to1", "gated_deltanet_7to1"]


@pytest.mark.parametrize("name", UNTIMED)
def test_a_roofline_plan_needs_no_timings(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = saved(own(architecture=name), tmp_path)
    served = ["--prefill-tokens", "1e12", "--generated-tokens", "1e11"]
    result = run_json(capsys, *BUDGET, *served, "--runs", runs, "--timing", "roofline")
    assert [one["objective"] for one in result["plans"]] == ["loss-optimal", "cost-optimal"]
    for one in result["plans"]:
        model = make_architecture(name, **one["model"])
        assert one["ttft_s"] == one["ttft_roofline_s"] > 0
        # the model that could be built is near the planned one, and costs what its own count says
        assert num_params(model) == pytest.approx(one["num_params"], rel=0.25)
        step = count_step(model, result["request"]["context_length"], result["request"]["batch_size"])
        assert step.roofline("h100-sxm").seconds == pytest.approx(one["step_time_s"], rel=0.3)
    assert any(f"{name}: shapes are those of its named sizes" in note for note in result["warnings"])


def test_measured_times_need_timings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = saved(pd.concat([own(), own(architecture="gated_deltanet")]), tmp_path)
    result = run_json(capsys, *BUDGET, "--runs", runs)
    assert {one["architecture"] for one in result["plans"]} == {"xlstm"}
    assert "gated_deltanet, ttft: no terms are known" in result["left_out"]["gated_deltanet"]
    both = run_json(capsys, *BUDGET, "--runs", runs, "--timing", "roofline")
    assert {one["architecture"] for one in both["plans"]} == {"xlstm", "gated_deltanet"}
    known = learn(load_runs(runs), timing="roofline", num_resamples=5)
    with pytest.raises(InputError, match=r"no terms are known; .*; timing roofline needs none"):
        plan(Request(train_flops=1e21), {"gated_deltanet": known["gated_deltanet"]})
    with pytest.raises(NotApplicable, match="no terms are known"):
        known["gated_deltanet"].times  # noqa: B018


def test_hybrids_share_heads_when_they_are_served(tmp_path: Path) -> None:
    runs = load_runs(saved(own(architecture="gated_deltanet_3to1"), tmp_path))
    known = learn(runs, timing="roofline", num_resamples=5)
    whole, shared = (
        plan(Request(train_flops=1e21, timing="roofline", kv_groups=groups), known).models[0] for groups in (1, 4)
    )
    assert shared.numbers["memory_bytes"] < whole.numbers["memory_bytes"]
    assert shared.model.n_kv_heads * 4 <= shared.model.attention_heads
    assert whole.model.n_kv_heads == whole.model.attention_heads


def test_a_hybrid_in_the_table_is_planned_as_one(tmp_path: Path) -> None:
    """Shapes with `attention_every` make a family of hybrids."""
    models = [preset("xlstm", size, attention_every=4) for size in ("160m", "400m", "830m", "1.4b", "2.7b")]
    frame = own()
    rows = [models[at % 5].shapes() for at in range(len(frame))]
    runs = pd.concat([frame, pd.DataFrame(rows, index=frame.index)], axis=1)
    known = learn(load_runs(saved(runs, tmp_path)), timing="roofline", num_resamples=5)["xlstm"]
    assert known.family.attention_every == 4
    assert len(known.family.shapes(1024.0).layers) == 2
    planned = plan(Request(train_flops=1e21, timing="roofline"), {"xlstm": known})
    assert all(model.model.attention_every == 4 for model in planned.models)
