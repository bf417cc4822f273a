"""RunStore: every reading of a run on disk, beside its checkpoints.

``manifest.json`` names the callbacks, ``probes/<fingerprint>.pt`` holds what was explained, and
``<name>/<step>.pt`` one reading. A file is written whole under another name, then renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading

FORMAT = 1
MANIFEST = "manifest.json"


class RunStore:
    """The readings of one run.

    Args:
        folder: where they are, or will be; made when the first file is written.

    Raises:
        ValueError: where the folder was written by a newer version of this library, or by something else.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).absolute()
        if (self.folder / MANIFEST).exists():
            _check_format(self.folder, self.manifest)

    @property
    def manifest(self) -> dict[str, Any]:
        """What is written about the run: its format, and per callback its class, settings, layers and probe."""
        path = self.folder / MANIFEST
        if not path.exists():
            return {"format": FORMAT, "callbacks": {}}
        try:
            manifest: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is no manifest of lightning_xai: {error}") from error
        return manifest

    def describe(self, name: str, entry: Mapping[str, Any]) -> None:
        """Write what there is to know about the callback ``name``: JSON values alone."""
        manifest = self.manifest
        if manifest["callbacks"].get(name) == entry:
            return
        manifest["callbacks"][name] = dict(entry)
        text = json.dumps(manifest, indent=2, sort_keys=True)
        _write(self.folder / MANIFEST, lambda path: path.write_text(text))

    def add_probe(self, probe: Probe) -> str:
        """Keep a probe; returns its fingerprint."""
        fingerprint = probe.fingerprint
        path = self._probe_path(fingerprint)
        if not path.exists():
            _write(path, probe.save)
        return fingerprint

    def probe(self, fingerprint: str) -> Probe | None:
        """The probe with this fingerprint, None where it was not kept."""
        path = self._probe_path(fingerprint)
        return Probe.load(path) if path.exists() else None

    def add(self, name: str, reading: Reading, stage: str = "fit") -> Reading:
        """Write one reading; returns it with its rows left on the disk.

        Readings of another ``stage`` than ``fit`` are kept beside the history, not in it.
        """
        file = f"{reading.step}.pt" if stage == "fit" else f"{stage}-{reading.step}.pt"
        path = self.folder / name / file
        state = reading_state(reading)
        _write(path, lambda place: torch.save(state, place))
        return _read(path)

    def history(self, name: str) -> list[Reading]:
        """The readings of ``fit``, in order of their steps; their rows are read when they are looked at."""
        return [_read(path) for _, path in self._files(name)]

    def drop_after(self, name: str, step: int) -> None:
        """Remove the readings that were taken after ``step``."""
        for taken, path in self._files(name):
            if taken > step:
                path.unlink()

    def set_aside(self, name: str) -> None:
        """Make room for another run's readings of ``name``: those that are here keep a name of their own."""
        if (self.folder / name).is_dir():
            move_aside(self.folder / name)

    def adopt(self, other: RunStore, name: str, until: int) -> None:
        """Copy another run's probes and its readings of ``name`` up to the step ``until``."""
        kept = [(path, self.folder / name / path.name) for step, path in other._files(name) if step <= until]
        probes = (other.folder / "probes").glob("*.pt")
        for source, target in [*kept, *((path, self._probe_path(path.stem)) for path in probes)]:
            if not target.exists():
                _write(target, lambda place, source=source: shutil.copyfile(source, place))  # type: ignore[misc]

    def _probe_path(self, fingerprint: str) -> Path:
        return self.folder / "probes" / f"{fingerprint}.pt"

    def _files(self, name: str) -> list[tuple[int, Path]]:
        files = (self.folder / name).glob("*.pt")
        return sorted((int(path.stem), path) for path in files if path.stem.isdigit())


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A run as it was logged.

    Args:
        folder: its store.
        callbacks: callback name -> its class, settings and layers, as the manifest has them.
        probes: callback name -> what it explained, None where the probe was not kept.
        readings: callback name -> its readings, oldest first.
    """

    folder: Path
    callbacks: Mapping[str, Mapping[str, Any]]
    probes: Mapping[str, Probe | None]
    readings: Mapping[str, list[Reading]]

    def __repr__(self) -> str:
        held = ", ".join(f"{len(readings)} readings of {name}" for name, readings in self.readings.items())
        return f"Run({str(self.folder)!r}, {held or 'no readings'})"


def load_run(path: str | os.PathLike[str]) -> Run:
    """The readings of a run: of its store, or of the one store under ``path``.

    Raises:
        FileNotFoundError: where there is no store, or more than one to choose from.
    """
    root = Path(path)
    # of a run with a logger, and of one without
    below = [path.parent for place in ("xai", "xai/version_*") for path in root.glob(f"**/{place}/{MANIFEST}")]
    found = [root] if (root / MANIFEST).exists() else sorted(below)
    if len(found) != 1:
        choice = "\n".join(f"  {folder}" for folder in found)
        several = f"{len(found)} runs under it; name one:\n{choice}"
        none = "no folder xai with a manifest. A Trainer with a lightning_xai callback writes one."
        raise FileNotFoundError(f"{path} holds {several if found else none}")
    store = RunStore(found[0])
    callbacks = store.manifest["callbacks"]
    return Run(
        folder=store.folder,
        callbacks=callbacks,
        probes={name: store.probe(entry["probe"]) if entry.get("probe") else None for name, entry in callbacks.items()},
        readings={name: store.history(name) for name in callbacks},
    )


def is_kept(reading: Reading) -> bool:
    """Whether the rows of a reading are in memory, or still on the disk."""
    rows = reading.measured.rows
    return not isinstance(rows, _RowsOnDisk) or rows.path.exists()


def reading_state(reading: Reading) -> dict[str, Any]:
    """Tensors and primitives alone; maps take half the bytes (float16 beside their largest value)."""
    return {
        "format": FORMAT,
        "epoch": reading.epoch,
        "step": reading.step,
        "rows": {key: _pack(tensor) for key, tensor in reading.measured.rows.items()},
        "shared": dict(reading.measured.shared),
    }


def reading_from_state(state: Mapping[str, Any]) -> Reading:
    """The reading whose `reading_state` this is."""
    rows = {key: _unpack(packed) for key, packed in state["rows"].items()}
    return Reading(state["epoch"], state["step"], Measured(rows, state["shared"]))


def move_aside(folder: Path) -> None:
    """Rename a folder to the next free ``<name>-before-<number>``: nothing in it is lost, nothing mixes with it."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}-before-{number}")).exists():
        number += 1
    folder.rename(aside)


