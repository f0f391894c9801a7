"""The folder of a build: what is refused before any work, builds at once, an interrupt."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_book import plain_book, source, texts

from companion.book import building as book
from companion.book.output import MARKER, check_output, publish, staging
from companion.errors import InputError


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until a condition holds; the process that is to bring it about must not end before."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


# ---- what is refused ----------------------------------------------------------------------------


def a_file(folder: Path) -> Path:
    (folder / "notes").write_text("mine")
    return folder / "notes"


def a_folder_with_html(folder: Path) -> Path:
    (folder / "site" / "html").mkdir(parents=True)
    (folder / "site" / "html" / "index.html").write_text("mine")
    return folder / "site"


def a_link_to_html(folder: Path) -> Path:
    (folder / "linked").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / MARKER).touch()
    (folder / "linked" / "html").symlink_to(folder / "elsewhere")
    return folder / "linked"


def a_dangling_link(folder: Path) -> Path:
    (folder / "dangling").mkdir()
    (folder / "dangling" / "html").symlink_to(folder / "nowhere")
    return folder / "dangling"


def a_link_to_itself(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def own_file(name: str, text: str = "mine") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "own").mkdir()
        (folder / "own" / name).write_text(text)
        return folder / "own"

    return make


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a file": (a_file, "is a file, not a folder"),
    "below a file": (lambda folder: a_file(folder) / "a" / "b", "notes is a file, not a folder"),
    "somebody's html": (a_folder_with_html, "html: not made by `companion book`"),
    "html that is a file": (own_file("html"), "html: not made by"),
    "html that is a link": (a_link_to_html, "html: not made by"),
    "html that leads nowhere": (a_dangling_link, "html: not made by"),
    "somebody's log": (own_file("sphinx.log"), r"sphinx\.log: not made by"),
    "somebody's summary": (own_file("summary.json", "[1]"), r"summary\.json: not made by"),
    "the checkout": (lambda folder: folder / "checkout", "the checkout; give the build a folder of its own"),
    "above the checkout": (lambda folder: folder, "a folder above"),
    "the root of all": (lambda folder: Path("/"), "a folder above"),
    "the sources": (lambda folder: folder / "checkout" / "book" / "new", "inside the sources of the book"),
    "the current folder": (lambda folder: Path("."), "the current folder"),
    "the current folder by its name": (lambda folder: folder / "here" / ".." / "here", "the current folder"),
    "home": (lambda folder: Path("~"), "your home folder"),
    "a link to itself": (a_link_to_itself, "output .*: File exists|Too many levels"),
    "not a folder of the system": (lambda folder: Path("/proc/1/fd/x"), "output /proc/1/fd/x: "),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_before_any_work(
    make: Callable[[Path], Path], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = plain_book(tmp_path / "checkout")
    source(root / "notebooks", f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "here").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    out = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=words) as raised:
        book.build(out, root=root, progress=False)
    assert len(str(raised.value).splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before, "nothing was run, written or removed"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(InputError, match="no permission to write into"):
        check_output(folder / "new", book.ROOT)


def test_what_a_build_made_may_be_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for made in (MARKER, "_static/companion.css"):
        path = out / "html" / made
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert check_output(out, book.ROOT) == out
        path.unlink()
    assert check_output(tmp_path / "new" / "deep", book.ROOT) == tmp_path / "new" / "deep"
    assert check_output(book.ROOT / "_build", book.ROOT) == book.ROOT / "_build"


# ---- builds at once -----------------------------------------------------------------------------


def test_one_output_at_once(tmp_path: Path) -> None:
    root = plain_book(tmp_path / "checkout")
    source(root / "notebooks", "scale")
    out = tmp_path / "out"
    with staging(out), pytest.raises(InputError, match=rf"another build \(process {os.getpid()}\) is writing there"):
        book.build(out, root=root, progress=False)
    assert list(out.iterdir()) == []
    (out / ".companion-book.lock").write_text("1\n")  # of a build that was killed: nobody holds it
    (out / ".companion-book-stage-old").mkdir()
    with staging(out) as stage:
        assert sorted(path.name for path in out.iterdir()) == sorted([".companion-book.lock", stage.name])


def test_two_builds_at_once_do_not_mix(tmp_path: Path) -> None:
    root = plain_book(tmp_path / "checkout")
    # each chapter waits until both builds run it
    meet = (
        (
            "import pathlib, time\n"
            f"here = pathlib.Path({str(tmp_path)!r})\n"
            "(here / f'{{name}}-{{scale}}').touch()\n"
            "while len(list(here.glob(f'{{name}}-*'))) < 2:\n    time.sleep(0.05)\n"
            "print('seen:', scale * 111)"
        )
        .replace("{{", "{")
        .replace("}}", "}")
    )
    for name in ("01_a", "02_b"):
        source(root / "notebooks", f"name = {name!r}\n{meet}", name=name)
    outs = {scale: tmp_path / f"out{scale}" for scale in (3, 4)}
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(book.build, out, root=root, parameters={"scale": scale}, jobs=1, progress=False)
            for scale, out in outs.items()
        ]
        assert all(run.result().complete for run in runs)
    for scale, out in outs.items():
        for name in ("01_a", "02_b"):
            page = (out / "html" / "chapters" / f"{name}.html").read_text()
            assert f"seen: {scale * 111}" in page
            assert f"seen: {(7 - scale) * 111}" not in page


# ---- interrupt ----------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_interrupt(tmp_path: Path) -> None:
    root, out = plain_book(tmp_path / "checkout"), tmp_path / "out"
    for name in ("01_a", "02_b", "03_c"):
        started = tmp_path / name
        cell = f"import os, time, pathlib\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\ntime.sleep(300)"
        source(root / "notebooks", cell, name=name)
    code = (
        "import pathlib, signal, sys; from companion import cli; from companion.book import building as book;"
        "book.ROOT = pathlib.Path(sys.argv[1]);"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # ignored where the tests run in the background
        "sys.exit(cli.main(['book', '--jobs', '2', '--output', sys.argv[2]]))"
    )
    command = [sys.executable, "-c", code, str(root), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(
            lambda: all((tmp_path / name).is_file() and (tmp_path / name).read_text() for name in ("01_a", "02_b")),
            process,
        )
        kernels = [int((tmp_path / name).read_text()) for name in ("01_a", "02_b")]
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 130
    assert (printed, said) == ("", "companion: interrupted\n")
    assert not any(alive(pid) for pid in kernels)
    assert not (tmp_path / "03_c").exists(), "no further notebook is begun"
    assert list(out.iterdir()) == [], "the stage and the lock are gone"
    (executed,) = book.execute([source(tmp_path, "scale")], tmp_path / "later")
    assert "2" in texts(executed)


def test_earlier_html_outlives_a_failed_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out" / "html").mkdir(parents=True)
    (tmp_path / "out" / "html" / "index.html").write_text("earlier")
    stage = tmp_path / "stage"
    stage.mkdir()
    (tmp_path / "out" / "html" / MARKER).touch()
    replace = os.replace

    def fail_for_the_stage(source: Path, target: Path) -> None:
        if source == stage:
            raise OSError("gone")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_for_the_stage)
    with pytest.raises(OSError, match="gone"):
        publish(stage, tmp_path / "out")
    monkeypatch.undo()
    assert (tmp_path / "out" / "html" / "index.html").read_text() == "earlier"
    publish(stage, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["html"]
    assert [path.name for path in (tmp_path / "out" / "html").iterdir()] == [MARKER]
