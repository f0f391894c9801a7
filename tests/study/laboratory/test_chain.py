"""The ledger's file: every edit is found, nothing is lost, a crash costs its own line only."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.study.laboratory.chain import MAX_BYTES, Chain, Entry, next_entry, parse


def entries_of(number: int) -> list[Entry]:
    entries: list[Entry] = []
    for at in range(number):
        entries.append(
            next_entry(entries, "ask" if at else "open", {"loss": 2.5 + at / 7, "at": at, "text": "é\u2028"})
        )
    return entries


ENTRIES = entries_of(5)
DATA = "".join(entry.line() for entry in ENTRIES).encode()


def chain_in(folder: Path, data: bytes = DATA) -> Chain:
    chain = Chain(folder / "ledger.jsonl")
    if not chain.head_path.exists():  # hypothesis comes again
        chain.create(ENTRIES[0])
        chain.append(ENTRIES[1:], ENTRIES[:1])
        (folder / "right").write_bytes(chain.head_path.read_bytes())
    chain.head_path.write_bytes((folder / "right").read_bytes())
    chain.path.write_bytes(data)
    return chain


@st.composite
def edits(draw: st.DrawFn) -> bytes:
    """The file after one edit, of any kind that a person or an editor makes."""
    lines = DATA.splitlines(keepends=True)
    kind = draw(st.sampled_from(["byte", "insert", "cut", "remove", "swap", "repeat", "number", "tail", "endings"]))
    at = draw(st.integers(0, len(DATA) - 1))
    line = draw(st.integers(0, len(lines) - 1))
    if kind == "byte":
        return DATA[:at] + bytes([draw(st.integers(0, 255))]) + DATA[at + 1 :]
    if kind == "insert":
        return DATA[:at] + draw(st.binary(min_size=1, max_size=5)) + DATA[at:]
    if kind == "cut":
        return DATA[:at]
    if kind == "remove":
        return b"".join(lines[:line] + lines[line + 1 :])
    if kind == "swap":
        other = draw(st.integers(0, len(lines) - 1))
        lines[line], lines[other] = lines[other], lines[line]
        return b"".join(lines)
    if kind == "repeat":
        return b"".join(lines[: line + 1] + lines[line:])
    if kind == "number":
        read = json.loads(lines[line])
        read["body"]["loss"] = draw(st.floats(allow_nan=False, allow_infinity=False))
        return b"".join(
            [
                *lines[:line],
                json.dumps(read, sort_keys=True, separators=(",", ":")).encode() + b"\n",
                *lines[line + 1 :],
            ]
        )
    if kind == "tail":
        return DATA + draw(st.binary(min_size=1, max_size=300))
    return DATA.replace(b"\n", b"\r\n")


@given(edited=edits())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_edit_is_found_or_changes_nothing(tmp_path: Path, edited: bytes) -> None:
    chain = chain_in(tmp_path, edited)
    found, fault = None, ""
    try:
        found = chain.read()
    except InputError as error:
        fault = str(error)
    if found is None:
        assert str(chain.path) in fault
        assert "\n" not in fault
    else:
        assert found[0] == ENTRIES
        assert bool(found[1]) == (edited != DATA)
    assert chain.path.read_bytes() == edited


@pytest.mark.parametrize("line", range(5))
def test_the_changed_line_is_named(tmp_path: Path, line: int) -> None:
    lines = DATA.splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"at":', b'"at":1')
    with pytest.raises(InputError, match=f"line {line + 1} was changed after it was written"):
        chain_in(tmp_path, b"".join(lines)).read()


def test_a_line_with_a_right_hash_but_a_wrong_place_is_named(tmp_path: Path) -> None:
    forged = next_entry(ENTRIES[:2], "ask", {"loss": 1.0}).line().encode()
    lines = DATA.splitlines(keepends=True)
    with pytest.raises(InputError, match="line 4 does not follow"):
        chain_in(tmp_path, b"".join([*lines[:2], forged, *lines[3:]])).read()


def test_lines_missing_at_the_end_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 4 is missing: 5 entries were written, 3 are there"):
        chain_in(tmp_path, b"".join(DATA.splitlines(keepends=True)[:3])).read()


def test_another_end_of_the_same_length_is_found(tmp_path: Path) -> None:
    forged = next_entry(ENTRIES[:4], "ask", {"loss": 1.0}).line().encode()
    with pytest.raises(InputError, match="line 5 is not the entry that was written"):
        chain_in(tmp_path, b"".join([*DATA.splitlines(keepends=True)[:4], forged])).read()


@given(cut=st.integers(1, 150))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_crash_within_a_line_costs_that_line_only(tmp_path: Path, cut: int) -> None:
    new = next_entry(ENTRIES, "ask", {"loss": 3.0})
    chain = chain_in(tmp_path, DATA + new.line().encode()[:cut])
    entries, notes = chain.read()
    assert entries == ENTRIES
    assert len(notes) == 1
    assert "line 6 was cut off" in notes[0]
    chain.append([new], entries)
    assert chain.read() == ([*ENTRIES, new], [])


def test_a_crash_before_the_head_loses_nothing(tmp_path: Path) -> None:
    chain = chain_in(tmp_path)
    head = chain.head_path.read_bytes()
    new = next_entry(ENTRIES, "ask", {"loss": 3.0})
    chain.append([new], ENTRIES)
    chain.head_path.write_bytes(head)
    assert chain.read() == ([*ENTRIES, new], [])


@pytest.mark.parametrize("head", [b"", b"5", b"\xff\xfe", b"5 5 5", b"-1 x", b"9" * 400 + b" x", b"\xc2\xb2 x"])
def test_a_broken_head_is_named(tmp_path: Path, head: bytes) -> None:
    chain = chain_in(tmp_path)
    chain.head_path.write_bytes(head)
    with pytest.raises(InputError, match=r"ledger\.head"):
        chain.read()


@pytest.mark.parametrize(
    "line",
    [
        b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b"1" * 10_000, b'{"number":NaN}',
        b'{"body":{"x":1e999},"hash":"","kind":"","number":0,"previous":""}',
        b'{"body":{},"hash":"","kind":"","number":true,"previous":""}',
    ],
)  # fmt: skip
def test_lines_that_are_no_entries(line: bytes) -> None:
    with pytest.raises(InputError, match=r"^here: line 1 "):
        parse(line + b"\n", "here")


def test_files_that_are_none(tmp_path: Path) -> None:
    chain = chain_in(tmp_path)
    chain.path.unlink()
    with pytest.raises(InputError, match="no such file"):
        chain.read()
    chain.path.mkdir()
    with pytest.raises(InputError, match="is a folder"):
        chain.read()
    chain.path.rmdir()
    with chain.path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match="too large"):
        chain.read()
