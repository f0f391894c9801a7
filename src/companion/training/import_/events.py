"""TensorBoard event files: scalars, with the checksums of the format.

The package `tensorboard` reads them too, but brings fifteen others and 100 MB for three fields of a message. An event
file is a sequence of records (length, its masked CRC-32C, data, its masked CRC-32C; TensorFlow, "TFRecord"), each an
`Event` message with `wall_time` (field 1), `step` (2) and `summary` (5), whose values have a `tag` (1) and a
`simple_value` (2) or a `tensor` (8) of one number.
"""

import struct
from collections.abc import Iterator
from typing import Any

from companion.errors import InputError

_POLYNOMIAL = 0x82F63B78


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """The checksum of a record: CRC-32C (Castagnoli; RFC 3720, appendix B.4), rotated and shifted by a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_scalars(data: bytes, source: str) -> tuple[list[tuple[float, int, str, float]], list[str]]:
    """The scalars of an event file, as (wall time in seconds, step, tag, value), in the order of the file.

    Returns
    -------
    (list, list of str)
        the scalars, and a note where the last record is cut off, as in the file of a run that was killed.

    Raises
    ------
    InputError
        one line that names the file and byte: a checksum that is wrong, or no event file.
    """
    found, notes, place = list[tuple[float, int, str, float]](), list[str](), 0
    while place < len(data):
        head = data[place : place + 12]
        length, crc = struct.unpack("<QI", head) if len(head) == 12 else (0, 0)
        if len(head) == 12 and crc != masked_crc32c(head[:8]):
            what = "is not an event file of TensorBoard" if place == 0 else "the checksum is wrong: the file is damaged"
            raise InputError(f"{source}: byte {place}: {what}")
        end = place + 12 + length + 4
        if len(head) < 12 or end > len(data):
            if place == 0:
                raise InputError(f"{source}: is cut off within its first record")
            notes.append(f"the last record (byte {place}) is cut off and left out")
            break
        record = data[place + 12 : end - 4]
        if struct.unpack_from("<I", data, end - 4)[0] != masked_crc32c(record):
            raise InputError(f"{source}: byte {place}: the checksum is wrong: the file is damaged")
        try:
            found += _scalars(record)
        except (IndexError, struct.error, UnicodeDecodeError):
            raise InputError(f"{source}: byte {place}: the record is not an event") from None
        place = end
    return found, notes


def _scalars(record: bytes) -> Iterator[tuple[float, int, str, float]]:
    event = dict(_fields(record))
    (wall,) = struct.unpack("<d", event[1]) if 1 in event else (float("nan"),)
    step = event.get(2, 0)
    for number, value in _fields(event.get(5, b"")):
        if number == 1:
            fields = dict(_fields(value))
            scalar = struct.unpack("<f", fields[2])[0] if 2 in fields else _tensor(fields.get(8, b""))
            if scalar is not None and 1 in fields:
                yield wall, step, fields[1].decode(), float(scalar)


def _tensor(data: bytes) -> float | None:
    """The number of a tensor with one element of type float (1) or double (2); None for any other."""
    fields = dict(_fields(data))
    style = {1: "<f", 2: "<d"}.get(fields.get(1, 0))
    content = fields.get(4) or fields.get({1: 5, 2: 6}.get(fields.get(1, 0), 0))
    if style is None or not isinstance(content, bytes) or len(content) != struct.calcsize(style):
        return None
    return struct.unpack(style, content)[0]


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and content of the fields of a message; a varint as an integer, everything else as bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            content, place = _varint(data, place)
            yield key >> 3, content - 2**64 if content >= 2**63 else content
            continue
        length, place = (8, place) if kind == 1 else (4, place) if kind == 5 else _varint(data, place)
        if kind not in (1, 2, 5) or place + length > len(data):
            raise IndexError("not a field")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
        if shift > 63:
            raise IndexError("a number of more than 64 bits")
