"""The page of the kernel log: its facts and tables are those of the records, ours and a reader's."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from companion.chapters import ch92
from companion.paths import data_dir

FOLDER = data_dir() / "benchmarks"


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    found = ch92.predictions(FOLDER)
    assert found is not None
    return found


def test_facts_of_the_log(log: pd.DataFrame, tmp_path: Path) -> None:
    known = log["ratio"].dropna()
    facts = ch92.log_facts(log)
    assert facts["c92_answer"] == (
        f"Over {len(known)} predictions, the median ratio of measured to predicted time is {known.median():.2f}; "
        f"the largest is {known.max():.2f}"
    )
    far = log.loc[known.idxmax()]
    assert str(facts["c92_largest"]).endswith(f"rested on this reasoning: {far['reason']}")
    assert set(ch92.KERNELS.values()) & set(log["of"])
    assert ch92.predictions(tmp_path) is None
    assert ch92.log_facts(None)["c92_answer"] == "No prediction has a measurement"
    assert "have no log of predictions" in ch92.show_predictions(None).markup
    assert "no prediction has a measurement" in ch92.ratio_figure(log.assign(ratio=np.nan)).markup
    assert ch92.show_predictions(log).markup.count("<tr>") == len(log) + 1
    away = log.assign(measured_on="another GPU").dropna(subset="measured_seconds")
    assert ch92.show_predictions(away).markup.count("\u00a0*</td>") == len(away), "the star follows the name"


def test_ratios_in_order() -> None:
    log = pd.DataFrame({"change": ["a", "b (not kept)", "c", "d"], "ratio": [0.9, 2.0, np.nan, 1.1]})
    [ax] = ch92.ratios_in_order(log).axes
    kept, lost, exact = ax.lines
    assert (list(kept.get_xdata()), list(kept.get_ydata())) == ([1, 4], [0.9, 1.1])
    assert (list(lost.get_xdata()), list(lost.get_ydata())) == ([2], [2.0])
    assert set(exact.get_ydata()) == {1}
    assert kept.get_marker() != lost.get_marker()


def test_first_and_last_times(tmp_path: Path) -> None:
    """Two states of the code by hand, and the records of one state."""
    lines = (FOLDER / "kernels.jsonl").read_text(encoding="utf-8").splitlines()
    ours = [x for x in map(json.loads, lines) if x["results"][0]["implementation"] == "companion"]
    last = next(x for x in reversed(ours) if x["results"][0]["case"] == "8x256x512-T8192")
    records = tmp_path / "kernels.jsonl"
    records.write_text(json.dumps(last) + "\n", encoding="utf-8")
    assert "hold one state of our kernels" in ch92.show_gains(records, 8192).markup
    first = json.loads(json.dumps(last))
    first["parameters"]["code"] = "before"
    seconds = last["results"][0]["seconds_median"]
    first["results"][0]["seconds_median"] = 3 * seconds
    records.write_text("\n".join(map(json.dumps, (first, last))) + "\n", encoding="utf-8")
    assert f"{3e3 * seconds:.2f} → {1e3 * seconds:.2f} (3.00)" in ch92.show_gains(records, 8192).markup


def test_the_log_needs_no_torch() -> None:
    code = "import sys; import companion.chapters.ch92; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
