"""What a chapter can do with a run table: contexts, architectures, and reasons why not."""

from pathlib import Path

import pandas as pd
import pytest
from foreign import table

from companion.chapters import applicability
from companion.chapters.applicability import choose_pair, select_runs
from companion.errors import InputError, NotApplicable
from companion.fitting.fit import fit
from companion.laws import LossSurface
from companion.runs.load import load_paper_runs


def written(tmp_path: Path, **columns: object) -> Path:
    """A run table with rows of defaults."""
    size = max(len(value) for value in columns.values() if isinstance(value, list))
    frame = pd.DataFrame(
        {"architecture": "gpt", "num_params": 10**8, "num_tokens": 2 * 10**9, "train_flops": 1.2e18},
        index=range(size),
    )
    frame["val_loss"] = 3.0 - 0.1 * frame.index
    path = tmp_path / "runs.csv"
    frame.assign(**columns).to_csv(path, index=False)
    return path


def test_the_papers_runs_are_those_at_8192() -> None:
    selection = select_runs()
    assert selection.of_paper
    assert selection.context_length == 8192
    assert selection.architectures == ["transformer", "xlstm"]
    assert set(selection.at_context["context_length"]) == {8192}
    assert "8192" in selection.note


@pytest.mark.parametrize(
    ("name", "context", "architectures"),
    [
        ("two_other_architectures", None, ["gpt", "mamba2"]),
        ("context_2048", 2048, ["xlstm"]),
        ("T_unknown", None, ["transformer"]),
        ("isoflop_comma", 4096, ["llama2"]),
    ],
)
def test_a_table_of_ones_own_brings_its_context_and_its_names(
    name: str, context: int | None, architectures: list[str]
) -> None:
    selection = select_runs(table(name))
    assert (selection.context_length, selection.architectures) == (context, architectures)
    assert not selection.of_paper


def test_an_architecture_without_runs_at_the_context_is_left_out_and_named(tmp_path: Path) -> None:
    path = written(tmp_path, architecture=["a", "b", "b"], context_length=[1024, 4096, 4096])
    selection = select_runs(path)
    assert selection.architectures == ["b"]
    assert "left out: a (no runs with context_length 4096" in selection.note
    assert list(select_runs(path, all_contexts=True).tables) == ["a", "b"]


def test_too_few_architectures_do_not_apply() -> None:
    with pytest.raises(NotApplicable, match=r"needs 2 architectures; usable: xlstm$"):
        select_runs(table("xlstm_alone"), at_least=2)


def test_runs_that_a_fit_refuses_are_the_reason() -> None:
    with pytest.raises(NotApplicable, match="6 different runs; a law needs at least 7"):
        select_runs(table("six_runs"), usable=applicability.need_runs(7, "a law"))


def test_equal_reasons_are_said_once(tmp_path: Path) -> None:
    path = written(tmp_path, architecture=["a", "b"])
    with pytest.raises(NotApplicable, match="a, b: no context length"):
        select_runs(path, usable=applicability.need_contexts)


def test_repeated_rows_are_not_more_runs() -> None:
    six = pd.read_csv(table("six_runs"))
    with pytest.raises(NotApplicable, match="6 different runs"):
        applicability.need_runs(7, "a law")(pd.concat([six, six]))


def test_a_name_that_is_not_there_is_a_mistake_of_the_reader() -> None:
    with pytest.raises(InputError, match="no runs with architecture lstm; the table has xlstm") as caught:
        select_runs(table("xlstm_alone"), ["lstm"])
    assert not isinstance(caught.value, NotApplicable)


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (["transformer", "xlstm"], (None, None), ("xlstm", "transformer")),
        (["a", "b", "c"], (None, None), ("a", "b")),
        (["a", "b", "c"], ("c", None), ("c", "a")),
        (["a", "b", "c"], (None, "a"), ("b", "a")),
        (["gpt", "xlstm"], (None, None), ("xlstm", "gpt")),
    ],
)
def test_a_pair_is_chosen(names: list[str], given: tuple[str | None, str | None], expected: tuple[str, str]) -> None:
    assert choose_pair(names, *given) == expected


def test_no_pair() -> None:
    with pytest.raises(NotApplicable, match="there is xlstm only"):
        choose_pair(["xlstm"])
    with pytest.raises(InputError, match="both a"):
        choose_pair(["a", "b"], "a", "a")
    with pytest.raises(InputError, match="no runs with architecture z"):
        choose_pair(["a", "b"], "z")


def test_a_law_that_is_not_identified() -> None:
    fitted = fit(LossSurface, pd.read_csv(table("two_sizes")))
    with pytest.raises(NotApplicable, match=r"the law of mine is not identified: .*2 different model sizes"):
        applicability.need_identified({"mine": fitted})
    applicability.need_identified({})


def test_contexts_need_models_that_can_be_counted(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="1 context length"):
        applicability.need_contexts(pd.read_csv(table("context_2048")))
    both = pd.read_csv(written(tmp_path, context_length=[1024, 4096]))
    with pytest.raises(NotApplicable, match="counts the FLOPs of gpt"):
        applicability.need_contexts(both)
    with pytest.raises(NotApplicable, match="no IsoFLOP budget has an optimum at two contexts"):
        applicability.need_contexts(both.assign(architecture="transformer"))
    paper = load_paper_runs()
    applicability.need_contexts(paper[paper["architecture"] == "transformer"])


def test_main_budgets() -> None:
    iso = pd.DataFrame({"isoflop_budget": [1e18, 1e19, 1e19, 1e20], "train_flops": [1e18, 1e19, 1e19, 1e20]})
    assert applicability.main_budgets(iso, None, of_paper=False) == [1e18, 1e19, 1e20]
    assert applicability.main_budgets(iso, None, of_paper=True) == [1e19, 1e20]
    assert applicability.main_budgets(iso, [1e18, 2e19], of_paper=True) == [1e18, 1e19]


def test_runs_of_an_experiment() -> None:
    runs = pd.DataFrame({"experiment": ["isoflop", "tokenparam"], "val_loss": [3.0, 2.0]})
    assert applicability.of_experiment(runs, "tokenparam")["val_loss"].tolist() == [2.0]
    assert len(applicability.of_experiment(runs, "other")) == len(applicability.of_experiment(runs, None)) == 2


def test_optional() -> None:
    def refuse() -> None:
        raise InputError("no")

    assert applicability.optional(refuse) is None
    assert applicability.optional(max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        applicability.optional(lambda: 1 / 0)
