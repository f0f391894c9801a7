"""Leave out the parts of a chapter that a run table cannot answer, with the reason in their place.

A cell says what it needs by calling a function that raises `companion.errors.NotApplicable`. In the section of the
`parameters` cell that stops the chapter. Later it leaves out the rest of the cell's section, or its whole exercise: a
note with the reason takes its place. Cells elsewhere that use a variable of a left-out cell go with it, and so do
list items and paragraphs that show one of its numbers. So the notebook itself needs no branches.
"""

import ast
import re
import symtable
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from companion.book.left_out import without_folders

#: Names of the errors that can leave out a section. The first is always meant so; the second comes from a fit that
#: refuses the runs of a reader's own table; the third from a function that uses a variable of a left-out cell.
NOT_APPLICABLE, INPUT_ERROR, NAME_ERROR = ERRORS = ("NotApplicable", "InputError", "NameError")

_HEADING = re.compile(r"(#{1,6}) +(\S.*)")
_LABEL = re.compile(r"\(([\w-]+)\)=\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,}|:{3,})")
_EXERCISE = re.compile(r"(`{3,}|:{3,})\{exercise\} *(.*)")
_GLUE = re.compile(r"\{glue(?::\w+)?\}`([^`:]+)")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>$#|~@!^])")
_ITEM = re.compile(r"[*+-] |\d+\. ")
_EXERCISE_LEVEL = 7  # inside of every heading


@dataclass(eq=False)
class Part:
    """A section or an exercise, what encloses it, and from which cell on it is left out for which reason."""

    title: str
    level: int
    parent: "Part | None"
    reason: str = ""
    since: int = -1

    def left_out(self) -> "Part | None":
        """The innermost of this part and those around it that is left out; None if there is none."""
        part: Part | None = self
        while part is not None and not part.reason:
            part = part.parent
        return part


class _Names(NamedTuple):
    """Of a cell: names it reads before it assigns them itself, names it assigns, its imports and functions alone."""

    used: frozenset[str]
    assigned: frozenset[str]
    harmless: str


