"""The readings of one callback in one run: in the store where there is one, and in short in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning_xai.callbacks.flow.attempt import attempt
from lightning_xai.manifest import store_of
from lightning_xai.reading import Reading, thinned
from lightning_xai.store import RunStore, reading_from_state, reading_state, unreadable

KEPT_READINGS = 16
KEPT_BYTES = 16 * 2**20


class History:
    """What one callback has read so far.

    Every process knows when (``moments``: epoch and global step), the main process also what (``readings``).

    Args:
        name: of the callback, without ``xai/``.
        store: where readings are kept; None keeps them in memory alone.
    """

    def __init__(self, name: str, store: RunStore | None) -> None:
        self.name = name
        self.store = store
        self.readings: list[Reading] = []
        self.moments: list[tuple[int, int]] = []
        self.lost: list[Exception] = []
        """Why readings are missing, until it is told."""

    @property
    def last_epoch(self) -> int | None:
        """The epoch of the latest reading, None before the first."""
        return self.moments[-1][0] if self.moments else None

    def state(self) -> dict[str, Any]:
        """For a checkpoint: every moment, and at most 16 readings and 16 MiB of what was measured."""
        kept, error = attempt(partial(_spread, self.readings))
        if error is not None and self.forget_lost():
            kept, error = attempt(partial(_spread, self.readings))
        if error is not None:
            self.lost.append(error)
        return {
            "store": None if self.store is None else str(self.store.folder),
            "run": None if self.store is None else self.store.run,
            "moments": [list(moment) for moment in self.moments],
            "readings": kept or [],
        }

    def forget_lost(self) -> bool:
        """Drop the readings whose files cannot be read any more: neither pictures nor checkpoints may fail for them.

        Returns whether there was one. Looks at every file, so it is called where something has failed.
        """
        causes = [unreadable(reading) for reading in self.readings]
        self.readings = [reading for reading, cause in zip(self.readings, causes, strict=True) if cause is None]
        lost = [cause for cause in causes if cause is not None]
        # who removes a file knows of it
        self.lost.extend(cause for cause in lost if not isinstance(cause.__cause__, FileNotFoundError))
        return bool(lost)

    def resume(self, state: Mapping[str, Any], step: int, main_process: bool) -> None:
        """Go on from a checkpoint of the global step ``step``: with the whole history where its store is found, and
        with the readings that the checkpoint holds. What cannot be had of them is in `lost`."""
        self.moments = [(epoch, taken) for epoch, taken in state["moments"] if taken <= step]
        if not main_process:
            return
        held: dict[int, Reading] = {}
        for packed in state["readings"]:
            reading, error = attempt(partial(reading_from_state, packed))
            if error is not None:
                self.lost.append(error)
            elif reading is not None and reading.step <= step:
                held[reading.step] = reading
        stored: dict[int, Reading] = {}
        if self.store is not None:
            _, error = attempt(partial(self._take_over, self.store, state["store"], state.get("run"), step))
            if error is not None:
                self.lost.append(error)
            stored = {reading.step: reading for reading in self.store.history(self.name) if reading.step <= step}
            self.lost.extend(self.store.told())
            for missing in held.keys() - stored.keys():
                reading, error = attempt(partial(self.store.add, self.name, held[missing]))
                if reading is not None:
                    stored[missing] = reading
                if error is not None:
                    self.lost.append(error)
        self.readings = [reading for _, reading in sorted({**held, **stored}.items())]

    def _take_over(self, mine: RunStore, store: str | None, run: str | None, step: int) -> None:
        """Bring the readings of ``run`` up to ``step`` into my store, which may be the same one."""
        earlier = None if store is None else store_of(run, Path(store))
        same = earlier == mine.folder if run is None else run == mine.run
        if not same:
            mine.set_aside(self.name)
            if earlier is not None and earlier.is_dir():
                mine.adopt(RunStore(earlier, run), self.name, until=step)
        mine.drop_after(self.name, step)


def _spread(readings: list[Reading]) -> list[dict[str, Any]]:
    if not readings:
        return []
    size = sum(2 * tensor.numel() for tensor in readings[-1].measured.rows.values())
    at_most = min(KEPT_READINGS, KEPT_BYTES // max(1, size))
    return [reading_state(readings[index]) for index in thinned(len(readings), at_most)]
