"""The project's own tables against facts that are known from elsewhere, and against their README."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from companion.paths import data_dir
from companion.runs.load import COLUMNS, load_paper_runs, summary
from companion.runs.select import subset

SECTION_ROWS = {
    "isoflop_power_laws": 12,
    "isoflop_optima": 19,
    "parametric_fits": 14,
    "overtraining_slopes": 20,
    "inference_fits": 11,
    "inference_model_sizes": 12,
}


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return load_paper_runs()


@pytest.fixture(scope="module")
def inference() -> pd.DataFrame:
    return pd.read_csv(data_dir() / "inference.csv")


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return yaml.safe_load((data_dir() / "published.yaml").read_text(encoding="utf-8"))


def described(heading: str) -> list[str]:
    """Names in the first column of the first table below a heading of data/README.md."""
    text = (data_dir() / "README.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    body = next(part for part in section if part.startswith(f"{heading}\n"))
    table = re.search(r"(?:^\|.*\n)+", body, flags=re.MULTILINE)
    assert table is not None
    rows = [line.strip().strip("|").split("|") for line in table[0].splitlines()[2:]]
    assert all(cell.strip() for row in rows for cell in (row[0], row[-1])), "a row without a name or a meaning"
    return [row[0].strip().strip("`") for row in rows]


class TestRuns:
    def test_columns_are_those_of_the_schema_in_its_order(self, runs: pd.DataFrame) -> None:
        assert list(runs.columns) == [name for name in COLUMNS if name in runs.columns]

    def test_every_other_column_of_the_schema_is_described(self, runs: pd.DataFrame) -> None:
        others = [name for name in COLUMNS if name not in runs.columns]
        assert described("Columns of other run tables") == others

    def test_counts(self, runs: pd.DataFrame, published: dict[str, Any]) -> None:
        assert len(runs) == 640
        assert runs["architecture"].value_counts().to_dict() == {"xlstm": 348, "transformer": 292}
        for name, counts in published["run_table_statistics"]["by_set"].items():
            experiment, context = name.split("_ctx")
            for architecture, count in counts.items():
                assert len(subset(runs, architecture, int(context), experiment)) == count

    def test_sum_of_train_flops(self, runs: pd.DataFrame, published: dict[str, Any]) -> None:
        printed = published["run_table_statistics"]["sum_train_flops"]
        assert printed == pytest.approx(3.1347372475e23, rel=1e-10)
        rounding = 0.5 * (10.0 ** (np.floor(np.log10(runs["train_flops"])) - 5)).sum()  # 6 digits are stored
        assert abs(runs["train_flops"].sum() - printed) <= rounding
        assert rounding < 3e-6 * printed

    @pytest.mark.parametrize(("name", "rel"), [("num_params", 5e-7), ("num_tokens", 5e-7), ("train_flops", 1.5e-6)])
    def test_quantiles(self, runs: pd.DataFrame, published: dict[str, Any], name: str, rel: float) -> None:
        printed = published["run_table_statistics"][f"{name}_quantiles"]
        ours = [runs[name].quantile(q) for q in (0, 0.25, 0.5, 0.75, 1)]
        assert ours == pytest.approx([printed[key] for key in ("min", "25", "50", "75", "max")], rel=rel)

    def test_multiplicity_explains_672(self, runs: pd.DataFrame) -> None:
        counted = runs["multiplicity_in_published_fits"]
        twice = runs[counted == 2]
        assert counted.isin([1, 2]).all()
        assert counted.sum() == 672 == summary(runs)["num_runs_in_published_fits"]
        assert twice.groupby("isoflop_budget").size().to_dict() == {3e19: 10, 1e20: 17, 6e20: 5}
        assert set(twice["architecture"]) == {"xlstm"}
        assert set(twice["context_length"]) == {8192}

    def test_tokens_are_batch_times_context_times_steps(self, runs: pd.DataFrame) -> None:
        assert (runs["num_tokens"] == runs["batch_size_seqs"] * runs["context_length"] * runs["train_steps"]).all()

    def test_budgets(self, runs: pd.DataFrame) -> None:
        isoflop = runs[runs["experiment"] == "isoflop"]
        assert runs["isoflop_budget"].isna().equals(runs["experiment"] == "tokenparam")
        assert (isoflop["train_flops"] / isoflop["isoflop_budget"] - 1).abs().max() < 0.08
        assert set(runs.loc[runs["isoflop_budget"] == 6e20, "architecture"]) == {"xlstm"}

    def test_shapes(self, runs: pd.DataFrame) -> None:
        assert (runs["d_model"] == runs["n_heads"] * runs["d_hv"]).all()
        ratio = runs["d_hv"] / runs["d_qk"]
        assert (ratio == np.where(runs["architecture"] == "xlstm", 2, 1)).all()

    def test_how_losses_were_obtained(self, runs: pd.DataFrame) -> None:
        keys = ["source", "loss_uncertainty", "imposed_published_fit"]
        assert runs.groupby(keys).size().to_dict() == {
            ("pickle", 5e-6, 0): 342,
            ("notebook", 5e-6, 0): 146,
            ("figure", 5e-6, 0): 30,
            ("figure", 2e-5, 1): 40,
            ("figure", 4e-4, 1): 82,
        }
        coarse = runs[runs["loss_uncertainty"] == 4e-4]
        assert set(coarse["context_length"]) == {2048}
        assert set(coarse["architecture"]) == {"xlstm"}
        assert runs["train_loss"].isna().sum() == 177

    def test_no_result_is_lost_in_rounding(self) -> None:
        """Losses keep their five decimals, whole numbers are written as such."""
        text = pd.read_csv(data_dir() / "runs.csv", dtype=str)
        assert text["val_loss"].str.fullmatch(r"\d\.\d{1,5}").all()
        for name, spec in ((name, COLUMNS[name]) for name in text.columns):
            if spec.kind == "integer":
                assert text[name].str.fullmatch(r"\d+").all(), name


class TestInference:
    def test_counts_as_published(self, inference: pd.DataFrame, published: dict[str, Any]) -> None:
        assert len(inference) == 1560
        for architecture, counts in published["inference_measurement_counts"].items():
            if architecture == "source":
                continue
            rows = inference[inference["architecture"] == architecture]
            valid = {"ttft_valid": rows["ttft_s"].count(), "step_time_valid": rows["step_time_s"].count()}
            assert {"rows": len(rows), **valid} == counts
        assert (inference["ttft_s"].count(), inference["step_time_s"].count()) == (909, 890)

    def test_every_combination_once(self, inference: pd.DataFrame) -> None:
        keys = ["architecture", "model_size", "batch_size", "prefill_length"]
        assert not inference.duplicated(keys).any()
        assert np.prod([inference[key].nunique() for key in keys]) == len(inference)

    def test_models_are_the_published_ones(self, inference: pd.DataFrame, published: dict[str, Any]) -> None:
        names = list(published["inference_model_sizes"][0])
        ours = {tuple(row) for row in inference[names].itertuples(index=False)}
        assert ours == {tuple(row[name] for name in names) for row in published["inference_model_sizes"]}

    def test_measurements_are_positive(self, inference: pd.DataFrame) -> None:
        for name in ("ttft_s", "step_time_s", "memory_allocated_bytes_gen1", "memory_allocated_bytes_gen101"):
            assert (inference[name].dropna() > 0).all(), name

    def test_throughput_is_what_the_readme_says(self, inference: pd.DataFrame) -> None:
        rows = inference.dropna(subset=["step_time_s"])
        stated = rows["batch_size"] ** 2 / rows["step_time_s"]
        assert rows["throughput_tokens_per_s"].to_numpy() == pytest.approx(stated.to_numpy(), rel=1e-5)

    def test_weights_were_held_in_two_bytes(self, inference: pd.DataFrame) -> None:
        least = inference.groupby(["architecture", "num_params"])["memory_allocated_bytes_gen1"].min().reset_index()
        above = (least["memory_allocated_bytes_gen1"] - 2 * least["num_params"]) / 1e9
        assert (round(above.min(), 2), round(above.max(), 2)) == (0.32, 0.38)
        assert "+ 0.32 to 0.38 GB" in (data_dir() / "README.md").read_text(encoding="utf-8")

    def test_largest_memory_that_was_timed(self, inference: pd.DataFrame) -> None:
        rows = inference[inference["architecture"] == "transformer"]
        tokens = rows["prefill_length"] + rows["generation_length"]
        cache = 2 * 2 * rows["n_layers"] * rows["d_model"] * rows["batch_size"] * tokens
        needed = (2 * rows["num_params"] + cache)[rows["step_time_s"].notna()]
        assert round(needed.max() / 1e9) == 68
        assert "more than 68 GB of weights and cache" in (data_dir() / "README.md").read_text(encoding="utf-8")


class TestPublished:
    def test_sections(self, published: dict[str, Any]) -> None:
        assert {name: len(published[name]) for name in SECTION_ROWS} == SECTION_ROWS
        assert len(published["compute_optimal_table_8192"]["rows"]) == 11
        assert len(published["notes"]) == 4
        assert "isoflop_optima_vs_context" not in published

    def test_power_law_and_optima_rows_hold_numbers(self, published: dict[str, Any]) -> None:
        for row in published["isoflop_power_laws"]:
            assert all(
                isinstance(row[key], float) for key in ("exponent", "prefactor", "exponent_std", "prefactor_std")
            )
        for row in published["isoflop_optima"]:
            vertex = 10 ** (-row["parabola_b"] / (2 * row["parabola_a"]))
            assert vertex == pytest.approx(row["x_opt"], rel=2e-6)

    def test_parametric_fits_are_consistent_with_their_logarithms(self, published: dict[str, Any]) -> None:
        for row in published["parametric_fits"]:
            rel = (
                0.011 if row["printed_digits"].startswith("2 decimals") else 2e-5
            )  # a, b, e in the table carry 2 decimals
            for small, large in (("a", "A"), ("b", "B"), ("e", "E")):
                assert np.exp(row[small]) == pytest.approx(row[large], rel=rel)

    def test_compute_optimal_values_are_what_is_printed(self, published: dict[str, Any]) -> None:
        table = published["compute_optimal_table_8192"]
        unit = {"M": 1e6, "B": 1e9, "T": 1e12}
        for row in table["rows"]:
            assert list(row) == [*table["columns"], "printed"]
            for name in table["columns"]:
                text = row["printed"][name]
                value = float(text[:-1]) * unit[text[-1]] if text[-1] in unit else float(text)
                assert isinstance(row[name], (int, float))
                assert row[name] == pytest.approx(value, rel=1e-12)
        for name in table["columns"]:
            assert np.all(np.diff([row[name] for row in table["rows"]]) > 0), name

    def test_every_row_has_a_source(self, published: dict[str, Any]) -> None:
        for name in SECTION_ROWS.keys() - {"inference_model_sizes"}:
            assert all(row["source"] and row["printed_digits"] for row in published[name]), name


class TestReadme:
    @pytest.mark.parametrize(
        "name",
        [
            "runs.csv",
            "inference.csv",
            "inference_fit_rows.csv",
            "hardware.csv",
            "study_runs.csv",
            "design_replay.csv",
            "design_simulated.csv",
        ],
    )
    def test_every_column_is_described_in_order(self, name: str) -> None:
        assert described(name) == list(pd.read_csv(data_dir() / name, nrows=0).columns)

    def test_every_section_is_described(self, published: dict[str, Any]) -> None:
        assert sorted(described("published.yaml")) == sorted(published)

    def test_every_file_is_listed(self) -> None:
        files = {path.name for path in data_dir().iterdir()} - {"README.md"}
        assert files == set(described("# Tables"))

    @pytest.mark.parametrize("study", ["study", "study_v1024"])
    @pytest.mark.parametrize("table", ["runs.csv", "runs_logs.csv", "runs_curves.csv.gz"])
    def test_the_rows_of_our_own_studies_are_counted(self, study: str, table: str) -> None:
        name = f"{study}_{table}"
        text = (data_dir() / "README.md").read_text(encoding="utf-8")
        assert re.search(
            rf"^\| `{re.escape(name)}` \| .* \| {len(pd.read_csv(data_dir() / name)):,} \|$", text, re.MULTILINE
        )

    def test_row_counts_in_the_table_of_how_losses_were_obtained(self, runs: pd.DataFrame) -> None:
        text = (data_dir() / "README.md").read_text(encoding="utf-8")
        counts = [int(row) for row in re.findall(r"^\| (\d+) \| (?:pickle|notebook|figure)", text, re.MULTILINE)]
        stated = runs.groupby(["source", "loss_uncertainty", "imposed_published_fit"]).size()
        assert sorted(counts) == sorted(stated)

    def test_the_repeated_configuration(self, runs: pd.DataFrame) -> None:
        assert summary(runs)["num_repeated_configurations"] == 1
        pair = runs[runs.duplicated(["architecture", "context_length", "num_params", "num_tokens"], keep=False)]
        assert set(pair["num_params"]) == {162220800}
        assert np.ptp(pair["val_loss"]) == pytest.approx(1.65e-3, abs=1e-5)
        assert "differs by 1.7e-3" in Path(data_dir() / "README.md").read_text(encoding="utf-8")
