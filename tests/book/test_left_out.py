"""Chapters that a reader's own table leaves out: a page says why, the others are built, the exit status says so."""

import json
import re
import shutil
from pathlib import Path

import pytest
from foreign import table
from small_book import real_book, source

from companion import cli
from companion.book import building as book
from companion.book.left_out import stand_in, without_folders
from companion.book.notebooks import sources

INDEX = """# Title

[One](chapters/01_one.ipynb), [two](chapters/02_two.ipynb), {eq}`eq-two`, {ref}`two-label`, [](#two-label),
{eq}`eq-one` and {doc}`three <chapters/03_three>`.
"""
RAISE = "from companion.errors import InputError, NotApplicable\nif runs_file:\n    raise {}"


def write_chapters(root: Path) -> None:
    """One chapter that works; others that do not apply, that find a fault in the table, that have one themselves."""
    folder, own = root / "notebooks", "runs_file = None"
    formula = "$$\nN = {}\n$$ (eq-{})"
    one = f"# One\n\n{formula.format(1, 'one')}"
    two = f"# Two: $x$\n\n{formula.format(2, 'two')}\n\n(two-label)=\n## A part\n\nSee {{eq}}`eq-two`.\n\n"
    two += formula.format(3, "own")
    source(folder, "1 + 1", name="01_one", parameters=own, text=one)
    reason = "NotApplicable('no *second* $context$ in {{table}} <x> `y` at [T](z)')"
    source(folder, RAISE.format(reason), name="02_two", parameters=own, text=two)
    source(folder, RAISE.format("InputError('t.csv: row 3')"), name="03_three", parameters=own, text="# Three")
    source(folder, RAISE.format("KeyError('loss')"), name="04_four", parameters=own, text="# Four")


def text_of(page: Path) -> str:
    """The text of a page's article, without tags."""
    from html import unescape

    article = re.search(r"<article.*?</article>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert article
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", article[0]).split()))


def test_chapters_that_do_not_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = real_book(tmp_path / "checkout", INDEX), tmp_path / "out"
    write_chapters(root)
    shutil.copy(table("xlstm_alone"), tmp_path / "mine.csv")
    monkeypatch.setattr(book, "ROOT", root)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["book", "--output", "out", "--parameters", "runs_file=mine.csv"]) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    reason = "no *second* $context$ in {{table}} <x> `y` at [T](z)"
    lines = printed.out.splitlines()
    assert lines[:4] == [
        "01_one    built",
        f"02_two    left out: {reason}",
        "03_three  left out: cannot be built from this table: t.csv: row 3",
        "04_four   failed: cell 3: KeyError: 'loss'",
    ]
    assert lines[4].startswith("notebooks ")
    assert re.fullmatch(rf"{out}/html/index\.html \(1 of 4 notebooks, \d+ s\)", lines[5])

    summary = json.loads((out / "summary.json").read_text())
    assert not summary["complete"]
    assert summary["parameters"] == {"runs_file": str(tmp_path / "mine.csv")}, "notebooks run in their own folder"
    assert [chapter["status"] for chapter in summary["chapters"]] == ["built", "left out", "left out", "failed"]
    assert summary["chapters"][1] == {"name": "02_two", "status": "left out", "reason": reason, "left_out": []}
    assert sorted(path.name for path in out.iterdir()) == ["html", "sphinx.log", "summary.json"]
    assert sorted(path.name for path in root.iterdir()) == ["_config.yml", "book", "notebooks"]
    assert not (root / "book" / "chapters").exists(), "nothing is written into the checkout"

    pages = out / "html" / "chapters"
    assert text_of(pages / "02_two.html").startswith(f"Two: \\(x\\) # Not in this build of the book {reason} (2.1) #")
    assert "Not in this build of the book cannot be built from this table" in text_of(pages / "03_three.html")
    assert text_of(pages / "04_four.html").startswith("Four # This chapter failed cell 3: KeyError:")
    links = re.findall(r'href="(chapters/0[^"]*)"', (out / "html" / "index.html").read_text())
    assert {"chapters/02_two.html#two-label", "chapters/02_two.html#equation-eq-two"} <= set(links)


def test_a_failure_without_parameters_is_an_error(tmp_path: Path) -> None:
    root = real_book(tmp_path / "checkout")
    source(root / "notebooks", "from companion.errors import NotApplicable\nraise NotApplicable('no runs')")
    with pytest.raises(book.NotebookError, match=r"01_test\.md: cell 3 .*: NotApplicable: no runs"):
        book.build(tmp_path / "out", root=root)
    assert list((tmp_path / "out").iterdir()) == []


def test_stand_in_keeps_the_labels_that_others_use(tmp_path: Path) -> None:
    text = "(top)=\n# A *title*\n\n$$ a $$ (eq-a)\n\n$$\nb\n$$ (eq-b)\n\n(part)=\n## Part\n\n(part-2)=\n### Other"
    chapter = book.read(source(tmp_path, text=text))
    page = stand_in(chapter, "why", others="{eq}`eq-b`, {ref}`part-2`")
    cells = [cell.source for cell in page.cells]
    assert cells[0].startswith("(part-2)=\n# A *title*\n\n:::{admonition} ")
    assert cells[1:] == ["$$\nb\n$$ (eq-b)\n"]
    assert len(stand_in(chapter, "why").cells) == 1


def test_references_between_chapters_are_of_kinds_that_a_stand_in_keeps() -> None:
    pages = {path.name: path.read_text() for path in [*sources(book.ROOT / "notebooks"), *book.ROOT.glob("book/*.md")]}
    for name, text in pages.items():
        for target in re.findall(r"\{(?:numref|prf:ref)\}`(?:[^`<]*<)?([^`>]+)", text):
            own = re.search(rf"^(\({target}\)=|:(label|name): {target})$", text, re.MULTILINE)
            assert own, f"{name}: the number of {target}, which is on another page"
        assert not re.findall(r"\.ipynb#", text), f"{name}: refers to a heading of a chapter; give it a label"


def test_a_page_names_files_without_their_folders() -> None:
    assert without_folders("/home/me/a.csv: no column 'x'") == "a.csv: no column 'x'"
    assert without_folders("no table: /a/b/runs.csv: D/N and 1/3 of C") == "no table: runs.csv: D/N and 1/3 of C"
    assert without_folders("runs.csv: no context") == "runs.csv: no context"
