"""A run as it was logged, read back from its store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_xai.reading import Reading
from lightning_xai.storage.manifest import MANIFEST
from lightning_xai.storage.run_store import RunStore

if TYPE_CHECKING:
    from lightning_xai.probe import Probe


@dataclass(frozen=True, eq=False, repr=False)
class StoredRun:
    """A run as it was logged.

    Args:
        folder: its store.
        callbacks: callback name -> its class, settings and layers, as the manifest has them.
        probes: callback name -> what it explained, None where the probe was not kept.
        readings: callback name -> its readings, oldest first.
        unreadable: what was left out of them, in sentences.
    """

    folder: Path
    callbacks: Mapping[str, Mapping[str, Any]]
    probes: Mapping[str, Probe | None]
    readings: Mapping[str, list[Reading]]
    unreadable: Sequence[str] = field(default=(), kw_only=True)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(readings)} readings of {name}" for name, readings in self.readings.items())
        return f"StoredRun({str(self.folder)!r}, {counts or 'no readings'})"


def read_run(path: str | os.PathLike[str]) -> StoredRun:
    """The readings of a run: of its store, or of the one store under ``path``.

    Raises:
        FileNotFoundError: where there is no store, or more than one to choose from.
        ValueError: where its manifest is damaged, or written by a newer version or by something else.
    """
    root = Path(path)
    # of a run with a logger, and of one without
    below = [path.parent for store in ("xai", "xai/version_*") for path in root.glob(f"**/{store}/{MANIFEST}")]
    folders = [root] if (root / MANIFEST).exists() else sorted(below)
    if len(folders) != 1:
        choice = "\n".join(f"  {folder}" for folder in folders)
        several = f"{len(folders)} runs under it; name one:\n{choice}"
        none = "no folder xai with a manifest. A Trainer with a lightning_xai callback writes one."
        raise FileNotFoundError(f"{path} holds {several if folders else none}")
    store = RunStore(folders[0])
    callbacks = store.manifest["callbacks"]
    fingerprints = {name: entry.get("probe") for name, entry in callbacks.items()}
    return StoredRun(
        folder=store.folder,
        callbacks=callbacks,
        probes=_Probes(store, fingerprints),
        readings={name: store.history(name) for name in callbacks},
        unreadable=[str(error) for error in store.unreadable.values()],
    )


class _Probes(Mapping[str, "Probe | None"]):
    """By callback, loaded when they are looked at."""

    def __init__(self, store: RunStore, fingerprints: Mapping[str, Any]) -> None:
        self._store, self._fingerprints = store, fingerprints

    def __getitem__(self, name: str) -> Probe | None:
        fingerprint = self._fingerprints[name]
        return self._store.probe(fingerprint) if isinstance(fingerprint, str) else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._fingerprints)

    def __len__(self) -> int:
        return len(self._fingerprints)
