"""Student copies: nothing of a solution is left in them, they read as plain Markdown, and they run."""

import re
from pathlib import Path

import nbformat
import pytest
from small_book import real_book, source, texts

from companion.book import building, execution, student
from companion.book.notebooks import ROOT, read, sources
from companion.book.quizzes import read_quiz
from companion.book.student import ANSWER, blocks, without_outputs, without_solutions
from companion.cli import main
from companion.errors import InputError

pytestmark = pytest.mark.book

LEVELS = ("recall", "compute", "explore")
TEXT = """# A test

It is {glue:text}`size:s` by {term}`joint fits <joint fit>` and a {term}`gate`.

```{quiz} Two
:label: c3-quiz-two

One or two, of $L$?

- [ ] one :: More.
- [x] two :: Because of
      this.
```

```python
"kept"
```"""
EXERCISE = """```{exercise} Try
:label: c3-try
:level: recall

Do this.
```

```{solution-start} c3-try
```

The answer in words."""
END = """```{solution-end}
```

```{exercise} Again
:label: c3-again

Do that.
```

```{solution} c3-again
Secret.
```

After."""


def notebook(*cells: str, text: str = TEXT) -> nbformat.NotebookNode:
    """A text, code cells, and texts where a cell starts with a backtick."""
    v4 = nbformat.v4
    made = [v4.new_markdown_cell(text)]
    made += [v4.new_markdown_cell(cell) if cell[0] == "`" else v4.new_code_cell(cell) for cell in cells]
    glued = v4.new_output(
        "display_data", {"text/plain": "'7B'"}, metadata={"scrapbook": {"name": "size", "mime_prefix": ""}}
    )
    made[1].outputs = [glued]
    made[1].execution_count = 3
    return v4.new_notebook(cells=made)


def test_copy_has_no_answers() -> None:
    given = notebook("size = 7", EXERCISE, "secret = size", END)
    before = nbformat.writes(given)
    copy = without_solutions(given, "03_test")
    nbformat.validate(copy)
    assert nbformat.writes(given) == before
    assert [cell.source for cell in copy.cells] == [
        "# A test\n\nIt is {glue:text}`size:s` by {term}`joint fits <joint fit>` and a {term}`gate`.\n\n"
        "**Check: Two**\n\n\nOne or two, of $L$?\n\n\n* (a) one\n* (b) two\n"
        '\n```python\n"kept"\n```',
        "size = 7",
        "```{exercise} Try\n:label: c3-try\n:level: recall\n\nDo this.\n```",
        ANSWER,
        "```{exercise} Again\n:label: c3-again\n\nDo that.\n```",
        ANSWER,
        "After.",
    ]
    bare = without_outputs(copy)
    assert nbformat.writes(given) == before
    assert [cell.get("outputs", []) for cell in bare.cells] == [[]] * len(bare.cells)
    assert bare.cells[1].execution_count is None


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        (("size = 7", EXERCISE, "x = 1"), "03_test: a solution-start without its solution-end"),
        (
            ("size = 7", EXERCISE.split("\n\n```{sol")[0], "1"),
            "03_test: cell 4: code below an exercise, outside of its solution",
        ),
        (("size = 7", EXERCISE, "x = 1", END, "print(x)"), "the cell `print(x)` uses x, which only a solution"),
        (
            ("size = 7", EXERCISE, "import re", END, "re.sub"),
            "the cell `re.sub` uses re, which only a solution",
        ),
    ],
)
def test_copies_that_leak_or_fail_are_refused(cells: tuple[str, ...], fault: str) -> None:
    with pytest.raises(InputError) as raised:
        without_solutions(notebook(*cells), "03_test")
    assert fault in str(raised.value)
    assert "\n" not in str(raised.value)


def test_blocks_keep_what_is_no_directive_of_ours() -> None:
    text = "a\n\n:::{note} B\nc\n:::\n\n````{exercise}\n```\nd\n```\n````"
    assert list(blocks(text)) == [
        ("", "", ["a", ""]),
        ("", "", [":::{note} B", "c", ":::"]),
        ("", "", [""]),
        ("exercise", "", ["````{exercise}", "```", "d", "```", "````"]),
        ("", "", []),
    ]


