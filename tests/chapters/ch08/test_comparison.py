"""Comparisons at equal loss and at equal size: crossovers, intervals, and tables without them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from html_tables import rows_of, text_of

from companion.chapters import ch08
from companion.chapters.ch08.common import crossover_text
from companion.chapters.ch08.trained import TrainedPairs
from companion.hardware import get_hardware
from companion.inference.compare import Comparison, measured_crossovers, size_crossovers
from companion.inference.runtime_model import RuntimeModel
from companion.paths import data_dir

PEAKS = get_hardware("h100-sxm")


def comparison_of(crossovers: dict[tuple[str, str], float], ratio: float = 1.5) -> Comparison:
    """A comparison with given crossovers and one ratio at every context."""
    kinds = [(q, m) for q in ("ttft", "step_time") for m in ("measured", "roofline")] + [("memory", "count")]
    table = pd.DataFrame(
        [
            {"quantity": q, "method": m, "context_length": t, "ratio": ratio, "ratio_low": 1.0, "ratio_high": 2.0}
            for q, m in kinds
            for t in (128, 16384)
        ]
    )
    found = [
        {"quantity": q, "method": m, "crossover": crossovers.get((q, m), 512.0), "crossover_low": 0.0}
        | {"crossover_high": np.inf}
        for q, m in kinds
    ]
    return Comparison(first="xlstm", second="transformer", table=table, crossovers=pd.DataFrame(found))


def pairs_of(size: float = 1.05, titles: tuple[str, ...] = ("loss 2.5",)) -> TrainedPairs:
    """Pairs of models whose sizes differ by a factor."""

    def trained(num_params: float, loss: float) -> Any:
        best = SimpleNamespace(num_params=np.array([num_params]), train_flops=np.array([2e20]), loss=np.array([loss]))
        return SimpleNamespace(best=best, extrapolated=num_params > 1.4e9)

    pair = {"transformer": trained(1e9, 2.5), "xlstm": trained(size * 1e9, 2.4)}
    return TrainedPairs(at_losses=dict.fromkeys(titles, pair), at_compute=pair, train_flops=1e21, context_length=8192)


def test_values_at_equal_loss() -> None:
    always, later = comparison_of({("step_time", "measured"): 0.0}), comparison_of({})
    same = {("loss 2.5", 1): always, ("loss 2.5", 8): always}
    facts = ch08.equal_loss_facts(same, pairs_of(), [1, 8], 65536)
    assert facts["c8_answer_batch"] == "8 sequences"
    assert facts["c8_answer_step"] == "at every context"
    assert facts["c8_answer_roofline"] == "from 510 tokens on"
    assert facts["c8_step_roofline_few"] == "1.5 [1, 2]"
    mixed = {("loss 2.4", 1): always, ("loss 2.6", 1): later}
    facts = ch08.equal_loss_facts(mixed, pairs_of(titles=("loss 2.4", "loss 2.6")), [1], 65536)
    assert facts["c8_answer_batch"] == "one sequence"
    assert facts["c8_step_span_measured_few"] == "0 (always faster) to 510 tokens"
    assert facts["c8_step_span_roofline_many"] == "510 tokens"


def test_crossovers_with_intervals() -> None:
    comparisons = {("loss 2.4", batch): comparison_of({}) for batch in (1, 8)}
    rows = rows_of(ch08.crossover_table(comparisons, 65536))
    assert len(rows) == 10
    assert rows[0]["loss 2.4"].replace("\u00a0", " ") == "510 [always, > 65,536]"
    assert {row["by"] for row in rows} == {"fit to timings", "roofline", "count"}
    short = rows_of(ch08.answer_table(comparisons, "loss 2.4", [1, 8], 65536))
    assert len(short) == 7, "two rows are ratios"
    assert short[0]["B = 8"] == rows[0]["loss 2.4"]


def test_no_comparison(models: dict[tuple[str, str], RuntimeModel]) -> None:
    none = TrainedPairs(at_losses={}, at_compute={}, train_flops=1e21, context_length=8192, reason="one law")
    assert ch08.compare_pairs(none, models, [1], 65536, PEAKS) == {}
    assert ch08.compare_pairs(pairs_of(), {}, [1], 65536, PEAKS) == {}
    assert ch08.equal_loss_facts({}, none, [1], 65536) == ch08.trained_facts(none) == {}
    assert "two laws" in text_of(ch08.equal_loss_figure({}, "", [1], 16384, name="a"))
    assert "above" in text_of(ch08.answer_table({}, "", [1], 65536))
    one = {("loss 2.5", 1): comparison_of({})}
    assert "one batch size only" in text_of(ch08.equal_loss_figure(one, "loss 2.5", [], 16384, name="a"))


@pytest.mark.parametrize(("size", "near"), [(1.05, True), (1.5, False)])
def test_facts_of_trained_models(size: float, near: bool) -> None:
    facts = ch08.trained_facts(pairs_of(size))
    assert facts["c8_size_ratio"] == f"{size:.2f}"
    assert facts["c8_compute_ratio"] == "1.00"
    assert facts["c8_loss_gap"] == "0.100 nats lower"
    assert ("nearly agree" in facts["c8_size_verdict"]) is near
    assert facts["c8_beyond"].startswith("None of" if near else "Two of")


def test_runs_without_a_law_give_a_reason(tmp_path: Path) -> None:
    runs = pd.read_csv(data_dir() / "runs.csv")
    path = tmp_path / "runs.csv"
    runs[runs["architecture"] == "xlstm"].to_csv(path, index=False)
    pairs = ch08.train_pairs(path, ["transformer", "xlstm"], [2.6], 1e21, 8192, num_resamples=5)
    assert pairs.at_losses == pairs.at_compute == {}
    assert "transformer" in pairs.reason
    assert pairs.title == ""


def test_equal_size(timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
    crossings = {"ttft": measured_crossovers(timings, "ttft")}
    far = np.geomspace(64, 65536, 30).round()
    modeled = {"ttft": size_crossovers(timings, models, "ttft", [1], far)}
    rows = rows_of(ch08.size_crossover_table(crossings, modeled, [1], 65536))
    assert [row["by"] for row in rows] == ["timings", "fit to timings", "roofline"]
    one = crossings["ttft"].loc[crossings["ttft"]["batch_size"] == 1, "crossover"]
    ends = [crossover_text(end, 65536) for end in (one.min(), one.max())]
    assert rows[0]["B = 1"] == " to ".join(ends)
    other = rows_of(ch08.size_crossover_table(crossings, modeled, [8], 65536))
    assert [other[at]["B = 1"] for at in (0, 1)] == [rows[0]["B = 1"], rows[1]["B = 1"]]
    assert [other[at]["B = 8"] for at in (1, 2)] == ["–", "–"], "no model at this batch"
    facts = ch08.equal_size_facts(crossings, modeled, 65536)
    assert facts["c8_shorter_ttft"] == "32 to 48 %"
    assert facts["c8_shorter_where"] == "one sequence at 16k tokens"
    assert facts["c8_always"] == "unknown"
    assert set(ch08.equal_size_facts({}, {}, 65536).values()) == {"unknown"}
