"""Chapter 0 is about the paper: on a reader's table only the picture of both paradigms changes, or is left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from foreign import table

from companion.book import building as book
from companion.book.execution import Execution, try_all

CHAPTER = book.ROOT / "notebooks" / "00_paper_in_ten_minutes.md"
#: Tables of other people, by the architecture whose laws are drawn; None: they determine none.
TABLES = {"two_other_architectures": "gpt", "one_ratio": None}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Execution]:
    done = {}
    for name in TABLES:
        parameters = {"runs_file": str(table(name))}
        [done[name]] = try_all([CHAPTER], tmp_path_factory.mktemp(name), parameters)
    return done


def cells_of(execution: Execution) -> list[dict[str, Any]]:
    assert execution.path is not None, str(execution.failure)
    return list(json.loads(Path(execution.path).read_text(encoding="utf-8"))["cells"])


def markups(execution: Execution) -> str:
    outputs = [output for cell in cells_of(execution) for output in cell.get("outputs", [])]
    return "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)


def test_the_picture_is_that_of_the_table(outcomes: dict[str, Execution]) -> None:
    shown = markups(outcomes["two_other_architectures"])
    assert "fig-paper-paradigms" in shown
    assert f"{TABLES['two_other_architectures']}. IsoFLOP: runs of equal compute" in shown
    assert not outcomes["two_other_architectures"].left_out


def test_without_budgets_it_is_left_out(outcomes: dict[str, Execution]) -> None:
    shown = markups(outcomes["one_ratio"])
    assert "fig-paper-paradigms" not in shown
    [(title, reason)] = outcomes["one_ratio"].left_out
    assert title == "Two ways to a scaling law"
    assert reason
    text = "".join("".join(cell["source"]) for cell in cells_of(outcomes["one_ratio"]))
    assert "c0_surface" not in text
    assert "(01_counting_flops.ipynb)" in text, "the map stays"


@pytest.mark.parametrize("name", TABLES)
def test_the_paper_stays(outcomes: dict[str, Execution], name: str) -> None:
    shown = markups(outcomes[name])
    assert "fig-paper-blocks" in shown
    assert "The paper\u2019s runs, both architectures together" in shown
