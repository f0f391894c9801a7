"""What the explorer's page says: numbers of its settings, verdicts on laws, one architecture or two."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from companion.chapters import ch91
from companion.chapters.applicability import select_runs
from companion.explorer import Explorer, Setting
from companion.formatting import count, significant, together
from companion.plotting.explorer_page import duration
from companion.runs.context_length import PAPER_CONTEXT
from companion.training import load_training_logs


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer.of(num_resamples=5)


@pytest.fixture(scope="module")
def alone() -> Explorer:
    return Explorer.of(architectures=["xlstm"], num_resamples=5, default=Setting(tokens_per_param=None))


def test_opening_context() -> None:
    paper = select_runs()
    assert ch91.opening_context(paper, 2048) == 2048
    assert ch91.opening_context(paper) == 8192
    unnamed = replace(paper, context_length=None)
    assert ch91.opening_context(unnamed, 4096) == 4096
    assert ch91.opening_context(unnamed) == PAPER_CONTEXT


def test_facts_are_those_of_the_opening_setting(explorer: Explorer) -> None:
    facts = ch91.explorer_facts(explorer, 5)
    shown = explorer.evaluate()
    times = [shown[name]["numbers"]["step_time_s"] for name in ("transformer", "xlstm")]
    assert (
        f"takes the Transformer {significant(times[0] / times[1], 2)} times as long as the xLSTM" in facts["c91_answer"]
    )
    assert facts["c91_law_context"] == "T = 8,192"
    assert facts["c91_ratio"] == "M = 22"
    assert (
        f"moves the Transformer from {count(shown['transformer']['numbers']['num_params'])} to"
        in facts["c91_long_context"]
    )
    assert (
        f"leaves the xLSTM at {count(shown['xlstm']['numbers']['num_params'])} parameters" in facts["c91_long_context"]
    )
    assert f"instead of {duration(times[1])}" in facts["c91_large_ratio"]
    assert facts["c91_resamples"] == "5"


def test_logs_are_named(explorer: Explorer, tmp_path: Path) -> None:
    assert ch91.explorer_facts(explorer, 5)["c91_logs"] == "the authors' training logs, measured on NVIDIA H100 SXM"
    assert ch91.load_logs(None) is None
    path = tmp_path / "mine.csv"
    load_training_logs().head(40).to_csv(path, index=False)
    logs = ch91.load_logs(path)
    assert logs is not None
    assert len(logs) == 40
    own = replace(explorer, logs_hardware="a100-sxm")
    assert ch91.logs_words(own, path) == "the training logs in mine.csv, measured on NVIDIA A100 SXM 80 GB"


def test_table_of_the_opening_setting(explorer: Explorer) -> None:
    table = ch91.settings_table(explorer).markup.replace("\u00a0", " ")
    rows = [
        [td.get_text() for td in row.select("td")] for row in BeautifulSoup(table, "html.parser").select("tbody tr")
    ]
    assert [row[0] for row in rows] == ["opening"] * 2 + ["T = 131,072"] * 2 + ["M = 220"] * 2
    numbers = explorer.evaluate()["xlstm"]["numbers"]
    assert rows[1][1:3] == ["xLSTM", count(numbers["num_params"])]
    assert rows[1][3].startswith(f"{numbers['loss']:.3f} [")
    assert rows[1][4:6] == [duration(numbers["ttft_s"]), duration(numbers["step_time_s"])]
    assert "a batch of 8 on NVIDIA H100 SXM" in table


def test_one_architecture(alone: Explorer) -> None:
    facts = ch91.explorer_facts(alone, 5)
    assert facts["c91_ratio"] == "the compute-optimal M"
    step = duration(alone.evaluate()["xlstm"]["numbers"]["step_time_s"])
    assert facts["c91_answer"].startswith(f"At the opening setting a generated token takes {step}; at a context of")
    assert "Transformer" not in ch91.settings_table(alone).markup
    compared = ch91.compare_designs({"all runs": alone}, (1e20, 1e21))
    assert ch91.designs_verdict(compared).startswith("With one architecture")
    assert ch91.designs_facts(compared)["c91_gaps"] == "0.000 at 1×10²⁰ FLOP and 0.000 at 1×10²¹ FLOP"
    table = ch91.steps_table({2048.0: alone.evaluate()}).markup
    assert together(step) in table
    assert "ratio" not in table


def test_laws_agree_or_not(explorer: Explorer) -> None:
    compared = ch91.compare_designs({"all runs": explorer}, (1e21,))
    best = explorer.evaluate(Setting(train_flops=1e21, tokens_per_param=None))
    losses = {name: one["numbers"]["loss"] for name, one in best.items()}
    assert compared["loss"].tolist() == list(losses.values())
    lower = {"transformer": "Transformer", "xlstm": "xLSTM"}[min(losses, key=lambda name: losses[name])]
    assert ch91.designs_verdict(compared) == f"At 1×10²¹ FLOP the {lower} has the lower loss under every law"
    other = compared.assign(design="other", loss=compared["loss"].to_numpy()[::-1])
    both = pd.concat([compared, other])
    assert ch91.designs_verdict(both) == "At 1×10²¹ FLOP the laws disagree"
    gap = abs(losses["transformer"] - losses["xlstm"])
    assert ch91.designs_facts(both)["c91_gaps"] == f"{gap:.3f} at 1×10²¹ FLOP"
    assert f"{compared['loss'].iloc[0]:.3f} [" in ch91.designs_table(both).markup.replace("\u00a0", " ")
    tried = ch91.designs_table(compared.assign(design="tokenparam")).markup
    assert "Token/Param" in BeautifulSoup(tried, "html.parser").get_text()


def test_links_say_what_to_see(explorer: Explorer) -> None:
    setting = Setting(context_length=131072, batch_size=1)
    markup = ch91.links(explorer, {"long": setting}).markup
    step = duration(explorer.evaluate(setting)["xlstm"]["numbers"]["step_time_s"])
    assert "A long context" in markup
    assert f"xLSTM {step} a step." in markup


def test_solutions(explorer: Explorer) -> None:
    shown = explorer.evaluate()
    times = [one["numbers"]["step_time_s"] for one in shown.values()]
    assert significant(times[0] / times[-1]) in ch91.steps_table({2048.0: shown}).markup
    never = {name: {**one, "fits": False} for name, one in shown.items()}
    table = ch91.batches_table({1: shown, 8: shown, 16: never}).markup
    assert table.count("<td>8</td>") == 2
    assert ch91.batches_table({1: never}).markup.count("none fits") == 2
    assert "+0.000" in ch91.overtraining_table(shown, shown).markup
    assert 8 in ch91.steps_of("batch_size")
