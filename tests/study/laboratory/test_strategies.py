"""Strategies: they keep to the rules, answer the same twice, and differ in the way that they are meant to."""

from pathlib import Path

import pandas as pd
import pytest

from companion.errors import InputError
from companion.paths import data_dir
from companion.study.laboratory import Rules, new_laboratory, practice_laboratory
from companion.study.laboratory.coverage import COLUMNS, coverage_summary, main, play, play_all
from companion.study.laboratory.rules import ALL_ARCHITECTURES
from companion.study.laboratory.strategies import STRATEGIES


def described(heading: str) -> list[str]:
    """Names in the first column of the table below a heading of data/README.md."""
    section = (data_dir() / "README.md").read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [line.split("`")[1] for line in lines]


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(
    "rules",
    [
        Rules(),
        Rules(unit="gpu_hours", budget=15.0),
        Rules(architectures=ALL_ARCHITECTURES, budget=1e20, target_flops=1e22, context_length=8192, law="misfit"),
    ],
    ids=["flops", "hours", "large"],
)
def test_every_strategy_keeps_to_the_budget_and_answers_the_same_twice(name: str, rules: Rules) -> None:
    labs = [practice_laboratory("a key", rules) for _ in range(2)]
    predictions = [STRATEGIES[name](lab) for lab in labs]
    assert predictions[0] == predictions[1] == labs[0].prediction()
    state = labs[0].state()
    assert 0.5 * rules.budget < state.spent <= rules.budget * (1 + 1e-9)
    assert predictions[0].ask.train_flops == pytest.approx(rules.target_flops, rel=1e-3)
    seeds = [answer.ask.seed for answer in state.answers]
    assert len(set(seeds)) == len(seeds)


def test_a_strategy_plays_a_folder_as_it_plays_memory(tmp_path: Path) -> None:
    lab = new_laboratory(tmp_path / "lab", Rules(), "a key")
    assert STRATEGIES["ladder"](lab) == STRATEGIES["ladder"](practice_laboratory("a key", lab.rules))


def test_what_the_strategies_are_for() -> None:
    """Over a few worlds: the law scores most; the ladder is overconfident, and its interval never holds the truth."""
    table = play_all(6, laws=["chinchilla"])
    found = coverage_summary(table).set_index("strategy")
    assert found["total"].rank().to_dict() == {"parametric_law": 3.0, "isoflop_profiles": 2.0, "ladder": 1.0}
    assert found.loc["ladder", "coverage"] == 0
    assert found.loc["ladder", "median_log_error"] < -0.05  # no floor: too low
    assert found.loc["isoflop_profiles", "coverage"] >= 5 / 6
    assert (found["num_faults"] == 0).all()


def test_a_laboratory_that_cannot_be_played_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(lab: object) -> None:
        raise InputError("no law")

    monkeypatch.setitem(STRATEGIES, "ladder", fails)
    row = play("ladder", "chinchilla", 0)
    assert (row["fault"], row["total"], row["covered"], row["num_runs"]) == ("no law", 0.0, False, 0)


class TestTable:
    """The committed table is what the package computes, and shows what the book says of it."""

    TABLE = pd.read_csv(data_dir() / "laboratory_coverage.csv", keep_default_na=False, na_values=[""])

    def test_every_column_is_described(self) -> None:
        assert described("laboratory_coverage.csv") == list(COLUMNS)

    def test_shape(self) -> None:
        assert tuple(self.TABLE) == COLUMNS
        counts = self.TABLE.groupby(["law", "strategy"]).size()
        assert set(counts) == {200}
        assert len(counts) == 6

    @pytest.mark.parametrize(
        ("strategy", "law", "world"), [("ladder", "misfit", 3), ("parametric_law", "chinchilla", 7)]
    )
    def test_rows_are_what_is_computed_now(self, strategy: str, law: str, world: int) -> None:
        rows = self.TABLE
        row = rows[(rows["strategy"] == strategy) & (rows["law"] == law) & (rows["world"] == world)].iloc[0]
        now = play(strategy, law, world)
        for name in (
            "total",
            "interval_score",
            "log_error",
            "log_width",
            "regret_nats",
            "compute_share",
            "spent_share",
        ):
            assert row[name] == pytest.approx(now[name], rel=1e-4, abs=1e-6), name

    def test_honest_intervals_hold_the_truth_more_often(self) -> None:
        coverage = coverage_summary(self.TABLE).set_index(["law", "strategy"])["coverage"]
        for law in ("chinchilla", "misfit"):
            assert coverage[law, "ladder"] < 0.1 < 0.7 < coverage[law, "parametric_law"]
            assert coverage[law, "isoflop_profiles"] > 0.85


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "coverage.csv"
    options = ["--worlds", "2", "--strategies", "ladder", "--laws", "paper", "--out", str(out)]
    assert main(options) == 0
    assert "ladder" in capsys.readouterr().out
    assert len(pd.read_csv(out)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--worlds", "0"], "0 worlds"),
        (["--strategies", "guess"], "strategy 'guess'"),
        (["--laws", "none"], "law 'none'"),
        (["--out", "no/such/folder.csv"], "no/such/folder.csv"),
    ],
)
def test_bad_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options) == 2
    assert message in capsys.readouterr().err
