"""Any bytes and any cells become a run table, or one line that says why not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.runs.import_ import import_runs


@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet"]))
def test_any_bytes_give_a_table_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes, form: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes.{form}"
    path.write_bytes(data)
    try:
        import_runs(path)
    except InputError as error:
        lines = str(error).splitlines()
    else:
        lines = [""]
    assert len(lines) == 1


CELLS = st.sampled_from(["1e8", "412M", "", "nan", "3.2", "x", "-1", "0", "2B", "1,5", "true", "1e400", "10 ZFLOP"])
NAMES = st.sampled_from(["n", "tokens", "loss", "C", "budget", "arch", "d_model", "n_layer", "n_head", "ppl", "steps"])


@given(st.lists(NAMES, min_size=1, max_size=8, unique=True), st.data())
def test_any_cells_give_a_table_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.lists(CELLS, min_size=len(names), max_size=len(names)), min_size=1, max_size=4))
    path = tmp_path_factory.getbasetemp() / "cells.tsv"
    path.write_text("\n".join("\t".join(row) for row in [names, *rows]), encoding="utf-8")
    try:
        imported = import_runs(path)
    except InputError as error:
        lines = str(error).splitlines()
    else:
        lines = [""]
        assert len(imported.runs) >= 1
        assert imported.runs[["num_params", "num_tokens", "train_flops", "val_loss"]].notna().all(axis=None)
    assert len(lines) == 1
