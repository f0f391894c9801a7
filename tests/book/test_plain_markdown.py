"""MyST becomes Markdown that any notebook shows."""

import pytest

from companion.book.addresses import Addresses, addresses
from companion.book.citations import Citations
from companion.book.plain_markdown import Page, Site, titles_and_labels
from companion.errors import InputError

pytest.importorskip("pybtex.database")

HERE = Addresses("https://github.com/someone/companion", "main", "https://someone.example/book")
BIB = """
@misc{one, author = {Doe, A and R{\\"o}e, B and Poe, C}, title = {First}, year = 2025, eprint = {2501.1},
    archiveprefix = {arXiv}}
@misc{two, author = {Doe, A and Poe, C and R{\\"o}e, B}, title = {Second}, year = 2025}
@misc{three, author = {Roe, B and van Dam, C}, title = {Third {GPU}}, year = 2024}
"""
PAGES = {
    "notation": "# Notation $N$\n\n(symbols)=\n## Symbols",
    "chapters/01_one": "# One\n\n$$\na = b\n$$ (eq-one)",
    "chapters/02_two": "# Two\n\n(here)=\n## A part\n\n```{exercise} A title\n:label: c2-first\n```",
}


@pytest.fixture(scope="module")
def citations(tmp_path_factory: pytest.TempPathFactory) -> Citations:
    file = tmp_path_factory.mktemp("bib") / "references.bib"
    file.write_text(BIB, encoding="utf-8")
    return Citations(file)


@pytest.fixture
def page(citations: Citations) -> Page:
    titles, labels = titles_and_labels(PAGES)
    numbers = {"eq-one": "(1.1)", "c2-first": "Exercise 2.1", "fig-front": "Figure 2.3"}
    site = Site(HERE, citations, titles, labels, numbers)
    return Page(site, "chapters/02_two", {"a_value": "1×10²¹", "rate": 0.12345, "marked": "N* of [a]"})


INLINE = {
    "{glue:text}`a_value` FLOP": "1×10²¹ FLOP",
    "{glue:text}`rate:.2f`": "0.12",
    "{glue:text}`marked`": r"N\* of \[a\]",
    "as {cite:t}`three` say": "as Roe and van Dam (2024) say",
    "so {cite}`one,two`.": "so (Doe et al., 2025a; Doe et al., 2025b).",
    "(see {cite}`three`; $f(x$) and {cite}`three`": "(see Roe and van Dam, 2024; $f(x$) and (Roe and van Dam, 2024)",
    "{eq}`eq-one`": "[(1.1)](https://someone.example/book/chapters/01_one.html#equation-eq-one)",
    "{numref}`fig-front` and {see}`fig-front`": "Figure 2.3 and Figure 2.3",
    "{ref}`symbols`, {ref}`the signs <symbols>`": "[Symbols](https://someone.example/book/notation.html#symbols), "
    "[the signs](https://someone.example/book/notation.html#symbols)",
    "{doc}`../notation`": "[Notation $N$](https://someone.example/book/notation.html)",
    "[chapter 1](01_one.ipynb), [](../notation.md#symbols)": "[chapter 1](https://someone.example/book/chapters/01_one.html)"
    ", [Notation $N$](https://someone.example/book/notation.html#symbols)",
    "[below](here) and [](#here)": "below and A part",
    "[arXiv](https://arxiv.org/abs/1)": "[arXiv](https://arxiv.org/abs/1)",
    "{term}`state`, {term}`states <state>`": "state, states",
    "{py:mod}`companion.runs` {py:func}`~companion.runs.load`": "`companion.runs` `load`",
    "{download}`runs.csv <../data/runs.csv>`": "[runs.csv](https://github.com/someone/companion/blob/main/data/runs.csv)",
    "`{eq}` and ``a `{glue}` b`` stay": "`{eq}` and ``a `{glue}` b`` stay",
    r"$\frac{a}{b}$ and $$x$$": r"$\frac{a}{b}$ and $$x$$",
}


@pytest.mark.parametrize("text", INLINE)
def test_roles_and_links(page: Page, text: str) -> None:
    assert page.convert(text) == INLINE[text]


