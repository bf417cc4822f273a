"""TensorBoard: pictures as images, charts as custom scalars, fingerprints as a text card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lightning_xai.loggers.tags import prefixed
from lightning_xai.render import draw
from lightning_xai.report import Opening, Report, Scalar


def open_run(logger: Any, opening: Opening) -> None:
    """Write the layout of the charts and the probes' fingerprints.

    The fingerprints join ``hparams.yaml``. `log_hyperparams` is not called: TensorBoard shows a run's first
    hyperparameters only, and Lightning logs the user's after ``on_fit_start``.
    """
    writer = logger.experiment
    if panels := charts(opening.scalars):
        writer.add_custom_scalars({"xai": {title: _chart(logger, scalars) for title, scalars in panels.items()}})
    if opening.fingerprints:
        logger.hparams.update({f"xai/{name}/probe": value for name, value in opening.fingerprints.items()})
        rows = "".join(f"| {name} | `{value}` |\n" for name, value in opening.fingerprints.items())
        writer.add_text("xai/probe", f"| callback | fingerprint of its probe |\n|---|---|\n{rows}", 0)


def log_report(logger: Any, report: Report, step: int) -> None:
    """Write the pictures, to the disk: a run that is killed keeps them. TensorBoard keeps no tables."""
    for tag, picture in report.pictures.items():
        logger.experiment.add_image(prefixed(logger, tag), draw(picture), step, dataformats="HWC")
    logger.experiment.flush()


def charts(scalars: Sequence[Scalar]) -> dict[str, list[Scalar]]:
    """Titles of charts, and the scalars that each draws."""
    panels: dict[str, list[Scalar]] = {}
    for scalar in scalars:
        if scalar.chart is not None:
            panels.setdefault(scalar.chart.removeprefix("xai/"), []).append(scalar)
    return panels


def _chart(logger: Any, scalars: Sequence[Scalar]) -> list[Any]:
    first = scalars[0]
    if len(scalars) == 1 and first.lower is not None and first.upper is not None:
        return ["Margin", [prefixed(logger, tag) for tag in (first.name, first.lower, first.upper)]]
    # Lines are looked up by regular expression, margins by name.
    return ["Multiline", [f"^{re.escape(prefixed(logger, scalar.name))}$" for scalar in scalars]]
