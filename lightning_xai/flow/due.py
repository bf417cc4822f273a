"""Whether a callback reads now: its own schedule, and what monitors its scalars."""

from __future__ import annotations

from lightning_xai.flow import schedule
from lightning_xai.flow.explainer import Explainer
from lightning_xai.flow.namespaces import Trainer


def due_after_validation(explainer: Explainer, trainer: Trainer) -> bool:
    """Whether the validation that has just ended is followed by a reading."""
    if monitors_of(explainer, trainer):
        return True
    ends, state = schedule.ends_epoch(trainer), explainer.state
    if explainer.every_n_validations is not None:
        last = ends and schedule.is_last(trainer)
        return not state.history.moments or state.validations % explainer.every_n_validations == 0 or last
    return ends and _epoch_due(explainer, trainer)


def due_after_epoch(explainer: Explainer, trainer: Trainer) -> bool:
    """Whether the training epoch that has just ended is followed by a reading."""
    monitors = monitors_of(explainer, trainer)
    if schedule.validates(trainer):
        unread = explainer.state.history.last_epoch != trainer.current_epoch
        return explainer.state.probe is not None and unread and any(monitor.every_epoch for monitor in monitors)
    return bool(monitors) or _epoch_due(explainer, trainer)


def monitors_of(explainer: Explainer, trainer: Trainer) -> list[schedule.Monitor]:
    """What acts on the scalars of this callback. Where that overrules its schedule, the user is told once."""
    tags = {scalar.name for scalar in explainer.declared(explainer.state.probe)}
    # before the first reading a method may not know its scalars: then all that start with its tag are its own
    monitors = [
        monitor
        for monitor in schedule.monitors(trainer)
        if (monitor.metric in tags if tags else monitor.metric.startswith(f"{explainer.tag}/"))
    ]
    if monitors and (explainer.every_n_epochs > 1 or explainer.every_n_validations is not None):
        explainer.say(
            f"{monitors[0].by} monitors {monitors[0].metric!r}, so {type(explainer).__name__} reads whenever it looks, "
            "not on its own sparser schedule: a stale value would count against its patience"
        )
    return monitors


def _epoch_due(explainer: Explainer, trainer: Trainer) -> bool:
    last_read, last = explainer.state.history.last_epoch, schedule.is_last(trainer)
    return schedule.epoch_due(trainer.current_epoch, last_read, explainer.every_n_epochs, last)
