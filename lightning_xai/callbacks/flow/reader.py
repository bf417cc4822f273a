"""One reading, from the model to the loggers; it never ends a run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_xai.callbacks.flow import background, opening
from lightning_xai.callbacks.flow.attempt import attempt
from lightning_xai.callbacks.flow.namespaces import LightningModule, Trainer
from lightning_xai.callbacks.flow.run import Run
from lightning_xai.functional.hooks import inspecting
from lightning_xai.loggers import Files, log_report
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Report
from lightning_xai.store import RunStore

if TYPE_CHECKING:
    from lightning_xai.callbacks.base import Explanation


def read(explanation: Explanation, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
    """Measure, store, report and log what the model looks at now. Collective: called on every rank."""
    if explanation.state.probe is None:
        _, classes = explanation.wanted()
        if classes is not None:
            _failed(
                explanation, trainer, ValueError(f"no sample of the classes {classes} was seen to take a probe from")
            )
        explanation.say("no batch was seen to take a probe from, so there is nothing to explain")
        return
    measured, error = attempt(partial(_measure, explanation, trainer, pl_module))
    everywhere = trainer.strategy.reduce_boolean_decision(error is None, all=True)
    scalars: dict[str, float] | None = None
    if everywhere and measured is not None and trainer.is_global_zero:
        scalars, error = attempt(partial(_publish, explanation, trainer, measured, step))
    scalars = trainer.strategy.broadcast(scalars)
    if scalars is None:
        _failed(explanation, trainer, error)
    else:
        explanation.state.logged = scalars
        if trainer.state.fn == "fit":
            explanation.state.history.moments.append((trainer.current_epoch, trainer.global_step))
    if not trainer.barebones:
        for tag, value in explanation.state.logged.items():
            # equal on every rank already; "max" keeps the bits where a mean over ranks may not
            pl_module.log(tag, value, on_step=False, on_epoch=True, sync_dist=True, reduce_fx="max", batch_size=1)


def _measure(explanation: Explanation, trainer: Trainer, pl_module: LightningModule) -> Measured:
    assert explanation.state.probe is not None
    with inspecting(pl_module):
        run = Run(trainer, pl_module, explanation.forward, explanation.state.like)
        if explanation.state.prepared is None:
            explanation.state.prepared = run.prepare(explanation.state.probe)
        measured = explanation.measure(run, explanation.state.prepared)
    return Measured(*(_on_cpu(part) for part in (measured.rows, measured.shared)))


def _publish(explanation: Explanation, trainer: Trainer, measured: Measured, step: int) -> dict[str, float]:
    probe, history = explanation.state.probe, explanation.state.history
    assert probe is not None
    reading = Reading(trainer.current_epoch, trainer.global_step, measured)
    history.forget_lost()
    report = explanation.report(measured, probe, [*history.readings, reading])
    stage = "fit" if trainer.state.fn is None else trainer.state.fn.value
    if history.store is not None:
        kept, error = attempt(partial(_keep, explanation, history.store, probe, reading, stage))
        reading = kept or reading
        if error is not None:
            explanation.warn(error, f"the reading could not be written to {history.store.folder}")
    if stage == "fit":
        history.readings.append(reading)
    files = Files(None if history.store is None else history.store.folder)
    task = partial(_log, explanation, opening.sinks(trainer, history.store), files, report, step)
    if explanation.background:
        background.worker_of(trainer).submit(task)
    else:
        task()
    tell_unlogged(explanation)
    return dict(report.scalars)


def _log(explanation: Explanation, loggers: list[Any], files: Files, report: Report, step: int) -> None:
    """Log into every logger; what one of them does not take is kept as files."""
    for logger in loggers:
        _, error = attempt(partial(log_report, logger, report, step))
        if error is not None:
            _, lost = attempt(partial(log_report, files, report, step))
            instead = "" if files.folder is None or lost is not None else f"; they are files in {files.folder}"
            explanation.state.unlogged.append((error, f"{type(logger).__name__} took no pictures{instead}"))


def tell_unlogged(explanation: Explanation) -> None:
    """Warn of the loggers that failed in the background: here, where a warning that is an error ends no worker."""
    while explanation.state.unlogged:
        explanation.warn(*explanation.state.unlogged.popleft())


def _keep(explanation: Explanation, store: RunStore, probe: Probe, reading: Reading, stage: str) -> Reading:
    opening.describe(explanation, store, store.add_probe(probe))
    return store.add(explanation.state.history.name, reading, stage)


def _failed(explanation: Explanation, trainer: Trainer, error: Exception | None) -> None:
    cause = error or RuntimeError("the explanation failed on another process; its own message names the cause")
    if explanation.on_error == "raise":
        raise cause
    monitors = explanation.monitors(trainer)
    if monitors and not explanation.state.logged:
        watched = monitors[0]
        raise RuntimeError(
            f"{watched.by} monitors {watched.metric!r}, but the first reading of "
            f"{type(explanation).__name__} failed: {cause}"
        ) from cause
    again = "; the last values are logged again" if explanation.state.logged else ""
    explanation.warn(cause, f"the reading of epoch {trainer.current_epoch} failed{again}")


def _on_cpu(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu() for key, tensor in held.items()}
