"""Runs side by side as plain data: what each callback's own ``report`` says at the epochs of one slider."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from lightning_xai.attempt import attempt
from lightning_xai.compare.reported import report_of, samples_of, scalars_of
from lightning_xai.reading import Reading, thinned
from lightning_xai.render import draw
from lightning_xai.render.colormap import Floats, Pixels
from lightning_xai.render.overlay import reduced
from lightning_xai.report import Curves, Filmstrip, Grid, Report, Scalar, TableRow
from lightning_xai.storage.described import Unknown
from lightning_xai.storage.loading import unreadable
from lightning_xai.stored_run import StoredRun

POSITIONS, FEWEST_POSITIONS = 100, 10
CELLS = 6_000_000
SAMPLES, SIDE = 32, 192
DRAWN = 16


@dataclass(frozen=True, eq=False)
class Heat:
    """Heatmaps over images at one reading.

    Args:
        maps: (N, h, w) float, as measured.
        images: N indices into `Gallery.pictures`.
        scale: the value that takes the last colour; None where each map has its own.
        labels: N strings.
        answers: N strings, what the model said.
        right: N, whether it was right; None where that is not known.
        title: what the picture is called in the loggers.
        signed: whether values below zero speak against.
    """

    maps: Floats
    images: Sequence[int]
    scale: float | None
    labels: Sequence[str]
    answers: Sequence[str]
    right: Sequence[bool | None]
    title: str
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Moment:
    """One reading, by tag.

    Args:
        epoch: it belongs to.
        step: it was taken at.
        scalars: as logged.
        chance: of the scalars that the report draws as curves, whether chance explains them.
        heats: the heatmaps.
        drawn: pictures of other kinds, as indices into `Gallery.pictures`; empty where none were drawn.
    """

    epoch: int
    step: int
    scalars: Mapping[str, float]
    chance: Mapping[str, bool]
    heats: Mapping[str, Heat]
    drawn: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Track:
    """What one callback of one run says.

    Args:
        fingerprint: of its probe.
        tag: what its tags start with.
        layers: layer as tagged -> its name in the model.
        taken: how many readings the run holds.
        moments: those that are shown, oldest first.
        at: per position of the slider the index of its moment; -1 before the first.
        scalars: as the callback declared them, by whole tag.
    """

    fingerprint: str
    tag: str
    layers: Mapping[str, str]
    taken: int
    moments: Sequence[Moment]
    at: Sequence[int]
    scalars: Sequence[Scalar] = ()


@dataclass(frozen=True, eq=False)
class Section:
    """One callback name over all runs.

    Args:
        name: of the callback.
        tracks: one a run; None where the run has nothing to show under this name.
        missing: why, for the runs without a track.
        same_probe: whether all tracks explain the same samples.
    """

    name: str
    tracks: Sequence[Track | None]
    missing: Mapping[str, str]
    same_probe: bool


@dataclass(eq=False)
class Gallery:
    """Pictures (H, W, 3) uint8, each held once."""

    pictures: list[Pixels] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, picture: Pixels, side: int | None = None) -> int:
        """The index of this picture, added where it is new, and then fitted to ``side``."""
        picture = np.ascontiguousarray(picture)
        content = picture.tobytes()
        key = hashlib.sha256(f"{tuple(picture.shape)}".encode() + content).hexdigest()
        if key not in self._places:
            self._places[key] = len(self.pictures)
            fitted = picture if side is None else reduced(picture[None], side)[0]
            self.pictures.append(fitted.copy())
        return self._places[key]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs on one slider.

    Args:
        names: of the runs, short and distinct.
        unit: ``"epoch"``, or ``"step"`` where an epoch was read more than once.
        positions: of the slider, in this unit.
        sections: one a callback name.
        gallery: the pictures.
        notes: what was left out, in sentences.
    """

    names: Sequence[str]
    unit: str
    positions: Sequence[int]
    sections: Sequence[Section]
    gallery: Gallery
    notes: Sequence[str]


