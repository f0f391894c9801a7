"""Quizzes, exercises with solutions, fold buttons and the glossary: small pages, and what a browser does with them."""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup

from companion.book.notebooks import LANGUAGE, ROOT

pytestmark = pytest.mark.book

EXTENSIONS = ("companion_exercise", "companion_folds", "companion_glossary", "companion_quiz")
QUIZ = r"""```{quiz} Two optima
:label: quiz-optima

Which one changes, at equal $L$?

- [ ] the *first* :: It depends on $C$ alone.
- [x] {glue:text}`second` of them :: Serving has a larger share
      of the cost.
- [ ] both :: Only one does.
```"""
EXERCISES = r"""## Exercises

See {ref}`e-one`.

```{exercise} One
:label: e-one
:level: recall

Do this.
```

```{solution-start} e-one
```

In words."""
GLOSSARY = """# Words

```{glossary}
roofline
  The shortest time that peaks <allow>.
  It is a bound.

  Introduced elsewhere.

gate
  A number.
```

```{toctree}
:hidden:
page
```
"""
RULES = {
    "no label": "```{quiz} A\nQ?\n\n- [x] a :: b\n- [ ] c :: d\n```",
    "no question": "```{quiz} A\n:label: q1\n- [x] a :: b\n- [ ] c :: d\n```",
    "0 right options": "```{quiz} A\n:label: q2\n\nQ?\n\n- [ ] a :: b\n- [ ] c :: d\n```",
    "2 right options": "```{quiz} A\n:label: q3\n\nQ?\n\n- [x] a :: b\n- [x] c :: d\n```",
    "1 options": "```{quiz} A\n:label: q4\n\nQ?\n\n- [x] a :: b\n```",
    "option 2 has no feedback": "```{quiz} A\n:label: q5\n\nQ?\n\n- [x] a :: b\n- [ ] c\n```",
    "one paragraph each": "```{quiz} A\n:label: q6\n\nQ?\n\n- [x] a :: > b\n- [ ] c :: d\n```",
    "exercise 'A': no :level:": "```{exercise} A\n:label: e1\n\nDo.\n```",
    '"hard" unknown': "```{exercise} B\n:label: e\n:level: hard\n\nDo.\n```",
}


def build(folder: Path, pages: dict[str, str]) -> str:
    """Build pages with our extensions in the plainest theme; return what Sphinx complains of."""
    sphinx = pytest.importorskip("sphinx.application")
    docutils = pytest.importorskip("sphinx.util.docutils")
    pytest.importorskip("myst_nb")
    source = folder / "source"
    source.mkdir()
    for name, text in pages.items():
        (source / name).write_text(text, encoding="utf-8")
    settings = {
        "extensions": ["myst_nb", "sphinx_exercise", *EXTENSIONS],
        "myst_enable_extensions": ["dollarmath", "tasklist"],
        "nb_execution_mode": "off",
        "html_static_path": [str(ROOT / "book" / "_assets")],
        "html_theme": "basic",
        "mathjax_path": "none.js",
        "root_doc": "index",
    }
    extensions, complaints = str(ROOT / "book" / "_ext"), io.StringIO()
    sys.path.insert(0, extensions)
    try:
        folders = [str(source), None, str(folder / "html"), str(folder / "trees")]
        with docutils.docutils_namespace():  # the next page registers its nodes anew
            sphinx.Sphinx(*folders, "html", settings, status=None, warning=complaints).build()
    finally:
        sys.path.remove(extensions)
    return re.sub(r"\x1b\[[0-9;]*m", "", complaints.getvalue())


