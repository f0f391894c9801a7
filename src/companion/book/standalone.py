"""Notebooks that leave the book: an executed chapter becomes one that reads and runs on its own.

Glued values, citations and numbers are in the text; links are absolute or plain text; a first cell says how to install
the package. Cells that only glue values for the text are gone.
"""

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import companion
from companion.book.addresses import Addresses, read_addresses
from companion.book.citations import Citations
from companion.book.notebooks import dump, name_cells, write
from companion.book.plain_markdown import Page, Site, titles_and_labels

#: Gluing by function: both only pass values to the text.
_GLUES = {"glue", "glue_facts"}
#: What Jupyter folds, as the pages do.
_FOLDED = {"hide-input", "hide-cell", "remove-cell", "remove-input"}
_NUMBERED = re.compile(r"(?:Figure|Fig\.|Table|Exercise|Equation|Code)\s*(?:[A-Z]\.)?[\d.]+$")
_NEEDS_KERNELS = re.compile(r"\bch1[03]\b|\bcompanion\.(?:kernels|models|study)\b|\bimport torch\b")

_CHECK = """\
# Says what is missing. After an installation restart the kernel.
from importlib.util import find_spec

missing = [name for name in {modules} if find_spec(name) is None]
if missing:
    print("Not installed:", ", ".join(missing), '- {how}')
else:
    import companion

    if companion.__version__ != "{version}":
        print("This notebook was made with companion {version}; here is", companion.__version__)"""


def write_standalone(pages: Path, html: Path, config: Path) -> list[Path]:
    """Put stand-alone notebooks where the download buttons of a rendered book point; return their paths.

    Parameters
    ----------
    pages
        folder of the book's pages, with the executed notebooks in `chapters/`.
    html
        folder of the rendered pages; `_sources/chapters/NAME.ipynb` are replaced.
    config
        the book's `_config.yml`, with the addresses.

    Raises
    ------
    InputError
        a chapter shows a value that no cell glued or cites an unknown work, or an address is wrong.
    """
    notebooks, site = read_site(pages, html, config)
    targets = {html / "_sources" / f"{name}.ipynb": name for name in notebooks}
    written = [target for target in targets if target.is_file()]
    for target in written:
        write(target, dump(standalone(notebooks[targets[target]], targets[target], site)))
    return written


def read_site(pages: Path, html: Path, config: Path) -> tuple[dict[str, Any], Site]:
    """The executed chapters of a rendered book by page (`chapters/09_planning`), and what its pages refer to.

    The folders are those of `write_standalone`.

    Raises
    ------
    InputError
        an address in the configuration is wrong.
    """
    import nbformat

    notebooks = {f"chapters/{path.stem}": nbformat.read(path, 4) for path in sorted(pages.glob("chapters/*.ipynb"))}
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(pages.glob("*.md"))}
    texts |= {name: "\n\n".join(cell.source for cell in _markdown(book)) for name, book in notebooks.items()}
    titles, labels = titles_and_labels(texts)
    numbers: dict[str, str] = {}
    for page in sorted(html.glob("chapters/*.html")):
        numbers |= numbers_of(page.read_text(encoding="utf-8"))
    return notebooks, Site(read_addresses(config), Citations(pages / "references.bib"), titles, labels, numbers)


def standalone(notebook: Any, name: str, site: Site) -> Any:
    """An executed notebook that needs neither the book nor its folder; the given one is not changed.

    Parameters
    ----------
    notebook
        an nbformat node; values that its text shows are in the outputs of the cells that glued them.
    name
        of its page, such as `chapters/09_planning`.
    site
        what the other pages say of its references.

    Raises
    ------
    InputError
        its text shows a value that no cell glued, or cites an unknown work.
    """
    from nbformat import from_dict, v4

    made = from_dict({**notebook, "metadata": dict(notebook.metadata)})
    made.metadata.pop("jupytext", None)
    page = Page(site, name, glued_values(notebook))
    cells = []
    for cell in without_gluing([from_dict(cell) for cell in notebook.cells]):
        if cell.cell_type == "markdown":
            cell.source = page.convert(cell.source)
        elif cell.cell_type == "code":
            cell.outputs = [_output(output, site.numbers) for output in cell.outputs]
            if _FOLDED & set(cell.metadata.get("tags", [])):
                cell.metadata["jupyter"] = {"source_hidden": True}
        cells += [cell] if cell.source.strip() else []
    if page.cited:
        works = site.citations.references(list(page.cited))
        cells.append(v4.new_markdown_cell("## References\n\n" + "\n".join(f"* {work}" for work in works)))
    made.cells = [*_opening(notebook, name, site.addresses), *cells]
    return name_cells(made)


def glued_values(notebook: Any) -> dict[str, Any]:
    """Values that the cells of an executed notebook glued, by name."""
    values = {}
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        record = output.get("metadata", {}).get("scrapbook", {})
        if "name" in record:
            text = output["data"][f"{record['mime_prefix']}text/plain"]
            try:
                values[record["name"]] = ast.literal_eval(text)
            except (ValueError, SyntaxError):  # an object without a literal: its text is what the page shows
                values[record["name"]] = text
    return values


