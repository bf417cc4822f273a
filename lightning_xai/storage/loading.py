"""Stored readings, loaded when they are looked at; a file that cannot be read says which and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightning_xai.reading import Reading
from lightning_xai.storage.manifest import check_format
from lightning_xai.storage.reading_file import ReadingFile

if TYPE_CHECKING:
    from torch import Tensor


class Unreadable(ValueError):
    """A stored file that cannot be read: it is gone, cut short, of another format, or its disk fails."""

    def __init__(self, path: Path, cause: Exception) -> None:
        super().__init__(f"{path} cannot be read and is left out: {type(cause).__name__}: {_short(cause)}")


class StoreOfReadings(Protocol):
    """A store that finds its files again, also where it has been moved."""

    def reading_file(self, file: str, mtime: int) -> Any:
        """The file of a reading; raises Unreadable."""


def unreadable(reading: Reading) -> Unreadable | None:
    """Why the rows of a reading cannot be read from the disk; None where they can, or are in memory."""
    try:
        len(reading.measured.rows)
    except Unreadable as error:
        return error
    return None


class RowsOnDisk(Mapping[str, "Tensor"]):
    """The rows of a stored reading of format 1, read again when they are looked at.

    Args:
        store: whose they are.
        file: its path in the store.
        mtime: when it was written; a file of another time may be another run's, where the store has been moved.
    """

    def __init__(self, store: StoreOfReadings, file: str, mtime: int) -> None:
        self._store, self._file, self._mtime = store, file, mtime

    def _rows(self) -> Mapping[str, Tensor]:
        reading: Reading = self._store.reading_file(self._file, self._mtime)
        return reading.measured.rows

    def __getitem__(self, key: str) -> Tensor:
        return self._rows()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows())

    def __len__(self) -> int:
        return len(self._rows())


def open_reading(path: Path) -> tuple[ReadingFile | Reading, int]:
    """A file of a reading, and when it was written; of format 1 the reading itself. Raises Unreadable."""
    try:
        mtime = path.stat().st_mtime_ns
        return _load(path, mtime), mtime
    except Exception as error:  # a damaged file raises anything
        raise Unreadable(path, error) from error


@lru_cache(maxsize=32)
def _load(path: Path, _mtime: int) -> ReadingFile | Reading:
    if path.suffix == ".npz":
        return ReadingFile(path)
    import torch  # what wrote format 1

    from lightning_xai.storage.reading_state import reading_from_state

    state = torch.load(path, map_location="cpu", weights_only=True)
    check_format(path, state)
    return reading_from_state(state)


def _short(cause: Exception) -> str:
    """The first line of a message: torch explains at length why a file may not be loaded."""
    return str(cause).partition("\n")[0]
