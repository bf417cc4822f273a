"""Lightning's private attributes, by what they mean here. Lightning itself is not imported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

T = TypeVar("T")


def can_stop_early(trainer: Any) -> bool:
    """Whether ``should_stop`` ends the fit now: ``min_epochs`` and ``min_steps`` are over."""
    return bool(trainer.fit_loop._can_stop_early)


def validates_by_time(trainer: Any) -> bool:
    """Whether ``val_check_interval`` is a duration, which earlier versions of Lightning do not know."""
    return getattr(trainer, "_val_check_time_interval", None) is not None


def logged_step(trainer: Any) -> int:
    """The step at which Lightning logs what is logged at the end of a validation."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def looks_at_epoch_end(callback: Any) -> bool:
    """Whether an EarlyStopping or a ModelCheckpoint acts at the end of training epochs, not of validations.

    Of any other callback, which has neither attribute, False.
    """
    return any(getattr(callback, name, False) for name in ("_check_on_train_epoch_end", "_save_on_train_epoch_end"))


def prefix_of(logger: Any) -> str:
    """What a logger of Lightning's writes before each name."""
    return str(getattr(logger, "_prefix", ""))


def is_attached(module: Any) -> bool:
    """Whether a module has a Trainer; its ``trainer`` raises where it has none."""
    return module._trainer is not None


def before_transfer(module: Any, batch: Any) -> Any:
    """The batch through the hook that runs before it is moved to the device."""
    return module._on_before_batch_transfer(batch, dataloader_idx=0)


def twin(original: T, **changes: Any) -> T:
    """A shallow copy with other values of these attributes, made without its constructor.

    What is set on it later does not reach the original.
    """
    copy = object.__new__(type(original))
    copy.__dict__.update(original.__dict__)
    copy.__dict__.update(changes)
    return copy


def trainer_twin(trainer: T, strategy: Any, loggers: list[Any], **changes: Any) -> T:
    """A `twin` of a Trainer with another strategy and other loggers, both of which Lightning keeps in private places.

    Args:
        trainer: is left as it is.
        strategy: of the twin.
        loggers: of the twin.
        changes: further attributes.
    """
    connector = twin(trainer._accelerator_connector, strategy=strategy)  # type: ignore[attr-defined]
    return twin(trainer, _accelerator_connector=connector, _loggers=loggers, **changes)


def give_model(trainer: Any, model: Any, datamodule: Any) -> None:
    """Let a `trainer_twin` run this model, and this datamodule's transfer hooks where there is one."""
    trainer.strategy.__dict__.update(_lightning_module=model, _model=model)
    hooks = trainer._data_connector._datahook_selector
    if hooks is not None:
        selector = replace(hooks, model=model, datamodule=datamodule)
        vars(trainer)["_data_connector"] = twin(trainer._data_connector, _datahook_selector=selector)
    if datamodule is not None:
        vars(trainer)["datamodule"] = datamodule
