"""When a reading is due, in Lightning's own counting."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_xai.flow.namespaces import Trainer, callbacks_of
from lightning_xai.foreign.lightning import can_stop_early, looks_at_epoch_end, validates_by_time


def validates(trainer: Trainer) -> bool:
    """Whether this fit runs any validation batch at all, as far as its data are loaded yet."""
    batches = trainer.num_val_batches
    return bool(trainer.enable_validation) and (not batches or sum(batches) > 0)


def ends_epoch(trainer: Trainer) -> bool:
    """Whether the validation that runs now is the last one of its training epoch.

    Where the length of an epoch is unknown every validation may be the last, so each answers yes.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.batch_progress.is_last_batch or (trainer.should_stop and can_stop_early(trainer)):
        return True
    interval, batches = trainer.val_check_batch, trainer.num_training_batches
    if validates_by_time(trainer) or interval is None or math.isinf(interval) or math.isinf(batches):
        return True
    return loop.batch_idx + 1 + int(interval) > batches


def is_last(trainer: Trainer) -> bool:
    """Whether no epoch follows this one, as far as it can be known now."""
    enough = trainer.current_epoch + 1 >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)
    if trainer.should_stop and enough:
        return True
    if trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs:
        return True
    return trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps


def epoch_due(epoch: int, last_read: int | None, every: int, last: bool) -> bool:
    """Whether ``epoch`` is due: the first one, one with (epoch + 1) % every == 0 since the last reading, the last.

    Args:
        epoch: that has just ended.
        last_read: the epoch of the latest reading, None before the first.
        every: epochs from one reading to the next.
        last: whether no epoch follows.

    Example:
        >>> [epoch for epoch in range(10) if epoch_due(epoch, epoch - 1 if epoch else None, 4, epoch == 9)]
        [0, 3, 7, 9]
        >>> epoch_due(5, last_read=2, every=4, last=False)  # epoch 3 was due, but had no validation
        True
    """
    if last_read is None or last:
        return last_read != epoch
    return (epoch + 1) // every > (last_read + 1) // every


@dataclass(frozen=True)
class Monitor:
    """Something that acts on a metric: which metric, who, and whether it looks at the end of training epochs."""

    metric: str
    by: str
    every_epoch: bool


def monitors(trainer: Trainer) -> list[Monitor]:
    """The callbacks with a ``monitor``, and the learning-rate schedulers that take a metric."""
    callbacks = [
        Monitor(callback.monitor, type(callback).__name__, looks_at_epoch_end(callback))
        for callback in callbacks_of(trainer)
        if isinstance(getattr(callback, "monitor", None), str)
    ]
    schedulers = [
        Monitor(config.monitor, type(config.scheduler).__name__, config.interval == "epoch")
        for config in trainer.lr_scheduler_configs
        if config.reduce_on_plateau and config.monitor is not None
    ]
    return callbacks + schedulers
