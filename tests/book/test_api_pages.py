"""The API reference: one page a package, types by their names, old addresses that still lead somewhere."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from test_doctests import FACES

from companion.cli import command_help

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "book" / "api").glob("*.md"))
DOCUMENTED = {page.stem: re.findall(r"auto(?:module|class):: (\S+)", page.read_text()) for page in PAGES}


def test_every_package_has_a_page() -> None:
    packages = {path.parent.name for path in (ROOT / "src" / "companion").glob("*/__init__.py")}
    assert packages - {"chapters"} <= set(DOCUMENTED)


def test_every_module_is_on_one_page() -> None:
    modules = [module for page in DOCUMENTED.values() for module in page]
    assert len(modules) == len(set(modules))


def test_overview_leads_to_every_page() -> None:
    overview = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\(api/(\w+)\.md\)", overview) == re.findall(
        r"file: api/(\w+)", (ROOT / "book" / "_toc.yml").read_text()
    )
    assert set(re.findall(r"\]\(api/(\w+)\.md\)", overview)) == set(DOCUMENTED)


def test_the_face_of_the_package_is_on_the_overview() -> None:
    imported = re.findall(r"^from companion import .*$", (ROOT / "book" / "api.md").read_text(), re.MULTILINE)
    (node,) = ast.parse(imported[0]).body
    assert isinstance(node, ast.ImportFrom)
    assert sorted(alias.name for alias in node.names) == sorted(import_module("companion").__all__)


def test_help_of_every_command_names_no_folder_of_this_machine() -> None:
    texts = command_help()
    assert {"companion fit", "companion data check", "companion book"} <= set(texts)
    for name, text in texts.items():
        assert text.startswith(f"usage: {name}"), name
        assert str(ROOT) not in text, name


@pytest.mark.book
def test_types_are_written_by_their_names(built_book: Path) -> None:
    seen = 0
    for path in (built_book / "api").glob("*.html"):
        for signature in BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select("dt.sig"):
            text, seen = signature.get_text(), seen + 1
            assert "_SupportsArray" not in text, f"{path.name}: {text}"
            assert not re.search(r"ndarray\[tuple", text), f"{path.name}: {text}"
            assert not signature.find("dd"), f"{path.name}: a definition without a term: {text}"
    assert seen > 500


@pytest.mark.book
@pytest.mark.browser
@pytest.mark.parametrize(
    ("anchor", "page"),
    [
        ("companion.laws.optimum.optimum", "api/laws.html"),
        ("companion.fitting.isoflop.fit_isoflop", "api/isoflop.html"),
        ("companion.fitting.fit.Fit.predict", "api/fitting.html"),
        ("module-companion.planner", "api/planner.html"),
    ],
)
def test_old_addresses_lead_on(browser: Any, site: str, anchor: str, page: str) -> None:
    tab = browser.new_page()
    tab.goto(f"{site}api.html#{anchor}")
    tab.wait_for_url(f"{site}{page}#{anchor}")
    assert tab.evaluate("document.getElementById(decodeURIComponent(location.hash.slice(1))) !== null")
    tab.close()


#: Whose type only the data or another package decide: the law of a fit, a notebook of nbformat, options of matplotlib.
OPEN = {"Bootstrap.all_laws", "Bootstrap.laws", "Fit.predict", "read", "subplots"}


def functions_of(face: str) -> dict[str, Any]:
    """Functions, methods and properties that a package exports, by their names."""
    found: dict[str, Any] = {}
    for name in import_module(face).__all__:
        shown = getattr(import_module(face), name)
        members = {f"{name}.{each}": value for each, value in vars(shown).items()} if inspect.isclass(shown) else {}
        for label, member in {name: shown, **members}.items():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(function) and not label.split(".")[-1].startswith("_"):
                found[label] = function
    return found


@pytest.mark.parametrize("face", FACES)
def test_types_on_the_faces_are_real(face: str) -> None:
    for label, function in functions_of(face).items():
        signature = inspect.signature(function)
        types = [each.annotation for each in signature.parameters.values()] + [signature.return_annotation]
        assert label in OPEN or not {"Any", Any} & {each for each in types if each.__hash__}, f"{face}.{label}"
