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

import re
from html import escape
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

MOST_OPTIONS = 4
_OPTION = re.compile(r"[-*+] \[([ xX])\]\s+(.*)")
_SEPARATOR = re.compile(r"\s::(?:\s|$)")


class quiz_part(nodes.General, nodes.Element):  # noqa: N801 - docutils names its nodes so
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
            no label, no question, fewer than two or more than four options, not exactly one right option, or an option
            without feedback.
        """
        label = self.options.get("label", "")
        if not label:
            raise self._wrong("no label; write :label: c3-quiz-name below the title")
        question, options = self._parts()
        right = [number for number, (is_right, _, _) in enumerate(options, 1) if is_right]
        if not any(line.strip() for line in question):
            raise self._wrong("no question above the options")
        if not 2 <= len(options) <= MOST_OPTIONS:
            raise self._wrong(f"{len(options)} options; a quiz has 2 to {MOST_OPTIONS}")
        if len(right) != 1:
            raise self._wrong(f"{len(right)} right options; mark exactly one with [x]")
        self.options["name"] = label
        legend, described = escape(self.arguments[0]), f"{label}-question"
        form = quiz_part(
            opening=f'<form class="companion-quiz" id="{label}" data-right="{right[0]}"><fieldset '
            f'aria-describedby="{described}"><legend>Check: {legend}</legend>\n',
            closing="</fieldset></form>\n",
        )
        self.add_name(form)
        asked = quiz_part(opening=f'<div id="{described}">', closing="</div>\n")
        self.state.nested_parse(question, self.content_offset, asked)
        form += asked
        form += [self._choice(label, number, text) for number, (_, text, _) in enumerate(options, 1)]
        form += self._answers(options)
        return [form]

    def _parts(self) -> tuple[StringList, list[tuple[bool, str, str]]]:
        """The lines of the question, and of each option whether it is right, its text and its feedback."""
        lines = list(self.content)
        starts = [number for number, line in enumerate(lines) if _OPTION.match(line)]
        options = []
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            mark, first = _OPTION.match(lines[start]).groups()  # type: ignore[union-attr]
            text = " ".join(" ".join([first, *lines[start + 1 : end]]).split())
            option, *feedback = _SEPARATOR.split(text, maxsplit=1)
            if not option.strip() or not (feedback and feedback[0].strip()):
                raise self._wrong(f"option {len(options) + 1} has no feedback; write: option text :: why")
            options.append((mark in "xX", option.strip(), feedback[0].strip()))
        return self.content[: starts[0] if starts else len(lines)], options

    def _choice(self, label: str, number: int, text: str) -> quiz_part:
        """A radio button with its label."""
        button = f'<input type="radio" name="{label}" id="{label}-{number}" value="{number}">'
        choice = quiz_part(
            opening=f'<div class="companion-quiz-choice">{button}<label for="{label}-{number}">',
            closing="</label></div>\n",
        )
        choice += self._inline(text)
        return choice

    def _answers(self, options: list[tuple[bool, str, str]]) -> quiz_part:
        """The button, the place where the script shows the feedback on one option, and all feedback under a fold."""
        folded = quiz_part(
            opening='<button type="submit" disabled hidden>Check</button>\n'
            '<div class="companion-quiz-result" role="status"></div>\n'
            '<details class="companion-quiz-answers"><summary>Answer</summary><ol>\n',
            closing="</ol></details>\n",
        )
        for is_right, text, feedback in options:
            answer = quiz_part(opening="<li>", closing="</li>\n")
            word = "right" if is_right else "wrong"
            # the script shows the second paragraph alone
            option = quiz_part(opening="<p>", closing=f" – <strong>{word}</strong></p>\n")
            option += self._inline(text)
            explained = quiz_part(opening='<p class="companion-quiz-feedback">', closing="</p>\n")
            explained += self._inline(feedback)
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
