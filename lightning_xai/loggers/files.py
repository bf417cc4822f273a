"""Pictures and tables as files: for every logger that takes none, and where there is no logger at all."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_utilities.core import rank_zero

from lightning_xai.render import draw, save
from lightning_xai.report import Opening, Report, TableRow

COLUMNS = ("epoch", "step", "sample_id", "label", "prediction", "confidence")


@dataclass(frozen=True)
class Files:
    """Takes pictures and tables where the Trainer has no logger, or one that takes none.

    Args:
        folder: where ``pictures/<tag>/<step>.png`` and ``tables/<tag>/<step>.csv`` go; None writes nothing.
        instead_of: the logger that takes none.
    """

    folder: Path | None = None
    instead_of: object | None = None


def open_run(files: Files, opening: Opening) -> None:
    """Say where the pictures are, and why."""
    if files.folder is not None:
        logger = files.instead_of
        why = "there is no logger" if logger is None else f"{type(logger).__name__} takes none"
        rank_zero.log.info(f"The pictures of lightning_xai are written to {files.folder}, as {why}.")


def log_report(files: Files, report: Report, step: int) -> None:
    """Write ``pictures/<tag>/<step>.png`` and ``tables/<tag>/<step>.csv``, over what is there.

    Raises:
        OSError: they cannot be written.
    """
    folder = files.folder
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
