"""A quiet Trainer, and modules with the same weights each time."""

from pathlib import Path
from typing import TypeVar

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger

from lightning_xai.loggers import log_report, open_run
from lightning_xai.report import Opening, Report

Kind = TypeVar("Kind")


class NoPictures(DummyLogger):
    """For runs whose pictures nobody looks at: drawing them takes longer than the rest.

    Args:
        folder: where the version's folder is, unless it is the Trainer's own.
        version: the name of the run's folder, if it has one.
    """

    def __init__(self, folder: Path | None = None, version: str = "") -> None:
        super().__init__()
        self.folder, self.own_version = folder, version

    @property
    def save_dir(self) -> str | None:
        return None if self.folder is None else str(self.folder)

    @property
    def version(self) -> str:
        return self.own_version


@open_run.register
def open_nothing(logger: NoPictures, opening: Opening) -> None:
    pass


@log_report.register
def log_nothing(logger: NoPictures, report: Report, step: int) -> None:
    pass


def seeded(kind: type[Kind], seed: int = 0, **settings) -> Kind:
    """A module of this kind with the same weights for the same seed."""
    pl.seed_everything(seed, verbose=False)
    return kind(**settings)


def trainer(folder: Path, *callbacks, **settings) -> pl.Trainer:
    """On the CPU, silent, without checkpoints; logs to TensorBoard unless told otherwise."""
    settings.setdefault("logger", TensorBoardLogger(folder))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"max_epochs": 2, "log_every_n_steps": 1, **quiet, **settings},
    )
