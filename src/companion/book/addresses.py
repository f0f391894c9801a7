"""Where the project is published: repository, branch and pages, all from `_config.yml` of the book.

Without a repository the book belongs to a checkout: nothing launches elsewhere, and a link between pages of a
downloaded notebook is plain text.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from companion.errors import InputError

PACKAGE = "xlstm-scaling-companion"
#: Branch with one stand-alone notebook per chapter, written by continuous integration: what Colab opens.
DOWNLOADS = "downloads"


@dataclass(frozen=True)
class Addresses:
    """Addresses of the project, without a slash at the end; empty where there is none.

    Examples
    --------
    >>> here = Addresses("https://github.com/someone/companion")
    >>> here.page("chapters/09_planning")
    'https://github.com/someone/companion/blob/main/notebooks/09_planning.ipynb'
    >>> Addresses().page("chapters/09_planning")
    ''
    """

    repository: str = ""
    branch: str = "main"
    pages: str = ""

    def source(self, page: str, suffix: str = ".md") -> str:
        """Path of a page's source in the repository; a chapter is a notebook and has an `.ipynb` as well."""
        chapter = page.removeprefix("chapters/")
        return f"book/{page}.md" if chapter == page else f"notebooks/{chapter}{suffix}"

    def view(self, path: str) -> str:
        """Address of a file of the repository; empty without a repository."""
        return f"{self.repository}/blob/{self.branch}/{path}" if self.repository else ""

    def page(self, page: str, label: str = "") -> str:
        """Address of a page of the book, else of its source; empty without either."""
        if self.pages:
            return f"{self.pages}/{page}.html" + (f"#{label}" if label else "")
        return self.view(self.source(page, ".ipynb"))

    def requirement(self, extras: str) -> str:
        """What pip installs: the package from the repository; from a checkout without one."""
        if not self.repository:
            return f".[{extras}]"
        return f"{PACKAGE}[{extras}] @ git+{self.repository}@{self.branch}"

    @property
    def on_github(self) -> bool:
        """Whether Colab can open notebooks of the repository."""
        return urlsplit(self.repository).hostname == "github.com"


def read_addresses(config: Path) -> Addresses:
    """Addresses from `repository: {url, branch}` and `html: {baseurl}` of a `_config.yml`; each may be empty.

    Raises
    ------
    InputError
        an address is not one of the web, or a repository's has no owner and name.
    """
    import yaml

    settings = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    repository, html = settings.get("repository") or {}, settings.get("html") or {}
    return addresses(repository.get("url"), repository.get("branch"), html.get("baseurl"), name=config.name)


def addresses(repository: str | None, branch: str | None, pages: str | None, *, name: str = "_config.yml") -> Addresses:
    """The same from the settings themselves; `name` is that of their file, for errors."""
    given = {"repository: url": repository or "", "html: baseurl": pages or ""}
    for setting, address in given.items():
        parts = urlsplit(address)
        if address and (parts.scheme not in ("https", "http") or not parts.hostname):
            raise InputError(f"{name}: {setting}: {address!r} is not an address such as https://github.com/owner/name")
    path = urlsplit(repository or "").path.strip("/")
    if repository and path.count("/") < 1:
        raise InputError(f"{name}: repository: url: {repository!r} has no owner and name")
    clean = (repository or "").rstrip("/").removesuffix(".git")
    return Addresses(clean, branch or "main", (pages or "").rstrip("/"))