def gather(runs: Sequence[StoredRun]) -> Comparison:
    """The runs side by side.

    Raises:
        ValueError: none of the runs holds a reading.
    """
    everything = [reading for run in runs for readings in run.readings.values() for reading in readings]
    if not everything:
        folders = ", ".join(str(run.folder) for run in runs)
        raise ValueError(f"nothing was read in {folders} yet: a callback's first reading follows the first epoch")
    unit = _unit(runs)
    when: Callable[[Reading], int] = (lambda r: r.epoch) if unit == "epoch" else (lambda r: r.step)
    every = sorted({when(reading) for reading in everything})
    names = run_names([run.folder for run in runs])
    callbacks = list(dict.fromkeys(name for run in runs for name in run.callbacks))

    gallery = Gallery()
    sources: dict[str, list[_Source | str]] = {name: [_source(run, name) for run in runs] for name in callbacks}
    found = [source for group in sources.values() for source in group if isinstance(source, _Source)]
    cells = sum(attempt(partial(source.cells, gallery))[0] or 0 for source in found)
    limit = min(POSITIONS, max(FEWEST_POSITIONS, CELLS // max(1, cells)))
    positions = [every[index] for index in thinned(len(every), limit)]

    notes = [text for run in runs for text in run.unreadable]
    if len(positions) < len(every):
        notes.append(
            f"{len(positions)} of {len(every)} {unit}s are shown, spread evenly from the first to the last: "
            "what happened between them is not on this page."
        )
    for shown, samples in sorted({pair for source in found if (pair := attempt(source.samples)[0]) is not None}):
        if 0 < shown < samples:
            notes.append(f"The first {shown} of {samples} samples are shown; the curves are of all.")
    sections = []
    for name, group in sources.items():
        told = [_track(source, positions, when, gallery) for source in group]
        tracks = [track if isinstance(track, Track) else None for track in told]
        missing = {run: why for run, why in zip(names, told, strict=True) if isinstance(why, str)}
        prints = {track.fingerprint for track in tracks if track is not None}
        sections.append(Section(name, tracks, missing, same_probe=len(prints) <= 1))
    return Comparison(names, unit, positions, sections, gallery, notes)


def run_names(folders: Sequence[Path]) -> list[str]:
    """Short names that tell the runs apart: the ends of their folders, without what all of them end in.

    Example:
        >>> run_names([Path("runs/a/version_0/xai"), Path("runs/b/version_0/xai")])
        ['a', 'b']
    """
    parts = [folder.resolve().parts for folder in folders]
    parts = [path[:-1] if path[-1] == "xai" else path for path in parts]
    while len(set(parts)) > 1 and len({path[-1] for path in parts}) == 1:
        parts = [path[:-1] for path in parts]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{path[-1]} ({number})" for number, path in enumerate(parts, 1)]


def _unit(runs: Sequence[StoredRun]) -> str:
    for run in runs:
        for readings in run.readings.values():
            if len({reading.epoch for reading in readings}) < len(readings):
                return "step"
    return "epoch"


@dataclass(frozen=True, eq=False)
class _Source:
    """One callback of one run, before it is known which of its readings are shown."""

    run: StoredRun
    name: str
    readings: list[Reading]

    def report(self, index: int) -> Report:
        return report_of(self.run, self.name, self.readings[: index + 1], films=False)

    def samples(self) -> tuple[int, int]:
        """How many are shown in the latest reading, and how many it is of."""
        pictures = self.report(len(self.readings) - 1).pictures.values()
        shown = max((min(len(p.captions), SAMPLES) for p in pictures if isinstance(p, Grid)), default=0)
        return shown, samples_of(self.run, self.name, self.readings[-1])

    def cells(self, gallery: Gallery) -> int:
        """How many numbers the maps of one reading have."""
        moment = _moment(self.report(len(self.readings) - 1), self.readings[-1], gallery, drawn=False)
        return sum(heat.maps.size for heat in moment.heats.values())

    def track(self, positions: Sequence[int], when: Callable[[Reading], int], gallery: Gallery) -> Track:
        times = [when(reading) for reading in self.readings]
        latest = [bisect_right(times, position) - 1 for position in positions]
        shown = sorted({index for index in latest if index >= 0})
        drawn = {shown[place] for place in thinned(len(shown), DRAWN)}
        moments = [_moment(self.report(i), self.readings[i], gallery, drawn=i in drawn) for i in shown]
        at = [shown.index(index) if index >= 0 else -1 for index in latest]
        entry = self.run.callbacks[self.name]
        tag = str(entry.get("tag", f"xai/{self.name}"))
        layers, declared = dict(entry["layers"]), scalars_of(self.run, self.name)
        return Track(str(entry.get("probe")), tag, layers, len(self.readings), moments, at, declared)


def _source(run: StoredRun, name: str) -> _Source | str:
    """What is needed to report, or why it is not to be had."""
    if name not in run.callbacks:
        return "the run has no callback of this name"
    readings = run.readings[name]
    if not readings:
        return "nothing was read yet"
    held = [reading for reading in readings if unreadable(reading) is None]
    return _Source(run, name, held) if held else "its readings cannot be read any more"


def _track(
    source: _Source | str, positions: Sequence[int], when: Callable[[Reading], int], gallery: Gallery
) -> Track | str:
    """What the source says, or why it says nothing: its run may hold what its callback did not measure."""
    if isinstance(source, str):
        return source
    track, error = attempt(partial(source.track, positions, when, gallery))
    if track is not None:
        return track
    return str(error) if isinstance(error, ValueError) else f"it cannot be shown: {type(error).__name__}: {error}"


def _moment(report: Report, reading: Reading, gallery: Gallery, *, drawn: bool) -> Moment:
    heats: dict[str, Heat] = {}
    others: dict[str, int] = {}
    chance: dict[str, bool] = {}
    for tag, picture in report.pictures.items():
        if isinstance(picture, Grid):
            heats[tag] = _heat(picture, report.tables.get(f"{tag}/samples"), gallery)
        elif isinstance(picture, Curves):
            chance |= _chance(picture)
        elif drawn and not isinstance(picture, (Filmstrip, Unknown)):  # the slider is a film strip
            others[tag] = gallery.place(draw.pixels(picture))
    return Moment(reading.epoch, reading.step, report.scalars, chance, heats, others)


def _chance(picture: Curves) -> dict[str, bool]:
    """Of the scalars that are drawn as curves: whether the latest point is hollow."""
    curves = (curve for curves in picture.panels.values() for curve in curves)
    return {curve.tag: not curve.solid[-1] for curve in curves if curve.tag}


def _heat(grid: Grid, rows: Sequence[TableRow] | None, gallery: Gallery) -> Heat:
    if rows:
        labels = [row.label for row in rows]
        answers = [f"{row.prediction} {row.confidence:.0%}" if row.prediction else "" for row in rows]
        right = [row.prediction == row.label if row.prediction and row.label else None for row in rows]
    else:
        labels = [caption.partition("\n")[0] for caption in grid.captions]
        answers = [caption.partition("\n")[2] for caption in grid.captions]
        right = [None] * len(labels)
    return Heat(
        maps=np.asarray(grid.maps)[:SAMPLES],
        images=[gallery.place(image, SIDE) for image in grid.images[:SAMPLES]],
        scale=grid.scale,
        labels=labels[:SAMPLES],
        answers=answers[:SAMPLES],
        right=right[:SAMPLES],
        title=grid.title,
        signed=grid.signed,
    )
