"""Chapters on tables that other people bring: what the table can answer is shown, the rest left out with a reason."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from foreign import table
from log_files import cut_out

from companion.book import building as book
from companion.book.execution import Execution, try_all
from companion.errors import NotApplicable
from companion.training import load_training_curves, load_training_logs

QUICK = ("02_run_table", "03_isoflop", "07_context_length", "09_planning")


@pytest.fixture(scope="module")
def on_own_logs(tmp_path_factory: pytest.TempPathFactory) -> Execution:
    """The chapter on costs on the needed columns of two other architectures; no front reaches the loss asked for."""
    folder = tmp_path_factory.mktemp("logs")
    logs = load_training_logs()
    logs = logs[(logs["context_length"] == 16384) & (logs["status"] == "finished")].iloc[::2]
    logs["architecture"] = logs["architecture"].map({"xlstm": "mamba2", "transformer": "gpt"})
    needed = ["architecture", "context_length", "num_params", "num_tokens", "train_flops", "train_steps", "num_gpus"]
    logs[[*needed, "step_time_s", "val_loss"]].to_csv(folder / "logs.csv", index=False)
    parameters = {"logs_file": str(folder / "logs.csv"), "loss": 1.0, "num_resamples": 10}
    (execution,) = try_all([book.ROOT / "notebooks" / "11_training_cost.md"], folder, parameters, jobs=1)
    return execution


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Execution]:
    """Some quick chapters on two tables of five columns."""
    done = {}
    for name in ("two_other_architectures", "xlstm_alone"):
        folder = tmp_path_factory.mktemp(name)
        parameters = {"runs_file": str(table(name)), "num_resamples": 30}
        sources = [book.ROOT / "notebooks" / f"{chapter}.md" for chapter in QUICK]
        for execution in try_all(sources, folder, parameters, jobs=2):
            done[name, execution.source.stem] = execution
    return done


def page(execution: Execution) -> str:
    assert execution.path is not None, str(execution.failure)
    cells = json.loads(Path(execution.path).read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def values(execution: Execution) -> dict[str, Any]:
    assert execution.path is not None, str(execution.failure)
    cells = json.loads(Path(execution.path).read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    records = [(o.get("metadata", {}).get("scrapbook", {}), o.get("data", {})) for o in outputs]
    return {record["name"]: "".join(next(iter(data.values()))) for record, data in records if "name" in record}


@pytest.mark.parametrize("name", ["two_other_architectures", "xlstm_alone"])
@pytest.mark.parametrize("chapter", ["02_run_table", "03_isoflop"])
def test_what_applies_is_built(outcomes: dict[tuple[str, str], Execution], name: str, chapter: str) -> None:
    execution = outcomes[name, chapter]
    text = page(execution)
    left_out = dict(execution.left_out)
    assert any("published" in reason for reason in left_out.values())
    assert text.count("*Left out:*") >= len(left_out)
    assert all(f"`{key}`" not in text or key in values(execution) for key in ("c2_median_gap", "c3_ratio"))


def test_any_names_are_compared(outcomes: dict[tuple[str, str], Execution]) -> None:
    shown = values(outcomes["two_other_architectures", "02_run_table"])
    assert {"gpt", "mamba2"} == {shown["c2_first"].strip("'"), shown["c2_second"].strip("'")}
    assert "40" in shown["c2_num_runs"]


def test_one_architecture_is_not_compared(outcomes: dict[tuple[str, str], Execution]) -> None:
    for chapter, section in (
        ("02_run_table", "The gap at equal compute"),
        ("03_isoflop", "Do the architectures differ?"),
    ):
        reason = dict(outcomes["xlstm_alone", chapter].left_out)[section]
        assert reason == "a comparison needs two architectures; there is xlstm only"


def test_chapters_that_do_not_apply_say_why(outcomes: dict[tuple[str, str], Execution]) -> None:
    for name, chapter, reason in (
        ("two_other_architectures", "07_context_length", "gpt, mamba2: no context length"),
        ("xlstm_alone", "07_context_length", "xlstm: no context length"),
        (
            "two_other_architectures",
            "09_planning",
            "the planner has shapes and costs of transformer, xlstm, ",
        ),
    ):
        failure = outcomes[name, chapter].failure
        assert failure is not None
        assert failure.exception == NotApplicable.__name__
        assert reason in failure.reason


def test_costs_of_own_logs(on_own_logs: Execution) -> None:
    """Every number that the page still shows is of the reader's logs, and what is about the authors' is gone."""
    text, shown = page(on_own_logs), values(on_own_logs)
    glued = set(re.findall(r"\{glue:text\}`(\w+)`", text))
    assert "c11_hours" in glued
    assert glued <= set(shown)
    assert "mamba2 does: at equal loss gpt takes" in shown["c11_answer"]
    assert shown["c11_loss"] != "'1'"
    for phrase in ("eight GPUs are one node", "limit_chunk", "attention kernel ran", "kept only the input"):
        assert phrase not in text
    assert not any("xLSTM" in value or "Transformer" in value for name, value in shown.items() if name in glued)
    left_out = dict(on_own_logs.left_out)
    assert left_out["Why small models are slow"] == "the logs do not name the shapes of their models"
    assert "Per token, per FLOP, per GPU-hour" not in left_out


def test_one_architecture_is_planned(outcomes: dict[tuple[str, str], Execution]) -> None:
    text = page(outcomes["xlstm_alone", "09_planning"])
    assert "a choice needs two architectures that can be planned" in text
    assert "c9_answer_size" in text
    assert "c9_answer_ratio" not in text


# ---- logs: chapter 12 ----------------------------------------------------------------------------------------------


def on_logs(folder: Path, files: dict[str, str]) -> Execution:
    few = {"num_resamples": 30, "num_draws": 2}
    (execution,) = try_all([book.ROOT / "notebooks/12_what_final_losses_hide.md"], folder, files | few)
    assert execution.failure is None, str(execution.failure)
    missing = set(re.findall(r"\{glue:text\}`(\w+)`", page(execution))) - set(values(execution))
    assert not missing, "every value that the page shows is there"
    return execution


def test_logs_without_curves_pairs_and_failures(tmp_path: Path) -> None:
    logs = load_training_logs().query("architecture == 'xlstm' and group == 'isoflop' and status == 'finished'")
    execution = on_logs(tmp_path, cut_out(tmp_path, logs.assign(architecture="gpt")))
    left_out = dict(execution.left_out)
    assert "about the paper's runs and its published values" in left_out["Budgets by another count"]
    assert left_out == {
        "The batch size": "no shape was trained at two batch sizes",
        "Budgets by another count": left_out["Budgets by another count"],
        "Early losses as predictors": "there are no curves",
        "Spikes": "there are no curves",
        "Runs that diverged": "there are no curves",
        "What keeping the better run does to a fit": "no configuration is repeated",
    }
    shown = values(execution)
    assert "no shape was trained at two batch sizes" in shown["c12_answer_batch"]
    assert "No configuration was trained twice" in shown["c12_answer_twins"]
    assert "Never mix two batches" not in page(execution)


def test_logs_at_two_batches_with_curves(tmp_path: Path) -> None:
    logs = load_training_logs().query("group == 'isoflop_budget_by_chinchilla_count'")
    files = cut_out(tmp_path, logs.assign(architecture="gpt"), load_training_curves())
    execution = on_logs(tmp_path, files)
    left_out, text, shown = dict(execution.left_out), page(execution), values(execution)
    assert {"The batch size", "Early losses as predictors", "Do the curves collapse?", "Spikes"}.isdisjoint(left_out)
    assert left_out["Runs that diverged"] == "all runs finished"
    assert shown["c12_pair_architecture"].strip("'") == "gpt"
    assert "The paper has such a budget" not in text
    assert "above, at a larger budget and batch and with another architecture" not in text
    assert "c12_same_rate" not in shown
    assert "The learning rates are equal in all pairs" in shown["c12_rates"]
