"""Sphinx extension: what depends on where the project is published, from `repository: {url, branch}` of `_config.yml`.

* With a repository: buttons for the repository, an edit, an issue; Colab and Binder on chapters; a link for feedback.
* Without one: none of them, and the pages say "the checkout".

Chapters lie in `notebooks/`, not where Sphinx reads them; Colab opens the stand-alone notebooks, which say how to
install the package.
"""

from collections.abc import Iterator
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from companion.book.addresses import DOWNLOADS, Addresses, addresses
from companion.book.standalone import needs_kernels

BUTTONS = ("use_repository_button", "use_edit_page_button", "use_issues_button")


def published(config: Config) -> Addresses:
    """The addresses in the theme's options, where jupyter-book puts those of `_config.yml`."""
    options = config.html_theme_options
    return addresses(options.get("repository_url"), options.get("repository_branch"), config.html_baseurl)


def set_options(app: Sphinx, config: Config) -> None:
    """Show the buttons that have an address, and give the pages their words."""
    found = published(config)
    options = config.html_theme_options
    options |= dict.fromkeys(BUTTONS, bool(found.repository)) | {"repository_url": found.repository}
    if not found.on_github:
        options["launch_buttons"] = {}
    feedback = config.companion_feedback or (f"{found.repository}/issues" if found.repository else "")
    if feedback:
        options["extra_footer"] = f'<p>Something wrong or missing? <a href="{feedback}">Say so</a>.</p>'
    config.myst_substitutions = {**config.myst_substitutions, **words(found)}


def words(found: Addresses) -> dict[str, str]:
    """Substitutions for pages: the checkout, and how one gets it."""
    if not found.repository:
        return {"checkout": "the checkout", "get_checkout": "Go to the folder of the checkout."}
    name = found.repository.rpartition("/")[2]
    return {
        "checkout": f"[the repository]({found.repository})",
        "get_checkout": f"```bash\ngit clone {found.repository}\ncd {name}\n```",
    }


def lead_to_sources(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let the buttons of a chapter lead to its files in the repository."""
    found, chapter = published(app.config), pagename.removeprefix("chapters/")
    if not found.repository or chapter == pagename or pagename not in app.env.found_docs:
        return
    wrong, pair = f"book/{pagename}.ipynb", found.source(pagename, ".ipynb")
    places = {"Binder": pair, "Colab": pair, "Suggest edit": found.source(pagename)}
    for button in buttons(context.get("header_buttons", [])):
        if (place := places.get(button.get("text", ""))) and button["url"].endswith(wrong):
            button["url"] = button["url"].removesuffix(wrong) + place
            button["url"] = button["url"].replace(f"/blob/{found.branch}/{pair}", f"/blob/{DOWNLOADS}/{chapter}.ipynb")
    if needs_kernels(nbformat.read(app.env.doc2path(pagename), 4)):  # more than Binder's machines have
        for button in buttons(context.get("header_buttons", [])):
            if button.get("label") == "launch-buttons":
                button["buttons"] = [each for each in button["buttons"] if each.get("text") != "Binder"]


def buttons(entries: Any) -> Iterator[dict[str, Any]]:
    """All buttons, those in groups too."""
    for entry in entries:
        yield entry
        yield from buttons(entry.get("buttons", []))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the setting and the hooks; the late priority runs after the theme has made its buttons."""
    app.add_config_value("companion_feedback", "", "html")
    app.connect("config-inited", set_options)
    app.connect("html-page-context", lead_to_sources, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
