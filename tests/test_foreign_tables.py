"""Run tables of other people (`foreign_tables/`, with their sources): every command answers, with what is right."""

import json
import math
import re
from typing import Any

import pandas as pd
import pytest
from commands import run_json
from foreign import FOLDER, NAMES, table

from companion import cli

#: Other tables of these kinds will be tried: nothing below depends on more than what the table's README says of it.
COMMANDS: dict[str, list[str]] = {
    "data check": ["data", "check", "FILE"],
    "isoflop": ["isoflop", "FILE", "--architecture", "NAME", "--bootstrap", "50"],
    "isoflop, tokens": ["isoflop", "FILE", "--architecture", "NAME", "--x", "num_tokens", "--bootstrap", "50"],
    "fit": ["fit", "FILE", "--architecture", "NAME", "--bootstrap", "10"],
    "overtraining": ["overtraining", "FILE", "--architecture", "NAME"],
    "context": ["context", "FILE", "--architecture", "NAME", "--bootstrap", "20"],
    "plan": ["plan", "--train-flops", "1e21", "--runs", "FILE", "--bootstrap", "10"],
}


def numbers(value: Any) -> list[float]:
    """All numbers of a JSON value."""
    if isinstance(value, dict):
        return [number for entry in value.values() for number in numbers(entry)]
    if isinstance(value, list):
        return [number for entry in value for number in numbers(entry)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_every_table_is_described() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "all others" in text
    assert len(NAMES) == 22


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_command_answers_in_json_or_in_one_line(
    name: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    architecture = str(pd.read_csv(table(name))["architecture"].iloc[0])
    words = {"FILE": str(table(name)), "NAME": architecture}
    status = cli.main([*(words.get(part, part) for part in COMMANDS[command]), "--json"])
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("note: ")]
    if status == 0:
        assert lines == []
        assert all(math.isfinite(number) for number in numbers(json.loads(captured.out)))
    else:
        assert status == 2
        assert captured.out == ""
        (line,) = lines
        assert re.match(r"companion: (.*: )?\S", line)
        assert len(line) < 1000


def findings(capsys: pytest.CaptureFixture[str], name: str) -> dict[str, dict[str, Any]]:
    result = run_json(capsys, "data", "check", str(table(name)))
    return {finding["kind"]: finding for finding in result["findings"]}


def test_the_mislabelled_run_and_the_factor_of_the_labels(capsys: pytest.CaptureFixture[str]) -> None:
    """85 Marin runs: labels a third of C, one run of 3e18 labelled 1e18; the exponent is 0.424 without that slip."""
    found = findings(capsys, "one_run_mislabelled")
    frame = pd.read_csv(table("one_run_mislabelled"))
    (at,) = frame.index[(frame["train_flops"] / frame["isoflop_budget"]).round() == 9]
    assert found["label"]["rows"] == [at + 2]
    assert "0.333" in found["label_factor"]["message"]
    assert "84 of 85" in found["label_factor"]["message"]
    as_it_is = run_json(capsys, "isoflop", str(table("one_run_mislabelled")), "--bootstrap", "0")
    without = ["--where", "not (isoflop_budget == 1e18 and train_flops > 8e18)"]
    mended = run_json(capsys, "isoflop", str(table("one_run_mislabelled")), "--bootstrap", "0", *without)
    assert as_it_is["exponent"] == pytest.approx(0.449, abs=1e-3)
    assert mended["exponent"] == pytest.approx(0.424, abs=5e-3)


def test_wrapped_integers_are_named_and_change_the_slope(capsys: pytest.CaptureFixture[str]) -> None:
    """6 N D of runs of Gadre et al. overflowed in 64 bits in 6 of 25 rows: eta 0.0821 where 0.0718 is right."""
    assert findings(capsys, "int64_wrapped")["overflow"]["num_rows"] == 6
    assert "overflow" not in findings(capsys, "int64_right")
    slopes = {
        name: run_json(capsys, "overtraining", str(table(name)), "--architecture", "transformer")["common_eta"]
        for name in ("int64_wrapped", "int64_right")
    }
    assert slopes["int64_right"] == pytest.approx(0.0718, abs=5e-5)
    assert abs(slopes["int64_wrapped"] - slopes["int64_right"]) > 0.005


def test_flops_counted_another_way_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "data", "check", str(table("forward_only_flops")))
    assert result["flops_ratio"]["median"] == pytest.approx(1 / 3, rel=1e-3)
    assert any("forward" in finding["message"] for finding in result["findings"])
    moe = run_json(capsys, "data", "check", str(table("moe")))
    assert moe["flops_ratio"]["min"] == pytest.approx(0.0371, rel=0.01)
    assert any("mixture" in finding["message"] for finding in moe["findings"])


