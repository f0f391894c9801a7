"""The front page: a page of `book/` with code is executed in its place, and says what it reads from the chapters."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from bs4 import BeautifulSoup
from small_book import HEADER, real_book, source

from companion.book import building as book
from companion.book.notebooks import pages_with_code
from companion.book.reading import Reading

PAGE = f"""{HEADER}# Front

```{{code-cell}} ipython3
:tags: [parameters]

scale = 2
```

```{{code-cell}} ipython3
print("computed:", 21 * scale)
```

There are {{of-chapter}}`01_one key` of them.

```{{chapters}}
```
"""


@pytest.fixture(scope="module")
def extension() -> ModuleType:
    path = book.ROOT / "book" / "_ext" / "companion_front.py"
    spec = importlib.util.spec_from_file_location("companion_front", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def front_book(folder: Path) -> Path:
    root = real_book(folder, PAGE)
    glued = "from myst_nb import glue\nglue('key', 'seven', display=False)"
    source(root / "notebooks", glued, name="01_one", text="# One *title*\n\n**What is it?**\n\nSome words.")
    source(root / "notebooks", "scale", name="90_other", text="# Other\n\n**Not listed?**")
    return root


def test_executed_in_its_place(tmp_path: Path) -> None:
    root = front_book(tmp_path / "checkout")
    built = book.build(tmp_path / "out", root=root, parameters={"scale": 3}, progress=False, report=lambda line: None)
    assert [chapter.name for chapter in built.chapters] == ["index", "01_one", "90_other"]
    soup = BeautifulSoup(built.index.read_text(encoding="utf-8"), "html.parser")
    text = " ".join(soup.select_one("article").get_text(" ", strip=True).split())
    assert "computed: 63" in text
    assert "There are seven of them." in text
    [item] = soup.select(".companion-chapters li")
    assert item.a["href"] == "chapters/01_one.html"
    assert " ".join(item.get_text().split()) == "1 One title: What is it? 1 min"
    assert not (built.index.parent / "chapters" / "index.html").exists()
    assert sorted(path.name for path in (root / "book").glob("index*")) == ["index.md"]


def test_a_missing_value_is_a_warning(extension: ModuleType, tmp_path: Path) -> None:
    """A build takes warnings for errors."""
    said: list[str] = []
    env = SimpleNamespace(srcdir=str(tmp_path), note_dependency=lambda path: None)
    role: Any = extension.OfChapter()
    role.inliner = SimpleNamespace(
        document=SimpleNamespace(settings=SimpleNamespace(env=env)),
        reporter=SimpleNamespace(warning=lambda text, line: said.append(text)),
    )
    role.text, role.lineno = "01_gone key", 1
    role.run()
    assert said
    assert said[0].startswith("01_gone.ipynb: not an executed notebook")


def test_pages_with_code(tmp_path: Path) -> None:
    (tmp_path / "plain.md").write_text("# Plain\n\n    ```{code-cell}\n")
    (tmp_path / "front.md").write_text(PAGE)
    assert pages_with_code(tmp_path) == [tmp_path / "front.md"]
    assert [page.name for page in pages_with_code(book.ROOT / "book")] == ["intro.md"]


def test_entries(extension: ModuleType) -> None:
    found = Reading(title="Title", question="Why?", words=1200, figures=1, tables=0)
    assert extension.entry("03_x", found) == "* 3 [Title](chapters/03_x.ipynb): Why? *6\u00a0min*"
    left_out = Reading(title="Title", question="", words=9, figures=0, tables=0)
    assert "Not in this build of the book." in extension.entry("03_x", left_out)