BLOCKS = {
    "(here)=\n## A part\n% a comment\n+++\ntext": "## A part\ntext",
    ":::{admonition} Say *it*\n:class: tip\nOne {glue:text}`a_value`.\n\nTwo.\n:::": ""
    "> **Say *it***\n>\n> One 1×10²¹.\n>\n> Two.",
    "```{note}\nBeware.\n```": "> **Note**\n>\n> Beware.",
    "::::{tip}\n:::{note}\ninner\n:::\n::::": "> **Tip**\n>\n> > **Note**\n> >\n> > inner",
    "```{exercise} A title\n:label: c2-first\n\nDo {cite:t}`three`.\n```": ""
    "**Exercise 2.1 (A title)**\n\nDo Roe and van Dam (2024).",
    "```{solution} c2-first\nDone.\n```": "**Solution to Exercise 2.1**\n\nDone.",
    "```{math}\n:label: eq-one\na = b\n```": "$$a = b \\tag{1.1}\n$$",
    "$$\na = b\n$$ (eq-one)\n\nmore": "$$\na = b \\tag{1.1}\n$$\n\nmore",
    "* item\n  ```{note}\n  Beware.\n  ```\n* next": "* item\n  > **Note**\n  >\n  > Beware.\n* next",
    "```python\nf'{glue:text}`x`'\n```": "```python\nf'{glue:text}`x`'\n```",
    "```{code-block} bash\nmake\n```": "```bash\nmake\n```",
    "```{quiz} A check\n:label: c2-quiz\n\nWhat is $x$?\n\n- [ ] one :: It is\n  not.\n"
    "- [x] two :: {glue:text}`rate`.\n```": ""
    "**Check your understanding: A check**\n\nWhat is $x$?\n\n1. one\n2. two\n\n<details><summary>Answer</summary>\n\n"
    "1. *wrong*. It is not.\n2. *right*. 0.12345.\n\n</details>",
    "```{exercise} A title\n:label: c2-first\n:level: recall\n```\n": "**Exercise 2.1 (A title)** · recall",
    "```{solution-start} c2-first\n```\n\nText.\n\n```{solution-end}\n```": "**Solution to Exercise 2.1**\n\n\n\nText.",
    "```{unheard-of} A title\n---\noption: 1\n---\nThe body.\n```": "**A title**\n\nThe body.",
}


@pytest.mark.parametrize("text", BLOCKS)
def test_directives(page: Page, text: str) -> None:
    assert "\n".join(line.rstrip() for line in page.convert(text).split("\n")) == BLOCKS[text]


def test_without_addresses_links_are_text(citations: Citations) -> None:
    titles, labels = titles_and_labels(PAGES)
    page = Page(Site(Addresses(), citations, titles, labels), "chapters/02_two", {})
    text = "[chapter 1](01_one.ipynb), [](../notation.md), {ref}`symbols`, {download}`runs.csv <../data/runs.csv>`"
    assert page.convert(text) == "chapter 1, Notation $N$, Symbols, runs.csv"


def test_what_is_missing_is_an_error(page: Page) -> None:
    with pytest.raises(InputError, match=r"chapters/02_two: no value was glued as nothing"):
        page.convert("{glue:text}`nothing`")
    with pytest.raises(InputError, match=r"references\.bib: no work called four"):
        page.convert("{cite}`one,four`")


def test_references(page: Page, citations: Citations) -> None:
    page.convert("{cite}`three` {cite}`one` {cite:t}`three`")
    assert list(page.cited) == ["three", "one"]
    third, first = citations.references(list(page.cited))
    assert third == "B Roe and C van Dam. Third GPU. 2024."
    assert first == "A Doe, B Röe, and C Poe. First. 2025a. [arXiv:2501.1](https://arxiv.org/abs/2501.1)."


def test_addresses() -> None:
    found = addresses("https://github.com/someone/companion.git/", None, "https://someone.example/")
    assert found == Addresses("https://github.com/someone/companion", "main", "https://someone.example")
    assert found.requirement("book") == "xlstm-scaling-companion[book] @ git+https://github.com/someone/companion@main"
    assert Addresses().requirement("book") == ".[book]"
    assert Addresses(found.repository).page("notation", "x") == f"{found.repository}/blob/main/book/notation.md"
    assert found.on_github
    assert not addresses("https://gitlab.example/a/b", "dev", "").on_github
    for wrong in ("github.com/someone/companion", "ftp://x.org/a/b", "https://github.com/someone"):
        with pytest.raises(InputError, match=r"^_config\.yml: repository: url: "):
            addresses(wrong, None, None)
