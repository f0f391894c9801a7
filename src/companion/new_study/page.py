"""The page of a study: its executed notebook as one html file that needs no other file and no network."""

import base64
import html
import re
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from companion.book.execution import try_all
from companion.book.notebooks import write
from companion.errors import InputError
from companion.new_study.making import NOTEBOOK, TEMPLATES

PAGE = "page.html"
_INJECTED = "injected-parameters"
_MATHJAX = """<script>
window.MathJax = {
  tex: {inlineMath: [["\\\\(", "\\\\)"]], displayMath: [["\\\\[", "\\\\]"]]},
  options: {enableMenu: false}, svg: {fontCache: "local"}
};
</script>
"""


def make_page(folder: Path, parameters: Mapping[str, Any] | None = None) -> tuple[Path, tuple[tuple[str, str], ...]]:
    """Execute the notebook of a study and write its page; return the page, and title and reason of what it leaves out.

    Parameters
    ----------
    folder
        of the study, with `study.ipynb`; `page.html` in it is replaced.
    parameters
        new values of the notebook's `parameters` cell. A section that the table cannot answer is left out.

    Raises
    ------
    InputError
        there is no notebook in the folder, or a cell failed (`NotebookError`): the earlier page stays.
    """
    import nbformat

    notebook = folder / NOTEBOOK
    if not notebook.is_file():
        raise InputError(f"{folder}: no {NOTEBOOK} there; make a study with 'companion new-study NAME'")
    given = dict(parameters or {})
    given.setdefault("runs_file", str((folder / "runs.csv").resolve()))  # a reader's table: sections may be left out
    with tempfile.TemporaryDirectory(prefix="companion-") as executed:
        (done,) = try_all([notebook], Path(executed), given)
        if done.failure or done.path is None:
            raise done.failure or InputError(f"{notebook}: was not executed")
        cells = nbformat.read(done.path, 4).cells
    shown = [cell for cell in cells if _INJECTED not in cell.metadata.get("tags", [])]
    page = folder / PAGE
    write(page, _page(shown))
    return page, done.left_out


def _page(cells: list[Any]) -> str:
    """The html of a notebook; its script for formulas is inside, if there are any."""
    body = "\n".join(_cell(cell) for cell in cells)
    titles = (re.match(r"#\s+(.+)", cell.source) for cell in cells if cell.cell_type == "markdown")
    title = next((match[1] for match in titles if match), "A scaling study")
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    script = f"{_MATHJAX}<script>{_mathjax()}</script>\n" if 'class="math' in body else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n{script}</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _cell(cell: Any) -> str:
    if cell.cell_type == "markdown":
        return str(_markdown().render(cell.source)).strip()
    if cell.cell_type != "code":
        return ""
    code = f"<details><summary>Code</summary><pre><code>{html.escape(cell.source)}</code></pre></details>"
    return "\n".join([code, *_outputs(cell.outputs)])


def _outputs(outputs: list[Any]) -> Iterator[str]:
    """What a cell put out: html as it is, pictures, else text."""
    for output in outputs:
        data = output.get("data", {})
        if output.output_type == "stream":
            yield f'<pre class="output">{html.escape(output.text)}</pre>'
        elif "text/html" in data:
            yield data["text/html"]
        elif "image/svg+xml" in data:
            yield data["image/svg+xml"]
        elif "image/png" in data:
            picture = base64.b64encode(base64.b64decode(data["image/png"])).decode()
            yield f'<img alt="Output of the cell above" src="data:image/png;base64,{picture}">'
        elif "text/plain" in data:
            yield f'<pre class="output">{html.escape(data["text/plain"])}</pre>'


def _markdown() -> Any:
    """Markdown with tables and formulas between dollars."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    def formula(content: str, options: dict[str, Any]) -> str:
        left, right = (r"\[", r"\]") if options["display_mode"] else (r"\(", r"\)")
        return f"{left}{html.escape(content)}{right}"

    return MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, renderer=formula)


def _mathjax() -> str:
    """The script that typesets formulas, out of the package that the book uses."""
    try:
        files = metadata.files("sphinx-mathjax-offline") or []
    except metadata.PackageNotFoundError as error:
        raise InputError("formulas on a page need the extra 'book' (sphinx-mathjax-offline is missing)") from error
    (script,) = [file for file in files if file.name == "tex-svg-full.js"]
    return Path(str(script.locate())).read_text(encoding="utf-8").replace("</script", "<\\/script")
