"""One reading, from the model to the loggers; it never ends a run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning_xai.attempt import attempt
from lightning_xai.flow import opening
from lightning_xai.flow.due import monitors_of
from lightning_xai.flow.explainer import Explainer
from lightning_xai.flow.measuring import measure
from lightning_xai.flow.namespaces import LightningModule, Trainer
from lightning_xai.flow.session import session_of
from lightning_xai.loggers import Files, log_report, logger_name
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Report
from lightning_xai.storage.run_store import RunStore

STORED_BYTES = 2 * 2**20
"""What a reading may take on the disk, beside the rows of the shown samples."""


def read(explainer: Explainer, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
    """Measure, store, report and log what the model looks at now. Collective: called on every rank.

    Args:
        explainer: whose probe is explained.
        trainer: of the run.
        pl_module: the module that is trained, which logs the scalars.
        step: at which pictures are logged: that of Lightning's own metrics, not ``trainer.global_step``.

    Raises:
        Exception: what made it fail, where ``on_error`` is ``"raise"``.
        RuntimeError: it failed, and something monitors a scalar that has no value yet.
    """
    if explainer.state.probe is None:
        _, classes = explainer.automatic_probe()
        if classes is not None:
            _failed(explainer, trainer, ValueError(f"no sample of the classes {classes} was seen to take a probe from"))
        explainer.say("no batch was seen to take a probe from, so there is nothing to explain")
        return
    measured, error = attempt(partial(measure, explainer, trainer, pl_module))
    everywhere = trainer.strategy.reduce_boolean_decision(error is None, all=True)
    scalars: dict[str, float] | None = None
    if everywhere and measured is not None and trainer.is_global_zero:
        scalars, error = attempt(partial(_publish, explainer, trainer, measured, step))
    scalars = trainer.strategy.broadcast(scalars)
    if scalars is None:
        _failed(explainer, trainer, error)
    else:
        explainer.state.logged = scalars
        if trainer.state.fn == "fit":
            explainer.state.history.moments.append((trainer.current_epoch, trainer.global_step))
    if not trainer.barebones:
        for tag, value in explainer.state.logged.items():
            # equal on every rank already; "max" keeps the bits where a mean over ranks may not
            pl_module.log(tag, value, on_step=False, on_epoch=True, sync_dist=True, reduce_fx="max", batch_size=1)


def _publish(explainer: Explainer, trainer: Trainer, measured: Measured, step: int) -> dict[str, float]:
    probe, history = explainer.state.probe, explainer.state.history
    assert probe is not None
    stage = "fit" if trainer.state.fn is None else trainer.state.fn.value
    index = history.next_index(trainer.global_step) if stage == "fit" else 0
    reading = Reading(trainer.current_epoch, trainer.global_step, measured, index)
    report = _report(explainer, probe, reading)
    reading = replace(reading, scalars=dict(report.scalars))
    explainer.state.logged = dict(report.scalars)  # some know their scalars by now alone
    if history.store is not None:
        _, error = attempt(partial(_store, explainer, history.store, reading, stage, report))
        if error is not None:
            explainer.warn(error, f"the reading could not be written to {history.store.folder}")
    if stage == "fit":
        history.add(reading)
    session = session_of(trainer)
    task = partial(_log, explainer, session.sinks, history.store, report, step)
    if explainer.background:
        session.worker.submit(task)
    else:
        task()
    warn_of_logger_errors(explainer)
    return dict(report.scalars)


def _report(explainer: Explainer, probe: Probe, reading: Reading) -> Report:
    history = explainer.state.history
    report, error = attempt(partial(explainer.report, probe, [*history.readings, reading]))
    if error is not None and history.forget_lost():
        opening.warn_of_lost(explainer)
        report, error = attempt(partial(explainer.report, probe, [*history.readings, reading]))
    if report is None:
        raise error or TypeError(f"{type(explainer).__name__}.report returned None, not a Report")
    return report


def _log(explainer: Explainer, sinks: list[Any], store: RunStore | None, report: Report, step: int) -> None:
    """Log into every logger; what one of them does not take is kept as files."""
    for sink in sinks:
        before = _folder(store)
        _, error = attempt(partial(log_report, _in_folder(sink, before), report, step))
        folder = _folder(store)
        if folder != before:  # moved while it was written to: some pictures may not have come along
            _, error = attempt(partial(log_report, _in_folder(sink, folder), report, step))
        if error is not None:
            _, file_error = attempt(partial(log_report, Files(folder), report, step))
            instead = "" if folder is None or file_error is not None else f"; they are files in {folder}"
            explainer.state.logger_errors.append((error, f"{logger_name(sink)} took no pictures{instead}"))


def _folder(store: RunStore | None) -> Path | None:
    """Where pictures are files now; None, and none are written, where the folder has become another run's."""
    return None if store is None else attempt(store.follow)[0]


def _in_folder(sink: Any, folder: Path | None) -> Any:
    """Files go where the store is by now; a logger stays itself."""
    return replace(sink, folder=folder) if isinstance(sink, Files) else sink


def warn_of_logger_errors(explainer: Explainer) -> None:
    """Warn of the loggers that failed in the background: here, where a warning that is an error ends no worker."""
    while explainer.state.logger_errors:
        explainer.warn(*explainer.state.logger_errors.popleft())


def _store(explainer: Explainer, store: RunStore, reading: Reading, stage: str, report: Report) -> None:
    assert explainer.state.probe is not None
    name = explainer.state.history.name
    fingerprint = store.add_probe(explainer.state.probe)
    # a validation may write beside another run, whose callbacks stay described as they were
    if stage == "fit" or name not in store.manifest["callbacks"]:
        opening.write_entry(explainer, store, fingerprint)
    store.add(name, _small(reading, explainer.shown), stage, report)


def _small(reading: Reading, shown: int) -> Reading:
    """What is written of a reading: the samples whose rows fit, the shown ones in any case, and what is shared."""
    measured = reading.measured
    size = sum(2 * tensor[0].numel() for tensor in measured.rows.values() if len(tensor))
    samples = max(shown, STORED_BYTES // max(1, size))
    shared = {
        key: tensor for key, tensor in measured.shared.items() if tensor.numel() * tensor.element_size() < STORED_BYTES
    }
    rows = {key: tensor[:samples].clone() for key, tensor in measured.rows.items()}
    return replace(reading, measured=Measured(rows, shared, measured.kept))


def _failed(explainer: Explainer, trainer: Trainer, error: Exception | None) -> None:
    cause = error or RuntimeError("the explanation failed on another process; its own message names the cause")
    if explainer.on_error == "raise":
        raise cause
    monitors = monitors_of(explainer, trainer)
    if monitors and not explainer.state.logged:
        watched = monitors[0]
        raise RuntimeError(
            f"{watched.by} monitors {watched.metric!r}, but the first reading of "
            f"{type(explainer).__name__} failed: {cause}"
        ) from cause
    again = "; the last values are logged again" if explainer.state.logged else ""
    explainer.warn(cause, f"the reading of epoch {trainer.current_epoch} failed{again}")
