"""What `data check` finds in tables that load: known cases with their source, and one table for every kind."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from foreign import NAMES, table
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.runs.findings import Finding, find_all, ratio_range
from companion.runs.load import check_runs, load_paper_runs, load_runs, where_mask
from companion.runs.select import with_active_params

#: What each table of `tests/foreign_tables/` (sources: README there) must bring up, by kind, with rows of the file.
EXPECTED: dict[str, dict[str, list[int]]] = {
    "forward_only_flops": {"flops_count": list(range(2, 22))},
    "int64_wrapped": {"overflow": [3, 4, 5, 10, 16, 18]},
    "isoflop_comma": {"label_factor": list(range(9, 29)), "left_out": [2, 3, 4, 5, 6, 7, 8]},
    "isoflop_nominal_llama3": {"loss_unit": list(range(2, 22))},
    "moe": {"flops_ratio": [2, 3, 4, 5]},
    "one_run_mislabelled": {"label_factor": [*range(2, 6), *range(7, 23)], "label": [6]},
    "vocab": {"mixed": [2, 3, 4, 5, 6, 7]},
}


def spreadsheet(runs: pd.DataFrame) -> pd.DataFrame:
    """The table with the rows of a file without blank lines."""
    return runs.set_axis(runs.index + 2)


@pytest.mark.filterwarnings("ignore::companion.runs.load.RunTableWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_foreign_table_brings_up_what_it_should_and_nothing_else(name: str) -> None:
    found = find_all(spreadsheet(load_runs(table(name))))
    assert {entry.kind: list(entry.rows) for entry in found} == EXPECTED.get(name, {})
    assert all("\n" not in entry.message and len(entry.message) < 400 for entry in found)


def test_the_papers_table_has_no_findings() -> None:
    runs = load_paper_runs()
    assert find_all(runs) == []
    ratio = ratio_range(runs)
    assert ratio["num_outside"] == 0
    assert (round(ratio["min"], 2), round(ratio["max"], 2)) == (0.71, 2.08)


def test_the_mislabeled_run_and_the_constant_factor() -> None:
    """Marin runs whose labels count a third of train_flops; one run of 3e18 is labeled 1e18."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = spreadsheet(load_runs(table("one_run_mislabelled")))
    factor, label = find_all(runs)
    assert "labels are 0.333 of train_flops in 84 of 85 rows" in factor.message
    assert "row 6 is labeled 1e+18, its train_flops is 9e+18 as in runs labeled 3e+18" in label.message
    assert label.as_dict()["rows"] == [6]


def test_a_mixture_of_experts_by_its_active_parameters() -> None:
    """moe.csv of marin-community/marin 6044: totals of experts; C is 6 N D of about a twentieth of them."""
    runs = load_runs(table("moe"))
    active = np.rint(runs["train_flops"] / (6.0 * runs["num_tokens"]))
    known = check_runs(runs.assign(num_active_params=active))
    assert known["num_active_params"].dtype == np.int64
    [note] = find_all(known)
    assert note.kind == "active_params"
    assert "with_active_params" in note.message
    assert ratio_range(known) | {"min": 1, "max": 1, "median": 1} == {
        "params": "num_active_params",
        "min": 1,
        "median": 1,
        "max": 1,
        "num_outside": 0,
        "rows": [],
    }
    assert with_active_params(known)["num_params"].tolist() == active.tolist()
    assert find_all(with_active_params(known)) == []
    exchanged = known.assign(num_active_params=known["num_params"] * 2)
    above = [entry for entry in find_all(exchanged) if entry.kind == "active_params"]
    assert ["above num_params in rows 0, 1, 2, 3" in entry.message for entry in above] == [True]
    with pytest.raises(InputError, match="no column 'num_active_params'"):
        with_active_params(runs, "mine")


# ---- one table for every kind --------------------------------------------------------------------


def sweep(budgets: tuple[float, ...] = (1e18, 1e19, 1e20), sizes: int = 8, seed: int = 0) -> pd.DataFrame:
    """IsoFLOP runs of a known law (Hoffmann et al., arXiv 2203.15556, table A3), C = 6 N D, noise 0.003."""
    rng = np.random.default_rng(seed)
    rows = []
    for budget in budgets:
        best = 0.1 * budget**0.5
        for n in best * np.geomspace(0.3, 3, sizes):
            d = budget / (6 * n)
            rows.append((int(n), int(d), budget, 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28 + 0.003 * rng.normal()))
    runs = pd.DataFrame(rows, columns=["num_params", "num_tokens", "isoflop_budget", "val_loss"])
    return runs.assign(
        architecture="gpt", train_flops=6.0 * runs["num_params"].astype(float) * runs["num_tokens"].astype(float)
    )


