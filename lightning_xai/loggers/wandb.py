"""Weights & Biases: pictures as images, rows as tables, scalars against Lightning's step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any
from weakref import WeakSet

import numpy as np
from lightning_utilities.core import rank_zero

from lightning_xai.loggers.tags import prefixed
from lightning_xai.render import draw
from lightning_xai.report import Opening, Report, TableRow

STEP = "trainer/global_step"
AT_ONCE = 50  # pictures of one step, beyond which W&B advises against
COLUMNS = ("epoch", "step", "sample_id", "label", "prediction", "confidence", "input", "heatmap")
_overfull: WeakSet[Any] = WeakSet()
"""The loggers that were given more pictures at once than W&B advises: it is said once of each."""


def open_run(logger: Any, opening: Opening) -> None:
    """Give every scalar Lightning's step as its axis, and put the probes' fingerprints into the config."""
    run = logger.experiment
    run.define_metric(STEP)
    for scalar in opening.scalars:
        # A dot means a nested value unless it is escaped, and the definition then names nothing.
        run.define_metric(prefixed(logger, scalar.name).replace(".", r"\."), step_metric=STEP)
    fingerprints = {f"xai/{name}/probe": value for name, value in opening.fingerprints.items()}
    run.config.update(fingerprints, allow_val_change=True)


def log_report(logger: Any, report: Report, step: int) -> None:
    """Log pictures and tables in one call, at Lightning's step."""
    import wandb

    if len(report.pictures) > AT_ONCE and logger not in _overfull:
        _overfull.add(logger)
        rank_zero.log.info(
            f"Weights & Biases gets the first {AT_ONCE} of {len(report.pictures)} pictures of a reading, as it "
            "advises: ask for fewer layers to see others."
        )
    media: dict[str, Any] = {
        tag: wandb.Image(draw(picture).numpy(), caption=f"epoch {report.epoch}")
        for tag, picture in islice(report.pictures.items(), AT_ONCE)
    }
    for tag, rows in report.tables.items():
        media[tag] = _table(rows, report.epoch, step)
    if media:
        logger.log_metrics(media, step)


def _table(rows: Sequence[TableRow], epoch: int, step: int) -> Any:
    import wandb

    table = wandb.Table(columns=list(COLUMNS))
    for row in rows:
        # Rows join across readings by the hash of the input's file: its pixels must stay as they are.
        image = None if row.input is None else wandb.Image(np.asarray(row.input))
        heatmap = wandb.Image(draw(row.heatmap).numpy())
        table.add_data(epoch, step, row.sample_id, row.label, row.prediction, row.confidence, image, heatmap)
    return table