@pytest.mark.parametrize("chapter", sources(ROOT / "notebooks"), ids=lambda path: path.stem)
def test_chapters_can_be_copied(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf-8")
    copy = without_solutions(read(chapter), chapter.stem)
    shown = "\n".join(cell.source for cell in copy.cells)
    assert shown.count(ANSWER) == text.count("{solution-start}") + text.count("{solution}")
    assert "{solution" not in shown
    assert not re.search(r"^- \[x\]", shown, flags=re.MULTILINE)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one small chapter, and the tests' own current folder."""
    made = real_book(tmp_path / "checkout", "# Title\n\n```{bibliography}\n```\n")
    source(
        made / "notebooks",
        "from companion.chapters.facts import glue_facts\nglue_facts({'size': scale})",
        "print('end', scale)",
        name="03_test",
        text="# A test\n\nIt is {glue:text}`size`, says {cite:t}`beck2025scaling`; see {ref}`c3-again`.\n\n"
        + TEXT.partition("\n\n")[2].partition("\n\n")[2]
        + f"\n\n{EXERCISE}\n\n```{{code-cell}} ipython3\nprint('of the solution')\n```\n\n"
        + END.replace(":label: c3-again", ":label: c3-again\n:level: explore"),
    )
    monkeypatch.setattr(building, "ROOT", made)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command_writes_copies_that_run(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["book", "--student", "course", "--parameters", "scale=5"]) == 0
    assert capsys.readouterr().out.endswith("course\n")
    text = (checkout / "course" / "03_test.ipynb").read_text(encoding="utf-8")
    assert "It is 5, says Beck et al. (2026); see Exercise 3.2." in text
    assert "**Exercise 3.2 (Again)** · explore" in text
    assert "of the solution" not in text
    assert "Secret" not in text
    assert [path.name for path in (checkout / "course").iterdir()] == ["03_test.ipynb"]
    download = checkout / "checkout/_build/html/_sources/chapters/03_test.ipynb"
    assert "of the solution" in download.read_text(encoding="utf-8")
    (ran,) = execution.execute([checkout / "course" / "03_test.ipynb"], checkout / "ran", progress=False)
    assert "end 5" in texts(ran)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--student", "checkout"], "checkout: not an empty folder; student copies replace nothing"),
        (["--student", "course", "--parameters", "nothing=1"], "no notebook has a parameter called nothing"),
    ],
)
def test_command_refuses(checkout: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], fault: str) -> None:
    assert main(["book", *arguments]) == 2
    captured = capsys.readouterr()
    assert fault in captured.err
    assert captured.err.count("\n") == 1
    assert not (checkout / "course").exists()


def faults_of_teaching(text: str) -> list[str]:
    """What a chapter lacks: two or three quizzes, exercises of all levels in order, a solution for each."""
    found = list(blocks(text))
    quizzes = [read_quiz(student.options_of(lines)[1]) for kind, _, lines in found if kind == "quiz"]
    kinds = [kind for kind, _, _ in found if kind in ("exercise", "solution-start", "solution")]
    levels = [student.options_of(lines[1:])[0].get("level", "") for kind, _, lines in found if kind == "exercise"]
    faults = [] if 2 <= len(quizzes) <= 3 else [f"{len(quizzes)} quizzes"]
    faults += [] if sorted(set(levels), key=LEVELS.index) == list(LEVELS) else [f"levels {levels}"]
    faults += [] if levels == sorted(levels, key=LEVELS.index) else ["levels out of order"]
    faults += [] if [kind == "exercise" for kind in kinds] == [True, False] * len(levels) else ["a missing solution"]
    return faults


@pytest.mark.parametrize("chapter", sorted((ROOT / "notebooks").glob("[0-8]*.md")), ids=lambda path: path.stem)
def test_chapters_teach(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf-8")
    assert not faults_of_teaching(text)


def test_missing_levels_and_quizzes_are_seen() -> None:
    whole = (ROOT / "notebooks" / "09_planning.md").read_text(encoding="utf-8")
    assert faults_of_teaching(whole) == []
    assert faults_of_teaching(whole.replace(":level: recall", ":level: compute")) == [
        "levels ['compute', 'compute', 'explore']"
    ]
    assert faults_of_teaching(whole.replace("```{quiz}", "```{note}", 1)) == ["1 quizzes"]
    assert faults_of_teaching(whole.replace("```{solution-start} c9-batch\n```", "")) == ["a missing solution"]
