"""MyST as Markdown that any notebook shows: directives, roles, citations, glued values and links between pages.

What Jupyter, Colab and VS Code render alike is left alone: text, formulas, tables, code, images, links to the web.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from companion.book.addresses import Addresses
from companion.book.citations import Citations
from companion.errors import InputError

_FENCE = re.compile(r"(\s*)(`{3,}|~{3,}|:{3,})(?:\{([\w:-]+)\})?\s*(.*)$")
_OPTION = re.compile(r":([\w-]+):\s*(.*)$")
_LABEL = re.compile(r"\([\w:.-]+\)=\s*$")
_HEADING = re.compile(r"#{1,6} +(\S.*?)\s*$")
_INLINE = re.compile(
    r"""(?P<role>\{(?P<name>[A-Za-z][\w:.+-]*)\}(?P<ticks>`+)(?P<content>.+?)(?<!`)(?P=ticks)(?!`))
    |(?P<code>(?P<bars>`+)(?!`).+?(?<!`)(?P=bars)(?!`))
    |(?P<block>\$\$(?P<formula>.+?)\$\$(?:[ \t]*\((?P<label>[^()\s]+)\))?)
    |(?P<math>(?<!\\)\$(?=\S)[^$]+?(?<=\S)\$)
    |(?P<link>(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)(?:\s+"[^"]*")?\))
    |(?P<break>\n[ \t]*\n)""",
    re.VERBOSE | re.DOTALL,
)
_SPECIAL = re.compile(r"([\\`*\[\]<>$|]|(?<!\w)_|_(?!\w))")
_CHOICE = re.compile(r"[-*+] \[([ xX])\]\s+(.*)")
_TARGET = re.compile(r"(?P<text>.*?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)

#: Directives that become a quotation under their title.
_QUOTED = {"admonition", "attention", "caution", "danger", "dropdown", "error", "hint", "important", "margin", "note"}
_QUOTED |= {"seealso", "sidebar", "tip", "warning"}
_TITLES = {"seealso": "See also", "margin": "Note", "sidebar": "Note"}
#: Directives that only a site can show.
_DROPPED = {"bibliography", "contents", "tableofcontents", "toctree", "exercise-end", "solution-end"}
_CODE = {"code", "code-block", "sourcecode"}


@dataclass(frozen=True)
class Site:
    """What the rest of the book says about a page's references.

    Parameters
    ----------
    addresses
        of repository and pages.
    citations
        the works that may be cited.
    titles
        of pages, by name (`chapters/09_planning`).
    labels
        page and heading (or `""`) of every label.
    numbers
        "Figure 3.2", "(4.1)", "Exercise 9" by label, as the rendered pages show them.
    """

    addresses: Addresses
    citations: Citations
    titles: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Page:
    """One page: `convert` makes Markdown of its texts; `cited` lists the works they cite, in order.

    Parameters
    ----------
    name
        of the page, such as `chapters/09_planning`.
    values
        glued values by name.
    """

    site: Site
    name: str
    values: Mapping[str, Any]
    cited: dict[str, None] = field(default_factory=dict)

    def convert(self, text: str) -> str:
        """A MyST text as plain Markdown.

        Raises
        ------
        InputError
            a glued value or a cited work is missing.
        """
        return "\n".join(self._blocks(text.split("\n"))).strip("\n")

    def _blocks(self, lines: list[str]) -> Iterator[str]:
        plain: list[str] = []
        position = 0
        while position < len(lines):
            line = lines[position]
            fence = _FENCE.match(line)
            if fence is None or (fence[2][0] == ":" and not fence[3]):
                if not _LABEL.match(line) and line.strip() != "+++" and not line.startswith("%"):
                    plain.append(line)
                position += 1
                continue
            if plain:
                yield self._inline("\n".join(plain))
                plain = []
            end = _end(lines, position, fence[2])
            body = lines[position + 1 : end]
            if fence[3]:
                made = self._directive(fence[3], fence[4].strip(), [line.removeprefix(fence[1]) for line in body])
                yield from (fence[1] + each if each else each for each in made)
            else:
                yield from lines[position : end + 1]
            position = end + 1
        if plain:
            yield self._inline("\n".join(plain))

    def _directive(self, name: str, argument: str, lines: list[str]) -> list[str]:
        options, body = _options(lines)
        label = options.get("label") or options.get("name") or ""
        if name in _DROPPED:
            return []
        if name in _CODE:
            return [f"```{argument}", *body, "```"]
        if name == "math":
            return self._formula("\n".join(body), label).split("\n")
        if name in ("figure", "image"):
            caption = self.convert("\n".join(body))
            image = f"![{options.get('alt', '')}]({self._address(argument)})"
            return [image, *(["", *caption.split("\n")] if caption else [])]
        if name == "quiz":
            return self._quiz(self._inline(argument), body)
        title, rest = self._inline(argument), self.convert("\n".join(body)).split("\n")
        if name in _QUOTED:
            head = title or _TITLES.get(name, name.capitalize())
            return [f"> {line}".rstrip() for line in (f"**{head}**", "", *rest)]
        if name.startswith(("exercise", "solution")):
            return [self._exercise(name, title, argument, options), "", *rest]
        if name.startswith("prf:"):
            title = f"({title})" if title else ""
            return [f"**{name.removeprefix('prf:').capitalize()} {title}".rstrip() + "**", "", *rest]
        return [*([f"**{title}**", ""] if title else []), *rest]

    def _exercise(self, name: str, title: str, argument: str, options: Mapping[str, str]) -> str:
        """The heading of an exercise, with its level if it has one, or of a solution to the exercise in `argument`."""
        if name.startswith("solution"):
            exercise = self.site.numbers.get(argument, "")
            return f"**Solution to {exercise}**" if exercise else "**Solution**"
        number = self.site.numbers.get(options.get("label", ""), "Exercise")
        level = f" · {options['level']}" if options.get("level") else ""
        return f"**{number} ({title})**{level}" if title else f"**{number}**{level}"

    def _quiz(self, title: str, lines: list[str]) -> list[str]:
        """A question and its options; which is right, and why, under a fold. An option is `- [x] text :: why`."""
        starts = [number for number, line in enumerate(lines) if _CHOICE.match(line)]
        blocks = [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
        options, answers = [], []
        for number, block in enumerate(blocks, 1):
            choice = _CHOICE.match(" ".join(line.strip() for line in block).strip())
            text, _, why = (choice[2] if choice else "").partition(" :: ")
            options.append(f"{number}. {self._inline(text)}")
            word = "right" if choice and choice[1] in "xX" else "wrong"
            answers.append(f"{number}. *{word}*. {self._inline(why)}".rstrip())
        question = self.convert("\n".join(lines[: starts[0]] if starts else lines))
        head = f"**Check your understanding: {title}**" if title else "**Check your understanding**"
        fold = ["", "<details><summary>Answer</summary>", "", *answers, "", "</details>"] if answers else []
        return [head, "", *question.split("\n"), "", *options, *fold]

    def _inline(self, text: str) -> str:
        """Roles, citations, labels of formulas and links in a text without directives."""
        made, position, depth = [], 0, 0
        for match in _INLINE.finditer(text):
            before = text[position : match.start()]
            depth = max(0, depth + before.count("(") - before.count(")"))
            made.append(before)
            position = match.end()
            if match["role"]:
                made.append(self._role(match["name"], match["content"], enclosed=depth > 0))
            elif match["block"]:
                made.append(self._formula(match["formula"], match["label"] or ""))
            elif match["link"]:
                made.append(self._link(match["text"], match["target"]))
            else:
                depth = 0 if match["break"] else depth
                made.append(match[0])
        return "".join([*made, text[position:]])

    def _role(self, name: str, content: str, *, enclosed: bool) -> str:
        if name.startswith("glue"):
            return self._value(content)
        if name.startswith("cite"):
            keys = [key.strip() for key in content.split(",")]
            self.cited |= dict.fromkeys(keys)
            return self.site.citations.cite(keys, textual=name == "cite:t", enclosed=enclosed)
        if name == "math":
            return f"${content}$"
        if name.startswith("py:"):
            return f"`{content.removeprefix('~') if content[0] != '~' else content.rpartition('.')[2]}`"
        if name == "kbd":
            return f"<kbd>{content}</kbd>"
        if name in ("see", "eq", "numref", "ref", "doc", "download"):
            given = _TARGET.match(content)
            return self._reference(name, given["text"] if given else "", given["target"] if given else content)
        given = _TARGET.match(content)  # a term of the glossary, and roles of formatting
        return self._inline(given["text"] if given else content)

    def _reference(self, role: str, text: str, target: str) -> str:
        if role == "download":
            return self._link(text or f"`{posixpath.basename(target)}`", target)
        if role == "doc":
            return self._link(text, f"{target}.md")
        if text and ("%s" in text or "{number}" in text):  # numref's own pattern
            text = ""
        number = self.site.numbers.get(target, "")
        prefix = "equation-" if role == "eq" else ""
        heading = self.site.labels.get(target, ("", ""))[1]
        return self._link(text or ("" if role == "ref" and heading else number), f"#{target}", prefix)

    def _link(self, text: str, target: str, prefix: str = "") -> str:
        """A link to the web as it is; to another page as an absolute one, or its text where there is no address.

        `prefix` is what the anchor on the page has before the label.
        """
        text = self._inline(text)
        if re.match(r"(https?:|mailto:)", target):
            return f"[{text}]({target})"
        path, _, label = target.partition("#")
        if path and not path.endswith((".md", ".ipynb")) and path not in self.site.labels:
            address = self._address(path)
            return f"[{text or posixpath.basename(path)}]({address})" if address else text or f"`{path}`"
        if path.endswith((".md", ".ipynb")):
            page = posixpath.normpath(posixpath.join(posixpath.dirname(self.name), posixpath.splitext(path)[0]))
            shown = text or self._inline(self.site.titles.get(page, page))
        else:
            label = label or path
            page, heading = self.site.labels.get(label, (self.name, ""))
            shown = text or self._inline(heading) or label
        address = self.site.addresses.page(page, label and prefix + label) if page != self.name else ""
        return f"[{shown}]({address})" if address else shown

    def _address(self, target: str) -> str:
        """Address of a file that a page shows or offers: its place in the repository."""
        if re.match(r"https?:|data:", target):
            return target
        path = posixpath.normpath(posixpath.join("book", posixpath.dirname(self.name), target))
        return self.site.addresses.view(path.replace("book/data/", "data/"))

    def _formula(self, formula: str, label: str) -> str:
        number = self.site.numbers.get(label, "").strip("()")
        tag = f" \\tag{{{number}}}" if number else ""
        return f"$${formula.rstrip()}{tag}\n$$" if "\n" in formula.strip("\n") or tag else f"$${formula}$$"

    def _value(self, content: str) -> str:
        name, _, style = content.partition(":")
        if name not in self.values:
            raise InputError(f"{self.name}: no value was glued as {name}")
        value = self.values[name]
        return _SPECIAL.sub(r"\\\1", format(value, style) if style else str(value))


def titles_and_labels(pages: Mapping[str, str]) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Titles of pages by name, and page and heading of every label; from the pages' texts."""
    titles: dict[str, str] = {}
    labels: dict[str, tuple[str, str]] = {}
    for page, text in pages.items():
        lines = text.split("\n")
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            heading = _HEADING.match(line)
            if heading and line.startswith("# ") and page not in titles:
                titles[page] = heading[1]
            if _LABEL.match(line):
                next_heading = _HEADING.match(following)
                labels[line.strip()[1:-2]] = (page, next_heading[1] if next_heading else "")
        for label in re.findall(r"\$\$ *\(([^()\s]+)\)|^:(?:label|name): *(\S+)", text, re.MULTILINE):
            labels.setdefault(label[0] or label[1], (page, ""))
    return titles, labels


def _end(lines: list[str], start: int, fence: str) -> int:
    """Position of the line that closes a fence; the last line if none does."""
    for position in range(start + 1, len(lines)):
        line = lines[position].strip()
        if line.startswith(fence) and not line.strip(fence[0]):
            return position
    return len(lines) - 1


def _options(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options of a directive (`:name: value` lines or a block between dashes), and its body."""
    options: dict[str, str] = {}
    if lines and lines[0].strip() == "---":
        end = next((n for n, line in enumerate(lines[1:], 1) if line.strip() == "---"), 0)
        pairs = (line.partition(":") for line in lines[1:end])
        return {key.strip(): value.strip() for key, _, value in pairs}, lines[end + 1 :]
    position = 0
    while position < len(lines) and (option := _OPTION.match(lines[position].strip())):
        options[option[1]] = option[2]
        position += 1
    return options, lines[position:]
