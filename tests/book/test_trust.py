"""What lets a reader trust a build: the same pages twice, a record of it, one zip file, one PDF."""

import hashlib
import json
import re
import runpy
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from small_book import real_book, source

from companion import __version__, cli
from companion.benchmarks.records import git_commit
from companion.book import building as book
from companion.book import pdf
from companion.book.archive import FOLDER, write_zip
from companion.book.costs import LARGEST, RENDERING, measure
from companion.book.record import NO_CHECKOUT, checksums, commit, glued, last_tests, versions
from companion.errors import InputError

PAGE = "reproducibility.html"


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of the html of two builds of one small book with the real configuration."""
    root = tmp_path_factory.mktemp("book")
    real_book(root, index="# Title\n\nSee [](reproducibility.md) and {math}`x^2`.\n")
    shutil.copy(book.ROOT / "book" / "reproducibility.md", root / "book")
    page = root / "book" / "reproducibility.md"
    page.write_text(page.read_text().replace("[ledger](chapters/90_ledger.ipynb)", "ledger"))
    toc = root / "book" / "_toc.yml"
    toc.write_text(f"{toc.read_text()}- file: reproducibility\n")
    (root / "_build").mkdir()
    record = {"commit": "abc", "passed": 12, "failed": 0, "skipped": 3, "whole": True}
    (root / "_build" / "tests.json").write_text(json.dumps(record))
    cell = "from myst_nb import glue\nglue('c90_counts', '7 published numbers: 6 reproduced', display=False)"
    source(root / "notebooks", cell, "scale * 21")
    return [book.build(root / name, root=root, progress=False, report=lambda line: None).index.parent for name in "ab"]


def test_two_builds_differ_only_in_the_page_that_says_so(twice: list[Path]) -> None:
    files = [{path.relative_to(html): path for path in html.rglob("*") if path.is_file()} for html in twice]
    assert set(files[0]) == set(files[1])
    different = [str(name) for name in files[0] if files[0][name].read_bytes() != files[1][name].read_bytes()]
    assert set(different) <= {PAGE}


def test_the_page_says_what_the_book_was_built_with(twice: list[Path]) -> None:
    page = (twice[0] / PAGE).read_text(encoding="utf-8")
    soup = BeautifulSoup(page.replace("<wbr/>", ""), "html.parser")  # names and checksums may break at these
    text = " ".join(soup.select_one("article").get_text(" ").split())
    assert f"The sources are {NO_CHECKOUT}" in text
    assert "7 published numbers: 6 reproduced." in text
    assert "The last run, at commit abc : 12 passed, 0 failed, 3 skipped." in text
    assert re.search(r"notebook 01_test \d+\.\d s", text)
    assert re.search(r"rendering of all pages \d+\.\d s", text)
    assert RENDERING not in text
    assert LARGEST not in text
    digest = hashlib.sha256((book.ROOT / "data" / "runs.csv").read_bytes()).hexdigest()
    assert f"runs.csv {(book.ROOT / 'data' / 'runs.csv').stat().st_size:,} {digest}" in text
    assert str(book.ROOT) not in (twice[0] / PAGE).read_text(encoding="utf-8")
    assert re.search(r"numpy \d", text)


def test_the_page_is_not_searched(twice: list[Path]) -> None:
    index = (twice[0] / "searchindex.js").read_text(encoding="utf-8")
    assert "title" in index
    assert "pandera" not in index, "versions would make two indices differ"


def test_summary_has_the_costs(twice: list[Path]) -> None:
    summary = json.loads((twice[0].parent / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["costs"]["notebook_seconds"]) == {"01_test"}
    assert summary["costs"]["rendering_seconds"] > 0
    assert summary["record"]["commit"] == NO_CHECKOUT


def test_costs_name_the_largest_page(tmp_path: Path) -> None:
    (tmp_path / "small.html").write_text("x")
    (tmp_path / "large.html").write_text("x" * 20_000)
    (tmp_path / "searchindex.js").write_text("x" * 30_000)
    costs = measure(tmp_path, {"a": 1.0, "b": 2.5}, 4.0)
    assert costs.line() == (
        "notebooks 4 s one after the other (longest b, 2 s), rendering 4 s, "
        "largest page large.html (0.02 MB), search index 0.03 MB"
    )


def test_record(tmp_path: Path) -> None:
    assert commit(tmp_path) == NO_CHECKOUT
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    (tmp_path / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    assert re.fullmatch(r"[0-9a-f]{40}", commit(tmp_path))
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == git_commit(tmp_path)
    assert commit(tmp_path).endswith("+changes")

    assert last_tests(tmp_path) is None
    (tmp_path / "_build").mkdir()
    (tmp_path / "_build" / "tests.json").write_text('{"commit": null}')
    assert last_tests(tmp_path) is None, "a record that lacks counts"
    assert versions()["Python"]
    (each,) = checksums(tmp_path / "_build")
    assert (each["file"], each["bytes"]) == ("tests.json", 16)


def test_glued_text(tmp_path: Path) -> None:
    output = {
        "metadata": {"scrapbook": {"name": "a"}},
        "data": {"application/papermill.record/text/plain": ["'it", " is'"]},
    }
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": [{"outputs": [output]}, {}]}))
    assert glued(path, "a") == "it is"
    assert glued(path, "b") is None


def test_zip_is_the_same_for_the_same_pages(twice: list[Path], tmp_path: Path) -> None:
    archives = [write_zip(twice[0], tmp_path / name) for name in ("one.zip", "two.zip")]
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with zipfile.ZipFile(archives[0]) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        assert archive.read(f"{FOLDER}/index.html") == (twice[0] / "index.html").read_bytes()
    assert names == sorted(names)
    assert f"{FOLDER}/chapters/01_test.html" in names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.zip", "two.zip"]


def test_zip_of_somebody_else_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    with zipfile.ZipFile(tmp_path / "out" / "xlstm-scaling-companion.zip", "w") as archive:
        archive.writestr("mine", "mine")
    with pytest.raises(InputError, match=r"xlstm-scaling-companion\.zip: not made by `companion book`"):
        book.build(tmp_path / "out", root=book.ROOT)


def test_pdf_without_a_chromium_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert cli.main(["book", "--pdf"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("companion: --pdf: no chromium on PATH")
    assert "\n" not in said


def test_pages_of_a_pdf_are_those_of_the_contents(twice: list[Path]) -> None:
    assert pdf.page_names(twice[0]) == ["index.html", "chapters/01_test.html", PAGE]


@pytest.mark.browser
def test_pdf(twice: list[Path], tmp_path: Path, browser: object) -> None:
    pypdf = pytest.importorskip("pypdf")
    path = pdf.write_pdf(twice[0], tmp_path / "book.pdf")
    assert pdf.made_pdf(path)
    reader = pypdf.PdfReader(path)
    assert [entry.title for entry in reader.outline] == ["Title", "A test", "Reproducibility"]
    assert "SHA-256" in "".join(page.extract_text() for page in reader.pages)
    addresses = [
        str(annotation.get_object().get("/A", {}).get("/URI", ""))
        for page in reader.pages
        for annotation in page.get("/Annots", [])
    ]
    assert not [address for address in addresses if address.startswith("file:")]
    targets = [a.get_object().get("/Dest") for page in reader.pages for a in page.get("/Annots", [])]
    assert any(target is not None for target in targets), "the link from the front page to the last one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["book.pdf"]


@pytest.mark.book
def test_pages_are_small(built_book: Path) -> None:
    costs = json.loads((built_book.parent / "summary.json").read_text(encoding="utf-8"))["costs"]
    assert costs["largest_page_bytes"] < 1.5e6, costs["largest_page"]
    assert costs["search_index_bytes"] < 1e6


def test_bibtex_is_that_of_the_references_and_of_the_citation_file(tmp_path: Path) -> None:
    extension = runpy.run_path(str(book.ROOT / "book" / "_ext" / "companion_cite.py"))
    references = (book.ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    paper = extension["entry_of"](references, "beck2025scaling")
    assert paper.startswith("@")
    assert paper.count("{") == paper.count("}")
    with pytest.raises(KeyError):
        extension["entry_of"](references, "nobody2025")
    config = yaml.safe_load((book.ROOT / "_config.yml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((book.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["version"]) == (config["title"], __version__)
    assert citation["authors"] == [{"name": config["author"]}]
    assert str(citation["date-released"]).startswith(str(config["copyright"]))
    (cited,) = citation["references"]
    assert cited["title"] in paper.replace("{", "").replace("}", "")
    assert cited["url"].removeprefix("https://arxiv.org/abs/") in paper
