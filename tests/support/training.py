"""A quiet Trainer."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger


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
