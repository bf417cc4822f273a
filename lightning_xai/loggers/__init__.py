"""Reports into loggers, chosen by the logger's type. The caller is on rank 0."""

from __future__ import annotations

from functools import singledispatch
from importlib import import_module
from types import ModuleType

from lightning_xai.loggers import files
from lightning_xai.loggers.files import Files
from lightning_xai.report import Opening, Report

__all__ = ["Files", "log_report", "logger_name", "open_run", "takes_reports"]

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

    ``open_run.register(TheirLogger)`` teaches another one; a logger that has nothing to prepare needs none.
    """
    module = _module(logger)
    if module is not None:
        module.open_run(logger, opening)


@singledispatch
def log_report(logger: object, report: Report, step: int) -> None:
    """Log the pictures and tables of a reading at ``step``.

    Not the scalars: these are ordinary Lightning metrics, logged by the callback's ``self.log``.
    ``log_report.register(TheirLogger)`` teaches another logger.

    Raises:
        TypeError: a logger that none of it was registered for; in a run its pictures go to `Files` in its stead.
    """
    module = _module(logger)
    if module is None:
        raise TypeError(
            f"log_report knows no way into a {type(logger).__name__}: teach it one with "
            "@log_report.register(TheirLogger), a function of (logger, report, step), or log into Files(folder)"
        )
    module.log_report(logger, report, step)


open_run.register(Files, files.open_run)
log_report.register(Files, files.log_report)


def takes_reports(logger: object) -> bool:
    """Whether `log_report` knows a way into this logger."""
    return log_report.dispatch(type(logger)) is not log_report.dispatch(object) or _module(logger) is not None


def logger_name(logger: object) -> str:
    """What messages call a logger; of `Files` in a logger's stead the logger's name."""
    if isinstance(logger, Files) and logger.instead_of is not None:
        logger = logger.instead_of
    return type(logger).__name__


def _module(logger: object) -> ModuleType | None:
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(logger).__mro__)
    name = next((_MODULES[name] for name in names if name in _MODULES), None)
    return None if name is None else import_module(f"{__name__}.{name}")
