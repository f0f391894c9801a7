"""Records of a study in one file, so that another machine can go on with it: a line of JSON each, compressed by gzip.

No torch.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from companion.errors import InputError
from companion.paths import ensure_folder
from companion.study.train.files import check_regular
from companion.study.train.records import MAX_RECORD_BYTES, DamagedRecord, checked_record, record_path, write_record

#: Largest file that is read, and how much it may hold once unpacked, bytes.
MAX_BYTES, MAX_UNPACKED_BYTES = 200_000_000, 2_000_000_000


def packed_records(records: Iterable[Mapping[str, Any]]) -> bytes:
    """The content of a file of records. Equal records give equal bytes.

    Examples
    --------
    >>> gzip.decompress(packed_records([{"run_id": "0123456789abcdef"}]))
    b'{"run_id": "0123456789abcdef"}\\n'
    """
    lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    return gzip.compress("".join(lines).encode(), mtime=0)


def unpack_records(path: str | os.PathLike[str], folder: Path) -> int:
    """How many records of a file were written into the folder of a study: all that it did not have.

    Every record is checked before the first is written.

    Raises
    ------
    InputError
        if the file is missing, too large, not a gzip file, or cannot be read.
    DamagedRecord
        that names the line, if what it holds is no record or was changed.
    """
    check_regular(path, MAX_BYTES)
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(_lines(path), start=1):
        where = f"{os.fspath(path)}: line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            raise DamagedRecord(f"{where}: is not JSON") from None
        record = checked_record(values, where)
        found[record["run_id"]] = record
    new = [record for name, record in found.items() if not os.path.lexists(record_path(folder, name))]
    ensure_folder(folder)
    for record in new:
        write_record(folder, record)
    return len(new)


def _lines(path: str | os.PathLike[str]) -> Iterable[bytes]:
    total = 0
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(MAX_RECORD_BYTES + 1):
                total += len(line)
                if len(line) > MAX_RECORD_BYTES or total > MAX_UNPACKED_BYTES:
                    raise InputError(f"{os.fspath(path)}: it holds more than records do")
                yield line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{os.fspath(path)}: is not a whole gzip file: {error}") from None
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error
