"""Chapter 1: values in its sentences computed another way, and tables of runs that lack what a count needs."""

import re

import numpy as np
import pandas as pd
import pytest
from foreign import table

from companion.accounting import PAPER, count_flops, get_convention, num_params
from companion.architectures import ARCHITECTURES, preset
from companion.chapters import ch01
from companion.chapters.ch01.comparison import show_convention_fields, side_by_side
from companion.chapters.ch01.facts import widest_spread
from companion.chapters.ch01.tables import _quantity, smallest_model, timed_models
from companion.chapters.ch01.words import component_word
from companion.chapters.labels import the
from companion.errors import InputError
from companion.fitting.equal_loss import compute_factors
from companion.formatting import number_word, power_of_ten, significant
from companion.ledger import build_ledger, load_published, to_frame
from companion.runs.conventions import check_counts, convention_ratios
from companion.runs.load import SHAPE_COLUMNS, load_paper_runs, load_runs

MODELS = {name: preset(name, "160m") for name in ("transformer", "xlstm")}


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return load_paper_runs()


@pytest.fixture(scope="module")
def plain() -> pd.DataFrame:
    """Five columns, two architectures that nobody can count."""
    return load_runs(table("two_other_architectures"))


class TestFacts:
    def test_opening(self, runs: pd.DataFrame) -> None:
        facts = ch01.opening_facts(runs, MODELS, "160m", 1024, PAPER)
        # by hand, per token and layer: q, k, v, out and three matrices of the feed-forward network; half of T × T
        d, layers, heads, head, inner, vocab, T = 768, 12, 12, 64, 2048, 50304, 1024
        matrices = layers * (4 * d * heads * head + 3 * d * inner) + d * vocab
        rest = layers * (heads * T / 2 * (4 * head + 5) + 2 * inner)
        assert MODELS["transformer"].d_ff == inner
        assert facts["c1_token_transformer"] == power_of_ten(3 * (2 * matrices + rest), 3)
        assert facts["c1_six_transformer"] == facts["c1_six_small_transformer"]
        assert facts["c1_core_transformer"] == f"{100 * layers * heads * T / 2 * 261 / (2 * matrices + rest):.2g} %"
        ratio = runs["train_flops"] / runs["num_params"] / runs["num_tokens"] / 6
        lowest = significant(ratio[runs["architecture"] == "xlstm"].min(), 2)
        assert f" and {lowest} to " in facts["c1_six_ranges"]
        assert facts["c1_six_ranges"].endswith("(xLSTM)")

    def test_names_of_other_architectures(self, plain: pd.DataFrame) -> None:
        facts = ch01.opening_facts(plain, MODELS, "160m", 1024, PAPER)
        assert re.fullmatch(r"\S+ to \S+ \(gpt\) and \S+ to \S+ \(mamba2\)", facts["c1_six_ranges"])

    def test_counted_runs(self, runs: pd.DataFrame, plain: pd.DataFrame) -> None:
        wrong = runs.copy()
        wrong.loc[wrong.index[:2], "train_flops"] *= 1.01
        facts = ch01.check_facts(check_counts(wrong))
        assert (facts["c1_same_params"], facts["c1_same_flops"]) == ("all 640", "638 of the 640")
        assert ch01.check_facts(check_counts(plain))["c1_same_flops"] == "0 of 0"

    def test_chunk(self) -> None:
        """The products of `paper`: two of L·d_qk·d_hv (written as one term), scores, and scores times values."""
        facts = ch01.chunk_facts(ch01.chunk_table(preset("xlstm", "7b"), "paper"))
        L, qk, hv = 64, 256, 512
        large = 4 * L * qk * hv + 2 * L**2 * (qk + hv)
        share = large / sum(PAPER.mlstm_chunk(L, qk, hv, 1.0).values())
        assert facts == {
            "c1_num_large": "three",
            "c1_large_share": f"{100 * share:.1f} %",
            "c1_small_share": f"{100 - 100 * share:.1f} %",
        }

    def test_crossings_and_shares(self, runs: pd.DataFrame) -> None:
        rows = [{"size": size, "equal_cores": 1.4, "equal_cost": 2.6, "half": 3.0} for size in ("160m", "7b")]
        shares = ch01.share_table(runs)
        facts = ch01.crossing_facts(rows, "7b")
        assert (facts["c1_equal_cores"], facts["c1_equal_cost"], facts["c1_half"]) == ("1", "3", "3")
        attention = runs[(runs["architecture"] == "transformer") & (runs["context_length"] == 16384)]
        above = sum(count_flops(_model(row), 16384).share("mixer_core") > 0.5 for row in attention.to_dict("records"))
        assert ch01.core_facts(shares)["c1_above_half"] == f"{above} of the 640"

    def test_embedding(self, runs: pd.DataFrame, plain: pd.DataFrame) -> None:
        facts = ch01.embedding_facts(ch01.share_table(runs))
        smallest = runs.loc[runs["num_params"].idxmin()]
        share = 2 * 50304 * smallest["d_model"] / smallest["num_params"]
        assert facts["c1_smallest_weights"] == f"{100 * share:.2g} %"
        assert ch01.embedding_facts(ch01.share_table(plain))["c1_smallest_params"] == "undefined"

    def test_published(self) -> None:
        totals = to_frame(build_ledger(sections=["run_table_statistics"]))
        sizes = to_frame(build_ledger(sections=["inference_model_sizes"]))
        facts = ch01.published_facts(totals, sizes)
        differ = int((sizes["published"] != sizes["ours"]).sum())
        assert (facts["c1_sizes"], facts["c1_sizes_differ"]) == ("twelve", number_word(differ))
        named = timed_models(sizes).dropna(subset="d_ff_of_N")
        assert len(named) == differ
        assert facts["c1_sizes_named"] == f"all {number_word(differ)}"
        again = len(totals) + len(sizes) - differ
        assert facts["c1_ledger_reproduced"] == f"{again} of the {len(totals) + len(sizes)}"
        assert facts["c1_ledger_independent"] == f"all {again}"
        doubtful = ch01.published_facts(totals, sizes.assign(independent=sizes["verdict"] == "differs"))
        assert doubtful["c1_ledger_independent"] == f"{len(totals)} of the {again}"
        assert (named["d_ff_of_N"].astype(int) != named["d_ff"]).all()
        assert set(named["verdict"]) == {"differs"}

    def test_slopes(self) -> None:
        published = load_published()["overtraining_slopes"]
        slopes = {"paper": [0.1, 0.2], "F = 1": [0.1, 0.2], "F = 0.5": [0.3, 0.2]}
        shifts = ch01.slope_shifts(slopes, [22, 220], published)
        assert shifts["F = 1"].tolist() == [0, 0]
        assert shifts["F = 0.5"].tolist() == pytest.approx([0.2, 0])
        by_mode = {
            "tfla" in entry["flop_mode"]: entry["eta"]
            for entry in published
            if entry.get("architecture") == "xlstm" and entry["token_param_ratio"] == 22
        }
        assert shifts["printed"][0] == by_mode[True] - by_mode[False]
        rows = pd.DataFrame({"verdict": ["reproduced", "differs"], "tolerance": [1e-4, 2e-4]})
        facts = ch01.slope_facts(shifts, rows)
        assert facts["c1_miss_100"] == facts["c1_slopes_shift"] == power_of_ten(shifts["printed"].abs().max(), 1)
        assert facts["c1_miss_50"] == "2×10⁻¹"
        assert (facts["c1_slopes_reproduced"], facts["c1_slopes_tolerance"]) == ("one of the two", "1×10⁻⁴")

    def test_published_slopes_by_tfla(self) -> None:
        entries = [entry for entry in load_published()["overtraining_slopes"] if "tfla" in entry.get("flop_mode", "")]
        slopes = ch01.tfla_slopes()
        assert sorted(slopes["published"]) == sorted(entry["eta"] for entry in entries)
        assert ch01.show_tfla_slopes(slopes).markup.count("<tr>") == 1 + len(entries)

    def test_shifts(self, runs: pd.DataFrame, plain: pd.DataFrame) -> None:
        medians = ch01.median_ratios(runs, convention_ratios(runs, ["chinchilla", "6ND"]))
        facts = ch01.shift_facts(medians)
        assert facts["c1_apart"] == significant(medians["apart"].max(), 3)
        assert facts["c1_apart_where"] == "6ND, T = 16384"
        alone = ch01.shift_facts(ch01.median_ratios(plain, convention_ratios(plain, ["6ND"])))
        assert alone["c1_apart_where"] == "6ND"

    def test_factors(self, runs: pd.DataFrame, plain: pd.DataFrame) -> None:
        factors = compute_factors(runs, convention_ratios(runs).mul(runs["train_flops"], axis=0), *sorted(MODELS))
        facts = ch01.factor_facts(factors, "xlstm", "transformer")
        assert (facts["c1_first"], facts["c1_second"]) == ("the xLSTM", "the Transformer")
        at = factors[factors["context_length"] == int(facts["c1_factor_where"].removeprefix("at T = "))]
        assert facts["c1_factor_high"] == significant(at["flops_factor"].max(), 3)
        assert facts["c1_factor_low_by"] == at.loc[at["flops_factor"].idxmin(), "convention"]
        below = int((factors["smallest"] < 1).sum())
        assert facts["c1_factor_crossed"].startswith(
            f"In {number_word(below)} of the {number_word(len(factors))} rows the range reaches below 1"
        )
        never = ch01.factor_facts(factors.assign(smallest=1.5), "gpt", "mamba2")["c1_factor_crossed"]
        assert never == "In no row of the table is mamba2 ever the cheaper one"
        none = compute_factors(plain, {"own": plain["train_flops"]}, "xlstm", "transformer")
        assert ch01.factor_facts(none, "xlstm", "transformer")["c1_factor_where"] == "in these runs"

    def test_speed(self) -> None:
        assert re.fullmatch(r"[\d,]+", ch01.speed_facts()["c1_record_number"])


