"""Chapter 11: numbers of the authors' logs, verdicts that turn, and a reader's own logs."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from html_tables import rows_of

from companion.chapters import ch11
from companion.chapters.ch11 import facts, facts_compared, figures, layers, shown
from companion.chapters.ch11.compared import ratio_readings
from companion.chapters.ch11.shown import Costs
from companion.errors import InputError, NotApplicable
from companion.formatting import percent, significant
from companion.hardware import get_hardware
from companion.runs import load_paper_runs
from companion.training import finished, load_training_logs, utilization_by_size


@pytest.fixture(scope="module")
def costs() -> Costs:
    return ch11.load_costs(None, 16384, 3.05, "h100-sxm", num_resamples=60)


@pytest.fixture(scope="module")
def parts(costs: Costs) -> pd.DataFrame:
    return ch11.decompose(costs)


def own_logs(folder: Path, names: dict[str, str], **changes: object) -> Path:
    """Some of the authors' logs at T = 16384 under other names, with the required columns alone."""
    logs = load_training_logs()
    logs = logs[(logs["context_length"] == 16384) & logs["architecture"].isin(list(names))]
    logs = logs.assign(architecture=logs["architecture"].map(names), **changes)
    needed = ["architecture", "context_length", "num_params", "num_tokens", "train_flops", "train_steps", "num_gpus"]
    path = folder / "logs.csv"
    logs[logs["status"] == "finished"][[*needed, "step_time_s", "val_loss"]].to_csv(path, index=False)
    return path


