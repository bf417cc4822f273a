"""A quiet Trainer, and modules with the same weights each time."""

from pathlib import Path
from typing import TypeVar

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

Kind = TypeVar("Kind")


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
