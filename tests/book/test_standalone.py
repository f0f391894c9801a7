"""Downloaded notebooks: what is left out, what their outputs lack, and that one runs far from the checkout."""

import ast
import builtins
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from wheels import build_wheel

from companion.book import building as book
from companion.book.addresses import Addresses
from companion.book.citations import Citations
from companion.book.notebooks import KERNELSPEC
from companion.book.plain_markdown import Site
from companion.book.standalone import glued_values, numbers_of, standalone, without_gluing

CHAPTERS = [path.stem for path in book.sources(book.ROOT / "notebooks")]
RAW = re.compile(
    r"\{(?:glue|cite|eq|ref|numref|see|doc|term|download|py|kbd)[\w:]*\}`"  # a role
    r"|^\s*[`:~]{3,}\{"  # a directive
    r"|^\([\w-]+\)=\s*$|^\+\+\+|\$\$ *\([\w-]+\)"  # labels
    r"|\]\((?!https?:|mailto:)",  # a link that leads nowhere
    re.MULTILINE,
)


def code(source: str, *tags: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})


def left(*cells: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in without_gluing(deepcopy(list(cells)))]


def test_gluing_goes_and_what_only_it_used() -> None:
    setup = code(
        "from companion.chapters.facts import glue_facts\nfrom companion.runs import load_paper_runs\nruns = 1"
    )
    facts = code("shares = share(runs)\nother = 2\nother += 1\nglue_facts(f(shares))", "remove-cell")
    assert left(setup, facts) == ["from companion.runs import load_paper_runs\nruns = 1"]
    assert left(setup, facts, code("shares[0]"))[1:] == ["shares = share(runs)", "shares[0]"]
    assert left(setup, facts, code("other += len('a')"))[1:] == ["other = 2\nother += 1", "other += len('a')"]
    assert left(code("glue('x',\n     1, display=False)\n# why\nshown = 1")) == ["# why\nshown = 1"]


def test_cells_that_do_something_else_stay() -> None:
    drawn = code("table = 1\nshow(table)", "remove-cell")
    branch = code("if table:\n    glue_facts(facts)", "remove-cell")
    magic = code("%timeit table")
    imported = code("from companion.chapters.facts import glue_facts")
    assert left(imported, drawn, branch, magic) == [cell.source for cell in (imported, drawn, branch, magic)]
    assert left(code("unused = 1")) == ["unused = 1"], "a visible cell is the reader's"


def test_glued_values() -> None:
    def record(name: str, text: str) -> nbformat.NotebookNode:
        prefix = "application/papermill.record/"
        scrapbook = {"scrapbook": {"mime_prefix": prefix, "name": name}}
        return nbformat.v4.new_output("display_data", {f"{prefix}text/plain": text}, metadata=scrapbook)

    cell = code("glue_facts(facts)")
    cell.outputs = [record("a", "'it\\'s 3'"), record("b", "0.5"), record("c", "<thing>")]
    assert glued_values(nbformat.v4.new_notebook(cells=[cell])) == {"a": "it's 3", "b": 0.5, "c": "<thing>"}


def test_numbers_are_those_of_the_page() -> None:
    page = (
        '<div class="math" id="equation-eq-one">\n<span class="eqno">(4.1)<a href="#equation-eq-one">#</a></span>'
        '<div class="exercise admonition" id="c4-first">\n<p class="admonition-title"><span class="caption-number">'
        'Exercise 4.1 </span> (A title)</p><a class="x" href="../other.html#fig-front"><span>Figure 3.2</span></a>'
        '<a href="92_log.html#fig-log"><span>Figure C.1</span></a><a href="#here">Table of contents</a>'
    )
    expected = {"eq-one": "(4.1)", "c4-first": "Exercise 4.1", "fig-front": "Figure 3.2"} | {"fig-log": "Figure C.1"}
    assert numbers_of(page) == expected


def test_outputs_have_no_scripts_of_the_site_and_the_numbers_of_the_text(tmp_path: Path) -> None:
    markup = '<figure id="fig-front"><svg></svg><figcaption>Loss.</figcaption></figure>'
    markup += '<script src="../_static/explorer.js" defer></script><script>let own = 1;</script>'
    cell = code("explorer_page(explorer)", "hide-input")
    cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": markup})]
    site = Site(Addresses(), Citations(tmp_path / "none.bib"), numbers={"fig-front": "Figure 3.2"})
    metadata = {"jupytext": {"formats": "md:myst,ipynb"}, "kernelspec": KERNELSPEC}
    made = standalone(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), "chapters/03_x", site)
    assert made.metadata == {"kernelspec": KERNELSPEC}, "it is no pair"
    text, _, shown = made.cells
    assert "work in the html of the book only" in text.source
    assert shown.outputs[0].data["text/html"] == (
        '<figure id="fig-front"><svg></svg><figcaption><strong>Figure 3.2.</strong> Loss.</figcaption></figure>'
        "<script>let own = 1;</script>"
    )
    assert shown.metadata["jupyter"] == {"source_hidden": True}


