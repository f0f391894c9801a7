"""train_flops of a table counted again."""

import numpy as np
import pandas as pd
import pytest

from companion.accounting import CHINCHILLA, PAPER, TFLA
from companion.errors import InputError
from companion.runs import load_paper_runs
from companion.runs_flops import NEEDED_COLUMNS, missing_for_recount, recount


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return load_paper_runs()


def test_papers_column_comes_back(runs: pd.DataFrame) -> None:
    np.testing.assert_allclose(recount(runs, "paper"), runs["train_flops"], rtol=1e-5)


def test_six_n_d(runs: pd.DataFrame) -> None:
    product = runs["num_params"].astype(float) * runs["num_tokens"]
    np.testing.assert_allclose(recount(runs, "6ND"), 6 * product, rtol=1e-12)


def test_index_and_order_are_kept(runs: pd.DataFrame) -> None:
    some = runs.sample(50, random_state=1)
    counted = recount(some, CHINCHILLA)
    assert counted.index.equals(some.index)
    np.testing.assert_array_equal(counted, recount(runs, CHINCHILLA)[some.index])


def test_one_convention_per_architecture(runs: pd.DataFrame) -> None:
    mixed = recount(runs, {"transformer": "chinchilla", "xlstm": TFLA})
    is_xlstm = runs["architecture"] == "xlstm"
    np.testing.assert_array_equal(mixed[is_xlstm], recount(runs, TFLA)[is_xlstm])
    np.testing.assert_array_equal(mixed[~is_xlstm], recount(runs, CHINCHILLA)[~is_xlstm])
    with pytest.raises(InputError, match="no convention is given for architecture 'xlstm'"):
        recount(runs, {"transformer": PAPER})


@pytest.mark.parametrize("column", NEEDED_COLUMNS)
def test_missing_column(runs: pd.DataFrame, column: str) -> None:
    assert missing_for_recount(runs.drop(columns=column)) == f"no column {column!r}"
    with pytest.raises(InputError, match=rf"runs\.csv: train_flops cannot be counted again: no column '{column}'"):
        recount(runs.drop(columns=column), PAPER)


def test_what_else_is_refused(runs: pd.DataFrame) -> None:
    assert missing_for_recount(runs) == ""
    holes = runs.assign(d_ff=runs["d_ff"].where(runs.index > 2))
    with pytest.raises(InputError, match="column 'd_ff' is empty in 3 of 640 runs"):
        recount(holes, PAPER, source="mine.csv")
    with pytest.raises(InputError, match="no count for architecture 'mamba'"):
        recount(runs.assign(architecture="mamba"), PAPER)
    with pytest.raises(InputError, match="convention 'wrong' is not known"):
        recount(runs, "wrong")