@dataclass
class Parts:
    """The parts of one notebook, and which of them are left out so far.

    Parameters
    ----------
    cells
        all cells of the notebook's source, with ids.
    own_table
        the reader gave a table of their own: a fit that refuses its runs (`InputError`) leaves out a section as well.
    """

    cells: list[Any]
    own_table: bool = False
    _position: dict[str, int] = field(default_factory=dict)
    _part_of: dict[str, Part] = field(default_factory=dict)
    _pieces: dict[str, list[tuple[str, Part]]] = field(default_factory=dict)
    _setup: set[str] = field(default_factory=set)
    _missing: dict[str, str] = field(default_factory=dict)
    _followers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        part, parameters_in = Part("", 0, None), None
        for position, cell in enumerate(self.cells):
            self._position[cell.id] = position
            if cell.cell_type == "markdown":
                self._pieces[cell.id] = []
                for piece in pieces(cell.source):
                    part = _entered(piece, part)
                    self._pieces[cell.id].append((piece, part))
            elif cell.cell_type == "code":
                self._part_of[cell.id] = part
                if "parameters" in cell.metadata.get("tags", []):
                    parameters_in = part
                if parameters_in in (None, part):
                    self._setup.add(cell.id)

    def source_to_run(self, cell_id: str, source: str) -> str:
        """What is executed of a code cell: all of it, or only its imports and functions if it is left out."""
        if cell_id not in self._part_of:
            return source
        out, names = self._part_of[cell_id].left_out(), _names(source)
        lost = sorted(names.used & set(self._missing))
        if out is None and not lost:
            for name in names.assigned:
                self._missing.pop(name, None)
            return source
        reason = self._missing[lost[0]] if out is None else out.reason
        if out is None:
            self._follow(cell_id, reason)
        self._missing |= dict.fromkeys(names.assigned, reason)
        return names.harmless

    def accepts(self, cell_id: str, error_name: str, error: str) -> bool:
        """Whether an error of a cell leaves out a part of the page rather than stopping it; if so, it is left out."""
        if cell_id not in self._part_of or cell_id in self._setup:
            return False
        if error_name == NAME_ERROR:
            found = re.search(r"name '(\w+)' is not defined", error)
            if found is None or found[1] not in self._missing:
                return False
            reason = self._missing[found[1]]
            self._follow(cell_id, reason)
        elif error_name == NOT_APPLICABLE or (error_name == INPUT_ERROR and self.own_table):
            part, reason = self._part_of[cell_id], " ".join(error.split())
            part.reason, part.since = reason, self._position[cell_id]
        else:
            return False
        assigned = _names(self.cells[self._position[cell_id]].source).assigned
        self._missing |= dict.fromkeys(assigned, reason)
        return True

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Title and reason of every section that is left out, in the order of the page."""
        parts = {part: None for part in self._part_of.values() if part.reason and part.level < _EXERCISE_LEVEL}
        return [(part.title, part.reason) for part in parts]

    def finish(self, cells: list[Any]) -> list[Any]:
        """The cells that are shown: left-out ones removed, the reason in the place of each part.

        Parameters
        ----------
        cells
            the executed cells, in the order of the source, their text unchanged.
        """
        if not any(part.reason for part in self._part_of.values()):
            return cells
        shown: list[Any] = []
        glued, said = _glued(cells), set()
        for cell in cells:
            if cell.id in self._pieces:
                kept = [piece for piece, part in self._pieces[cell.id] if not self._dropped(cell.id, part)]
                cell.source = without_missing("\n".join(kept), glued)
                shown += [cell] if cell.source.strip() else []
                continue
            part = self._part_of.get(cell.id)
            out = part.left_out() if part else None
            reason = self._followers.get(cell.id, "")
            if out is not None and out.since == self._position[cell.id]:
                shown += [_note(cell, out.reason)] if out.level < _EXERCISE_LEVEL else []
            elif part is not None and self._dropped(cell.id, part):
                continue
            elif not reason:
                shown.append(cell)
            elif (part, reason) not in said and not _is_hidden(cell):
                said.add((part, reason))
                shown.append(_note(cell, reason))
        return _without_dead_links(shown, self._labels())

    def _follow(self, cell_id: str, reason: str) -> None:
        """Leave out a cell that uses what is missing, with the whole exercise if it belongs to one."""
        part = self._part_of[cell_id]
        if part.level == _EXERCISE_LEVEL:
            part.reason, part.since = reason, self._position[cell_id]
        else:
            self._followers[cell_id] = reason

    def _dropped(self, cell_id: str, part: Part) -> bool:
        out = part.left_out()
        return out is not None and (out.level == _EXERCISE_LEVEL or self._position[cell_id] > out.since)

    def _labels(self) -> set[str]:
        texts = (piece for found in self._pieces.values() for piece, _ in found)
        return {match[1] for text in texts for line in text.splitlines() if (match := _LABEL.match(line))}


def pieces(text: str) -> list[str]:
    """A Markdown text cut before every heading (with its label) and every exercise; joined by newlines it is whole."""
    cuts, fence = [0], ""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if fence:
            fence = "" if line.strip().startswith(fence) and not line.strip().strip(fence[0]) else fence
            continue
        starts = bool(_HEADING.match(line) or _EXERCISE.match(line))
        if opened := _FENCE.match(line):
            fence = opened[1]
        if starts and number:
            labeled = number > 1 and _LABEL.match(lines[number - 1])
            cuts.append(number - 1 if labeled else number)
    return ["\n".join(lines[a:b]) for a, b in zip(cuts, [*cuts[1:], len(lines)], strict=True)]


def without_missing(text: str, glued: set[str]) -> str:
    """A Markdown text without the list items and paragraphs that show a value which was not glued."""
    blocks: list[list[str]] = [[]]
    fence = ""
    for line in text.split("\n"):
        if fence:
            fence = "" if line.strip().startswith(fence) and not line.strip().strip(fence[0]) else fence
        elif opened := _FENCE.match(line):
            fence = opened[1]
        elif not line.strip() or _ITEM.match(line) or _HEADING.match(line):
            blocks.append([])
        blocks[-1].append(line)
    texts = ["\n".join(block) for block in blocks]
    kept = [each for each in texts if set(_GLUE.findall(each)) <= glued]
    return "\n".join(kept)


def _entered(piece: str, part: Part) -> Part:
    """The part that a piece of text belongs to, coming from another one."""
    lines = piece.split("\n")
    start = lines[1] if _LABEL.match(lines[0]) and len(lines) > 1 else lines[0]
    heading, exercise = _HEADING.match(start), _EXERCISE.match(start)
    if heading is None and exercise is None:
        return part
    level = len(heading[1]) if heading else _EXERCISE_LEVEL
    title = heading[2] if heading else (exercise[2] if exercise else "") or "Exercise"
    parent: Part | None = part
    while parent is not None and parent.level >= level:
        parent = parent.parent
    return Part(title.strip(), level, parent)


def _names(source: str) -> _Names:
    try:
        tree, scope = ast.parse(source), symtable.symtable(source, "cell", "exec")
    except SyntaxError:  # a magic of IPython: it reads and assigns nothing that can be seen
        return _Names(frozenset(), frozenset(), "")
    harmless = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)]
    plain = {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_imported() or symbol.is_namespace()}
    assigned = {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_assigned()} - plain
    functions = {node.name for node in harmless if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    used = {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_referenced()}
    used |= set(_free(scope, functions))
    return _Names(frozenset(used - assigned - plain), frozenset(assigned), "\n".join(map(ast.unparse, harmless)))


def _free(scope: symtable.SymbolTable, skipped: Set[str] = frozenset()) -> Iterator[str]:
    """Names that lambdas and comprehensions read from the notebook; what functions read shows when they are called."""
    for inner in scope.get_children():
        if inner.get_name() not in skipped:
            yield from (symbol.get_name() for symbol in inner.get_symbols() if symbol.is_global())
            yield from _free(inner)


def _glued(cells: list[Any]) -> set[str]:
    outputs = (output for cell in cells for output in cell.get("outputs", []))
    records = (output.get("metadata", {}).get("scrapbook", {}) for output in outputs)
    return {record["name"] for record in records if "name" in record}


def _is_hidden(cell: Any) -> bool:
    return bool({"remove-cell", "remove-input"} & set(cell.metadata.get("tags", [])))


def _note(cell: Any, reason: str) -> Any:
    """A Markdown cell in the place of a code cell."""
    text = _SPECIAL.sub(r"\\\1", without_folders(reason).rstrip("."))
    note = type(cell)(cell_type="markdown", metadata=type(cell)(), source=f"*Left out:* {text}.")
    note["id"] = cell.id
    return note


def _without_dead_links(cells: list[Any], labels: set[str]) -> list[Any]:
    """Links to headings that are gone become plain text."""
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    alive = {match[1] for text in texts for line in text.splitlines() if (match := _LABEL.match(line))}
    for cell in cells:
        if cell.cell_type == "markdown":
            for label in labels - alive:
                cell.source = re.sub(rf"\[([^\]]*)\]\({re.escape(label)}\)", r"\1", cell.source)
    return cells