class _RowsOnDisk(Mapping[str, Tensor]):
    """The rows of a stored reading, read again when they are looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _rows(self) -> Mapping[str, Tensor]:
        return _load(self.path, self.path.stat().st_mtime_ns).measured.rows

    def __getitem__(self, key: str) -> Tensor:
        return self._rows()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows())

    def __len__(self) -> int:
        return len(self._rows())


def _read(path: Path) -> Reading:
    whole = _load(path, path.stat().st_mtime_ns)
    return Reading(whole.epoch, whole.step, Measured(_RowsOnDisk(path), whole.measured.shared))


@lru_cache(maxsize=32)
def _load(path: Path, _modified: int) -> Reading:
    state = torch.load(path, map_location="cpu", weights_only=True)
    _check_format(path, state)
    return reading_from_state(state)


def _pack(tensor: Tensor) -> Tensor | dict[str, Any]:
    tensor = tensor.detach().cpu()
    if tensor.dtype != torch.float32 or tensor.ndim < 2:
        return tensor
    # float16 alone ends at 65504 and loses what is below 6e-8: relevance knows neither bound
    finite = tensor[tensor.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    return {"values": (tensor / (largest or 1.0)).half(), "largest": largest or 1.0}


def _unpack(packed: Tensor | dict[str, Any]) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    values: Tensor = packed["values"].float() * packed["largest"]
    return values


def _write(path: Path, writer: Callable[[Path], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        writer(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _check_format(path: Path, found: Mapping[str, Any]) -> None:
    number = found.get("format")
    if not isinstance(number, int):
        raise ValueError(f"{path} was not written by lightning_xai: it names no format")
    if number > FORMAT:
        raise ValueError(
            f"{path} has format {number}, this version of lightning_xai reads up to {FORMAT}: upgrade lightning_xai"
        )
