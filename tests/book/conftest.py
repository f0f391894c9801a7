"""The built book, once per test run, served over http on this machine; a browser where there is one."""

import contextlib
import fcntl
import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from companion.book import building as book

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
]


#: Resamples, simulated studies, worlds and starts, seconds and FLOP of training: fewer give the same pages.
SHORTER = {
    "num_resamples": "40",
    "num_draws": "2",
    "num_worlds": "2",
    "num_starts": "8",
    "train_seconds": "6",
    "example_budgets": "[2e9]",
}
#: The explorer, and the widget of chapter 9, take the resamples of their page: tests compare both with the package.
EXPLORERS = ("09", "91")


@pytest.fixture(scope="session")
def built_book(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Folder of the html, built from a copy of the sources by whichever worker comes first."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "built-book"
    shared.mkdir(exist_ok=True)
    html, failed = shared / "out" / "html", shared / "failed"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failed.is_file():
            pytest.fail(f"the book does not build:\n{failed.read_text()}", pytrace=False)
        if not html.is_dir():
            source = shared / "source"
            shutil.copytree(book.ROOT / "book", source / "book")
            shutil.copytree(book.ROOT / "notebooks", source / "notebooks")
            shutil.copytree(book.ROOT / "data", source / "data")
            shutil.copy(book.ROOT / "_config.yml", source)
            shorten(source / "notebooks")
            try:
                book.build(shared / "out", root=source, progress=False)
            except Exception as error:
                failed.write_text(str(error))
                raise
    return html


def shorten(notebooks: Path) -> None:
    """Change parameters of copied notebooks that take time and open no other way through a chapter."""
    left = dict(SHORTER)
    for notebook in notebooks.glob("*.md"):
        if notebook.stem.startswith(EXPLORERS):
            continue
        text = notebook.read_text(encoding="utf-8")
        for name, value in SHORTER.items():
            text, changed = re.subn(rf"^{name} = [^#\n]+", f"{name} = {value}  ", text, flags=re.MULTILINE)
            if changed:
                left.pop(name, None)
        notebook.write_text(text, encoding="utf-8")
    assert not left, f"no notebook has {', '.join(left)}"


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """Name of the xdist worker; `master` without xdist, or without its plugin."""
    return getattr(request.config, "workerinput", {}).get("workerid", "master")


@pytest.fixture(scope="session")
def site(built_book: Path) -> Iterator[str]:
    """Address of the built book, ending in a slash."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(built_book))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A chromium of the system. Without one: skip, or fail where COMPANION_REQUIRE_BROWSER is set."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        say = pytest.fail if os.environ.get("COMPANION_REQUIRE_BROWSER") else pytest.skip
        say(f"no browser on PATH ({', '.join(CHROMIUM)})")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        with contextlib.suppress(Exception):
            chromium.close()