class TestAuthorsLogs:
    def test_known_values(self, costs: Costs, parts: pd.DataFrame) -> None:
        """Compiled beforehand, from the same logs by other code."""
        assert costs.pair() == ("xlstm", "transformer")
        hours = costs.hours.set_index("architecture")["gpu_hours"]
        assert hours["transformer"] == pytest.approx(38.0, abs=0.06)
        assert hours["xlstm"] == pytest.approx(11.7, abs=0.06)
        factor = parts.set_index("quantity")["factor"]
        assert factor["num_tokens"] == pytest.approx(1.28, abs=0.008)
        assert factor["flops_per_token"] == pytest.approx(2.01, abs=0.008)
        assert factor["time_per_flop"] == pytest.approx(1.26, abs=0.008)
        assert factor["gpu_hours"] == pytest.approx(3.23, abs=0.008)
        classes = utilization_by_size(finished(costs.logs, group=None))
        said = ch11.utilization_facts(costs, classes)
        assert said["c11_rate"] == "18,200 (Transformer) and 38,800 (xLSTM)"

    def test_the_parts_multiply(self, costs: Costs, parts: pd.DataFrame) -> None:
        factor = parts.set_index("quantity")["factor"]
        assert factor["num_tokens"] * factor["flops_per_token"] == pytest.approx(factor["train_flops"])
        assert factor["train_flops"] * factor["time_per_flop"] == pytest.approx(factor["gpu_hours"])
        said = ch11.decomposition_facts(costs, parts)
        assert said["c11_hours"].startswith(f"{significant(factor['gpu_hours'])} [")
        assert (said["c11_first"], said["c11_second"]) == ("the xLSTM", "the Transformer")
        inside = ratio_readings(costs).dropna()
        inside = inside[inside["loss"].between(costs.common_losses()[0], costs.common_losses()[-1])]
        high_first = [float(text) for text in said["c11_hours_ends"].split(" to ")]
        assert high_first == pytest.approx([inside["laws"].iloc[-1], inside["laws"].iloc[0]], abs=0.02)
        assert f"{factor['time_per_flop']:.2f} is time per FLOP" in ch11.answer_facts(costs)["c11_answer"]
        rows = rows_of(ch11.factors_table(costs, parts))
        assert len(rows) == 5

    def test_the_answer(self, costs: Costs) -> None:
        rows = rows_of(ch11.answer_table(costs))
        assert [row["architecture"] for row in rows] == ["xLSTM", "Transformer"]
        assert rows[0]["GPU-hours"].startswith(significant(costs.hours["gpu_hours"].iloc[0]))
        assert "the xLSTM does: at equal loss the Transformer takes" in facts.answer_verdict(costs)
        markup = ch11.fronts_figure(costs).markup
        assert 'id="fig-cost-fronts"' in markup
        assert "at 11.7 (xLSTM) and 38.0 (Transformer) GPU-hours" in markup

    def test_the_hull_misleads_above_the_common_losses(self, costs: Costs, parts: pd.DataFrame) -> None:
        hulls = ch11.hull_factors(costs)
        said = ch11.hull_facts(costs, hulls, parts)
        assert said["c11_hull"] == "2.70"
        # the xLSTM needs less compute than its smallest runs had, so its cost is overstated and the ratio too small
        assert (said["c11_hull_who"], said["c11_hull_effect"]) == ("the xLSTM", "too small")
        high = costs.common_losses()[-1]
        readings = ratio_readings(costs)
        above, inside = readings["loss"] > high, readings["loss"].between(costs.common_losses()[0], high)
        assert readings.loc[above, "hulls"].median() < readings.loc[inside, "hulls"].min()
        assert "fig-cost-ratio" in ch11.ratio_figure(costs).markup
        assert len(rows_of(ch11.hull_table(costs, hulls))) == 3

    def test_a_step_by_hand(self, costs: Costs) -> None:
        said = ch11.example_facts(costs)
        run = pd.concat(costs.runs.values()).sort_values("val_loss").iloc[0]
        rate = run["num_tokens"] / run["train_steps"] / run["step_time_s"] / run["num_gpus"]
        assert said["c11_example_rate"] == f"{float(significant(rate)):,.0f}"
        share = rate * run["train_flops"] / run["num_tokens"] / get_hardware("h100-sxm").peak_flops_per_s
        assert said["c11_example_utilization"] == percent(share)
        assert said["c11_example_hours"] == significant(
            run["step_time_s"] * run["num_gpus"] * run["train_steps"] / 3600
        )

    def test_coverage(self, costs: Costs) -> None:
        runs = load_paper_runs()
        said = ch11.coverage_facts(costs, runs)
        rows = rows_of(ch11.coverage_table(costs, runs))
        assert said["c11_matched"] == str(sum(int(row["with a log"]) for row in rows))
        assert said["c11_runs"] == str(len(runs))
        assert said["c11_without"] == str(sum(int(row["runs"]) for row in rows if row["with a log"] == "0"))
        with_logs = {row["T"] for row in rows if row["with a log"] != "0" and row["architecture"] == "xLSTM"}
        assert said["c11_both"] == f"at T = {with_logs.pop()}"
        assert not with_logs
        logs = ch11.log_facts(costs)
        assert (logs["c11_finished"], logs["c11_timed"], logs["c11_all_hours"]) == ("426", "all 431", "13,800")

    def test_larger_for_hours_than_for_flops(self, costs: Costs) -> None:
        table = ch11.shifts(costs)
        assert (table["ratio"] >= 1).all()
        middle = table[(table["architecture"] == "transformer") & (table["loss"] == 3.05)].iloc[0]
        assert middle["ratio"] == pytest.approx(1.2, abs=0.1)
        assert ch11.shift_facts(costs, table)["c11_saving"].count("%") == 2
        assert " at a loss" not in ch11.shift_facts(costs, table)["c11_shift"]
        # the front of the Transformer does not reach this one: its nearest is said
        low = made(costs, loss=2.9)
        assert " at a loss of 3.008 (Transformer)" in ch11.shift_facts(low, ch11.shifts(low))["c11_shift"]
        assert list(ch11.hours_over_size(low)) == ["xlstm"]
        assert len(rows_of(ch11.shift_table(table))) == 6

    def test_other_counts_move_work_between_factors(self, costs: Costs, parts: pd.DataFrame) -> None:
        table = ch11.decompose_by(costs, ["paper", "6ND"]).set_index("convention")
        factor = parts.set_index("quantity")["factor"]
        assert table.loc["paper"].to_numpy() == pytest.approx(factor[table.columns].to_numpy(), rel=1e-3)
        assert np.ptp(table["gpu_hours"]) < 1e-9
        assert table.loc["6ND", "flops_per_token"] < table.loc["paper", "flops_per_token"]
        assert table.loc["6ND", "time_per_flop"] > table.loc["paper", "time_per_flop"]
        assert len(rows_of(ch11.conventions_table(costs, table.reset_index()))) == 2

    def test_pages_of_utilization(self, costs: Costs) -> None:
        assert ch11.utilization_figure(costs).markup.count("T = ") >= 3
        assert len(rows_of(ch11.utilization_table(costs))) > 10
        classes = utilization_by_size(finished(costs.logs, group=None))
        said = ch11.utilization_facts(costs, classes)
        assert said["c11_size_verdict"] == "Larger models use more of a GPU"
        assert said["c11_over"].startswith("Transformer: 35 %, 29 % and 25 % at T = 2048, 8192 and 16384")
        assert "the xLSTM at T = 8192 (group batch_256, 32 GPUs)" in said["c11_over_note"]

    def test_settings(self, costs: Costs) -> None:
        settings = ch11.settings_of(costs)
        rows = {row["setting"]: row for row in rows_of(ch11.settings_table(settings))}
        assert rows["number of GPUs"]["Transformer"] == "8 (67), 16 (3)"
        assert rows["peak learning rate"]["xLSTM"] == "0.002, 0.003"
        said = ch11.setting_facts(costs, settings)
        assert said["c11_both_counts"].startswith("No model")
        assert "peak learning rate" in said["c11_differ"]
        assert "peak learning rate" not in said["c11_same"]
        assert said["c11_beside"].count("%") == 4

    def test_a_model_on_two_numbers_of_gpus_is_counted(self, costs: Costs) -> None:
        once = costs.runs["xlstm"].head(1)
        again = once.assign(run="again", num_gpus=2 * once["num_gpus"])
        changed = made(costs, logs=pd.concat([costs.logs, again], ignore_index=True))
        assert ch11.setting_facts(changed, ch11.settings_of(changed))["c11_both_counts"].startswith("One model was")

    def test_hours_over_size(self, costs: Costs) -> None:
        tables, shifts = ch11.hours_over_size(costs), ch11.shifts(costs)
        for name, table in tables.items():
            smooth = table[~table["trained"]]
            best = shifts[(shifts["architecture"] == name) & (shifts["loss"] == costs.loss)].iloc[0]
            assert smooth["num_params"].iloc[int(smooth["gpu_hours"].argmin())] == pytest.approx(best["hours_optimal"])
            assert smooth["num_params"].iloc[int(smooth["train_flops"].argmin())] == pytest.approx(
                best["flops_optimal"]
            )
            measured = costs.laws[name].minima([costs.loss])["gpu_hours"][0, 0]
            assert table.loc[table["trained"], "gpu_hours"].min() == pytest.approx(measured)
        assert "fig-cost-sizes" in ch11.sizes_figure(costs, tables, shifts).markup
        assert ch11.scatter_facts(tables)["c11_off_line"].count("%") == 2


