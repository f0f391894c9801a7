"""The instructor's page, the checklist and the data sheet say what the package and its tables hold."""

import re
from itertools import pairwise

import pandas as pd
import pytest

from companion.book.notebooks import ROOT, sources
from companion.cli import main
from companion.paths import data_dir

PAGES = ("teaching", "checklist", "data_sheet")


def page(name: str) -> str:
    return (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*PAGES, "glossary"])
def test_pages_are_in_the_contents(name: str) -> None:
    assert f"- file: {name}\n" in (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")


def test_every_chapter_has_a_place_in_the_course() -> None:
    course = page("teaching").partition("## Course map")[2].partition("## ")[0]
    chapters = {path.stem for path in sources(ROOT / "notebooks") if 0 < int(path.stem[:2]) < 90}
    assert set(re.findall(r"\(chapters/(\w+)\.ipynb\)", course)) >= chapters


def test_every_chapter_has_a_mistake_to_show() -> None:
    mistakes = page("teaching").partition("## What students get wrong")[2].partition("## ")[0]
    chapters = {path.stem for path in sources(ROOT / "notebooks") if 0 < int(path.stem[:2]) < 90}
    assert set(re.findall(r"\(chapters/(\w+)\.ipynb\)", mistakes)) == chapters


@pytest.mark.parametrize("plan", ["One lecture of 90 minutes", "Half a day"])
def test_plans_have_no_gap(plan: str) -> None:
    table = page("teaching").partition(f"### {plan}")[2].partition("### ")[0]
    times = [(int(start), int(end)) for start, end in re.findall(r"^\| (\d+)–(\d+) \|", table, re.MULTILINE)]
    assert times[0][0] == 0
    assert times[-1][1] == (90 if "90" in plan else 240)
    assert all(end == start for (_, end), (start, _) in pairwise(times))


def test_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for command in re.findall(r"`companion ([^`]+)`", "".join(map(page, PAGES))):
        words = command.split()
        names = [word for word in words if re.fullmatch(r"[a-z]+", word)][: 2 if words[0] in ("data", "import") else 1]
        with pytest.raises(SystemExit) as left:
            main([*names, "--help"])
        assert left.value.code == 0, command
        shown = capsys.readouterr().out
        assert all(word in shown for word in words if word.startswith("--")), command


def test_design_in_the_checklist_is_that_of_the_table() -> None:
    design = page("checklist").partition("**Design")[2].partition("* **")[0]
    runs = pd.read_csv(data_dir() / "runs.csv")
    budgets = sorted(runs["isoflop_budget"].dropna().unique())
    assert [float(text) for text in re.findall(r"\b\de\d+", design)] == budgets
    by_architecture = runs.groupby("isoflop_budget")["architecture"].agg(set)
    assert by_architecture.iloc[-1] == {"xlstm"}
    assert all(len(names) == 2 for names in by_architecture.iloc[:-1])
    contexts = runs.groupby("isoflop_budget")["context_length"].nunique()
    assert list(contexts.iloc[-2:]) == [1, 1]
    assert min(contexts.iloc[:-2]) > 1
    listed = " ".join(design.split()).partition("tokens per parameter of ")[2].partition(". Why")[0]
    ratios = [int(text) for text in re.findall(r"\d+", listed)]
    preset = runs[runs["experiment"] == "tokenparam"]
    nearest = (preset["num_tokens"] / preset["num_params"]).map(lambda m: min(ratios, key=lambda r: abs(m / r - 1)))
    assert set(nearest) == set(ratios)
    assert ((preset["num_tokens"] / preset["num_params"] / nearest - 1).abs() < 0.5).all()
    spent = runs["train_flops"] / runs["isoflop_budget"]
    assert (spent - 1).abs().max() < 0.1


def test_columns_in_the_data_sheet_exist() -> None:
    runs = pd.read_csv(data_dir() / "runs.csv", nrows=1)
    named = set(re.findall(r"`([a-z]+_[a-z_]+|source)`", page("data_sheet")))
    assert named <= set(runs.columns)
    assert len(named) >= 5
