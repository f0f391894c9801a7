"""Where the time of a build goes, and how large its pages are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: In the html of the page *Reproducibility*, for what only the finished build knows.
RENDERING, LARGEST, INDEX = "[rendering-seconds]", "[largest-page]", "[search-index]"
_PAGE = "reproducibility.html"


@dataclass(frozen=True)
class Costs:
    """Seconds of each notebook and of the rendering, and sizes of the html in bytes."""

    notebooks: Mapping[str, float]
    rendering: float
    largest_page: str
    largest_bytes: int
    search_index_bytes: int

    def line(self) -> str:
        """All of it in one line."""
        parts = [f"rendering {self.rendering:.0f} s", f"largest page {self.largest()}", f"search index {self.index()}"]
        if self.notebooks:
            slowest = max(self.notebooks, key=lambda name: self.notebooks[name])
            longest = f"longest {slowest}, {self.notebooks[slowest]:.0f} s"
            parts.insert(0, f"notebooks {sum(self.notebooks.values()):.0f} s one after the other ({longest})")
        return ", ".join(parts)

    def largest(self) -> str:
        """The largest page and its size."""
        return f"{self.largest_page} ({self.largest_bytes / 1e6:.2f} MB)"

    def index(self) -> str:
        """Size of the search index."""
        return f"{self.search_index_bytes / 1e6:.2f} MB"

    def as_dict(self) -> dict[str, Any]:
        """For `summary.json`: seconds to a tenth."""
        return {
            "notebook_seconds": {name: round(seconds, 1) for name, seconds in self.notebooks.items()},
            "rendering_seconds": round(self.rendering, 1),
            "largest_page": self.largest_page,
            "largest_page_bytes": self.largest_bytes,
            "search_index_bytes": self.search_index_bytes,
        }


def measure(html: Path, notebooks: Mapping[str, float], rendering: float) -> Costs:
    """The costs of a rendered book: `html` is its folder, the times are in seconds."""
    pages = [path for path in sorted(html.rglob("*.html")) if "_static" not in path.parts]
    largest = max(pages, key=lambda path: path.stat().st_size)
    index = html / "searchindex.js"
    return Costs(
        notebooks=dict(notebooks),
        rendering=rendering,
        largest_page=largest.relative_to(html).as_posix(),
        largest_bytes=largest.stat().st_size,
        search_index_bytes=index.stat().st_size if index.is_file() else 0,
    )


def fill(html: Path, costs: Costs) -> None:
    """Write into the page *Reproducibility* what was not known when it was rendered."""
    page = html / _PAGE
    if page.is_file():
        text = page.read_text(encoding="utf-8")
        known = {RENDERING: f"{costs.rendering:.1f}", LARGEST: costs.largest(), INDEX: costs.index()}
        for mark, value in known.items():
            text = text.replace(mark, value)
        page.write_text(text, encoding="utf-8")
