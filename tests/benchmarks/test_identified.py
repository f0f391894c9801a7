"""Simulated tables that do not determine the law: a small run, and the committed record."""

import json
from pathlib import Path

import numpy as np
import pytest

from companion.benchmarks import identified
from companion.benchmarks.identified import DESIGNS, LAW, measure
from companion.benchmarks.records import latest_record
from companion.paths import data_dir

COMMITTED = data_dir() / "benchmarks" / "identified.jsonl"
#: Designs whose places leave a direction free, whatever the losses.
FREE = ("one ratio", "one ratio, 2 % jitter", "D as a power of N", "one budget", "two sizes", "two numbers of tokens")
#: Designs that determine all parameters.
WHOLE = ("5 budgets of 7 sizes", "grid of 6 by 6", "50 scattered runs")


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_designs_are_what_their_names_say(design: str) -> None:
    size, tokens = DESIGNS[design](np.random.default_rng(0))
    assert size.shape == tokens.shape
    assert np.isfinite(LAW.predict(size, tokens)).all()
    if design in FREE:
        log_n, log_d = np.log(size), np.log(tokens)
        spread = np.linalg.svd(np.stack([log_n - log_n.mean(), log_d - log_d.mean()]), compute_uv=False)
        few = min(np.unique(size.round(-3)).size, np.unique(tokens.round(-3)).size) < 3
        assert few or spread[1] < 0.02 * spread[0]


@pytest.mark.parametrize("design", ["one ratio", "two sizes", "grid of 6 by 6"])
def test_a_small_run(design: str) -> None:
    found = measure(design, 1.0, 0.002, tables=3, resamples=20, seed=5)
    assert found["identified"] == found["given"] == (0 if design in FREE else 3)
    assert found["held_alpha"] <= found["given_alpha"]


def test_the_command_writes_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identified, "DESIGNS", {"two sizes": DESIGNS["two sizes"]})
    out = tmp_path / "record.jsonl"
    assert identified.main(["--tables", "1", "--resamples", "5", "--noise", "0.002", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["benchmark"] == identified.NAME
    assert [result["gamma_free"] for result in record["results"]] == [False, True]


def test_a_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert identified.main(["--tables", "0"]) == 2
    assert "at least 1 is needed" in capsys.readouterr().err


def test_the_committed_record() -> None:
    """No table with a free direction has an interval; where all is determined it has; what is given holds."""
    results = latest_record(COMMITTED, identified.NAME)["results"]
    for result in results:
        if result["design"] in FREE and "jitter" not in result["design"]:
            assert result["identified"] == result["given"] == 0, result
        if result["design"] in WHOLE:
            assert result["given"] >= 0.8 * result["tables"], result
    for name in ("E", "alpha", "beta"):
        given, held = (sum(result[f"{what}_{name}"] for result in results) for what in ("given", "held"))
        assert held / given > 0.9, name
