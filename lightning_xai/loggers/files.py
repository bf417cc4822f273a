"""Pictures and tables as files, for every logger that has no module of its own, and for none at all."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from lightning_utilities.core import rank_zero

from lightning_xai.render import draw, save
from lightning_xai.report import Opening, Report, TableRow

COLUMNS = ("epoch", "step", "sample_id", "label", "prediction", "confidence")


class Files:
    """Stands in for a logger where the Trainer has none.

    Args:
        folder: where ``pictures/<tag>/<step>.png`` and ``tables/<tag>/<step>.csv`` go; None writes nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder


_folders: WeakKeyDictionary[object, Path | None] = WeakKeyDictionary()


def open_run(logger: object, opening: Opening) -> None:
    """Remember the folder, and say once for each logger where its pictures are."""
    folder = logger.folder if isinstance(logger, Files) else opening.folder
    said = _folders.get(logger) == folder
    _folders[logger] = folder
    if folder is not None and not said:
        why = "there is no logger" if isinstance(logger, Files) else f"{type(logger).__name__} takes none"
        rank_zero.log.info(f"The pictures of lightning_xai are written to {folder}, as {why}.")


def follow(logger: object, folder: Path | None) -> None:
    """Where the pictures of an opened logger are files, write them to ``folder`` from now on: the store has moved."""
    if isinstance(logger, Files):
        logger.folder = folder
    with suppress(TypeError):  # one that is not hashable was never opened
        if logger in _folders:
            _folders[logger] = folder


def log_report(logger: object, report: Report, step: int) -> None:
    """Write ``pictures/<tag>/<step>.png`` and ``tables/<tag>/<step>.csv``, over what is there.

    Raises:
        RuntimeError: the logger was not opened.
        OSError: they cannot be written.
    """
    folder = _folder(logger)
    if folder is None:
        return
    try:
        for tag, picture in report.pictures.items():
            path = _path(folder / "pictures", tag, f"{step:08d}.png")
            save(draw(picture).numpy(), path)
        for tag, rows in report.tables.items():
            text = table_text(rows, report.epoch, step)
            _path(folder / "tables", tag, f"{step:08d}.csv").write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        if error.errno is None:
            raise
        # without the name of the file: the same cause reads the same at every step
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _folder(logger: object) -> Path | None:
    if isinstance(logger, Files):
        return logger.folder
    if logger not in _folders:
        raise RuntimeError(
            f"log_report got a {type(logger).__name__} that was not opened, so there is no folder for its "
            "pictures. Call open_run(logger, opening) first."
        )
    return _folders[logger]


def _path(folder: Path, tag: str, name: str) -> Path:
    path = folder / file_name(tag) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def file_name(tag: str) -> str:
    """The tag as a relative path: it holds names of layers and classes, and these any character at all."""
    return "/".join(re.sub(r"[^\w.#+ -]", "_", part).strip(". ") or "_" for part in tag.split("/"))


def table_text(rows: Sequence[TableRow], epoch: int, step: int) -> str:
    """The rows as CSV, without their pictures."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows((epoch, step, row.sample_id, row.label, row.prediction, row.confidence) for row in rows)
    return text.getvalue()
