"""A small book with a repository and without one: buttons, words, the stand-alone notebook, tables to download."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from small_book import real_book, source

from companion.book import building as book
from companion.book.addresses import read_addresses
from companion.book.notebooks import dump, read
from companion.book.standalone import write_standalone
from companion.errors import InputError

pytestmark = pytest.mark.book

URL = "https://github.com/someone/companion"
INDEX = "# Title\n\nSee {{ checkout }}.\n\n{{ get_checkout }}\n\n```{bibliography}\n:all:\n```\n"


def rendered(folder: Path, url: str) -> Path:
    """The html of a book of two chapters (one needs torch), a page of tables, and stand-alone notebooks."""
    root = real_book(folder, INDEX)
    config = root / "_config.yml"
    text = config.read_text(encoding="utf-8").replace('\n  url: ""', f'\n  url: "{url}"')
    config.write_text(text, encoding="utf-8")
    chapters = root / "book" / "chapters"
    chapters.mkdir()
    first = source(root, "1 + 1", name="01_one", text="# One\n\n{cite}`beck2025tfla`, [the title](../index.md)")
    second = source(root, "import torch", name="02_two", text="# Two")
    for path in (first, second):
        (chapters / f"{path.stem}.ipynb").write_text(dump(read(path)))
    shutil.copy(book.ROOT / "book" / "data_files.md", root / "book")
    with (root / "book" / "_toc.yml").open("a") as toc:
        toc.write("- file: data_files\n")
    book._copy_tables(book.ROOT / "data", root / "book" / "data")
    html = book._render(root, root / "sphinx.log")
    write_standalone(root / "book", html, config)
    return html


@pytest.fixture(scope="module")
def with_address(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendered(tmp_path_factory.mktemp("with") / "book", URL)


@pytest.fixture(scope="module")
def without_address(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendered(tmp_path_factory.mktemp("without") / "book", "")


def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def outside(page: Path) -> list[str]:
    """Addresses of other hosts that a page links to, its references left out."""
    links = soup(page).find_all("a", href=re.compile("^https?:"))
    addresses = [str(link["href"]) for link in links if not link.find_parent(class_="citation-list")]
    return [address for address in addresses if not re.search(r"//(arxiv|doi)\.org/", address)]


def test_with_an_address(with_address: Path) -> None:
    first, second = (outside(with_address / "chapters" / f"{name}.html") for name in ("01_one", "02_two"))
    assert first[:4] == [
        "https://mybinder.org/v2/gh/someone/companion/main?urlpath=lab/tree/notebooks/01_one.ipynb",
        "https://colab.research.google.com/github/someone/companion/blob/downloads/01_one.ipynb",
        URL,
        f"{URL}/edit/main/notebooks/01_one.md",
    ]
    assert first[4].startswith(f"{URL}/issues/new?title=")
    assert first[5:] == [f"{URL}/issues"]
    assert second[0] == first[1].replace("01_one", "02_two"), "a notebook that needs torch is not for Binder"
    index = outside(with_address / "index.html")
    assert index[:2] == [URL, f"{URL}/edit/main/book/index.md"]
    assert f"git clone {URL}" in soup(with_address / "index.html").get_text()


def test_without_an_address(without_address: Path) -> None:
    for page in ("index.html", "chapters/01_one.html", "chapters/02_two.html"):
        assert outside(without_address / page) == []
        assert not soup(without_address / page).select(".dropdown-launch-buttons, .dropdown-source-buttons")
    text = soup(without_address / "index.html").get_text()
    assert "See the checkout." in text
    assert "git clone" not in text


def test_nothing_is_loaded_from_the_address(with_address: Path) -> None:
    for page in with_address.rglob("*.html"):
        for tag in soup(page).find_all(["link", "script", "img", "iframe"]):
            assert not re.match(r"https?:|//", str(tag.get("href") or tag.get("src") or "")), (page.name, tag)


def test_downloaded_notebook_says_how_to_install(with_address: Path, without_address: Path) -> None:
    for html, wanted in ((with_address, f"[notebooks] @ git+{URL}@main"), (without_address, '".[notebooks]"')):
        cells = json.loads((html / "_sources/chapters/01_one.ipynb").read_text())["cells"]
        assert [cell["cell_type"] for cell in cells[:2]] == ["markdown", "code"]
        assert all(wanted in "".join(cell["source"]) for cell in cells[:2])
        assert ("in the folder of the project" in "".join(cells[1]["source"])) == (html == without_address)
    two = (with_address / "_sources/chapters/02_two.ipynb").read_text()
    assert "[notebooks,kernels]" in two
    assert "'torch'" in two
    one = (with_address / "_sources/chapters/01_one.ipynb").read_text()
    assert f"(Beck et al., 2025b), [the title]({URL}/blob/main/book/index.md)" in one


def test_tables_can_be_downloaded(without_address: Path) -> None:
    page = soup(without_address / "data_files.html")
    rows = {item.a.get_text(strip=True): item for item in page.article.ul.find_all("li")}
    assert set(rows) == {path.name for path in (book.ROOT / "data").glob("*.csv*")}
    for name, row in rows.items():
        copied = without_address / str(row.a["href"])
        assert copied.read_bytes() == (book.ROOT / "data" / name).read_bytes()
        assert page.find(id=row.find_all("a")[1]["href"].removeprefix("#")), f"{name}: its columns"
    assert " 640 rows, 23 columns, 85 kB." in rows["runs.csv"].get_text().replace("\u00a0", " ")


def test_a_wrong_address_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "_config.yml").write_text("repository: {url: someone/companion}\n")
    with pytest.raises(InputError, match=r"^_config\.yml: repository: url: 'someone/companion' is not an address"):
        read_addresses(tmp_path / "_config.yml")


def test_the_address_is_the_same_everywhere() -> None:
    found = read_addresses(book.ROOT / "_config.yml")
    project = tomllib.loads((book.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((book.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project.get("urls", {}).get("Repository", "") == found.repository
    assert citation.get("repository-code", "") == found.repository
