"""The built book, once per test run, served over http on this machine; a browser where there is one."""

import contextlib
import fcntl
import functools
import http.server
import os
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
            shorten(source / "notebooks/15_own_study.md", "num_draws = 10", "num_draws = 2")
            shorten(source / "notebooks/15_own_study.md", "[5e9, 1e10, 2e10]", "[2e9]")
            shorten(source / "notebooks/13_from_cell_to_model.md", "train_seconds = 60", "train_seconds = 6")
            try:
                book.build(shared / "out", root=source, progress=False)
            except Exception as error:
                failed.write_text(str(error))
                raise
    return html


def shorten(notebook: Path, before: str, after: str) -> None:
    """Change a line of a copied notebook that takes most of its time and none of its ways."""
    text = notebook.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{notebook.name}: {before!r} is not there once"
    notebook.write_text(text.replace(before, after), encoding="utf-8")


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
