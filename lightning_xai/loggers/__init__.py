"""Reports into loggers, chosen by the logger's type. The caller is on rank 0."""

from __future__ import annotations

from functools import singledispatch
from importlib import import_module
from types import ModuleType

from lightning_xai.loggers.files import Files, follow
from lightning_xai.report import Opening, Report

__all__ = ["Files", "follow", "log_report", "open_run"]

# By name: neither namespace of Lightning, nor a logger's own library, is imported before it is used.
_MODULES = {
    "pytorch_lightning.loggers.tensorboard.TensorBoardLogger": "tensorboard",
    "lightning.pytorch.loggers.tensorboard.TensorBoardLogger": "tensorboard",
    "pytorch_lightning.loggers.mlflow.MLFlowLogger": "mlflow",
    "lightning.pytorch.loggers.mlflow.MLFlowLogger": "mlflow",
    "pytorch_lightning.loggers.wandb.WandbLogger": "wandb",
    "lightning.pytorch.loggers.wandb.WandbLogger": "wandb",
}


@singledispatch
def open_run(logger: object, opening: Opening) -> None:
    """Tell a logger, before the first report, what the run is going to log.

    A logger without a module here gets its pictures and tables as files in ``opening.folder``;
    ``open_run.register(TheirLogger)`` teaches another one.
    """
    _module(logger).open_run(logger, opening)


@singledispatch
def log_report(logger: object, report: Report, step: int) -> None:
    """Log the pictures and tables of a reading at ``step``.

    Not the scalars: these are ordinary Lightning metrics, logged by the callback's ``self.log``.
    ``log_report.register(TheirLogger)`` teaches another logger.

    Raises:
        RuntimeError: a logger whose pictures go to files was not opened with `open_run`.
    """
    _module(logger).log_report(logger, report, step)


def _module(logger: object) -> ModuleType:
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(logger).__mro__)
    name = next((_MODULES[name] for name in names if name in _MODULES), "files")
    return import_module(f"{__name__}.{name}")