def _model(row: dict) -> object:
    return ARCHITECTURES[row["architecture"]](**{name: row[name] for name in SHAPE_COLUMNS})


def test_widest_spread() -> None:
    factors = pd.DataFrame(
        {
            "context_length": [1, 1, 2, 2, 2],
            "convention": ["p", "q", "p", "q", "r"],
            "flops_factor": [1.0, 2.0, 1.0, 4.0, 2.0],
        }
    )
    spread = widest_spread(factors)
    assert (spread.where, spread.low, spread.high) == ("at T = 2", 1.0, 4.0)
    assert (spread.low_by, spread.high_by) == ("p", "q")
    assert widest_spread(factors.drop(columns="context_length").iloc[:2]).where == "in these runs"
    assert np.isnan(widest_spread(factors.iloc[:0]).low)


class TestTables:
    def test_smallest_model(self, runs: pd.DataFrame, plain: pd.DataFrame) -> None:
        for name, rows in runs.groupby("architecture"):
            assert num_params(smallest_model(runs, str(name))) == rows["num_params"].min()
        with pytest.raises(InputError, match="no run of architecture 'transformer' has the shapes"):
            smallest_model(plain, "transformer")
        assert ch01.smallest_models(plain, ["xlstm"]) == {"xlstm": preset("xlstm", "160m")}

    def test_shares(self, runs: pd.DataFrame, plain: pd.DataFrame) -> None:
        shares = ch01.share_table(runs, PAPER)
        assert shares.index.equals(runs.index)
        columns = ["params_share", "flops_share", "core_share"]
        assert ((shares[columns] > 0) & (shares[columns] < 1)).all(axis=None)
        model = preset("transformer", "160m")
        shapes = pd.Series({name: getattr(model, name) for name in SHAPE_COLUMNS})
        same = (runs[list(SHAPE_COLUMNS)] == shapes).all(axis=1)
        chosen = shares[same & (runs["architecture"] == "transformer")]
        assert len(chosen)
        assert chosen["params_share"].to_numpy() == pytest.approx(2 * 50304 * 768 / num_params(model))
        assert ch01.share_table(plain).empty

    def test_vocabularies_of_a_table_are_used(self) -> None:
        runs = load_runs(table("vocab"))
        shares = ch01.share_table(runs)["params_share"]
        np.testing.assert_allclose(shares, 2 * runs["vocab_size"] * runs["d_model"] / runs["num_params"])
        assert smallest_model(runs, "transformer").vocab_size == 32000
        assert smallest_model(load_paper_runs(), "xlstm").vocab_size == 50304

    def test_medians(self, runs: pd.DataFrame, plain: pd.DataFrame) -> None:
        medians = ch01.median_ratios(runs, convention_ratios(runs, ["chinchilla", "6ND"]))
        assert len(medians) == 3 * 2
        row = medians[(medians["context_length"] == 16384) & (medians["convention"] == "6ND")].iloc[0]
        assert row["apart"] == pytest.approx(row["xlstm"] / row["transformer"])
        alone = ch01.median_ratios(plain, convention_ratios(plain))
        assert alone["convention"].tolist() == ["6ND"]
        assert alone["apart"].tolist() == pytest.approx(
            [alone[["gpt", "mamba2"]].max(axis=None) / alone[["gpt", "mamba2"]].min(axis=None)]
        )
        markup = ch01.show_median_ratios(alone).markup
        assert "mamba2" in markup
        assert "T (tokens)" not in markup

    def test_six_nd_gaps_are_added_up(self) -> None:
        markup = ch01.show_six_nd_gaps({"a": {"ffn": 0.25, "mixer_core": -0.5, "norms": -1e-6}}, 1024, PAPER).markup
        assert "mixer core" in markup
        assert "feed-forward" in markup
        assert "−25.00" in markup
        assert ">0.00" in markup

    def test_quantities(self) -> None:
        names = ("sum_train_flops", "train_flops_quantiles.min", "num_params_quantiles.25")
        assert list(map(_quantity, names)) == ["C, sum", "C, least", "N, 25 % quantile"]
        totals = to_frame(build_ledger(sections=["run_table_statistics"]))
        totals = totals[totals["quantity"].str.contains("flops|num_params")]
        markup = ch01.show_totals(totals).markup
        assert "83,634,690" in markup
        assert ",\u00a0largest" in markup

    def test_side_by_side(self) -> None:
        own = side_by_side(MODELS, 1024).set_index("model")
        assert list(own.columns) == ["flops", "tfla", "chinchilla", "6ND"]
        model = MODELS["transformer"]
        per_token = count_flops(model, 1024).train_flops_per_token
        assert own.loc["transformer", "flops"] == per_token
        assert own.loc["transformer", "6ND"] == pytest.approx(6 * num_params(model) / per_token)
        assert own.loc["transformer", "tfla"] == 1
        markup = ch01.show_side_by_side(MODELS, MODELS, "160m", 1024).markup
        assert markup.count("<tr><td>") == 2  # the same models twice are shown once

    def test_factors_are_named_as_they_are_compared(self) -> None:
        factors = pd.DataFrame(
            {"convention": ["6ND"], "flops_factor": 2.0, "smallest": 1.5, "largest": 2.5, "share_lower": 0.9}
        )
        markup = ch01.show_factors(factors, "gpt", "xlstm").markup
        assert "Compute of the xLSTM over compute of the gpt" in markup
        assert "1.50–2.50" in markup
        assert "gpt lower" in markup

    def test_tables_that_the_text_refers_to_have_their_anchors(self) -> None:
        assert 'id="tbl-flops-conventions"' in show_convention_fields().markup
        assert (
            'id="tbl-flops-crossings"' in ch01.show_crossings([{"equal_cores": 1, "equal_cost": 2, "half": 3}]).markup
        )

    def test_convention_made_on_the_spot(self) -> None:
        with pytest.raises(InputError, match="convention 'mine' is not known"):
            get_convention("mine")
        own = {"xlstm": pd.DataFrame([["mine", 1.2345e9, 1.5, 0.25]], columns=COLUMNS)}
        markup = ch01.show_own_convention(own, "7b", 1024).markup
        assert "1.234×10⁹" in markup
        assert "25\u00a0%" in markup


class TestAnswer:
    def test_table(self, runs: pd.DataFrame, plain: pd.DataFrame) -> None:
        markup = ch01.show_answer(MODELS, runs, "160m", 1024, 10**9, PAPER).markup
        count = count_flops(MODELS["xlstm"], 1024)
        assert power_of_ten(count.train_flops(10**9), 3) in markup
        assert significant(count.train_flops_per_token / (6 * num_params(MODELS["xlstm"])), 3) in markup
        assert "all 348" in markup
        wrong = runs.assign(train_flops=runs["train_flops"] * np.where(runs["architecture"] == "xlstm", 1.01, 1))
        assert "none of the 348" in ch01.show_answer(MODELS, wrong, "160m", 1024, 10**9, PAPER).markup
        alone = ch01.show_answer(MODELS, plain, "160m", 1024, 10**9, PAPER).markup
        assert alone.count("<td>–</td>") == 4  # two architectures: no ratio and no check of any run

    def test_words(self) -> None:
        assert [the("xlstm"), the("mamba2")] == ["the xLSTM", "mamba2"]
        assert [component_word("ffn"), component_word("mixer_core")] == ["feed-forward", "mixer core"]


COLUMNS = ["convention", "train_flops_per_token", "ratio", "core_share"]
