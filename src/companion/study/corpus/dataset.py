"""Tokenized data sets in shards: files on a disk, or some public ones by name. Needs torch.

A shard (the format of llm.c and modded-nanogpt) is a header of 256 little-endian int32 (magic 20240520, version 1,
number of tokens, zeros) and then the tokens as little-endian uint16.
"""

import glob
import hashlib
import http.client
import json
import os
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from companion.errors import InputError
from companion.paths import ensure_folder, write_whole
from companion.study.corpus.windows import Windows

MAGIC, VERSION = 20240520, 1
HEADER_BYTES = 1024
GPT2_VOCAB_SIZE = 50257
#: Folder of downloads; `~/.cache/companion` if it is not set.
CACHE_VARIABLE = "COMPANION_CACHE"
CHECKSUMS = "sha256.json"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class PublicDataset:
    """A data set that can be fetched by name: where its shards are, how many, and on which terms."""

    url: str
    training: str
    held_out: str
    shards: int
    vocab_size: int
    license: str


#: Facts from modded-nanogpt's `data/cached_fineweb10B.py` and `cached_finewebedu10B.py` (names and numbers of shards)
#: and the cards of FineWeb and FineWeb-Edu (license). No checksums are published.
PUBLIC = {
    "fineweb10B-gpt2": PublicDataset(
        "https://huggingface.co/datasets/kjj0/fineweb10B-gpt2/resolve/main",
        "fineweb_train_{:06d}.bin", "fineweb_val_000000.bin", 103, GPT2_VOCAB_SIZE, "ODC-By 1.0",
    ),
    "finewebedu10B-gpt2": PublicDataset(
        "https://huggingface.co/datasets/kjj0/finewebedu10B-gpt2/resolve/main",
        "finewebedu_train_{:06d}.bin", "finewebedu_val_000000.bin", 99, GPT2_VOCAB_SIZE, "ODC-By 1.0",
    ),
}  # fmt: skip


class DatasetCorpus(Windows):
    """Shards of tokens, mapped into memory: files on a disk by a pattern, or a public data set by name.

    Files with `val` in their names are held out; where there are none, the last one is. A public data set is fetched
    when it is first opened. Nobody publishes checksums of these shards: the SHA-256 of a download is written down, and
    a file that is fetched again must have the same (trust on first use).

    Parameters
    ----------
    place
        a name of `PUBLIC`, or a pattern of paths (`data/fineweb_*.bin`).
    shards
        of a public data set: how many files for training (100 million tokens each); all by default.
    repeat
        begin anew where the windows end.

    Raises
    ------
    InputError
        if nothing is found, a file is no such shard, or a download fails.
    """

    def __init__(self, place: str, shards: int | None = None, repeat: bool = False) -> None:
        public = PUBLIC.get(place)
        if public is None and shards is not None:
            raise InputError(f"dataset:{place}: shards={shards}: that is an option of public data sets ({_known()})")
        paths = fetch(place, public, shards) if public is not None else _local(place)
        held_out = [path for path in paths if "val" in path.name] or paths[-1:]
        training = [path for path in paths if path not in held_out]
        if not training:
            raise InputError(f"dataset:{place}: {len(paths)} file, and one has to be held out: use two or more")
        options = [f"shards={shards}"] * (shards is not None) + ["repeat=true"] * repeat
        self.paths = {"training": training, "held_out": held_out}
        vocab_size = GPT2_VOCAB_SIZE if public is None else public.vocab_size
        name = ",".join([f"dataset:{place}", *options])
        super().__init__(name, vocab_size, [read_shard(x) for x in training], [read_shard(x) for x in held_out], repeat)

    def describe(self) -> dict[str, Any]:
        """Name, tokens, and the SHA-256 of every file, for which all of them are read."""
        files = [path for of in self.paths.values() for path in of]
        sums = {path.name: checksum(path) for path in tqdm(files, desc="checksums", unit="file", delay=2)}
        return {
            "name": self.name,
            "vocab_size": self.vocab_size,
            "training_tokens": sum(len(array) for array in self._training),
            "held_out_tokens": sum(len(array) for array in self._held_out),
            "sha256": sums,
        }


def _known() -> str:
    return ", ".join(sorted(PUBLIC))


def _local(place: str) -> list[Path]:
    pattern = os.path.join(place, "*.bin") if os.path.isdir(place) else place
    paths = sorted(Path(found) for found in glob.glob(os.path.expanduser(pattern)) if os.path.isfile(found))
    if not paths:
        raise InputError(f"dataset:{place}: no such data set (known: {_known()}), and no file fits that path")
    return paths


def read_shard(path: Path) -> NDArray[np.uint16]:
    """Tokens of a shard, mapped and not read.

    Raises
    ------
    InputError
        if it cannot be read, or has another magic number, version or size than the header says.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    header = np.frombuffer(beginning[: len(beginning) // 4 * 4], dtype="<i4")
    if len(header) < 3 or int(header[0]) != MAGIC:
        raise InputError(f"{path}: is no shard of tokens: it does not begin with {MAGIC}")
    if int(header[1]) != VERSION:
        raise InputError(f"{path}: version {int(header[1])} of the format; only {VERSION} is known")
    tokens, there = int(header[2]), (size - HEADER_BYTES) / 2
    if tokens < 1 or tokens != there:
        raise InputError(f"{path}: the header says {tokens} tokens, the file has {max(there, 0):g}: get it again")
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(tokens,))


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def fetch(name: str, public: PublicDataset, shards: int | None) -> Sequence[Path]:
    """The held-out file and the first `shards` training files of a data set, downloaded where they are missing."""
    if shards is not None and not 1 <= shards <= public.shards:
        raise InputError(f"dataset:{name}: shards={shards}: use a number from 1 to {public.shards}")
    folder = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "companion") / "datasets" / name
    count = public.shards if shards is None else shards
    names = [public.held_out, *(public.training.format(i + 1) for i in range(count))]
    try:
        ensure_folder(folder)
    except InputError as error:
        raise InputError(f"{error}; set {CACHE_VARIABLE}") from error
    for file in names:
        if not (folder / file).is_file():
            _download(f"{public.url}/{file}", folder / file)
    return [folder / file for file in names]


def _download(url: str, target: Path) -> None:
    """Put a file in its place if it arrives whole, is a shard, and is what was there before."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, part.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            with tqdm(total=size or None, desc=target.name, unit="B", unit_scale=True) as bar:
                while chunk := answer.read(CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
        read_shard(part)
        _remember(target, checksum(part))
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"{url}: cannot be fetched: {error}; or put the file into {target.parent}") from error
    finally:
        part.unlink(missing_ok=True)


def _remember(target: Path, found: str) -> None:
    """Write down the checksum of a first download; raise if a later one differs."""
    notes = target.with_name(CHECKSUMS)
    try:
        known = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
    except ValueError as error:
        raise InputError(f"{notes}: is damaged: {error}; delete it") from error
    if not isinstance(known, dict):
        raise InputError(f"{notes}: is damaged: not an object; delete it")
    if known.setdefault(target.name, found) != found:
        raise InputError(
            f"{target}: was fetched before with SHA-256 {known[target.name]}, now it is {found}: the data set has"
            f" changed; delete {notes} to accept that"
        )
    write_whole(notes, json.dumps(known, indent=1, sort_keys=True) + "\n")