def notebook() -> str:
    """A chapter as it is after execution: a quiz, folded cells, an exercise with its solution."""
    v4 = nbformat.v4
    caption = '<figcaption><span class="n">Figure 1.1.</span> Loss &amp; compute. More.</figcaption>'
    html = {"text/html": f"<figure>{caption}</figure><p>out</p>"}
    long = {"text/html": f'<p class="companion-caption">{"Words " * 20}</p>'}
    listed = {"text/html": f'<p class="companion-caption">Common exponents of N*, {"one left out " * 9}</p>'}
    glued = v4.new_output("display_data", {"text/plain": "'the second'"}, metadata={"scrapbook": {"name": "second"}})
    folded = {"tags": ["hide-input"]}
    settings = {"tags": ["parameters", "hide-input"]}
    text = "# A chapter\n\nA {term}`roofline` and {term}`gates <gate>`.\n\n"
    cells = [
        v4.new_markdown_cell(text + QUIZ),
        v4.new_code_cell("scale = 2", metadata=settings),
        v4.new_code_cell("draw()", metadata=folded, outputs=[v4.new_output("display_data", html)]),
        v4.new_code_cell("count()", metadata={"tags": ["hide-cell"]}, outputs=[glued]),
        v4.new_code_cell("draw()", metadata={"tags": ["hide-cell"]}, outputs=[v4.new_output("display_data", html)]),
        v4.new_code_cell("list()", metadata={"tags": ["hide-output"]}, outputs=[v4.new_output("display_data", long)]),
        v4.new_code_cell("list()", metadata={"tags": ["hide-output"]}, outputs=[v4.new_output("display_data", listed)]),
        v4.new_markdown_cell(EXERCISES),
        v4.new_code_cell("answer()", outputs=[v4.new_output("stream", name="stdout", text="42")]),
        v4.new_markdown_cell("```{solution-end}\n```\n\nAfter."),
    ]
    return nbformat.writes(v4.new_notebook(cells=cells, metadata={"language_info": LANGUAGE}))


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teaching")
    assert not build(folder, {"index.md": GLOSSARY, "page.ipynb": notebook()})
    return folder / "html"


@pytest.fixture(scope="module")
def soup(html: Path) -> BeautifulSoup:
    return BeautifulSoup((html / "page.html").read_text(encoding="utf-8"), "html.parser")


def text(node: Any) -> str:
    return " ".join(node.get_text().split())


def test_quiz_reads_without_scripts(soup: BeautifulSoup) -> None:
    quiz = soup.select_one("form#quiz-optima")
    assert quiz["data-right"] == "2"
    assert text(quiz.legend) == "Check: Two optima"
    described = soup.find(id=quiz.fieldset["aria-describedby"])
    assert text(described).startswith("Which one changes")
    assert described.select_one(".math")
    labels = [quiz.find("label", attrs={"for": button["id"]}) for button in quiz.select("input[type=radio]")]
    assert [text(label) for label in labels] == ["the first", "the second of them", "both"]
    answers = [text(answer) for answer in quiz.select("details li")]
    assert [re.search("right|wrong", answer)[0] for answer in answers] == ["wrong", "right", "wrong"]  # type: ignore[index]
    assert answers[1].endswith("Serving has a larger share of the cost.")
    assert not quiz.select("details[open]")


def test_broken_sources_are_errors_with_their_line(tmp_path: Path) -> None:
    page = "# Title\n\n" + "\n\n".join(RULES.values())
    complaints = build(tmp_path, {"index.md": page}).splitlines()
    for fault, source in RULES.items():
        line = page[: page.index(source)].count("\n") + 1
        found = [complaint for complaint in complaints if fault in complaint]
        assert len(found) == 1, (fault, complaints)
        assert re.search(rf"index\.md:{line}: (ERROR|WARNING)", found[0]), found  # the build takes both for errors
    assert not BeautifulSoup((tmp_path / "html" / "index.html").read_text("utf-8"), "html.parser").select(
        "form.companion-quiz"
    )


def test_exercise_has_a_level_and_a_folded_solution(soup: BeautifulSoup) -> None:
    title = soup.select_one("#e-one > .admonition-title")
    assert "Exercise 1" in text(title)
    stars = title.select_one("[aria-hidden=true]").extract()
    assert text(stars) == "★☆☆"
    assert text(title.select_one(".companion-level")) == "recall"
    assert text(soup.select_one('a[href="#e-one"]')) == "Exercise 1"
    solution = soup.select_one("details.companion-solution")
    assert text(solution.summary) == "Solution to Exercise 1 (One)"
    assert not solution.summary.select("a, button")
    inside = text(solution)
    assert inside.index("In words.") < inside.index("answer()") < inside.index("42")
    assert "After." not in inside
    assert not solution.select("details")  # the code is open once the solution is


def test_ids_are_unique(soup: BeautifulSoup) -> None:
    ids = [node["id"] for node in soup.select("[id]")]
    assert len(ids) == len(set(ids))


def test_folds_have_names_of_their_own(soup: BeautifulSoup) -> None:
    buttons = soup.select("div.cell summary")
    names = [text(summary.select_one(".collapsed")) for summary in buttons]
    assert names == [
        "Show the parameters of this chapter",
        "Show the code: Figure 1.1. Loss & compute",
        "Show the code and its output: cell 4, A chapter",
        "Show: Figure 1.1. Loss & compute (with the code)",
        f"Show: {' '.join(['Words'] * 8)}…",
        "Show: Common exponents of N*…",
    ]
    assert text(buttons[3].select_one(".expanded")) == "Hide: Figure 1.1. Loss & compute (with the code)"
    unseen = ["".join(map(text, summary.select(".collapsed .visually-hidden"))) for summary in buttons]
    assert unseen == ["", ": Figure 1.1. Loss & compute", ": cell 4, A chapter", "", "", ""], (
        "hidden output is named for all"
    )
    assert not soup.select("summary[aria-label]")


