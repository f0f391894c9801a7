"""The laboratory of the page: runs with sensible settings, commands, changed ledgers, the world opened, the score."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from html_tables import rows_of, text_of

from companion import cli
from companion.chapters.ch16 import opened, playing, scores, trial
from companion.chapters.ch16.records import Records
from companion.errors import InputError
from companion.study.laboratory import (
    Answer,
    Ask,
    Laboratory,
    Outcome,
    Prediction,
    Rules,
    interval_score,
    new_laboratory,
    open_laboratory,
    practice_laboratory,
)
from companion.study.laboratory.strategies import STRATEGIES

RULES = Rules()


def answer(ask: Ask, loss: float | None) -> Answer:
    return Answer(ask=ask, outcome=Outcome(val_loss=loss, train_flops=ask.train_flops, gpu_hours=1.0))


def valley(name: str, best: float, floor: float, rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)) -> list[Answer]:
    """A sweep whose loss is a parabola in the log of the stated rate."""
    asks = [playing.sensible_ask(RULES, name, 2e7, 4e8, rate) for rate in rates]
    return [answer(ask, floor + math.log(rate / best) ** 2) for ask, rate in zip(asks, rates, strict=True)]


@pytest.fixture(scope="module")
def played() -> tuple[Laboratory, list[Answer]]:
    """A laboratory with a sweep and a grid, and the answers to the grid."""
    lab = practice_laboratory("a key of the tests")
    name, rate = playing.best_setting(lab.ask(trial.sweep_asks(lab.rules)))
    return lab, lab.ask(trial.grid_asks(lab.rules, name, rate))


class TestSettings:
    def test_a_sensible_run(self) -> None:
        small = playing.sensible_ask(RULES, "xlstm", 1e8, 1e9, 1e-3)
        assert (small.batch_size_seqs, small.learning_rate) == (8, pytest.approx(1e-3))
        large = playing.sensible_ask(RULES, "xlstm", 16e8, 1e11, 1e-3, seed=3)
        assert large.batch_size_seqs == 256, "128 would need more than 200,000 steps"
        assert large.train_steps(RULES.context_length) <= RULES.limits["train_steps"][1]
        assert large.learning_rate == pytest.approx(1e-3 / 2 * math.sqrt(256 / 8))
        assert large.seed == 3
        for ask in (small, large):
            assert ask.checked(RULES) == ask, "already as it would be run"
            assert playing.stated_rate(ask) == pytest.approx(1e-3)

    def test_a_run_for_the_target_does_not_cost_more(self) -> None:
        for size in np.geomspace(1e8, 1e9, 30):
            ask = playing.sensible_ask(RULES, "xlstm", size, 1e20 / 6 / size, 1e-3)
            assert 0.99e20 < ask.train_flops <= 1e20 * (1 + 1e-6)

    def test_the_best_setting(self) -> None:
        name, rate = playing.best_setting([*valley("transformer", 2e-4, 4.0), *valley("xlstm", 5e-4, 3.5)])
        assert (name, rate) == ("xlstm", pytest.approx(5e-4))
        outside = valley("xlstm", 1e-2, 3.5)
        assert playing.best_setting(outside)[1] == pytest.approx(1e-3), "no rate beyond those tried"
        lost = [*valley("xlstm", 5e-4, 3.5)[:2], answer(outside[2].ask, None)]
        assert playing.best_setting(lost)[1] == pytest.approx(3e-4), "two runs have no valley"

    def test_the_figure_marks_what_diverged(self) -> None:
        runs = valley("xlstm", 5e-4, 3.5)
        lost = [*runs[:2], answer(runs[2].ask, None)]
        assert opened.sweep_facts(lost, "xlstm", 3e-4)["c16_sweep_diverged"] == "1 run"
        assert opened.sweep_facts(runs, "xlstm", 3e-4)["c16_sweep_diverged"] == "no run"
        assert "diverged" in text_of(opened.sweep_figure(lost))


class TestCommands:
    def test_hashes_are_masked_and_lines_folded(self, capsys: pytest.CaptureFixture[str]) -> None:
        with playing.printed():
            print("commitment: " + "ab" * 32)
            print("companion: " + "an error of many words " * 5, file=sys.stderr)
            print("name      number      " + "wide " * 20)
        out = capsys.readouterr().out.splitlines()
        assert out[0] == "commitment: (64 hex digits)"
        assert max(map(len, out[:3])) <= playing.WIDTH
        assert out[2].startswith("  "), "an error is on the page, too"
        assert len(out[3]) > playing.WIDTH, "a row of a table is not folded"

    def test_the_printed_command_commits_the_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        lab = new_laboratory(Path("lab"), RULES, "a key of the tests")
        ask = playing.sensible_ask(RULES, "xlstm", 5e8, 1e20 / 6 / 5e8, 1e-3)
        command = playing.predict_command("lab", ask, 2.6, 2.5, 2.7)
        assert cli.main(command.split()[1:]) == 0
        made = lab.prediction()
        assert (made.loss, made.low, made.high) == (2.6, 2.5, 2.7)
        assert made.ask.learning_rate == pytest.approx(ask.learning_rate, rel=5e-3), "three digits"
        assert made.ask.num_tokens == ask.num_tokens
        assert made.ask.warmup_steps == ask.warmup_steps

    def test_edits_show_and_a_forgery_only_in_grading(self, tmp_path: Path) -> None:
        lab = new_laboratory(tmp_path / "lab", RULES, "a key of the tests")
        before = lab.ask([playing.sensible_ask(RULES, "xlstm", 1e7, 1e8, 1e-3)])[0].outcome.val_loss
        ask = playing.sensible_ask(RULES, "xlstm", 5e8, 1e20 / 6 / 5e8, 1e-3)
        lab.predict(Prediction(ask=ask, loss=2.6, low=2.5, high=2.7))
        whole = {path.name: path.read_bytes() for path in lab_files(tmp_path)}

        playing.edit_loss(tmp_path / "lab", line=2, factor=0.9)
        with pytest.raises(InputError, match="line 2 was changed after it was written"):
            lab.state()
        restore(tmp_path, whole)
        playing.edit_prediction(tmp_path / "lab", high=5.0)
        with pytest.raises(InputError, match="not the prediction that was committed"):
            lab.prediction()
        restore(tmp_path, whole)
        playing.rewrite_ledger(tmp_path / "lab", 0.9)
        again = open_laboratory(tmp_path / "lab")
        found = again.state().answers[0]
        assert before is not None
        assert found.outcome.val_loss == pytest.approx(0.9 * before), "the hashes do not show it"
        assert again.state().commitment == lab.state().commitment
        assert again.backend is not None
        assert again.backend.run(found.ask).val_loss == before, "running the ask again does"


def lab_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "lab").iterdir() if path.suffix in (".jsonl", ".head", ".json")]


def restore(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / "lab" / name).write_bytes(data)


class TestOpened:
    def test_without_settings_a_law_is_found_exactly(self, played: tuple[Laboratory, list[Answer]]) -> None:
        lab, answers = played
        world = lab.backend.world  # type: ignore[union-attr]
        exact = [answer(each.ask, world.expected_loss(each.ask)) for each in answers]
        name = answers[0].ask.architecture
        target = playing.sensible_ask(lab.rules, name, 5e8, 1e20 / 6 / 5e8, playing.stated_rate(answers[0].ask))
        assert opened.without_settings(world, exact, target) == pytest.approx(0, abs=1e-4)
        shifted = [answer(each.ask, 1.01 * world.expected_loss(each.ask)) for each in answers]
        assert opened.without_settings(world, shifted, target) == pytest.approx(math.log(1.01), abs=1e-3)
        costs = [opened.settings_cost(world, each.ask) for each in answers]
        assert min(costs) > 0
        assert costs[0] > 2 * costs[-1], "as the page says: small runs lose most"

    def test_facts_and_figure(self, played: tuple[Laboratory, list[Answer]]) -> None:
        lab, answers = played
        ask = playing.sensible_ask(lab.rules, answers[0].ask.architecture, 5e8, 1e20 / 6 / 5e8, 5e-4)
        prediction = Prediction(ask=ask, loss=2.6, low=2.5, high=2.7)
        law = trial.fit_law(trial.table_of(lab, [each.ask for each in answers]))
        world = lab.backend.world  # type: ignore[union-attr]
        facts = opened.opened_facts(world, answers, prediction, law)
        costs = [opened.settings_cost(world, each.ask) for each in sorted(answers, key=lambda a: a.ask.train_flops)]
        assert float(facts["c16_opened_small"].split()[0]) == pytest.approx(100 * np.mean(costs[:5]), rel=0.05)
        assert opened.opened_figure(world, answers, prediction, law).markup.count("<svg") == 2

    def test_verdicts(self) -> None:
        assert opened.opened_verdict(0.02, 0.005).startswith("So the fit took")
        assert opened.opened_verdict(0.02, -0.015).startswith("So here the cost of settings is not")

    def test_the_score_in_words(self, played: tuple[Laboratory, list[Answer]]) -> None:
        lab = practice_laboratory("another key")
        made = STRATEGIES["ladder"](lab)
        lab.reveal()
        facts = opened.score_facts(made, lab.score(), lab.rules.level)
        assert facts["c16_score_verdict"] == "does not hold the outcome"
        assert facts["c16_score_side"] == "too low", "a line without a floor"
        assert facts["c16_score_level"] == "90 %"


class TestScores:
    def test_scaled_scores_are_those_of_the_rubric(self) -> None:
        error, width, factors = [0.01, -0.04, 0.0], [0.03, 0.02, 0.05], [0.5, 1.0, 2.0]
        found = scores.scaled_scores(error, width, factors, level=0.8)
        for factor, score in zip(factors, found, strict=True):
            each = [
                interval_score(e - factor * w / 2, e + factor * w / 2, 0.0, 0.8)
                for e, w in zip(error, width, strict=True)
            ]
            assert score == pytest.approx(np.mean(each))

    def test_the_honest_width_scores_best(self) -> None:
        error = np.random.default_rng(0).normal(0, 0.01, 20_000)
        table = laboratories(error, 2 * 0.01)  # honest would be 2 · 1.645 · 0.01
        row = scores.summary(table).iloc[0]
        assert row["enough"] == pytest.approx(1.645, rel=0.03)
        assert row["best"] == pytest.approx(1.645, rel=0.06), "a proper score wants the true quantiles"
        assert row["centered"] == pytest.approx(0.683, abs=0.02)
        biased = scores.summary(laboratories(error + 0.02, 2 * 0.01)).iloc[0]
        assert biased["centered"] == pytest.approx(0.683, abs=0.02)
        assert biased["enough"] == pytest.approx(3.28, rel=0.05)

    def test_facts_are_those_of_the_table(self, records: Records) -> None:
        facts = scores.coverage_facts(records.laboratories)
        usual = records.laboratories[records.laboratories["law"] == "chinchilla"]
        held = usual.groupby("strategy")["covered"].mean()
        for name, tail in (("isoflop_profiles", "isoflop"), ("parametric_law", "parametric"), ("ladder", "ladder")):
            assert float(facts[f"c16_held_{tail}"].split()[0]) == pytest.approx(100 * held[name])
        assert facts["c16_labs"] == f"{len(records.laboratories):,}"
        table = rows_of(scores.coverage_table(records.laboratories))
        assert len(table) == 6
        assert table[1]["median error"] == facts["c16_median_parametric"]
        assert "filled" in text_of(scores.coverage_figure(records.laboratories))

    def test_what_the_page_says_of_the_strategies(self, records: Records) -> None:
        """The words of three bold sentences, which hold no value."""
        found = scores.summary(records.laboratories)
        usual = found[found["law"] == "chinchilla"].set_index("strategy").to_dict("index")
        wide, law, line = (usual[name] for name in ("isoflop_profiles", "parametric_law", "ladder"))
        assert wide["median_log_width"] / 2 > 1.5 * wide["rms_error"], "wider than the errors"
        assert law["coverage"] < scores.LEVEL < law["centered"], "a bias that the interval does not know"
        assert abs(line["median_log_error"]) > 2 * line["median_log_width"] / 2, "a bias larger than the interval"

    def test_verdicts_flip(self, records: Records) -> None:
        found = scores.summary(records.laboratories)
        assert scores.best_verdict(found).startswith("The parametric law earns most; the intervals that hold")
        assert "hold most often" in scores.best_verdict(found.assign(total=found["coverage"]))
        assert scores.best_verdict(found.assign(total=found["coverage"])).endswith("its intervals hold most often")
        assert "no more than chance" in scores.misfit_verdict(found)
        worse = found.assign(coverage=found["coverage"].where(found["law"] == "chinchilla", 0.1))
        assert scores.misfit_verdict(worse) == "lowers coverage by more than chance would"
        assert scores.settings_verdict(0.01, 0.009).startswith("enough")
        assert scores.settings_verdict(0.002, 0.009).startswith("too little")
        assert scores.settings_verdict(0.002, -0.009).startswith("too little")

    def test_settings_in_worlds(self, records: Records) -> None:
        found = scores.settings_in_worlds(2)
        assert (found["small"] > found["large"]).all()
        assert len(rows_of(scores.settings_table(found))) == 5
        facts = scores.settings_facts(found, records.laboratories)
        shift = (found["error"] - found["cleaned"]).mean()
        assert facts["c16_settings_shift"] == f"+{100 * shift:.1f} %"
        assert (found["error"] - found["cleaned"] > 0).all(), "settings make predictions too high"
        again = scores.settings_in_worlds(1)
        pd.testing.assert_frame_equal(again, found.iloc[:1])


def laboratories(error: np.ndarray, width: float) -> pd.DataFrame:
    """Made-up laboratories of one strategy with symmetric intervals."""
    number = len(error)
    numbers = dict.fromkeys(("total", "interval_points", "accuracy_points", "choice_points", "regret_nats"), 0.0)
    return pd.DataFrame(
        {
            "strategy": "ladder", "law": "chinchilla", "world": range(number), "log_error": error, "log_width": width,
            "covered": np.abs(error) <= width / 2, "fault": "", **numbers,
        }
    )  # fmt: skip


class TestTrial:
    def test_every_design_plays_within_the_budget(self) -> None:
        halves = {}
        for design in trial.DESIGNS:
            lab = practice_laboratory("a key of the tests")
            halves[design] = trial.play(lab, design)["half_width"]
            state = lab.state()
            assert 0.6 < state.spent / lab.rules.budget <= 1
            assert len(state.answers) <= 8 + 16 + trial.MORE_RUNS
        assert min(halves, key=lambda name: halves[name]) == "V-optimal"

    def test_an_unknown_design(self, played: tuple[Laboratory, list[Answer]]) -> None:
        lab, answers = played
        table = trial.table_of(lab, [each.ask for each in answers])
        law = trial.fit_law(table)
        with pytest.raises(InputError, match="design 'best' is not one of V-optimal"):
            trial.further_runs("best", law, table, trial.target_of(law, 1e20), 1e18)

    def test_worlds_without_a_prediction_say_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> dict[str, float]:
            raise InputError("all runs diverged")

        monkeypatch.setattr(trial, "play", refuse)
        found = trial.designs_in_worlds(2, ("V-optimal",))
        assert found["fault"].tolist() == ["all runs diverged"] * 2
        assert (found["total"] == 0).all()

    def test_table_and_verdict(self) -> None:
        rows = [
            {"world": world, "design": design, "half_width": half, "log_error": 0.01, "covered": held, "total": total}
            for world in range(2)
            for design, half, held, total in (("V-optimal", 0.01, 0.5, 40.0), ("IsoFLOP grid", 0.02, 1.0, 70.0))
        ]
        found = pd.DataFrame(rows)
        assert rows_of(trial.designs_table(found))[0]["held"] == "50 %"
        assert trial.designs_verdict(found).endswith("50 % of them hold the outcome; IsoFLOP grid scores highest")
        assert "and the highest score" in trial.designs_verdict(found.assign(total=-found["half_width"]))


def test_what_is_kept_is_json(tmp_path: Path) -> None:
    """An edited prediction still reads as JSON: what refuses it is the hash."""
    new_laboratory(tmp_path / "lab", RULES, "key")
    (tmp_path / "lab" / "prediction.json").write_text(json.dumps({"prediction": {"low": 2.0}, "nonce": "0"}))
    playing.edit_prediction(tmp_path / "lab", low=1.0)
    assert json.loads((tmp_path / "lab" / "prediction.json").read_text())["prediction"] == {"low": 1.0}
