"""Small notebooks and a small book: the real configuration, extension and assets, around chapters of a few cells."""

import json
import shutil
from pathlib import Path

from companion.book.notebooks import ROOT

HEADER = """---
jupytext:
  formats: md:myst,ipynb
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""


def source(
    folder: Path, *cells: str, name: str = "01_test", parameters: str | None = "scale = 2", text: str = "# A test"
) -> Path:
    """A small MyST notebook: a text, the cell of parameters, more cells."""
    tagged = [] if parameters is None else [f":tags: [parameters]\n\n{parameters}"]
    blocks = "\n\n".join(f"```{{code-cell}} ipython3\n{cell}\n```" for cell in [*tagged, *cells])
    path = folder / f"{name}.md"
    path.write_text(f"{HEADER}{text}\n\n{blocks}\n")
    return path


def texts(executed: Path) -> str:
    """All text that the cells put out."""
    cells = json.loads(executed.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in outputs)


def plain_book(folder: Path, index: str = "# Title\n") -> Path:
    """A checkout without chapters yet: the plainest configuration, one page; its folder of notebooks is empty."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "book").mkdir()
    (folder / "_config.yml").write_text("title: t\nexecute:\n  execute_notebooks: 'off'\nonly_build_toc_files: true\n")
    (folder / "book" / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n- glob: chapters/*\n")
    (folder / "book" / "index.md").write_text(index)
    return folder


def real_book(folder: Path, index: str = "# Title\n") -> Path:
    """The same with the book's own configuration, extension, assets and references."""
    plain_book(folder, index)
    shutil.copy(ROOT / "_config.yml", folder)
    for name in ("_ext", "_assets"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name)
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    return folder
