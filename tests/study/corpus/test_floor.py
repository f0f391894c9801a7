"""The loss floor: measured, in the table, and by enumeration."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from companion.errors import InputError
from companion.paths import data_dir
from companion.study.corpus import floor as floors
from companion.study.corpus.conditional import Conditionals
from companion.study.corpus.entropy import main
from companion.study.corpus.floor import COLUMNS, TABLE, floor_of, measure_floor
from companion.study.corpus.grammar import Grammar


def enumerated(grammar: Grammar) -> float:
    """Floor for T = 2: the mean of two entropies over every first and second token."""
    exact, size = Conditionals(grammar), grammar.vocab_size
    pairs = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    both = exact.probabilities(pairs)
    first = exact.at(pairs[:1], torch.tensor([0]), torch.tensor([0]))[0]
    after_first = both[::size, 0]
    of_pairs = first[:, None] * after_first
    entropies = torch.special.entr(both).sum(-1)
    second = (of_pairs.flatten() * entropies[:, 1]).sum()
    return float(((first * entropies[::size, 0]).sum() + second) / 2)


def test_by_enumeration() -> None:
    grammar = Grammar(seed=2, vocab_size=16)
    floor = measure_floor(grammar, context_length=2, documents=4000)
    assert floor.positions == 2
    assert floor.standard_error < 0.005
    assert abs(floor.loss - enumerated(grammar)) < 4 * floor.standard_error


def test_random_positions_do_not_change_the_mean() -> None:
    """All positions of 1,500 documents, or 7 of 50 in each of others: the same floor, within 4 standard errors."""
    grammar = Grammar(vocab_size=32)
    every = measure_floor(grammar, 50, documents=1500, positions=50)
    some = measure_floor(Grammar(vocab_size=32), 50, documents=1500, positions=7)
    assert (every.positions, some.positions) == (50, 7)
    assert some.standard_error > every.standard_error
    # the same documents: less than the independent error
    assert abs(every.loss - some.loss) < 4 * some.standard_error


def test_places_cover_all_positions_evenly() -> None:
    places = floors._places(0, np.arange(20_000), 10, 4)
    assert places.min() == 1
    assert places.max() == 10
    counts = np.bincount(places.flatten(), minlength=11)[1:]
    assert ((counts - 8000) ** 2 / 8000).sum() < 27.9  # 0.1 %, 9 degrees of freedom
    assert (np.diff(places, axis=1) >= 0).all()


@pytest.mark.parametrize("wrong", [{"documents": 1}, {"positions": 0}, {"context_length": 0}])
def test_numbers_too_small(wrong: dict[str, int]) -> None:
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(InputError, match=f"{name}={value}: use at least"):
        measure_floor(Grammar(vocab_size=16), **{"context_length": 4, **wrong})


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(data_dir() / TABLE, dtype={"fingerprint": str})


class TestTable:
    def test_rows_are_of_the_source_as_it_is(self, table: pd.DataFrame) -> None:
        assert list(table.columns) == list(COLUMNS)
        for row in table.itertuples():
            sizes = {"seed": row.seed, "vocab_size": row.vocab_size, "class_bits": row.class_bits}
            assert row.fingerprint == Grammar(**sizes).fingerprint  # type: ignore[arg-type]
        assert not table.duplicated(["fingerprint", "context_length"]).any()
        assert set(table.loc[table["seed"] == 0, "context_length"]) == {64, 256, 1024, 4096}
        assert table["standard_error"].max() < 0.001

    def test_a_longer_context_helps(self, table: pd.DataFrame) -> None:
        for (vocab_size, *_), rows in table.groupby(["vocab_size", "class_bits", "seed"]):
            fall = -np.diff(rows.sort_values("context_length")["loss_floor"].to_numpy())
            assert fall[0] > 0.01
            # of a small vocabulary all tokens have come again after some hundred
            assert vocab_size < 64 or fall[1] > 0.01
            assert vocab_size < 256 or fall[2] > 0.01

    @pytest.mark.parametrize("context_length", [64, 1024])
    def test_measured_again(self, table: pd.DataFrame, context_length: int) -> None:
        again = measure_floor(Grammar(), context_length, documents=60)
        known = floor_of(Grammar(), context_length)
        assert known.documents > 1000
        assert abs(again.loss - known.loss) < 4 * again.standard_error

    def test_other_parameters_are_measured_with_their_own_error(self) -> None:
        floor = floor_of(Grammar(seed=99, vocab_size=16), 8)
        assert floor.documents == floors.FEW_DOCUMENTS
        assert floor == measure_floor(Grammar(seed=99, vocab_size=16), 8)
        assert floor_of(Grammar(), 7).documents == floors.FEW_DOCUMENTS


class TestOtherTables:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        floors.known_floors.cache_clear()
        monkeypatch.setattr(floors, "data_dir", lambda: tmp_path)
        yield
        floors.known_floors.cache_clear()

    def test_no_table(self) -> None:
        assert floor_of(Grammar(vocab_size=16), 4).documents == floors.FEW_DOCUMENTS

    @pytest.mark.parametrize(
        ("content", "message"), [(b"", "cannot be read"), (b"\xff\xfe", "read"), (b"a\n1\n", "no column")]
    )
    def test_damaged(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / TABLE).write_bytes(content)
        with pytest.raises(InputError, match=f"{TABLE}: .*{message}"):
            floor_of(Grammar(vocab_size=16), 4)

    @pytest.mark.parametrize("cell", ["", "many", "inf"])
    def test_a_cell_that_is_no_number(self, tmp_path: Path, cell: str) -> None:
        row = f"16,5,0,4,2.0,{cell},9,9,abc,how"
        (tmp_path / TABLE).write_text(f"{','.join(COLUMNS)}\n{row}\n")
        with pytest.raises(InputError, match=r"source_entropy\.csv: row 2, column standard_error: is no number"):
            floor_of(Grammar(vocab_size=16), 4)

    def test_a_row_of_other_parameters_does_not_count(self, tmp_path: Path) -> None:
        options = ["--vocab-size", "16", "--context-lengths", "4", "--documents", "3", "--out", str(tmp_path / TABLE)]
        assert main(options) == 0
        assert floor_of(Grammar(vocab_size=16), 4).documents == 3
        assert floor_of(Grammar(vocab_size=16, class_bits=3), 4).documents == floors.FEW_DOCUMENTS

    def test_rows_of_other_sources_stay(self, tmp_path: Path) -> None:
        options = ["--documents", "3", "--out", str(tmp_path / TABLE)]
        assert main([*options, "--vocab-size", "16", "--context-lengths", "4", "8"]) == 0
        before = (tmp_path / TABLE).read_text(encoding="utf-8").splitlines()
        assert main([*options, "--vocab-size", "32", "--context-lengths", "4"]) == 0
        assert main([*options, "--vocab-size", "16", "--context-lengths", "8", "--documents", "4"]) == 0
        after = (tmp_path / TABLE).read_text(encoding="utf-8").splitlines()
        assert after[:2] == before[:2]
        assert [line.split(",")[0:4:3] for line in after[1:]] == [["16", "4"], ["32", "4"], ["16", "8"]]
        assert after[3].split(",")[6] == "4"

    def test_a_table_that_cannot_be_read_is_not_replaced(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / TABLE).write_text("something,else\n1,2\n", encoding="utf-8")
        assert main(["--vocab-size", "16", "--documents", "3", "--out", str(tmp_path / TABLE)]) == 2
        assert "no column vocab_size" in capsys.readouterr().err
        assert (tmp_path / TABLE).read_text(encoding="utf-8") == "something,else\n1,2\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vocab-size", "17"], "vocab_size=17"),
        (["--documents", "1", "--vocab-size", "16"], "documents=1"),
        (["--context-lengths", "0", "--vocab-size", "16"], "context_length=0"),
        (["--seeds", "-1"], "seed=-1"),
    ],
)
def test_options_out_of_bounds(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--out", str(tmp_path / "x.csv")]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
