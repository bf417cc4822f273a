"""RunStore: every reading of a run on disk, beside its checkpoints.

``manifest.json`` names the run and its callbacks, ``probes/<fingerprint>.pt`` holds what was explained, and
``<name>/<step>-<index>.npz`` one reading with what was said of it; ``arrays`` its pixels. A file is written whole under
another name, then renamed. One that cannot be read is left out, and harms no other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_xai.reading import Reading
from lightning_xai.report import Report
from lightning_xai.storage.loading import RowsOnDisk, Unreadable, open_reading
from lightning_xai.storage.manifest import FORMAT, MANIFEST, move_aside, read_manifest, run_in, store_of, write_whole
from lightning_xai.storage.reading_file import ARRAYS, ReadingFile, write

if TYPE_CHECKING:
    from lightning_xai.probe import Probe


class RunStore:
    """The readings of one run.

    Args:
        folder: where they are, or will be; made when the first file is written.
        run: the identity of the run that writes here; None takes what the manifest says.

    Raises:
        ValueError: where the folder was written by a newer version of this library, or by something else, or its
            manifest is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], run: str | None = None) -> None:
        self.folder = Path(folder).absolute()
        if run is None:
            read_manifest(self.folder)
        self.run = run or run_in(self.folder)
        self.unreadable: dict[Path, Unreadable] = {}
        """The files that were left out, and why."""
        self._whole_probes: set[str] = set()

    @property
    def manifest(self) -> dict[str, Any]:
        """What is written about the run: its format, and per callback its class, settings, layers and probe."""
        return read_manifest(self.folder)

    def write_entry(self, name: str, entry: Mapping[str, Any]) -> None:
        """Write what there is to know about the callback ``name``: JSON values alone."""
        self.follow()
        try:
            manifest = self.manifest
        except ValueError:  # damaged since the run began: each callback describes itself again
            manifest = {"format": FORMAT, "callbacks": {}}
        if manifest["callbacks"].get(name) == entry and manifest.get("run") == self.run:
            return
        manifest["callbacks"][name] = dict(entry)
        if self.run is not None:
            manifest["run"] = self.run
        text = json.dumps(manifest, indent=2, sort_keys=True)
        write_whole(self.folder / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))

    def add_probe(self, probe: Probe) -> str:
        """Keep a probe; returns its fingerprint."""
        self.follow()
        fingerprint = probe.fingerprint
        path = self._probe_path(fingerprint)
        if not path.exists() or (fingerprint not in self._whole_probes and self.probe(fingerprint) is None):
            write_whole(path, probe.save)
        self._whole_probes.add(fingerprint)
        return fingerprint

    def probe(self, fingerprint: str) -> Probe | None:
        """The probe with this fingerprint, None where it was not kept or cannot be read."""
        path = self._probe_path(fingerprint)
        if not path.exists():
            return None
        from lightning_xai.probe import Probe  # needs torch, which showing a run does not

        try:
            probe = Probe.load(path)
            if probe.fingerprint != fingerprint:
                raise ValueError("it holds other samples than its name says")
        except Exception as error:  # a damaged file raises anything
            self.unreadable[path] = Unreadable(path, error)
            return None
        return probe

    def add(self, name: str, reading: Reading, stage: str = "fit", report: Report | None = None) -> Reading:
        """Write one reading.

        Args:
            name: of the callback.
            reading: what was measured.
            stage: readings of another one than ``fit`` are kept beside the history, not in it.
            report: what was said of it.

        Returns:
            The reading with its parts left on the disk.

        Raises:
            OSError: it cannot be written, or the folder is another run's by now.
        """
        self.follow()
        file = f"{reading.step}-{reading.index}.npz"
        file = file if stage == "fit" else f"{stage}-{file}"
        write(self.folder / name / file, reading, report, arrays=self.folder / ARRAYS)
        return self._read(f"{name}/{file}")

    def history(self, name: str) -> list[Reading]:
        """The readings of ``fit``, in order of their steps; their rows are read when they are looked at."""
        readings = []
        for _, path in self._files(name):
            try:
                readings.append(self._read(f"{name}/{path.name}"))
            except Unreadable as error:
                self.unreadable[path] = error
        return readings

    def keep_only(self, name: str, moments: Collection[tuple[int, int]]) -> None:
        """Remove the readings of other moments (step, index): they were taken after the one that is gone on from."""
        for moment, path in self._files(name):
            if moment not in moments:
                path.unlink()

    def set_aside(self, name: str) -> None:
        """Make room for another run's readings of ``name``: those that are here keep a name of their own."""
        if (self.folder / name).is_dir():
            move_aside(self.folder / name)

    def adopt(self, other: RunStore, name: str, until: int) -> None:
        """Copy another run's probes and its readings of ``name`` up to the step ``until``."""
        readings = [(path, self.folder / name / path.name) for (step, _), path in other._files(name) if step <= until]
        probes = [(path, self._probe_path(path.stem)) for path in (other.folder / "probes").glob("*.pt")]
        pixels = [(path, self.folder / ARRAYS / path.name) for path in (other.folder / ARRAYS).glob("*.npy")]
        for source, target in [*readings, *probes, *pixels]:
            if target.exists():
                continue
            try:
                content = source.read_bytes()
            except OSError as error:
                self.unreadable[source] = Unreadable(source, error)
                continue
            write_whole(target, lambda path, content=content: path.write_bytes(content))  # type: ignore[misc]

    def report(self, name: str, reading: Reading) -> Report | None:
        """What was said of a reading; None in a store of an earlier version, or where it was not kept.

        Raises:
            Unreadable: it cannot be read.
        """
        path = self.folder / name / f"{reading.step}-{reading.index}.npz"
        if not path.exists():
            return None
        try:
            return ReadingFile(path).report(self.folder / ARRAYS)
        except Exception as error:  # a damaged file raises anything
            raise Unreadable(path, error) from error

    def _read(self, file: str) -> Reading:
        path = self.folder / file
        content, mtime = open_reading(path)
        if isinstance(content, Reading):  # of format 1
            return replace(content, measured=replace(content.measured, rows=RowsOnDisk(self, file, mtime)))
        return content.reading(lambda: self.reading_file(file, mtime))

    def reading_file(self, file: str, mtime: int) -> Any:
        """The file of a reading, also where the store has been moved since; raises Unreadable."""
        path = self.folder / file
        with suppress(OSError):  # gone, or moved with its store
            if path.stat().st_mtime_ns == mtime:
                return open_reading(path)[0]
        try:
            self.follow()
        except OSError as error:
            raise Unreadable(path, error) from error
        return open_reading(self.folder / file)[0]

    def follow(self) -> Path:
        """Go to where this run's store is now, and return it: a later run in the same folder has moved it aside.

        Raises:
            OSError: the folder is another run's by now, and this run's store is gone.
        """
        folder = store_of(self.run, self.folder)
        if folder is not None:
            self.folder = folder
        elif run_in(self.folder) is not None:
            raise OSError(f"{self.folder} is another run's by now")
        return self.folder

    def pop_unreadable(self) -> list[Unreadable]:
        """Why files were left out since the last call; forgotten with it."""
        causes = list(self.unreadable.values())
        self.unreadable.clear()
        return causes

    def _probe_path(self, fingerprint: str) -> Path:
        return self.folder / "probes" / f"{fingerprint}.pt"

    def _files(self, name: str) -> list[tuple[tuple[int, int], Path]]:
        """(step, index) and path of each reading; an earlier format names the step alone."""
        files = []
        for path in (self.folder / name).glob("*.*"):
            step, _, index = path.stem.partition("-")
            if path.suffix in (".npz", ".pt") and step.isdecimal() and (index or "0").isdecimal():
                files.append(((int(step), int(index or 0)), path))
        return sorted(files)
