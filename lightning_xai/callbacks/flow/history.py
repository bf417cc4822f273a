"""The readings of one callback in one run: in the store where there is one, and in short in checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_xai.reading import Reading, thinned
from lightning_xai.store import RunStore, is_kept, reading_from_state, reading_state

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

    @property
    def last_epoch(self) -> int | None:
        """The epoch of the latest reading, None before the first."""
        return self.moments[-1][0] if self.moments else None

    def state(self) -> dict[str, Any]:
        """For a checkpoint: every moment, and at most 16 readings and 16 MiB of what was measured."""
        self.forget_lost()
        return {
            "store": None if self.store is None else str(self.store.folder),
            "moments": [list(moment) for moment in self.moments],
            "readings": list(_spread(self.readings)),
        }

    def forget_lost(self) -> None:
        """Drop the readings whose files somebody has removed: neither pictures nor checkpoints may fail for them."""
        self.readings = [reading for reading in self.readings if is_kept(reading)]

    def resume(self, state: dict[str, Any], step: int, main_process: bool) -> None:
        """Go on from a checkpoint of the global step ``step``: with the whole history where its store is found,
        else with the readings that the checkpoint holds."""
        self.moments = [(epoch, taken) for epoch, taken in state["moments"] if taken <= step]
        if not main_process:
            return
        held = [reading_from_state(reading) for reading in state["readings"]]
        self.readings = [reading for reading in held if reading.step <= step]
        if self.store is None:
            return
        earlier = Path(state["store"]) if state["store"] else None
        if earlier != self.store.folder:
            self.store.set_aside(self.name)
            if earlier is not None and earlier.is_dir():
                self.store.adopt(RunStore(earlier), self.name, until=step)
        self.store.drop_after(self.name, step)
        stored = self.store.history(self.name)
        self.readings = stored or [self.store.add(self.name, reading) for reading in self.readings]


def _spread(readings: list[Reading]) -> Iterator[dict[str, Any]]:
    if readings:
        size = sum(2 * tensor.numel() for tensor in readings[-1].measured.rows.values())
        for index in thinned(len(readings), min(KEPT_READINGS, KEPT_BYTES // max(1, size))):
            yield reading_state(readings[index])
