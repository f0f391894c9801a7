"""Sphinx extension: pages that need no other host.

* Thebe's scripts, which jupyter-book declares on every page and which point to a CDN, are taken off.
* MathJax is copied out of the package sphinx-mathjax-offline, as one file that loads nothing further. Pages with
  figures or tables of the package get it too: their captions may hold formulas, which Sphinx does not see.
* plotly's script, for the explorer, is copied out of the package plotly.
* The font of the figures is copied out of matplotlib, cut down to the signs that figures use.
* Works of the same authors and year get a letter in citations: 2025a, 2025b.
* Comments on fields are shown whole, colons included.
* The download button of a chapter says that it gives the notebook.
* References lose roles that screen readers no longer support.
"""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset

from companion.book.citations import lettered_years

#: Script, the package that has it, its folder below `_static`: `mathjax_path` and the explorer's page say the same.
SCRIPTS = (
    ("tex-svg-full.js", "sphinx-mathjax-offline", "mathjax"),
    ("plotly.min.js", "plotly", "plotly"),
)

#: Font files of matplotlib that figures use, and the blocks of signs that are kept of them.
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSans-Bold.ttf")
SIGNS = ((0x20, 0x17F), (0x370, 0x3FF), (0x2000, 0x22FF), (0x25A0, 0x25FF), (0x2700, 0x27BF))


def letter_years(app: Sphinx) -> None:
    """Tell apart works of the same authors and year."""
    entries = app.env.get_domain("cite").bibdata.data.entries
    for key, year in lettered_years(entries).items():
        entries[key].fields["year"] = year


def script_file(name: str, package: str) -> Path:
    """Path of a script in an installed package."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            return Path(str(file.locate()))
    raise ExtensionError(f"{name} not found: pip install {package}")


def copy_scripts(app: Sphinx, error: Exception | None) -> None:
    """Put the scripts of other packages below `_static`."""
    if error is None and app.builder.format == "html":
        for name, package, folder in SCRIPTS:
            copy_asset(str(script_file(name, package)), str(Path(app.outdir) / "_static" / folder))
        copy_fonts(Path(app.outdir) / "_static" / "fonts")


def copy_fonts(folder: Path) -> None:
    """Write the fonts of the figures as .woff."""
    import matplotlib
    from fontTools import subset

    folder.mkdir(parents=True, exist_ok=True)
    options = subset.Options(flavor="woff", recalc_timestamp=False, notdef_outline=True)
    for name in FONTS:
        font = subset.load_font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), options)
        cut = subset.Subsetter(options)
        cut.populate(unicodes=[sign for first, last in SIGNS for sign in range(first, last + 1)])
        cut.subset(font)
        subset.save_font(font, str(folder / f"{Path(name).stem}.woff"), options)


def want_mathjax(app: Sphinx, doctree: nodes.document) -> None:
    """Count formulas in the package's html as formulas of the page."""
    if any('class="companion-' in node.astext() for node in doctree.findall(nodes.raw)):
        app.env.get_domain("math").data["has_equations"][app.env.docname] = True


def drop_thebe_nodes(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Remove the configuration blocks for Thebe from the page's body."""
    for node in list(doctree.findall(nodes.raw)):
        if "x-thebe-config" in node.astext() or "thebelab" in node.astext():
            node.parent.remove(node)


def drop_thebe_files(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Remove Thebe's scripts and styles from the page's head."""
    for key in ("script_files", "css_files"):
        context[key] = [file for file in context.get(key, []) if "thebe" not in _text_of(file).lower()]


def name_download(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Say on the download button of a chapter that it gives the notebook."""
    for button in _buttons(context.get("header_buttons", [])):
        if str(button.get("url", "")).endswith(".ipynb"):
            button["tooltip"] = "Download this notebook"


def drop_old_roles(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Take off the roles that docutils gives to references: one is deprecated, the other wants other children."""
    body = str(context.get("body", ""))
    context["body"] = body.replace(' role="doc-biblioentry"', "").replace(
        '<div role="list" class="citation-list">', '<div class="citation-list">'
    )


def keep_colons(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking the words before a colon for a type: ours are in the annotations."""
    if what in {"attribute", "data", "property"} and lines and ": " in lines[0]:
        lines[0] = f": {lines[0]}"


def _buttons(entries: Any) -> Iterator[dict[str, Any]]:
    for entry in entries:
        yield entry
        yield from _buttons(entry.get("buttons", []))


def _text_of(asset: Any) -> str:
    attributes = getattr(asset, "attributes", {}) or {}
    return " ".join([str(getattr(asset, "filename", None) or asset), str(attributes.get("body", ""))])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks; the late priorities run after those of sphinx-thebe and the theme."""
    app.connect("builder-inited", letter_years, priority=900)  # after the entries are read
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("doctree-read", want_mathjax, priority=900)
    app.connect("doctree-resolved", drop_thebe_nodes, priority=900)
    app.connect("html-page-context", drop_thebe_files, priority=900)
    app.connect("html-page-context", name_download, priority=900)
    app.connect("html-page-context", drop_old_roles, priority=900)
    app.connect("build-finished", copy_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
