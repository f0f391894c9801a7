"""Sphinx extension: levels of exercises, and solutions under a fold that needs no script.

    ```{exercise} A title
    :label: c3-title
    :level: compute

    The task.
    ```

    ```{solution-start} c3-title
    ```

    The answer in prose, then code cells without tags.

    ```{solution-end}
    ```

sphinx-exercise numbers the exercises of a chapter and gathers what lies between `solution-start` and `solution-end`.
Here the title of an exercise gets its level, and a solution becomes `<details>`, named after its exercise.
"""

from html import escape
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_exercise.directive import ExerciseDirective
from sphinx_exercise.nodes import exercise_enumerable_node, solution_node

#: Levels of exercises: one step with what the page says; a computation; an open question.
LEVELS = ("recall", "compute", "explore")


def level(text: str | None) -> str:
    """The option `:level:`; a ValueError, which docutils reports with its line, for any other word."""
    return str(directives.choice(text or "", LEVELS))


class LeveledExercise(ExerciseDirective):  # type: ignore[misc]
    """`{exercise}` with a level."""

    option_spec = {**ExerciseDirective.option_spec, "level": level}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """The exercise, which remembers its level; an exercise without one is an error of the page."""
        if "level" not in self.options:
            raise self.error(f"exercise {' '.join(self.arguments)!r}: no :level:; one of {', '.join(LEVELS)}")
        made: list[nodes.Node] = super().run()
        for node in made:
            node["level"] = self.options["level"]  # type: ignore[index]
        return made


class FinishExercises(SphinxPostTransform):
    """Show levels behind titles, which sphinx-exercise makes at priority 20, and drop ids that repeat on a page."""

    default_priority = 30

    def run(self, **options: Any) -> None:
        """Change the page's exercises and solutions."""
        for exercise in self.document.findall(exercise_enumerable_node):
            exercise[0] += _badge(exercise["level"])
        for section in self.document.findall(nodes.section):
            if set(section["ids"]) & {"exercise-content", "solution-content"}:
                section["ids"] = []


def _badge(word: str) -> nodes.inline:
    """The level as a word; the stars are for the eye alone."""
    stars = LEVELS.index(word) + 1
    shown = f'<span aria-hidden="true">{"★" * stars}{"☆" * (len(LEVELS) - stars)}</span> '
    return nodes.inline("", "", nodes.raw("", shown, format="html"), nodes.Text(word), classes=["companion-level"])


def visit_solution(translator: Any, node: solution_node) -> None:
    """Write the solution as a fold: its title, then its content."""
    attributes = {"CLASS": "companion-solution"}
    translator.body.append(translator.starttag(node, "details", **attributes))
    translator.body.append(f"<summary>{escape(node[0].astext())}</summary>\n")
    for child in node[1:]:
        child.walkabout(translator)
    translator.body.append("</details>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Put our directive and our writer in the place of those of sphinx-exercise, which is loaded before."""
    app.setup_extension("sphinx_exercise")
    app.add_directive("exercise", LeveledExercise, override=True)
    app.add_node(solution_node, override=True, html=(visit_solution, None))
    app.add_post_transform(FinishExercises)
    app.add_css_file("exercises.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
