"""Runs and readings that show themselves in a notebook."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape

from lightning_xai.compare.reported import report_of
from lightning_xai.pictures import Filmstrip, Picture
from lightning_xai.reading import Reading
from lightning_xai.render import data_url, draw
from lightning_xai.report import Report
from lightning_xai.storage.described import Unknown
from lightning_xai.stored_run import StoredRun, read_run


@dataclass(frozen=True, eq=False, repr=False)
class ShownReading(Reading):
    """A reading that knows what it was taken of.

    Args:
        name: of the callback.
        run: that it is a reading of.
        history: the readings of the callback, this one among them.
    """

    name: str = field(kw_only=True)
    run: StoredRun = field(kw_only=True)
    history: list[ShownReading] = field(kw_only=True)

    def report(self) -> Report:
        """What the callback reported of it.

        Raises:
            ValueError: it cannot be read; in a store of format 1 also where the probe was not kept, or the callback is
                none of this library's.
        """
        now = (self.step, self.index)
        until = [reading for reading in self.history if (reading.step, reading.index) <= now]
        return report_of(self.run, self.name, until)

    def _repr_html_(self) -> str:
        return _or_why(self._html)

    def _html(self) -> str:
        report = self.report()
        pictures = {tag: picture for tag, picture in report.pictures.items() if not isinstance(picture, Filmstrip)}
        numbers = "".join(
            f"<tr><td>{escape(tag)}</td><td>{value:.4g}</td></tr>" for tag, value in report.scalars.items()
        )
        return f"{_figures(pictures)}<table>{numbers}</table>"


@dataclass(frozen=True, eq=False, repr=False)
class ShownRun(StoredRun):
    """A run that shows the pictures of its latest readings."""

    def _repr_html_(self) -> str:
        parts = [f"<h3>{escape(str(self.folder))}</h3>"]
        for name, readings in self.readings.items():
            when = f", epoch {readings[0].epoch} to {readings[-1].epoch}" if readings else ""
            parts.append(f"<p><b>{escape(name)}</b>: {len(readings)} readings{when}</p>")
            parts.extend(_latest(reading) for reading in readings[-1:] if isinstance(reading, ShownReading))
        parts.extend(f"<p>{escape(text)}</p>" for text in self.unreadable)
        return "".join(parts)


def load_run(path: str | os.PathLike[str]) -> ShownRun:
    """The readings of a run: of its store, or of the one folder ``xai`` under ``path``. Both show themselves.

    Warns of files that cannot be read, which are left out.

    Raises:
        FileNotFoundError: where there is no store, or more than one to choose from.
        ValueError: where its manifest is damaged, or written by a newer version or by something else.
    """
    run = read_run(path)
    if run.unreadable:
        warnings.warn("\n".join(run.unreadable), RuntimeWarning, stacklevel=2)
    readings: dict[str, list[Reading]] = {}
    for name, stored in run.readings.items():
        history: list[ShownReading] = []
        history.extend(
            ShownReading(r.epoch, r.step, r.measured, r.index, r.scalars, name=name, run=run, history=history)
            for r in stored
        )
        readings[name] = list(history)
    return ShownRun(run.folder, run.callbacks, run.probes, readings, unreadable=run.unreadable)


def _latest(reading: ShownReading) -> str:
    return _or_why(lambda: _figures(reading.report().pictures))


def _or_why(html: Callable[[], str]) -> str:
    """What is shown, or why it cannot be: a cell that fails would hide the rest of the run."""
    try:
        return html()
    except Exception as error:  # a store may hold anything
        return f"<p>{escape(str(error) or type(error).__name__)}</p>"


def _figures(pictures: Mapping[str, Picture]) -> str:
    return "".join(_figure(tag, picture) for tag, picture in pictures.items())


def _figure(tag: str, picture: Picture) -> str:
    if isinstance(picture, Unknown):
        return f"<p>{escape(tag)}: a {escape(picture.kind)}, which its own package draws</p>"
    tag = escape(tag)
    return f'<figure><img alt="{tag}" src="{data_url(draw.pixels(picture))}"><figcaption>{tag}</figcaption></figure>'