def changed(column: str, factor: float, rows: list[int] | None = None) -> pd.DataFrame:
    runs = sweep()
    values = (
        runs[column] * factor if rows is None else runs[column].where(~runs.index.isin(rows), runs[column] * factor)
    )
    return runs.assign(**{column: values.astype(runs[column].dtype)})


def only(runs: pd.DataFrame, kind: str) -> Finding:
    """The one finding of a table that loads, which is of this kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = find_all(check_runs(runs))
    assert [entry.kind for entry in found] == [kind], [entry.message for entry in found]
    return found[0]


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(4, 12))
def test_a_clean_sweep_has_no_findings(seed: int, sizes: int) -> None:
    assert find_all(check_runs(sweep(sizes=sizes, seed=seed))) == []


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1 / 3, "2 N D in 24 of 24 rows"), (0.5, "3 N D in 24"), (4 / 3, "8 N D in 24"), (1 / 6, "1 N D in 24")],
)
def test_another_count_of_flops(factor: float, words: str) -> None:
    runs = sweep().drop(columns="isoflop_budget")
    assert words in only(runs.assign(train_flops=runs["train_flops"] * factor), "flops_count").message


def test_single_rows_with_another_count() -> None:
    runs = changed("train_flops", 0.8, [3, 7]).drop(columns="isoflop_budget")
    message = only(runs, "flops_differ").message
    assert "6 N D in 22 of 24 rows, but not in rows 3, 7 (C/(6 N D) = 0.8, 0.8)" in message
    assert (
        "rows 3, 7: long contexts"
        in only(changed("train_flops", 5, [3, 7]).drop(columns="isoflop_budget"), "flops_ratio").message
    )


def test_labels() -> None:
    wrong = only(changed("isoflop_budget", 10, [2]), "label")
    assert wrong.rows == (2,)
    assert "row 2 is labeled 1e+19, its train_flops is 1e+18 as in runs labeled 1e+18" in wrong.message
    assert (
        "labels are 0.500 of train_flops in 24 of 24 rows of gpt"
        in only(changed("isoflop_budget", 0.5), "label_factor").message
    )
    two = pd.concat([sweep(), changed("isoflop_budget", 0.5).assign(architecture="rwkv")], ignore_index=True)
    assert only(two, "label_factor").rows == tuple(range(24, 44))


def test_losses_in_another_unit() -> None:
    runs = sweep()
    assert "bits per byte" in only(runs.assign(val_loss=runs["val_loss"] * 0.3), "loss_unit").message
    small = np.exp(runs["val_loss"] / 1.6)
    assert "perplexity (take its logarithm)" in only(runs.assign(val_loss=small), "loss_unit").message
    with pytest.raises(InputError, match=r"must be below 20; a perplexity\? write its logarithm"):
        check_runs(runs.assign(val_loss=np.exp(runs["val_loss"])))
    bits = only(runs.assign(train_loss=runs["val_loss"] * np.log(2) + 0.01), "loss_unit")
    assert "1.4" in bits.message
    assert "train_loss" in bits.message


def test_a_run_that_diverged() -> None:
    runs = sweep().drop(columns="isoflop_budget")
    runs.loc[5, "val_loss"] = 11.5
    assert (
        "row 5 (first 11.5) worse than a uniform guess over 50304 tokens (10.8)"
        in only(runs, "loss_above_guess").message
    )
    runs = runs.assign(vocab_size=128256)
    assert find_all(runs) == []


def test_a_loss_that_rises() -> None:
    runs = sweep().drop(columns="isoflop_budget")
    assert (
        "rises with train_flops in runs of gpt"
        in only(runs.assign(val_loss=8 - runs["val_loss"]), "loss_direction").message
    )


def test_an_outlier_of_its_profile() -> None:
    runs = sweep()
    runs.loc[11, "val_loss"] += 0.3
    outlier = only(runs, "loss_outlier")
    assert outlier.rows == (11,)
    assert "row 11 by +0.3" in outlier.message


def test_repeated_configurations() -> None:
    runs = sweep().drop(columns="isoflop_budget").assign(learning_rate=3e-3)
    again = runs.iloc[[4]].assign(val_loss=runs["val_loss"][4] + 0.2)
    both = pd.concat([runs, again], ignore_index=True)
    assert "rows 4, 24 repeat one configuration, with losses from" in only(both, "repeats_differ").message
    both.loc[24, "learning_rate"] = 6e-3
    only(both, "several_rates")


def test_units_of_sizes_and_tokens() -> None:
    runs = sweep().drop(columns="isoflop_budget")
    millions = runs.assign(num_params=(runs["num_params"] / 1e6).round().astype(int) + 1)
    millions = millions.assign(num_tokens=(runs["num_tokens"] / 1e9).round().astype(int) + 1)
    millions["train_flops"] = 6.0 * millions["num_params"] * millions["num_tokens"]
    found = [entry for entry in find_all(check_runs(millions.drop_duplicates())) if entry.kind == "magnitude"]
    assert "in millions?" in found[0].message
    assert "in millions or billions?" in found[0].message
    exchanged = runs.rename(columns={"num_params": "num_tokens", "num_tokens": "num_params"})
    assert "are num_params and num_tokens exchanged?" in only(exchanged, "exchanged").message


def test_rows_that_commands_leave_out() -> None:
    runs = sweep()
    runs.loc[[0, 9], "isoflop_budget"] = np.nan
    assert "2 runs of 24 without isoflop_budget, rows 0, 9" in only(runs, "left_out").message
    runs["experiment"] = "isoflop"
    runs.loc[[0, 9], "experiment"] = "tokenparam"
    assert find_all(runs) == []
    runs["context_length"] = np.where(runs.index == 3, np.nan, 2048)
    assert "1 run of 24 without context_length, row 3" in only(runs, "left_out").message


def test_budgets_with_two_sizes() -> None:
    runs = sweep().drop(index=range(2, 8))
    assert "fewer than 3 sizes at 1 budget (1e+18), rows 0, 1" in only(runs, "few_sizes").message


def test_mixed_data_sets() -> None:
    runs = sweep().assign(**{"data set": np.tile(["dclm", "it's", "dclm"], 8)})
    message = only(runs, "mixed").message
    condition = message.split('--where "')[1].removesuffix('"')
    assert condition == "`data set` == 'dclm'"
    assert where_mask(runs, condition).sum() == 16
    sizes = sweep().assign(model=lambda frame: frame["num_params"].map(lambda n: f"m{n}"))
    assert find_all(sizes) == []
    assert find_all(sweep().assign(name=np.repeat(["a", "b"], 12), architecture=np.repeat(["a", "b"], 12))) == []


def test_a_sweep_of_learning_rates() -> None:
    runs = sweep().assign(experiment="isoflop", learning_rate=1e-3)
    assert find_all(runs) == []
    tried = runs.iloc[[3, 7]].assign(learning_rate=2e-3, val_loss=lambda frame: frame["val_loss"] + 0.1)
    both = pd.concat([runs, tried], ignore_index=True)
    message = only(both, "several_rates").message
    assert "2 configurations that are otherwise alike, rows 3, 7, 24, 25" in message
    assert message.endswith("choose with --where")
    named = pd.concat([runs, tried.assign(experiment="learning rates", isoflop_budget=np.nan)], ignore_index=True)
    message = only(named, "several_rates").message
    condition = message.split('--where "')[1].removesuffix('"')
    assert condition == "experiment != 'learning rates'"
    assert where_mask(named, condition).sum() == len(runs)
    assert find_all(named[where_mask(named, condition)]) == []


def test_names_that_differ_in_signs() -> None:
    runs = sweep().assign(architecture=np.tile(["llama2", "llama-2"], 12))
    assert (
        "llama-2, llama2 count as 2 architectures" in only(runs.drop(columns="isoflop_budget"), "alike_names").message
    )


_VALUE = st.one_of(st.floats(1e-3, 19.9), st.just(3.0))


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "num_params": st.integers(1, 10**13),
                "num_tokens": st.integers(1, 10**15),
                "ratio": st.floats(0.006, 190),
                "val_loss": _VALUE,
                "train_loss": st.one_of(st.none(), _VALUE),
                "isoflop_budget": st.one_of(st.none(), st.sampled_from([1e18, 1e19]), st.floats(1, 1e30)),
                "context_length": st.one_of(st.none(), st.sampled_from([2048, 8192])),
                "architecture": st.sampled_from(["gpt", "g-p-t", "xlstm"]),
                "vocab_size": st.one_of(st.none(), st.integers(1, 10**6)),
                "data": st.one_of(st.none(), st.sampled_from(["a", "b'", '"'])),
            }
        ),
        min_size=1,
        max_size=20,
    )
)
def test_every_table_that_loads_can_be_checked(rows: list[dict[str, Any]]) -> None:
    runs = pd.DataFrame(rows)
    for name in ("train_loss", "isoflop_budget", "context_length", "vocab_size"):
        runs[name] = runs[name].astype(float)
    ratio = runs.pop("ratio")
    runs["train_flops"] = 6.0 * runs["num_params"].astype(float) * runs["num_tokens"].astype(float) * ratio
    runs = runs.drop_duplicates(ignore_index=True)
    for entry in find_all(check_runs(runs)):
        assert "\n" not in entry.message
        assert entry.num_rows >= len(entry.rows) > 0
        assert entry.column in runs.columns
