"""The readings of one callback in one run: in the store where there is one, and in short in checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_xai.attempt import attempt
from lightning_xai.reading import Measured, Reading, thinned
from lightning_xai.storage.loading import unreadable
from lightning_xai.storage.manifest import store_of
from lightning_xai.storage.reading_state import reading_from_state, reading_state
from lightning_xai.storage.run_store import RunStore

READINGS_WITH_ROWS = 16
CHECKPOINT_BYTES = 16 * 2**20
NOTHING: Mapping[str, Tensor] = {}
"""The rows of a reading that has let them go; compared by identity."""
WHEN = "when"


class History:
    """What one callback has read so far.

    Every process knows when (``moments``: epoch and global step), the main process also what (``readings``): what was
    kept for all of them, rows for at most 16 in memory, spread over the run, and whole for the latest.

    Args:
        name: of the callback, without ``xai/``.
        store: where readings are kept; None keeps them in memory alone.
        shown: samples whose rows stay once another reading has followed.
    """

    def __init__(self, name: str, store: RunStore | None, shown: int = 8) -> None:
        self.name = name
        self.store = store
        self.shown = shown
        self.readings: list[Reading] = []
        self.moments: list[tuple[int, int]] = []
        self.lost: list[Exception] = []
        """Why readings are missing; emptied when the user has been warned."""
        self._with_rows: list[int] = []  # indices of readings

    @property
    def last_epoch(self) -> int | None:
        """The epoch of the latest reading, None before the first."""
        return self.moments[-1][0] if self.moments else None

    @property
    def kept(self) -> Mapping[str, Tensor]:
        """What the latest reading kept, empty before the first."""
        return self.readings[-1].measured.kept if self.readings else {}

    def next_index(self, step: int) -> int:
        """How many readings there are of this step."""
        latest = takewhile(lambda moment: moment[1] == step, reversed(self.moments))
        return sum(1 for _ in latest)

    def add(self, reading: Reading) -> None:
        """Append the latest reading, and let go what pictures of a long run do not show."""
        if self.readings and isinstance(rows := self.readings[-1].measured.rows, dict):
            self._replace(len(self.readings) - 1, {key: tensor[: self.shown].clone() for key, tensor in rows.items()})
        # rounded as it is stored, so that a run that is resumed says the same
        self.readings.append(reading_from_state(reading_state(reading)))
        self._with_rows.append(len(self.readings) - 1)
        if len(self._with_rows) > READINGS_WITH_ROWS:
            # neither the first nor the latest: the one whose neighbours are nearest to one another
            gaps = [later - before for before, later in zip(self._with_rows, self._with_rows[2:], strict=False)]
            self._replace(self._with_rows.pop(1 + gaps.index(min(gaps))), NOTHING)

    def _thin_rows(self) -> None:
        """Keep the rows of at most 16 readings, spread evenly over all."""
        with_rows = [index for index, reading in enumerate(self.readings) if reading.measured.rows is not NOTHING]
        self._with_rows = [with_rows[index] for index in thinned(len(with_rows), READINGS_WITH_ROWS)]
        for index in set(with_rows) - set(self._with_rows):
            self._replace(index, NOTHING)

    def _replace(self, index: int, rows: Mapping[str, Tensor]) -> None:
        reading = self.readings[index]
        measured = replace(reading.measured, rows=rows)
        if rows is NOTHING:
            measured, reading = replace(measured, shared=NOTHING), replace(reading, scalars={})
        self.readings[index] = replace(reading, measured=measured)

    def state(self) -> dict[str, Any]:
        """For a checkpoint: every moment and what was kept then, and at most 16 MiB of what was measured."""
        states, error = attempt(partial(_thinned_states, self.readings))
        if error is not None and self.forget_lost():
            states, error = attempt(partial(_thinned_states, self.readings))
        if error is not None:
            self.lost.append(error)
        return {
            "store": None if self.store is None else str(self.store.folder),
            "run": None if self.store is None else self.store.run,
            "moments": [list(moment) for moment in self.moments],
            "readings": states or [],
            "kept": _stacked(self.readings),
        }

    def forget_lost(self) -> bool:
        """Drop the readings whose files cannot be read any more: neither pictures nor checkpoints may fail for them.

        Returns whether there was one. Looks at every file, so it is called where something has failed.
        """
        causes = [unreadable(reading) for reading in self.readings]
        self.readings = [reading for reading, cause in zip(self.readings, causes, strict=True) if cause is None]
        self._thin_rows()
        lost = [cause for cause in causes if cause is not None]
        # who removes a file knows of it
        self.lost.extend(cause for cause in lost if not isinstance(cause.__cause__, FileNotFoundError))
        return bool(lost)

    def resume(self, state: Mapping[str, Any], step: int, main_process: bool) -> None:
        """Go on from a checkpoint of the global step ``step``: with the whole history where its store is found, and
        with the readings that the checkpoint holds. What cannot be had of them is in `lost`.

        Args:
            state: what `state` has put into the checkpoint.
            step: readings after it are dropped.
            main_process: whether this process has readings, not moments alone.
        """
        self.moments = [(epoch, at) for epoch, at in state["moments"] if at <= step]
        if not main_process:
            return
        of_checkpoint = {(r.step, r.index): r for r in _unstacked(state.get("kept")) if r.step <= step}
        for packed in state["readings"]:
            reading, error = attempt(partial(reading_from_state, packed))
            if error is not None:
                self.lost.append(error)
            elif reading is not None and reading.step <= step:
                of_checkpoint[reading.step, reading.index] = reading
        of_store: dict[tuple[int, int], Reading] = {}
        if self.store is not None:
            _, error = attempt(partial(self._take_over, self.store, state["store"], state.get("run"), step))
            if error is not None:
                self.lost.append(error)
            keys = self._keys()
            for reading in self.store.history(self.name):
                if reading.step <= step and (reading.step, reading.index) in keys:
                    of_store[reading.step, reading.index] = reading
            self.lost.extend(self.store.pop_unreadable())
            missing = of_checkpoint.keys() - of_store.keys()
            for key in [key for key in missing if of_checkpoint[key].measured.rows is not NOTHING]:
                reading, error = attempt(partial(self.store.add, self.name, of_checkpoint[key]))
                if reading is not None:
                    of_store[key] = reading
                if error is not None:
                    self.lost.append(error)
        self.readings = [reading for _, reading in sorted({**of_checkpoint, **of_store}.items())]
        self._thin_rows()

    def _keys(self) -> set[tuple[int, int]]:
        """Step and index of every moment."""
        counts: Counter[int] = Counter()
        keys = set()
        for _, step in self.moments:
            keys.add((step, counts[step]))
            counts[step] += 1
        return keys

    def _take_over(self, mine: RunStore, store: str | None, run: str | None, step: int) -> None:
        """Bring the readings of an earlier run into my store, which may be the same one.

        Args:
            mine: the store of this run.
            store: the folder of the earlier one.
            run: the identity of the earlier run; None in checkpoints of earlier versions.
            step: readings after it are left out.
        """
        earlier = None if store is None else store_of(run, Path(store))
        same = earlier == mine.folder if run is None else run == mine.run
        if not same:
            mine.set_aside(self.name)
            if earlier is not None and earlier.is_dir():
                mine.adopt(RunStore(earlier, run), self.name, until=step)
        mine.keep_only(self.name, self._keys())


def _thinned_states(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    with_rows = [reading for reading in readings if reading.measured.rows is not NOTHING]
    if not with_rows:
        return []
    size = sum(2 * tensor.numel() for tensor in with_rows[-1].measured.rows.values())
    at_most = min(READINGS_WITH_ROWS, CHECKPOINT_BYTES // max(1, size))
    return [reading_state(with_rows[index]) for index in thinned(len(with_rows), at_most)]


def _stacked(readings: Sequence[Reading]) -> dict[str, Tensor]:
    """What was kept, each as one tensor whose first dimension is the readings, of those that are like the latest."""
    if not readings:
        return {}
    latest = {key: tensor.shape for key, tensor in readings[-1].measured.kept.items()}
    alike = [r for r in readings if {key: tensor.shape for key, tensor in r.measured.kept.items()} == latest]
    when = torch.tensor([[r.epoch, r.step, r.index] for r in alike], dtype=torch.long, device="cpu")
    return {WHEN: when, **{key: torch.stack([r.measured.kept[key] for r in alike]) for key in latest}}


def _unstacked(stacked: Mapping[str, Tensor] | None) -> list[Reading]:
    if not stacked:
        return []
    kept = {key: tensor for key, tensor in stacked.items() if key != WHEN}
    return [
        Reading(epoch, step, Measured(NOTHING, NOTHING, {key: tensor[row] for key, tensor in kept.items()}), index)
        for row, (epoch, step, index) in enumerate(stacked[WHEN].tolist())
    ]
