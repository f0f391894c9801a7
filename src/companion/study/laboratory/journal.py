"""Where a laboratory keeps its entries: a folder, or the memory of one process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from companion.errors import InputError
from companion.paths import write_whole
from companion.study.laboratory.chain import Chain, Entry, read_json
from companion.study.laboratory.chance import canonical

LEDGER, RULES, SEALED, PREDICTION = "ledger.jsonl", "lab.json", "sealed.json", "prediction.json"


class Journal(Protocol):
    """Entries in their order, and the opened prediction beside them."""

    def read(self) -> tuple[list[Entry], list[str]]:
        """All entries, checked, and notes on what was left out."""

    def append(self, new: Sequence[Entry], entries: Sequence[Entry]) -> None:
        """Add entries behind those that `read` returned."""

    def locked(self) -> Any:
        """A context in which no other process writes."""

    def save_prediction(self, opened: dict[str, Any]) -> None:
        """Keep what a commitment is of."""

    def load_prediction(self) -> Any:
        """What `save_prediction` kept."""


@dataclass
class MemoryJournal:
    """A journal that nobody else sees and nothing keeps: for simulations."""

    entries: list[Entry] = field(default_factory=list)
    opened: dict[str, Any] | None = None

    def read(self) -> tuple[list[Entry], list[str]]:
        """All entries; no notes."""
        return list(self.entries), []

    def append(self, new: Sequence[Entry], entries: Sequence[Entry]) -> None:
        """Add entries."""
        self.entries = [*entries, *new]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process knows of it."""
        yield

    def save_prediction(self, opened: dict[str, Any]) -> None:
        """Keep it."""
        self.opened = opened

    def load_prediction(self) -> Any:
        """What was kept."""
        return self.opened


@dataclass(frozen=True)
class FolderJournal:
    """The journal of a laboratory's folder.

    Attributes
    ----------
    folder
        holds `ledger.jsonl`, and `prediction.json` once there is one.
    """

    folder: Path

    @property
    def chain(self) -> Chain:
        """The file of the entries."""
        return Chain(self.folder / LEDGER)

    def read(self) -> tuple[list[Entry], list[str]]:
        """See `companion.study.laboratory.chain.Chain.read`."""
        return self.chain.read()

    def append(self, new: Sequence[Entry], entries: Sequence[Entry]) -> None:
        """See `companion.study.laboratory.chain.Chain.append`."""
        self.chain.append(new, entries)

    def locked(self) -> Any:
        """See `companion.study.laboratory.chain.Chain.locked`."""
        return self.chain.locked()

    def save_prediction(self, opened: dict[str, Any]) -> None:
        """Write `prediction.json`."""
        write_whole(self.folder / PREDICTION, canonical(opened) + "\n")

    def load_prediction(self) -> Any:
        """What `prediction.json` holds.

        Raises
        ------
        InputError
            if it is missing or not JSON.
        """
        path = self.folder / PREDICTION
        if not path.exists():
            raise InputError(f"{path}: is missing, and the ledger holds its commitment; restore the file from a copy")
        return read_json(path)
