"""Citations as text, for notebooks that leave the book: "(Doe et al., 2025a)", and the list of works at the end."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from companion.errors import InputError


class Citations:
    """The works of a BibTeX file, cited by author and year.

    Parameters
    ----------
    file
        `references.bib`; without such a file no key is known.
    """

    def __init__(self, file: Path) -> None:
        from pybtex.database import BibliographyData, parse_file

        self._file = file
        self._works = parse_file(str(file), "bibtex") if file.is_file() else BibliographyData()
        for key, year in lettered_years(self._works.entries).items():
            self._works.entries[key].fields["year"] = year

    def cite(self, keys: Sequence[str], *, textual: bool = False, enclosed: bool = False) -> str:
        """The works of some keys in the order given.

        Parameters
        ----------
        keys
            of the BibTeX file.
        textual
            "Doe et al. (2025)", as a part of a sentence.
        enclosed
            the text around is in parentheses already: none of our own.

        Raises
        ------
        InputError
            a key is not in the file.
        """
        works = [(_authors(self._entry(key)), self._entry(key).fields.get("year", "")) for key in keys]
        if textual:
            return ", ".join(f"{authors} ({year})" for authors, year in works)
        text = "; ".join(f"{authors}, {year}" for authors, year in works)
        return text if enclosed else f"({text})"

    def references(self, keys: Sequence[str]) -> list[str]:
        """One line of Markdown for each work, in the order given: authors, title, place, year, arXiv number."""
        from pybtex.backends.markdown import Backend
        from pybtex.style.formatting.unsrt import Style

        entries = [self._entry(key) for key in keys]
        lines = (" ".join(made.text.render(Backend()).split()) for made in Style().format_entries(entries))
        return [re.sub(r"\\([.:-])", r"\1", line) for line in lines]  # it escapes more than Markdown needs

    def _entry(self, key: str) -> Any:
        if key not in self._works.entries:
            raise InputError(f"{self._file}: no work called {key}")
        return self._works.entries[key]


def lettered_years(entries: Mapping[str, Any]) -> dict[str, str]:
    """Years with a letter for all works that a citation would call the same, by key, in the order of the file.

    A citation names one or two authors, or the first of more, and the year.
    """
    cited: dict[tuple[Any, ...], list[str]] = {}
    for key, entry in entries.items():
        names = [" ".join(person.last_names) for person in entry.persons.get("author", [])]
        shown = tuple(names) if len(names) < 3 else (names[0], "et al.")
        cited.setdefault((shown, entry.fields.get("year", "")), []).append(key)
    return {
        key: f"{year}{letter}"
        for (shown, year), keys in cited.items()
        if shown and len(keys) > 1
        for key, letter in zip(keys, "abcdefghijklmnopqrstuvwxyz", strict=False)
    }


def _authors(entry: Any) -> str:
    """Last names: of one, of two, of the first of more."""
    from pybtex.backends.plaintext import Backend
    from pybtex.richtext import Text

    persons = entry.persons.get("author", [])
    plain = Backend()  # by name, `render_as("text")`, it is looked for among all installed packages
    names = [Text.from_latex(" ".join([*each.prelast_names, *each.last_names])).render(plain) for each in persons]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