def made(costs: Costs, **changes: Any) -> Costs:
    """The same with other values; what is cached is computed again."""
    return replace(costs, **changes)


class TestLayers:
    def test_a_line_is_found_again(self, costs: Costs) -> None:
        runs = {name: part.copy() for name, part in costs.runs.items() if name == "xlstm"}
        part = runs["xlstm"]
        part = part[part["d_model"] == part["d_model"].min()].drop_duplicates("n_layers")
        flops = 1e15 + 1e14 * part["n_layers"]
        part = part.assign(step_time_s=0.1 + 0.02 * part["n_layers"], train_flops=flops * part["train_steps"])
        found = layers._of_width(part, 1e15)
        middle = part["n_layers"].median()
        assert found["rest_share"] == pytest.approx(0.1 / (0.1 + 0.02 * middle))
        assert found["rest_flops_share"] == pytest.approx(1e15 / (1e15 + 1e14 * middle))
        assert found["layer_utilization"] == pytest.approx(1e14 / (0.02 * part["num_gpus"].iloc[0] * 1e15))
        assert found["off"] == pytest.approx(0, abs=1e-12)

    def test_narrow_layers_are_slow(self, costs: Costs) -> None:
        split = ch11.layer_split(costs)
        for _, rows in split.groupby("architecture"):
            assert rows["layer_utilization"].iloc[0] < rows["layer_utilization"].iloc[-1]
        assert len(rows_of(ch11.layers_table(split))) == len(split)
        said = ch11.layer_facts(split)
        assert said["c11_rest"].count("%") == 2
        assert said["c11_layers_verdict"].startswith("the layers themselves are slow")
        assert "fig-cost-width" in ch11.width_figure(costs, split).markup
        level = split.assign(layer_utilization=0.3, rest_share=split["rest_flops_share"] + 0.2)
        assert ch11.layer_facts(level)["c11_layers_verdict"].startswith("narrow layers are not slower")
        assert ch11.layer_facts(level)["c11_rest_verdict"].endswith("so it slows them down")

    def test_wider_heads_are_faster_in_the_transformer(self, costs: Costs) -> None:
        steps = ch11.width_steps(costs)
        heads = steps[(steps["architecture"] == "transformer") & (steps["next_d_qk"] > steps["d_qk"])]
        runs = costs.runs["transformer"].groupby("d_model")["utilization"].median()
        assert heads["ratio"].tolist() == [runs[1152] / runs[1024]]
        said = ch11.head_facts(steps)
        assert said["c11_heads_verdict"] == "the narrow heads of the Transformer are slow as well"
        assert said["c11_head_widths"] == "from 64 to 128"
        assert ch11.head_facts(steps.assign(ratio=1.1))["c11_heads_verdict"] == "the heads make no clear difference"
        assert ch11.head_facts(steps.assign(next_d_qk=steps["d_qk"])) == {}

    def test_intensity(self) -> None:
        """Three matrices of d numbers a row, d × d weights: d / 2 FLOP per byte where rows abound."""
        assert layers.intensity(512, 1e12) == pytest.approx(256)
        assert layers.intensity(512, 512) == pytest.approx(2 * 512**3 / (2 * 3 * 512**2))

    def test_recomputation(self, costs: Costs) -> None:
        table = ch11.recomputed(costs)
        assert ((table["factor"] > 1.2) & (table["factor"] < 4 / 3)).all()
        assert table["hardware_utilization"].to_numpy() == pytest.approx(table["utilization"] * table["factor"])
        assert len(rows_of(ch11.recompute_table(table))) == 4
        assert ch11.recompute_facts(table)["c11_hardware_utilization"].count("%") == 2