def without_gluing(cells: list[Any]) -> list[Any]:
    """Cells without statements that only glue values, and without what only they used.

    In a hidden cell assignments, imports and functions that no later code names go too; a cell that has nothing left is
    dropped.
    """
    later: set[str] = set()
    kept = []
    for cell in reversed(cells):
        if cell.cell_type != "code":
            kept.append(cell)
            continue
        hidden = "remove-cell" in cell.metadata.get("tags", [])
        source = _without_gluing(cell.source, later, hidden=hidden)
        if source != cell.source:
            cell.source = source
            cell.outputs = [output for output in cell.outputs if "scrapbook" not in output.get("metadata", {})]
        later |= _names(source)
        kept += [cell] if source.strip() else []
    return kept[::-1]


def numbers_of(page: str) -> dict[str, str]:
    """Numbers of formulas, exercises, figures and tables by label, as a rendered page shows them."""
    numbers = dict(re.findall(r'id="equation-([^"]+)">\s*<span class="eqno">(\([\d.]+\))', page))
    exercises = r'id="([^"]+)">\s*<p class="admonition-title"><span class="caption-number">([^<]+?)\s*</span>'
    numbers |= dict(re.findall(exercises, page))
    for label, inner in re.findall(r'<a\b[^>]*?\bhref="[^"#]*#([\w-]+)"[^>]*>(.{1,200}?)</a>', page):
        text = " ".join(re.sub(r"<[^>]+>", "", inner).split())
        if _NUMBERED.match(text):
            numbers.setdefault(label, text)
    return numbers


def needs_kernels(notebook: Any) -> bool:
    """Whether a notebook needs torch."""
    return any(cell.cell_type == "code" and _NEEDS_KERNELS.search(cell.source) for cell in notebook.cells)


def _opening(notebook: Any, name: str, addresses: Addresses) -> list[Any]:
    """A text that says what this notebook is and needs, and a cell that checks it; none for a page without code."""
    from nbformat import v4

    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    if not code:
        return []
    kernels = needs_kernels(notebook)
    requirement = addresses.requirement("notebooks,kernels" if kernels else "notebooks")
    address = addresses.page(name)
    chapter = f"[a chapter]({address})" if address else "a chapter"
    folder = "" if addresses.repository else " in the folder of the project"
    how = f'run{folder}: {"%" if addresses.repository else ""}pip install "{requirement}"'
    text = (
        f'*This notebook is {chapter} of "xLSTM Scaling Laws: a computed companion". It needs Python 3.11 or later and '
        f'the package `companion`; install it{folder}:*\n\n```bash\npip install "{requirement}"\n```\n\n'
        "*Numbers in the text are those of the book's own run; cells that you run compute tables and figures anew.*"
    )
    if any("../_static/" in str(output) for cell in notebook.cells for output in cell.get("outputs", [])):
        text += " *Sliders work in the html of the book only.*"
    modules = ("companion", "matplotlib", "torch") if kernels else ("companion", "matplotlib")
    check = _CHECK.format(how=how, modules=modules, version=companion.__version__)
    return [v4.new_markdown_cell(text), v4.new_code_cell(check)]


def _output(output: Any, numbers: Mapping[str, str]) -> Any:
    """An output without scripts of the site; its figures and tables with the numbers that the text names."""
    if "text/html" not in output.get("data", {}):
        return output
    markup = output["data"]["text/html"]
    markup = re.sub(r'<script\b[^>]*\bsrc="\.\./[^>]*>\s*</script>', "", "".join(markup))
    for label in re.findall(r'\bid="((?:fig|tbl)-[\w-]+)"', markup):
        if number := numbers.get(label):
            opening = rf'(id="{label}".*?(?:<figcaption>|<p class="companion-caption">))(?!<strong>)'
            markup = re.sub(opening, rf"\1<strong>{number}.</strong> ", markup, count=1, flags=re.DOTALL)
    output["data"]["text/html"] = markup
    return output


def _without_gluing(source: str, later: set[str], *, hidden: bool) -> str:
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a magic of IPython
        return source
    gone, used = [], set(later)
    for statement in reversed(statements):
        names = _bound(statement)
        idle = names is not None and not names & used
        only_glue = names is not None and names <= _GLUES and isinstance(statement, ast.ImportFrom)
        if _is_glue(statement) or (idle and (only_glue or hidden)):
            gone.append(statement)
        else:
            used |= _names(ast.unparse(statement))
    glued = any(_is_glue(statement) or _bound(statement) == {"glue_facts"} for statement in gone)
    if not glued and not (hidden and gone):
        return source
    lines = source.split("\n")
    for statement in gone:
        for number in range(statement.lineno - 1, statement.end_lineno or statement.lineno):
            lines[number] = "\0"
    left = [line for line in lines if line != "\0"]
    return "\n".join(left).strip("\n") if any(line.strip() and line.lstrip()[0] != "#" for line in left) else ""


def _is_glue(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _GLUES


def _bound(statement: ast.stmt) -> set[str] | None:
    """Names that a statement binds and does nothing else with; None for any other statement."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.FunctionDef):
        return {statement.name}
    if isinstance(statement, ast.Assign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        parts = [each for target in targets for each in getattr(target, "elts", [target])]
        return {each.id for each in parts} if all(isinstance(each, ast.Name) for each in parts) else None
    return None


def _names(source: str) -> set[str]:
    """Names that a piece of code may read; of a magic every word."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set(re.findall(r"\w+", source))
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    grown = [node.target for node in ast.walk(tree) if isinstance(node, ast.AugAssign)]
    return read | {target.id for target in grown if isinstance(target, ast.Name)}


def _markdown(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]
