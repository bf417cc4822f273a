"""MLflow: pictures as images that have steps, tables as CSV artifacts, fingerprints as tags of the run."""

from __future__ import annotations

import re
from typing import Any

from lightning_xai.loggers.files import file_name, table_text
from lightning_xai.loggers.tags import prefixed
from lightning_xai.render import draw
from lightning_xai.report import Opening, Report


def open_run(logger: Any, opening: Opening) -> None:
    """Put the probes' fingerprints into the run's tags: a parameter could not change when training goes on."""
    for name, value in opening.fingerprints.items():
        logger.experiment.set_tag(logger.run_id, _key(f"xai/{name}/probe"), value)


def log_report(logger: Any, report: Report, step: int) -> None:
    """Log the pictures under their tags, and the tables to ``tables/<tag>/<step>.csv``."""
    client, run_id = logger.experiment, logger.run_id
    for tag, picture in report.pictures.items():
        client.log_image(run_id, draw(picture).numpy(), key=_key(prefixed(logger, tag)), step=step)
    for tag, rows in report.tables.items():
        path = f"tables/{file_name(prefixed(logger, tag))}/{step:08d}.csv"
        client.log_text(run_id, table_text(rows, report.epoch, step), path)


def _key(tag: str) -> str:
    # MLflow refuses other characters; Lightning's logger leaves them out of the names of metrics, too
    return re.sub(r"[^\w/. -]", "", tag, flags=re.ASCII)