class TestPrediction:
    def test_what_is_saved(self, costs: Costs) -> None:
        prediction = ch11.predict(costs)
        assert prediction.saved(0.2, 2.0) == pytest.approx(0.1)
        assert prediction.saved(1.0, 4.0) == pytest.approx(0.75)
        cases = prediction.cases(3.0)
        assert len(cases) == 4
        assert (cases["ratio"] > 3.0).all()
        assert cases["ratio"].to_numpy() == pytest.approx(3.0 / (1 - cases["saved"]))
        said = ch11.prediction_facts(prediction, cases, 3.0)
        assert said["c11_kernel_gpu"] == "H100"
        widths = prediction.factors.set_index(["d_qk", "d_hv", "gradient"])["factor"]
        assert prediction.own_factor == pytest.approx(widths[128, 256, "full"])
        assert said["c11_ratio_then"] == f"{3.0 / (1 - cases['saved'].iloc[0]):.1f}"
        assert len(rows_of(ch11.prediction_table(costs, cases))) == 4
        assert rows_of(ch11.kernels_table(prediction))

    def test_shares_are_shares(self, costs: Costs) -> None:
        shares = ch11.predict(costs).shares
        assert shares[["share_timed", "share_flops"]].gt(0).all(axis=None)
        assert shares[["share_timed", "share_flops"]].lt(0.5).all(axis=None)

    def test_another_context_was_not_timed(self) -> None:
        there = ch11.load_costs(None, 8192, 3.05, "h100-sxm", num_resamples=0)
        with pytest.raises(NotApplicable):
            ch11.predict(there)  # no xLSTM of this group


