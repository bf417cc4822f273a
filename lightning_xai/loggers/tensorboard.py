"""TensorBoard: pictures as images, charts as custom scalars, fingerprints as a text card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lightning_xai.loggers.tags import prefixed
from lightning_xai.render import draw
from lightning_xai.report import Opening, Report


def open_run(logger: Any, opening: Opening) -> None:
    """Write the layout of the charts and the probes' fingerprints.

    The fingerprints join ``hparams.yaml``. `log_hyperparams` is not called: TensorBoard shows a run's first
    hyperparameters only, and Lightning logs the user's after ``on_fit_start``.
    """
    writer = logger.experiment
    if opening.charts:
        writer.add_custom_scalars({"xai": {title: _chart(logger, tags) for title, tags in opening.charts.items()}})
    if opening.fingerprints:
        logger.hparams.update({f"xai/{name}/probe": value for name, value in opening.fingerprints.items()})
        rows = "".join(f"| {name} | `{value}` |\n" for name, value in opening.fingerprints.items())
        writer.add_text("xai/probe", f"| callback | fingerprint of its probe |\n|---|---|\n{rows}", 0)


def log_report(logger: Any, report: Report, step: int) -> None:
    """Write the pictures, to the disk: a run that is killed keeps them. TensorBoard keeps no tables."""
    for tag, picture in report.pictures.items():
        logger.experiment.add_image(prefixed(logger, tag), draw(picture), step, dataformats="HWC")
    logger.experiment.flush()


def _chart(logger: Any, tags: Sequence[str]) -> list[Any]:
    names = [prefixed(logger, tag) for tag in tags]
    if len(names) == 3 and names[1].endswith("lower") and names[2].endswith("upper"):
        return ["Margin", names]
    # Lines are looked up by regular expression, margins by name.
    return ["Multiline", [f"^{re.escape(name)}$" for name in names]]
