"""One reading as a file: what was measured and what was said of it, as arrays that numpy opens one by one."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Report
from lightning_xai.storage.described import array_name, describe, restore
from lightning_xai.storage.manifest import FORMAT, check_format, write_whole

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = "np.typing.NDArray[Any]"
HEAD = "reading"
ARRAYS = "arrays"


def write(path: Path, reading: Reading, report: Report | None, *, arrays: Path) -> None:
    """Write one reading whole.

    Args:
        path: of the file.
        reading: what was measured.
        report: what was said of it.
        arrays: the folder for pixels, which are the same in every reading of a run.
    """
    packed = _Packed()
    rows = {key: _array(tensor) for key, tensor in reading.measured.rows.items()}
    parts = (("rows", rows), ("shared", reading.measured.shared), ("kept", reading.measured.kept))
    for part, tensors in parts:
        for key, value in tensors.items():
            packed.add(f"{part}/{key}", value)

    def put(array: Array) -> str:
        if array.dtype == np.uint8:
            name = array_name(array)
            if not (arrays / f"{name}.npy").exists():
                write_whole(arrays / f"{name}.npy", lambda path: _save(path, array))
            return f"{ARRAYS}/{name}"
        for key, row in rows.items():  # pictures mostly show what was measured
            alike = row.shape[1:] == array.shape[1:] and row.dtype == array.dtype and len(row) >= len(array) > 0
            if alike and np.array_equal(row[: len(array)], array, equal_nan=row.dtype.kind == "f"):
                return f"{len(array)} rows/{key}"
        name = f"pictures/{len(packed.arrays)}"
        packed.add(name, array)
        return name

    head = {
        "format": FORMAT,
        "epoch": reading.epoch,
        "step": reading.step,
        "index": reading.index,
        "samples": max((len(value) for _, part in (parts[0], parts[2]) for value in part.values()), default=0),
        "scalars": {tag: float(value) for tag, value in reading.scalars.items()},
        "report": None if report is None else describe(report, put),
        "largest": packed.largest,
        "kinds": packed.kinds,
    }
    packed.arrays[HEAD] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    write_whole(path, lambda unfinished: _savez(unfinished, packed.arrays))


@dataclass
class _Packed:
    """The arrays of a file, and what it takes to make them again what they were.

    Args:
        arrays: name -> array as it is written.
        largest: name -> the largest value of those that were halved.
        kinds: name -> dtype of those that numpy has none for.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> None:
        array = _array(value)
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":
            self.kinds[name] = "bfloat16"
        if array.dtype == np.float32 and array.ndim >= 2 and not name.startswith(("shared/", "kept/")):
            array, self.largest[name] = halve(array)
        self.arrays[name] = array


class ReadingFile:
    """A file of `write`, its parts read when they are looked at.

    Raises:
        OSError, ValueError, KeyError: it is damaged, or of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # opened here: numpy leaves a damaged one open
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            self.head: dict[str, Any] = json.loads(file[HEAD].tobytes())
            self.names = [name for name in file.files if name != HEAD]
        check_format(path, self.head)
        for name in ("epoch", "step", "index"):
            operator.index(self.head[name])

    def array(self, name: str) -> Array:
        """One array of the file, as it was."""
        with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            array: Array = file[name]
        return restored(array, self.head["largest"][name]) if name in self.head["largest"] else array

    def part(self, part: str) -> dict[str, str]:
        """Key -> name of the arrays of ``rows``, ``shared`` or ``kept``."""
        return {name.removeprefix(f"{part}/"): name for name in self.names if name.startswith(f"{part}/")}

    def report(self, arrays: Path) -> Report | None:
        """What was said of the reading; None where it was not kept."""
        plain = self.head["report"]
        return None if plain is None else restore(plain, lambda name: self._named(name, arrays))

    def _named(self, name: str, arrays: Path) -> Array:
        source, _, rest = name.partition("/")
        if source == ARRAYS:
            pixels: Array = np.load(arrays / f"{Path(rest).name}.npy", allow_pickle=False)
            return pixels
        if source.endswith(" rows"):
            return self.array(f"rows/{rest}")[: int(source.split(" ")[0])]
        return self.array(name)

    def reading(self, rows: Callable[[], ReadingFile] | None = None) -> Reading:
        """The reading, its tensors made when they are looked at.

        Args:
            rows: finds the file again for its rows, where it may have moved; None reads this one.
        """
        measured = Measured(
            Tensors(rows or (lambda: self), "rows"), Tensors(lambda: self, "shared"), Tensors(lambda: self, "kept")
        )
        scalars = dict(self.head["scalars"])
        return Reading(self.head["epoch"], self.head["step"], measured, self.head["index"], scalars)


class Tensors(Mapping[str, "Tensor"]):
    """One part of a reading file as tensors: torch is imported when the first is asked for."""

    def __init__(self, file: Callable[[], ReadingFile], part: str) -> None:
        self._file, self._part = file, part

    def __getitem__(self, key: str) -> Tensor:
        import torch

        file = self._file()
        name = file.part(self._part)[key]
        tensor = torch.from_numpy(np.array(file.array(name)))
        kind = file.head["kinds"].get(name)
        return tensor if kind is None else tensor.to(getattr(torch, kind))

    def __iter__(self) -> Iterator[str]:
        return iter(self._file().part(self._part))

    def __len__(self) -> int:
        return len(self._file().part(self._part))


def _array(tensor: Any) -> Array:
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    return np.asarray(tensor)


def halve(array: Array) -> tuple[Array, float]:
    """Half the bytes of a map: float16, which ends at 65504 and loses what is small, beside the largest value."""
    finite = array[np.isfinite(array)]
    largest = (float(np.abs(finite).max()) if finite.size else 0.0) or 1.0
    return (array / np.float32(largest)).astype(np.float16), largest


def restored(halved: Array, largest: float) -> Array:
    """What `halve` was given, rounded."""
    whole: Array = halved.astype(np.float32) * np.float32(largest)
    return whole


def _save(path: Path, array: Array) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _savez(path: Path, arrays: Mapping[str, Array]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
