"""What a run's readings say, from its store: as they describe themselves, or in an earlier format as reported again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields

from lightning_xai.reading import Reading, moments, thinned
from lightning_xai.report import Report, Scalar
from lightning_xai.storage.described import with_films
from lightning_xai.storage.loading import Unreadable, unreadable
from lightning_xai.storage.reading_file import ReadingFile
from lightning_xai.storage.run_store import RunStore
from lightning_xai.stored_run import StoredRun

FILM = 16
"""Columns of a film strip."""


def report_of(run: StoredRun, name: str, history: Sequence[Reading], *, films: bool = True) -> Report:
    """What the callback ``name`` said of the last of these readings, with the ``films`` up to it.

    Raises:
        ValueError: it cannot be read; in a store of format 1, see `lightning_xai.compare.earlier`.
    """
    store = RunStore(run.folder)
    latest = store.report(name, history[-1])
    if latest is None:
        from lightning_xai.compare.earlier import report_of as reported_again  # needs callbacks, torch, Lightning

        readable = [*(r for r in history[:-1] if unreadable(r) is None), history[-1]]
        return reported_again(run.callbacks[name], run.probes[name], readable)
    if not films:
        return latest
    shown = [history[index] for index in thinned(len(history), FILM)]
    places, unit = moments(shown)
    columns: list[tuple[str, Report]] = []
    for place, reading in zip(places, shown, strict=True):
        with suppress(Unreadable):
            found = latest if reading is history[-1] else store.report(name, reading)
            columns += [] if found is None else [(f"{unit} {place}", found)]
    return with_films(latest, columns)


def samples_of(run: StoredRun, name: str, reading: Reading) -> int:
    """How many samples a reading is of."""
    path = run.folder / name / f"{reading.step}-{reading.index}.npz"
    if path.exists():
        return int(ReadingFile(path).head["samples"])
    return max(map(len, reading.measured.rows.values()), default=0)


def scalars_of(run: StoredRun, name: str) -> list[Scalar]:
    """What the callback ``name`` declared that it logs, by whole tag; nothing in a store of format 1."""
    names = {f.name for f in fields(Scalar)}
    declared = run.callbacks[name].get("scalars", ())
    return [Scalar(**{key: value for key, value in scalar.items() if key in names}) for scalar in declared]