def test_terms_carry_their_definitions(soup: BeautifulSoup, html: Path) -> None:
    terms = soup.select(".companion-term")
    assert [term["data-definition"] for term in terms] == [
        "The shortest time that peaks <allow>. It is a bound.",
        "A number.",
    ]
    assert [text(term) for term in terms] == ["roofline", "gates"]
    assert terms[1].a["href"] == "index.html#term-gate"
    assert "shortest time" not in soup.get_text()  # so that neither search nor its excerpts repeat it


def test_formula_in_a_definition_is_refused(tmp_path: Path) -> None:
    complaints = build(tmp_path, {"index.md": "# T\n\n```{glossary}\nsize\n  Often $N$.\n```\n"})
    assert re.search(r"index\.md:\d*: WARNING: glossary: 'size' needs a first paragraph in plain words", complaints)


@pytest.fixture
def page(browser: Any, html: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 390, "height": 700}, has_touch=True)
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.route("**/none.js", lambda route: route.abort())
    page.goto((html / "page.html").as_uri())
    yield page
    assert not page.errors
    context.close()


def test_quiz_answers_from_the_keyboard(page: Any) -> None:
    result = page.locator("[role=status]")
    assert not page.locator(".companion-quiz-answers").is_visible()
    page.locator("#quiz-optima-1").focus()
    page.keyboard.press("Enter")
    assert result.inner_text() == "Choose an option first."
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    assert result.inner_text().split("\n")[0] == "Not quite."
    page.keyboard.press("ArrowDown")
    assert result.inner_text() == ""  # an old answer is not taken for that of the new choice
    page.keyboard.press("Enter")
    assert "Right." in result.inner_text()
    assert "larger share" in result.inner_text()
    page.get_by_label("both").check()
    page.get_by_role("button", name="Check").click()
    assert "Only one does." in result.inner_text()
    assert page.locator(".companion-quiz-feedback").count() == 3


def resize(page: Any, width: int) -> None:
    """Change the window's width and wait for the page to hear of it, which closes definitions: the browser's call
    returns before that."""
    page.evaluate("window.heard = new Promise(done => window.addEventListener('resize', done, {once: true})), null")
    page.set_viewport_size({"width": width, "height": 700})
    page.evaluate("window.heard.then(() => null)")


def test_definitions_show_under_focus_pointer_and_touch(page: Any) -> None:
    link, other = page.locator(".companion-term a").all()
    note = page.locator("#" + link.get_attribute("aria-describedby"))
    resize(page, 800)
    link.focus()
    assert note.is_visible()
    assert note.inner_text().startswith("The shortest time")
    page.keyboard.press("Escape")
    assert not note.is_visible()
    link.blur()
    link.focus()
    resize(page, 390)
    assert not note.is_visible()
    other.hover()
    assert page.locator("[role=tooltip]:visible").inner_text() == "A number."
    page.mouse.move(380, 690)
    link.tap()
    note.wait_for(state="visible")  # the browser makes a click of the touches, in its own time
    assert page.url.endswith("page.html")
    place = note.bounding_box()
    assert place["x"] >= 0
    assert place["x"] + place["width"] <= 390
    link.tap()
    page.wait_for_url("**/index.html#term-roofline")


def test_glossary_of_the_book() -> None:
    source = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    body = re.search(r"```\{glossary\}\n(.*?)```", source, re.DOTALL)[1]  # type: ignore[index]
    entries = re.split(r"^(?=\S)", body, flags=re.MULTILINE)[1:]
    names = [entry.split("\n")[0] for entry in entries]
    assert names == sorted(names, key=str.lower)
    assert 30 <= len(set(names)) == len(names)
    for entry in entries:
        definition, introduced = re.fullmatch(r"[^\n]+\n(.*?)\n\n  (Introduced in .*?)\n*", entry, re.DOTALL).groups()  # type: ignore[union-attr]
        assert 1 <= len(re.findall(r"[.!?](?=\s|$)", definition)) <= 2, definition
        chapter = re.search(r"\(chapters/(\w+)\.ipynb\)", introduced)[1]  # type: ignore[index]
        assert (ROOT / "notebooks" / f"{chapter}.md").is_file(), chapter