def undefined(cells: list[nbformat.NotebookNode]) -> set[str]:
    """Names that code reads before any cell binds them."""
    bound, missing = set(dir(builtins)) | {"__name__"}, set()
    for cell in cells:
        nodes = list(ast.walk(ast.parse(cell.source))) if cell.cell_type == "code" else []
        bound |= {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
        bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler)}
        bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        bound |= {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
        missing |= {node.id for node in nodes if isinstance(node, ast.Name) and node.id not in bound}
    return missing


def test_a_lost_name_is_seen() -> None:
    assert undefined([code("import os.path\ndef f(x):\n    return x"), code("y = [f(i) for i in os.listdir(z)]")]) == {
        "z"
    }
    assert undefined([code("a + 1"), code("a = 1")]) == {"a"}


@pytest.mark.book
@pytest.mark.parametrize("stem", CHAPTERS)
def test_downloads_are_plain(built_book: Path, stem: str) -> None:
    path = built_book / "_sources" / "chapters" / f"{stem}.ipynb"
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            outside_of_code = re.sub(r"^(`{3,}).*?^\1$|(?<!`)(`+)(?!`)[^`]+\2(?!`)", "", cell.source, flags=re.S | re.M)
            assert not RAW.search(outside_of_code), cell.source
    text = path.read_text(encoding="utf-8")
    assert "glue_facts(" not in text
    assert "../_static" not in text
    assert not re.search(rf"{re.escape(str(book.ROOT))}|{re.escape(str(built_book.parents[1]))}|/site-packages/", text)
    assert any("pip install" in cell.source for cell in notebook.cells[:2])
    assert not undefined(notebook.cells)


RUN = """
import sys
from pathlib import Path
import companion, nbformat, papermill
from companion.paths import data_dir
done = papermill.execute_notebook(
    sys.argv[1], "done.ipynb", parameters={"num_resamples": 20}, kernel_name="python3", progress_bar=False,
    request_save_on_cell_execute=False
)
print(companion.__file__, data_dir(), sep="\\n")
"""

#: The extra `notebooks` does not bring these: they cannot be imported.
WITHOUT_THE_BOOK = """
import sys

class Missing:
    def find_spec(self, name, *others):
        if name.partition(".")[0] in {"jupyter_book", "jupytext", "myst_nb", "plotly", "sphinx", "torch"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


@pytest.mark.book
def test_a_download_runs_with_the_wheel_alone(built_book: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (tmp_path / "wheel").mkdir()
    with zipfile.ZipFile(build_wheel(tmp_path / "wheel")) as wheel:
        wheel.extractall(site)
    # the other packages of this interpreter; what makes the checkout's own importable here is not read from there
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "sitecustomize.py").write_text(WITHOUT_THE_BOOK)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    downloaded = built_book / "_sources" / "chapters" / "09_planning.ipynb"
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COMPANION_DATA")}
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    done = subprocess.run(
        [str(python), "-c", RUN, str(downloaded)],
        cwd=elsewhere,
        env=clean | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    package, tables = map(Path, done.stdout.split())
    assert package == site / "companion" / "__init__.py"
    assert tables == site / "companion" / "_data"
    cells = nbformat.read(elsewhere / "done.ipynb", 4).cells
    check = next(cell for cell in cells if cell.cell_type == "code")
    assert check.outputs == [], "nothing is missing"
    assert sum("<figure" in str(cell.get("outputs", "")) for cell in cells) >= 3


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    site = Site(Addresses("https://github.com/someone/companion"), Citations(tmp_path / "none.bib"))
    made = standalone(nbformat.v4.new_notebook(cells=[code("1 + 1")]), "chapters/01_x", site)
    check = next(cell.source for cell in made.cells if cell.cell_type == "code")
    bare = subprocess.run([sys.executable, "-I", "-S", "-c", check], capture_output=True, text=True, cwd=tmp_path)
    assert bare.stdout == (
        'Not installed: companion, matplotlib - run: %pip install "xlstm-scaling-companion[notebooks] @ '
        'git+https://github.com/someone/companion@main"\n'
    )
    old = check.replace('!= "', '!= "0')
    here = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, cwd=tmp_path)
    assert here.stdout.startswith("This notebook was made with companion ")
