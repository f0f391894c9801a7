"""Choosing runs, deriving budgets, describing a table, its Pareto front."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.runs.load import REQUIRED_COLUMNS, load_paper_runs, load_runs, summary, where_mask
from companion.runs.select import assign_budgets, pareto_front, subset

HEADER = "architecture,num_params,num_tokens,train_flops,val_loss"
ROW = "xlstm,100000000,2000000000,1.2e18,3.5"
OTHER = "transformer,200000000,2000000000,2.4e18,3.25"


def write(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture(scope="module")
def paper() -> pd.DataFrame:
    return load_paper_runs()


# ---- choosing ------------------------------------------------------------------------------------


def test_subset_by_values(paper: pd.DataFrame) -> None:
    assert len(subset(paper)) == 640
    chosen = subset(paper, architecture=" xLSTM", context_length=8192, experiment="isoflop")
    assert len(chosen) == 145
    assert set(chosen["architecture"]) == {"xlstm"}
    pd.testing.assert_frame_equal(chosen, paper.loc[chosen.index])  # rows keep their place
    chosen["val_loss"] = 0.0
    assert (paper["val_loss"] > 0).all()


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        ({"context_length": 4096}, "no runs with context_length 4096; the table has 2048, 8192, 16384"),
        ({"architecture": "mamba"}, "no runs with architecture mamba; the table has transformer, xlstm"),
        (
            {"context_length": 2048, "experiment": "tokenparam"},
            "no runs with experiment tokenparam among those with context_length 2048; the table has isoflop",
        ),
        ({"where": "val_loss > 19"}, "no runs where 'val_loss > 19'"),
    ],
)
def test_an_empty_subset_says_what_there_is(paper: pd.DataFrame, choice: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        subset(paper, **choice, source="mine.csv")
    assert str(caught.value) == f"mine.csv: {problem}"
    with pytest.raises(InputError, match=r"runs\.csv: no runs"):
        subset(paper, **choice)


def test_a_column_that_is_asked_for_must_be_there(paper: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no column 'context_length'"):
        subset(paper[list(REQUIRED_COLUMNS)], context_length=8192)


@pytest.mark.parametrize(
    ("where", "query"),
    [
        ("num_params > 1e9", "num_params > 1e9"),
        ("1e9 < num_params <= 2779548160", "1e9 < num_params <= 2779548160"),
        ("not num_params > 1e9", "not num_params > 1e9"),
        ("source == 'pickle' or architecture != 'xlstm'", "source == 'pickle' or architecture != 'xlstm'"),
        ("isoflop_budget in [6e18, 1e19] and -val_loss < -3", "isoflop_budget in [6e18, 1e19] and val_loss > 3"),
        ("source not in ('pickle', 'figure')", "source not in ('pickle', 'figure')"),
        ("num_tokens / num_params - 1 >= 2 * 50", "num_tokens / num_params - 1 >= 2 * 50"),
        ("isoflop_budget != 6e18", "isoflop_budget != 6e18"),
        ("2048 == context_length", "context_length == 2048"),
        ("'xlstm' == architecture", "architecture == 'xlstm'"),
    ],
)
def test_where_agrees_with_pandas(paper: pd.DataFrame, where: str, query: str) -> None:
    expected = paper.query(query, engine="python")
    assert 0 < len(expected) < len(paper)
    pd.testing.assert_frame_equal(subset(paper, where=where), expected)


def test_where_does_not_overflow(paper: pd.DataFrame) -> None:
    assert where_mask(paper, "num_params * num_tokens > 0").all()
    assert where_mask(paper, "train_flops / (6 * num_params * num_tokens) < 50").all()


@pytest.mark.parametrize(
    "where",
    [
        "__import__('os').system('true')",
        "open('x') == 1",
        "architecture.str == 1",
        "().__class__ == 1",
        "@x > 1",
        "val_loss[0] > 1",
        "[x for x in (1,)] == 1",
        "(lambda: 1) == 1",
        "(val_loss := 3) > 1",
        "f'{val_loss}' == 'a'",
        "2 ** 2 ** 2 ** 100 > num_params",
        "'a' * 1000000000 == source",
        "val_loss > 3 & num_params > 1",
        "val_loss is 3",
        "val_loss in 3",
        "val_loss > True",
        "val_loss",
        "1 < 2",
        "source > 'a'",
        "source == 3",
        "val_loss == 'low'",
        "val_los > 3",
        "val_loss > b'1'",
        "val_loss > 1j",
        "val_loss > ",
        "val_loss > 3; val_loss < 4",
        "",
        "val_loss\0 > 1",
        "(" * 400 + "val_loss > 1" + ")" * 400,
        "not " * 240 + "val_loss",
        "val_loss > 1" + " and val_loss > 1" * 100,
        "1" + "0" * 400 + " > num_params",
    ],
)
def test_where_is_read_and_never_executed(paper: pd.DataFrame, where: str) -> None:
    with pytest.raises(InputError) as caught:
        subset(paper, where=where, source="mine.csv")
    assert str(caught.value).startswith("mine.csv: where ")
    assert "\n" not in str(caught.value)


def test_where_reaches_names_with_spaces_by_backquotes(paper: pd.DataFrame) -> None:
    runs = paper.rename(columns={"val_loss": "C4 Eval Loss", "num_params": "N/1", "d_model": "class", "d_ff": "µ"})
    for where, same in (
        ("`C4 Eval Loss` > 3", "val_loss > 3"),
        ("source != '`C4 Eval Loss`' and 2e9 < `N/1`*2", "num_params > 1e9"),
        ("`class` == 1024 or `num_tokens`>1e11", "d_model == 1024 or num_tokens > 1e11"),
        ("`µ`>3000", "d_ff > 3000"),
    ):
        assert (where_mask(runs, where) == where_mask(paper, same)).all()
    for where, words in (
        ("C4 Eval Loss > 3", "write `C4 Eval Loss` in backquotes, or rename the column"),
        ("`C4 Loss` > 3", "no column 'C4 Loss'; the table has architecture"),
        ("C4 > 3", "`C4 Eval Loss`, `class`"),
        ("`C4 Eval Loss`.x > 3", "'`C4 Eval Loss`.x' is not supported"),
        ("`C4 Eval Loss > 3", "not a condition|in backquotes"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            subset(runs, where=where, source="mine.csv")
        assert "column_" not in str(caught.value)


@given(st.text(max_size=12), st.text(max_size=12))
def test_where_reaches_every_name_without_a_backquote(name: str, text: str) -> None:
    name = name.replace("`", "") or "a"
    runs = pd.DataFrame({name: [1.0, 3.0], "other": [text, "b"]})
    if name != "other":
        assert where_mask(runs, f"`{name}` > 2").tolist() == [False, True]
        assert where_mask(runs, f"{text!r} == `other`").tolist() == [True, text == "b"]


def test_a_column_that_is_empty_is_not_missing(paper: pd.DataFrame) -> None:
    empty = paper.assign(context_length=np.nan, experiment=None)
    for choice, column in (
        ({"context_length": 8192}, "context_length"),
        ({"experiment": "isoflop"}, "experiment"),
        ({"where": "context_length > 1"}, "context_length"),
    ):
        with pytest.raises(InputError, match=f"column '{column}' is empty"):
            subset(empty, **choice)
    partly = paper.assign(context_length=paper["context_length"].where(paper["architecture"] == "xlstm"))
    with pytest.raises(InputError, match="among those with architecture transformer; their context_length is empty"):
        subset(partly, architecture="transformer", context_length=8192)
    with pytest.raises(InputError, match="no runs where"):
        subset(partly, architecture="transformer", where="context_length > 1")
    columns = [*REQUIRED_COLUMNS, "experiment"]
    alike = assign_budgets(
        paper.loc[paper["experiment"] == "isoflop", columns].assign(experiment=None, context_length=np.nan)
    )
    without = assign_budgets(paper.loc[paper["experiment"] == "isoflop", list(REQUIRED_COLUMNS)])
    assert alike["isoflop_budget"].equals(without["isoflop_budget"])


def test_where_names_the_unknown_column(paper: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no column 'val_los'; the table has architecture, experiment"):
        where_mask(paper, "val_los > 3")


# ---- budgets, summary, front ---------------------------------------------------------------------


def test_budgets_are_found_from_the_compute_alone(paper: pd.DataFrame) -> None:
    found = assign_budgets(paper.drop(columns="isoflop_budget"))["isoflop_budget"]
    assert found.isna().equals(paper["isoflop_budget"].isna())
    named = paper["isoflop_budget"]
    assert (found / named - 1).abs().max() < 0.025  # the label is the mean compute, 6.1e18 for 6e18
    keys = [paper["architecture"], paper["context_length"]]
    assert paper.groupby([*keys, named]).size().tolist() == paper.groupby([*keys, found]).size().tolist()
    assert found.dropna().map(lambda value: value == float(f"{value:.1e}")).all()


def test_budgets_that_are_named_stay(paper: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(assign_budgets(paper), paper)
    some = paper.assign(isoflop_budget=paper["isoflop_budget"].where(paper["isoflop_budget"] != 3e19))
    filled = assign_budgets(some)["isoflop_budget"]
    assert filled[paper["isoflop_budget"] == 3e19].to_numpy() == pytest.approx(3e19, rel=0.02)
    assert filled[paper["isoflop_budget"] == 6e18].eq(6e18).all()


def test_a_table_without_experiment_and_context(paper: pd.DataFrame) -> None:
    isoflop = paper.loc[paper["experiment"] == "isoflop", list(REQUIRED_COLUMNS)]
    assert sorted(assign_budgets(isoflop)["isoflop_budget"].unique()) == [6.1e18, 1e19, 3e19, 1e20, 6e20]


def test_runs_that_form_no_budgets(paper: pd.DataFrame) -> None:
    spread = paper.iloc[:20][list(REQUIRED_COLUMNS)].assign(train_flops=np.geomspace(1e18, 1e20, 20))
    with pytest.raises(InputError, match=r"20 runs of transformer from 1e\+18 to 1e\+20 FLOP form no"):
        assign_budgets(spread, tolerance=0.2)
    assert assign_budgets(spread, tolerance=0.05)["isoflop_budget"].nunique() == 20
    wide, narrow = (spread.assign(train_flops=np.geomspace(1e18, 10**top, 20)) for top in (18.21, 18.19))
    with pytest.raises(InputError, match="no separate budgets"):
        assign_budgets(wide, tolerance=0.1)
    assert assign_budgets(narrow, tolerance=0.1)["isoflop_budget"].unique().tolist() == [1.2e18]
    for tolerance in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="tolerance"):
            assign_budgets(paper, tolerance)


def test_summary_of_the_papers_table(paper: pd.DataFrame) -> None:
    told = summary(paper)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["by_architecture"] == {"transformer": 292, "xlstm": 348}
    assert sum(row["num_runs"] for row in told["by_set"]) == told["num_runs"] == 640
    assert told["context_lengths"] == [2048, 8192, 16384]
    assert told["isoflop_budgets"] == [6e18, 1e19, 3e19, 1e20, 6e20]
    assert told["num_params"]["max"] == 6867522560
    assert told["tokens_per_param"]["max"] == pytest.approx(2204.4, abs=0.05)


def test_summary_of_the_smallest_table(tmp_path: Path) -> None:
    told = summary(load_runs(write(tmp_path, f"{HEADER}\n{OTHER}\n{ROW}\n")))
    assert told["num_runs"] == 2
    assert told["context_lengths"] == told["isoflop_budgets"] == []
    assert told["num_runs_in_published_fits"] is None
    assert told["num_tokens"] == {"min": 2_000_000_000, "median": 2e9, "max": 2_000_000_000}
    assert told["by_set"] == [
        {"architecture": "transformer", "num_runs": 1},
        {"architecture": "xlstm", "num_runs": 1},
    ]


@settings(max_examples=200)
@given(points=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_pareto_front_against_all_pairs(points: list[tuple[int, int]]) -> None:
    compute, loss = [float(c) for c, _ in points], [float(x) for _, x in points]
    kept = [
        i
        for i, (c, x) in enumerate(points)
        if not any(other[0] <= c and other[1] <= x and other != (c, x) for other in points)
    ]
    front = pareto_front(compute, loss).tolist()
    assert sorted(front) == kept
    assert [compute[i] for i in front] == sorted(compute[i] for i in front)


def test_pareto_front_of_the_paper_is_almost_all_xlstm(paper: pd.DataFrame) -> None:
    runs = subset(paper, context_length=8192)
    front = runs.iloc[pareto_front(runs["train_flops"], runs["val_loss"])]
    assert front["architecture"].value_counts().to_dict() == {"xlstm": 41, "transformer": 1}
    assert (np.diff(front["train_flops"]) > 0).all()
    assert (np.diff(front["val_loss"]) < 0).all()
    assert front["train_flops"].iloc[0] == runs["train_flops"].min()
    assert front["val_loss"].iloc[-1] == runs["val_loss"].min()


@pytest.mark.parametrize(
    ("compute", "loss"), [([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]]), ([np.nan], [1.0]), ([1.0], [np.inf])]
)
def test_pareto_front_refuses(compute: Any, loss: Any) -> None:
    with pytest.raises(InputError):
        pareto_front(compute, loss)
