"""A study from an empty folder to its page: on its example, on other tables, and what goes wrong."""

import json
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from commands import error_line
from foreign import table

from companion import cli
from companion.fitting import fit
from companion.laws import LossSurface
from companion.new_study import make_page, make_study
from companion.new_study.example import LAW, SCATTER, SOURCE, example_runs
from companion.runs import COLUMNS, load_runs
from companion.runs.findings import find_all

FEW = {"num_resamples": 20}
#: Tables of the tests, and sections that they leave out.
TABLES = {"isoflop_comma": [], "six_runs": ["The loss surface"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("studies")
    make_study("my_study", parent)
    return parent / "my_study"


@pytest.fixture(scope="module")
def pages(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The page of the example and of each other table, with what it leaves out: made at the same time."""
    folders = {"": study}
    for name in TABLES:
        parent = tmp_path_factory.mktemp(name)
        make_study("other", parent)
        folders[name] = parent / "other"

    def made(name: str) -> Any:
        return make_page(folders[name], FEW | ({"runs_file": str(table(name))} if name else {}))

    with ThreadPoolExecutor() as pool:
        yield dict(zip(folders, pool.map(made, folders), strict=True))


def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def test_example_follows_its_law() -> None:
    runs = example_runs()
    assert find_all(runs) == []
    found = fit(LossSurface, runs, gamma=1)
    assert found.identified
    resamples = found.bootstrap(100)
    for name in ("E", "alpha", "beta"):
        low, high = resamples.interval(name)
        assert low < getattr(LAW, name) < high
    assert 0.5 * SCATTER < found.residuals.std() < 1.5 * SCATTER
    assert set(runs["source"]) == {SOURCE}


def test_table_and_readme(study: Path) -> None:
    runs = load_runs(study / "runs.csv")
    readme = (study / "README.md").read_text(encoding="utf-8")
    assert "%%" not in readme
    assert SOURCE in readme
    for column in runs.columns:
        assert f"| `{column}` | {COLUMNS[column].unit} | {COLUMNS[column].meaning} |" in readme
    assert {path.name for path in study.iterdir()} >= {"README.md", "runs.csv", "study.ipynb"}
    cells = json.loads((study / "study.ipynb").read_text())["cells"]
    assert all(len(cell["source"]) <= 15 for cell in cells if cell["cell_type"] == "code")
    assert not any(cell.get("outputs") for cell in cells)


def test_commands_of_the_readme(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = re.findall(r"^companion (.+?) +#", (study / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["data", "isoflop", "fit", "study-page"]
    monkeypatch.chdir(study)
    for line in lines[:-1]:
        few = [] if line.startswith("data") else ["--bootstrap", "10"]
        assert cli.main([*shlex.split(line), *few]) == 0, line
        assert capsys.readouterr().out


def test_page_of_the_example(study: Path, pages: dict[str, Any]) -> None:
    page, left_out = pages[""]
    assert left_out == ()
    assert page == study / "page.html"
    html = soup(page)
    assert html.title.string == "my study: a scaling study"
    assert [figure["id"] for figure in html.find_all("figure")] == ["fig-runs", "fig-profiles", "fig-fit-overview"]
    assert len(html.select("figure svg.companion-figure-wide[aria-label]")) == 3
    assert len(html.find_all("table")) == 3
    assert "The table still has rows of the example." in html.get_text()
    assert str(study) not in page.read_text(encoding="utf-8"), "a page may be sent to others"
    for tag in html.find_all(["script", "link", "img", "iframe"]):
        assert not re.match(r"(https?:)?//", str(tag.get("src") or tag.get("href") or ""))


@pytest.mark.parametrize("name", TABLES)
def test_page_of_another_table(pages: dict[str, Any], name: str) -> None:
    page, left_out = pages[name]
    assert [title for title, _ in left_out] == TABLES[name]
    html = soup(page)
    assert len(html.find_all("figure")) == 3 - len(left_out)
    printed = " ".join(block.get_text() for block in html.select("pre.output"))
    assert " runs of " in printed
    assert "rows of the example" not in printed
    assert "nan" not in printed
    for _, reason in left_out:
        assert str(table(name).parent) not in reason


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_a_browser(browser: Any, pages: dict[str, Any], width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    seen: list[str] = []
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda request: seen.append(request.url) if request.url.startswith("http") else None)
    page.goto(pages[""][0].as_uri())
    page.evaluate("async () => { await window.MathJax.startup.promise; }")
    assert not seen
    assert page.evaluate("document.querySelectorAll('.math').length") >= 3
    assert page.evaluate("[...document.querySelectorAll('.math')].every(e => e.querySelector('mjx-container svg'))")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.evaluate("e => e.open")
    page.close()


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new-study", "mine"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: cd mine; companion study-page"
    (tmp_path / "mine" / "runs.csv").write_text("my own")
    assert error_line(capsys, "new-study", "mine").endswith("mine: exists already; nothing was changed")
    assert (tmp_path / "mine" / "runs.csv").read_text() == "my own"
    (tmp_path / "taken").touch()
    assert "taken: exists already" in error_line(capsys, "new-study", "taken")


@pytest.mark.parametrize("name", ["../mine", "a/b", "", "-x", "my study", ".", "ä"])
def test_bad_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"name {name!r}: letters a to z, digits, - and _ only" in error_line(capsys, "new-study", "--", name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_filled_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("disk full")

    monkeypatch.setattr("companion.new_study.making.example_runs", fail)
    with pytest.raises(OSError, match="disk full"):
        make_study("mine", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_cell_keeps_the_earlier_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert f"{tmp_path}: no study.ipynb there" in error_line(capsys, "study-page", str(tmp_path))
    make_study("mine", tmp_path)
    monkeypatch.chdir(tmp_path / "mine")
    notebook = json.loads(Path("study.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    notebook["cells"] = [code[0], {**code[1], "source": ["1 / 0"]}]
    Path("study.ipynb").write_text(json.dumps(notebook))
    Path("page.html").write_text("earlier")
    assert "study.ipynb: cell 2 (`1 / 0`): ZeroDivisionError" in error_line(capsys, "study-page")
    assert Path("page.html").read_text() == "earlier"
    assert "no such file" in error_line(capsys, "study-page", "--parameters", "runs_file=none.csv")
