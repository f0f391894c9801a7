"""Sphinx extension: `{quiz}`, a question with two to four options of which one is right.

In a Markdown cell:

    ```{quiz} Title
    :label: c3-quiz-title

    The question, with $formulas$ and glued values.

    - [ ] a wrong option :: why it is wrong
    - [x] the right option :: why it is right
    ```

The page gets a form of radio buttons. `quiz.js` shows the feedback for the chosen option as soon as *Check* is pressed;
without scripts all feedback is under a fold called *Answer*. A quiz that breaks a rule is an error with file and line.
"""

from collections.abc import Iterable
from html import escape
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from companion.book.quizzes import Option, read_quiz


class quiz_part(nodes.General, nodes.TextElement):
    """A piece of html: `opening`, the children, `closing`."""


class Quiz(SphinxDirective):
    """The directive; see the top of this file."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"label": lambda text: nodes.make_id(text or "")}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """The form as nodes.

        Raises
        ------
        docutils.utils.DirectiveError
            no label, or what `read_quiz` refuses.
        """
        label = self.options.get("label", "")
        if not label:
            raise self._wrong("no label; write :label: c3-quiz-name below the title")
        try:
            quiz = read_quiz(list(self.content))
        except ValueError as fault:
            raise self._wrong(str(fault)) from None
        self.options["name"] = label
        legend, described = escape(self.arguments[0]), f"{label}-question"
        form = quiz_part(
            opening=f'<form class="companion-quiz" id="{label}" data-right="{quiz.right}"><fieldset '
            f'aria-describedby="{described}"><legend>Check: {legend}</legend>\n',
            closing="</fieldset></form>\n",
        )
        self.add_name(form)
        asked = quiz_part(opening=f'<div id="{described}">', closing="</div>\n")
        self.state.nested_parse(self.content[: len(quiz.question)], self.content_offset, asked)
        form += asked
        form += [self._choice(label, number, option.text) for number, option in enumerate(quiz.options, 1)]
        form += self._answers(quiz.options)
        return [form]

    def _choice(self, label: str, number: int, text: str) -> quiz_part:
        """A radio button with its label."""
        button = f'<input type="radio" name="{label}" id="{label}-{number}" value="{number}">'
        choice = quiz_part(
            opening=f'<div class="companion-quiz-choice">{button}<label for="{label}-{number}">',
            closing="</label></div>\n",
        )
        choice += self._inline(text)
        return choice

    def _answers(self, options: Iterable[Option]) -> quiz_part:
        """The button, the place where the script shows the feedback on one option, and all feedback under a fold."""
        folded = quiz_part(
            opening='<button type="submit" disabled hidden>Check</button>\n'
            '<div class="companion-quiz-result" role="status"></div>\n'
            '<details class="companion-quiz-answers"><summary>Answer</summary><ol>\n',
            closing="</ol></details>\n",
        )
        for each in options:
            answer = quiz_part(opening="<li>", closing="</li>\n")
            word = "right" if each.is_right else "wrong"
            # the script shows the second paragraph alone
            option = quiz_part(opening="<p>", closing=f" – <strong>{word}</strong></p>\n")
            option += self._inline(each.text)
            explained = quiz_part(opening='<p class="companion-quiz-feedback">', closing="</p>\n")
            explained += self._inline(each.feedback)
            answer += [option, explained]
            folded += answer
        return folded

    def _inline(self, text: str) -> list[nodes.Node]:
        """The nodes of a text that is one paragraph."""
        parsed = nodes.Element()
        self.state.nested_parse(StringList([text], self.get_source_info()[0]), self.content_offset, parsed)
        if len(parsed) != 1 or not isinstance(parsed[0], nodes.paragraph):
            raise self._wrong(f"an option and its feedback are one paragraph each, not: {text[:60]}")
        return list(parsed[0].children)

    def _wrong(self, fault: str) -> Exception:
        return self.error(f"quiz {self.arguments[0]!r}: {fault}")


def visit_part(translator: Any, node: quiz_part) -> None:
    """Write the opening tags."""
    translator.body.append(node["opening"])


def depart_part(translator: Any, node: quiz_part) -> None:
    """Write the closing tags."""
    translator.body.append(node["closing"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive, its node and its assets."""
    app.add_node(quiz_part, html=(visit_part, depart_part))
    app.add_directive("quiz", Quiz)
    app.add_css_file("quiz.css")
    app.add_js_file("quiz.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