class TestOwnLogs:
    def test_one_architecture(self, tmp_path: Path) -> None:
        path = own_logs(tmp_path, {"xlstm": "mamba2"})
        costs = ch11.load_costs(path, 16384, 3.05, "h100-sxm", num_resamples=0)
        said = ch11.answer_facts(costs)["c11_answer"]
        assert said.endswith("only mamba2 has finished runs in these logs: it takes 11.7 GPU-hours to a loss of 3.05")
        cannot = (ch11.decompose, ch11.hull_factors, ch11.layer_split, ch11.recomputed, ch11.predict, ch11.settings_of)
        for function in cannot:
            with pytest.raises(NotApplicable):
                function(costs)
        assert len(rows_of(ch11.answer_table(costs))) == 1
        assert "fig-cost-utilization" in ch11.utilization_figure(costs).markup
        assert "c11_narrow" not in ch11.small_facts(costs)
        assert len(ch11.shifts(costs)) == 3
        assert ch11.head_facts(ch11.width_steps(costs)) == {}
        assert list(ch11.hours_over_size(costs)) == ["mamba2"]

    def test_few_runs(self, tmp_path: Path) -> None:
        """Four runs each: no law, no curve, no band; the page then says what single runs show."""
        path = own_logs(tmp_path, {"xlstm": "mamba2", "transformer": "gpt"})
        table = pd.read_csv(path)
        few = table[table["num_params"].between(3.2e8, 3.4e8)].sort_values("num_tokens")
        few.groupby("architecture").tail(3).to_csv(path, index=False)
        costs = ch11.load_costs(path, 16384, None, "h100-sxm", num_resamples=0)
        answer = ch11.answer_facts(costs)["c11_answer"]
        hours = costs.hours.set_index("architecture")["gpu_hours"]
        assert f"mamba2 reaches a loss of {costs.loss:g} in {significant(hours['mamba2'])} GPU-hours" in answer
        assert f"against {significant(hours['gpt'])} for gpt. These are single runs" in answer
        assert "Bands" not in ch11.fronts_figure(costs).markup
        assert "Curves" not in ch11.utilization_figure(costs).markup
        for function in (ch11.decompose, ch11.shifts, ch11.hours_over_size):
            with pytest.raises(NotApplicable):
                function(costs)
        said = ch11.utilization_facts(costs, utilization_by_size(finished(costs.logs)))
        assert said["c11_size_verdict"] == "The models here are all of one class of sizes"
        assert said["c11_over"] == "these logs have one context length for each architecture"
        assert ch11.setting_facts(costs, ch11.settings_of(costs))["c11_beside"].count("%") in (0, 2, 4)

    def test_only_one_reaches_the_loss(self, tmp_path: Path) -> None:
        path = own_logs(tmp_path, {"xlstm": "mamba2", "transformer": "gpt"})
        pd.read_csv(path).groupby("architecture").head(4).to_csv(path, index=False)
        costs = ch11.load_costs(path, 16384, 3.37, "h100-sxm", num_resamples=0)
        reached = costs.hours.dropna(subset="gpu_hours")["architecture"]
        assert f"only {reached.item()} reaches a loss of" in ch11.answer_facts(costs)["c11_answer"]

    def test_no_gpu_count(self, tmp_path: Path) -> None:
        path = own_logs(tmp_path, {"xlstm": "mamba2"}, num_gpus=np.nan)
        with pytest.raises(InputError, match=r"^logs\.csv: no finished run with val_loss, step_time_s and num_gpus"):
            ch11.load_costs(path, 16384, 3.05, "h100-sxm", num_resamples=0)

    def test_some_gpu_counts(self, tmp_path: Path) -> None:
        path = own_logs(tmp_path, {"xlstm": "mamba2"})
        table = pd.read_csv(path)
        table.assign(num_gpus=table["num_gpus"].where(table.index % 9 > 0)).to_csv(path, index=False)
        with warnings.catch_warnings(action="error"):  # a page shows the note, without the folders of a warning
            costs = ch11.load_costs(path, 16384, 3.05, "h100-sxm", num_resamples=0)
        assert "9 runs without a value" in ch11.answer_table(costs).markup
        said = ch11.log_facts(costs)
        assert (said["c11_logs"], said["c11_timed"]) == ("81", "72 of the 81")
        assert len(costs.runs["mamba2"]) == 72

    def test_two_others(self, tmp_path: Path) -> None:
        path = own_logs(tmp_path, {"xlstm": "mamba2", "transformer": "gpt"})
        costs = ch11.load_costs(path, 16384, 3.05, "h100-sxm", num_resamples=30)
        assert (
            "T = 16384 tokens mamba2 does: at equal loss gpt takes 3.24 times" in ch11.answer_facts(costs)["c11_answer"]
        )
        with pytest.raises(NotApplicable):
            ch11.predict(costs)
        said = ch11.decomposition_facts(costs, ch11.decompose(costs))
        assert "mLSTM" not in said["c11_per_token_why"]
        assert said["c11_time_word"] == "lower"

    def test_equals_do_not_differ(self, tmp_path: Path) -> None:
        path = own_logs(tmp_path, {"xlstm": "one"})
        table = pd.read_csv(path)
        noise = np.random.default_rng(0).normal(0, 0.01, len(table))
        twin = table.assign(architecture="two", val_loss=table["val_loss"] + noise - noise.mean())
        pd.concat([table, twin]).to_csv(path, index=False)
        costs = ch11.load_costs(path, 16384, 3.05, "h100-sxm", num_resamples=30)
        assert "do not differ clearly" in ch11.answer_facts(costs)["c11_answer"]

    def test_another_context_and_loss(self, tmp_path: Path) -> None:
        path = own_logs(tmp_path, {"xlstm": "mamba2"}, context_length=4096)
        costs = ch11.load_costs(path, 16384, 2.0, "h100-sxm", num_resamples=0)
        assert costs.context_length == 4096
        assert costs.notes[-2:] == (
            "no run has T = 16384: the chapter shows T = 4096",
            f"no front reaches a loss of 2: the chapter shows {costs.loss:g}",
        )
        assert "the chapter shows T" in ch11.answer_table(costs).markup

    def test_the_authors_logs_lack_a_context(self) -> None:
        with pytest.raises(InputError, match="4096"):
            ch11.load_costs(None, 4096, 3.05, "h100-sxm", num_resamples=0)

    def test_no_front(self) -> None:
        with pytest.raises(InputError):
            shown.usable_loss({}, 3.0)


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ([1.5, 1.2], "Larger models use more of a GPU"),
        ([0.5, 0.8], "Larger models use less of a GPU"),
        ([1.5, 0.9], "Larger models do not use more of a GPU in every architecture here"),
        ([], "The models here are all of one class of sizes"),
    ],
)
def test_size_verdict(steps: list[float], verdict: str) -> None:
    assert facts.size_verdict(steps) == verdict