@pytest.mark.parametrize(("name", "ratios"), [("ratios_of_another_study", [20, 50, 100, 200, 500])])
def test_ratios_of_a_study_are_its_own(name: str, ratios: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "overtraining", str(table(name)), "--architecture", "xlstm")
    assert [row["token_param_ratio"] for row in result["slopes"]] == pytest.approx(ratios)


def test_no_run_of_mixed_ratios_vanishes(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "overtraining", str(table("ratios_mixed")), "--architecture", "xlstm")
    assert [row["token_param_ratio"] for row in result["slopes"]] == pytest.approx([20, 30, 70, 150, 500])
    assert sum(row["num_runs"] for row in result["slopes"]) == 25


def test_the_optimum_of_a_small_design_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    """3 budgets × 4 sizes from a known law: the optimum at 1e19 is 432M; percentiles once said 409M to 420M."""
    optimum = run_json(capsys, "isoflop", str(table("isoflop_three_by_four")))["optima"][0]
    low, high = optimum["x_opt_interval"]
    assert low <= 432e6 <= high


def test_unlabelled_runs_are_counted_and_lost_optima_said(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "isoflop", str(table("isoflop_comma")))
    said = " ".join(result["warnings"])
    assert "7 of 92 runs" in said
    assert "lost the optimum" in said
    for optimum in result["optima"]:
        low, high = optimum["x_opt_interval"]
        assert low is None or 1e8 < low < high < 1e10


@pytest.mark.parametrize(("name", "reason"), [("two_sizes", "2 different model sizes"), ("one_ratio", "same ratio")])
def test_what_is_not_identified_has_no_intervals_and_no_plan(
    name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_json(capsys, "fit", str(table(name)), "--bootstrap", "50")
    assert result["status"] == "not identified"
    assert reason in result["status_detail"]
    assert all(bounds is None or bounds == [None, None] for bounds in result["intervals"].values())
    assert cli.main(["plan", "--train-flops", "1e21", "--runs", str(table(name))]) == 2
    assert "not identified" in capsys.readouterr().err


def test_six_runs_say_why_they_have_no_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "fit", str(table("six_runs")), "--gamma", "1", "--bootstrap", "50")
    assert any("6 runs for 5 free parameters" in warning for warning in result["warnings"])


@pytest.mark.parametrize("name", ["context_2048", "overtraining_rpj"])
def test_a_plan_uses_the_context_of_the_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--train-flops", "1e21", "--runs", str(table(name)), "--bootstrap", "20", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["request"]["context_length"] == 2048
    assert "2048" in captured.err + " ".join(result["warnings"])


def test_an_empty_column_is_called_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["isoflop", str(table("T_unknown")), "--context-length", "2048"]) == 2
    assert "column 'context_length' is empty" in capsys.readouterr().err


def test_names_with_spaces_are_reached_in_backquotes(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["data", "check", str(table("columns_with_spaces"))]
    assert cli.main(["fit", chosen[2], "--where", "`C4 Eval Loss` < 4", "--bootstrap", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_rows"] < 80


def test_fractions_are_rounded_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(table("digitised_fractions"))]) == 0
    said = capsys.readouterr()
    assert "rounded" in said.err + said.out


def test_nominal_budgets_give_optima_and_a_law(capsys: pytest.CaptureFixture[str]) -> None:
    """The runs of the course whose C is the nominal budget: a singular matrix once."""
    result = run_json(capsys, "isoflop", str(table("nominal_budget")))
    assert all(optimum["x_opt"] for optimum in result["optima"])
    assert result["exponent"] == pytest.approx(result["joint"]["exponent"], abs=1e-6)
    llama = run_json(capsys, "isoflop", str(table("isoflop_nominal_llama3")), "--x", "num_tokens")
    assert 0.49 < llama["exponent"] < 0.51