def test_one_number_of_gpus() -> None:
    assert facts_compared.beside_words({}) == "Every architecture ran on one number of GPUs"


def test_hulls_that_agree_are_no_pitfall(costs: Costs, parts: pd.DataFrame) -> None:
    hulls = ch11.hull_factors(costs)
    ch11.need_misleading_hulls(costs, hulls, parts)
    whole = parts.set_index("quantity").loc["gpu_hours", "factor"]
    with pytest.raises(NotApplicable, match="agree within 5 %"):
        ch11.need_misleading_hulls(costs, hulls.assign(factor=whole * 1.04), parts)
    with pytest.raises(NotApplicable, match="made for all losses"):
        ch11.need_misleading_hulls(costs, hulls.assign(highest_loss=costs.common_losses()[-1]), parts)


def test_solutions(costs: Costs) -> None:
    rows = rows_of(ch11.values_table({"tokens per second and GPU": 65536.0, "utilization (%)": 19.87}, "By hand."))
    assert [row["value"].strip() for row in rows] == ["65,536", "19.9"]
    found = {16384: costs.hours}
    assert len(rows_of(ch11.contexts_table(found, costs.loss))) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("changes", [{"val_loss": 3.0}, {}])
def test_fronts_of_one_run_are_drawn(changes: dict[str, object], tmp_path: Path) -> None:
    path = own_logs(tmp_path, {"xlstm": "gpt"}, **changes)
    if not changes:
        pd.read_csv(path).head(1).to_csv(path, index=False)
    costs = ch11.load_costs(path, 16384, 3.05, "h100-sxm", num_resamples=2)
    (ax,) = figures.fronts(costs, pd.DataFrame()).axes
    low, high = ax.get_ylim()
    assert all(low < float(front.loss[0]) < high for front in costs.fronts.values())
