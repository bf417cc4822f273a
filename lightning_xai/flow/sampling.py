"""The automatic probe of one callback, from the first batch to the samples that all ranks explain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import Tensor

from lightning_xai.attempt import attempt
from lightning_xai.batches import is_dense
from lightning_xai.flow import opening
from lightning_xai.flow.capture import Capture, Collector
from lightning_xai.flow.display import apply_display, with_display_of
from lightning_xai.flow.explainer import Explainer
from lightning_xai.flow.loaders import dataset_of
from lightning_xai.flow.namespaces import Trainer
from lightning_xai.probe import Probe
from lightning_xai.tensors import map_tensors


def look_at(explainer: Explainer, trainer: Trainer, batch: Any, *, keep: bool) -> None:
    """Learn a batch's structure, and take samples of it for the automatic probe.

    Args:
        explainer: whose probe it is.
        trainer: of the run.
        batch: has been through the transfer hooks.
        keep: whether the probe is to come from such batches.
    """
    state = explainer.state
    if state.batch_structure is None:
        state.batch_structure, _ = attempt(partial(map_tensors, batch, _emptied))
    if state.probe is None and keep:
        collect(explainer, _capture(explainer, trainer), batch, "no probe could be taken from the batches")


def collect(explainer: Explainer, collector: Collector, batch: Any, failure: str) -> None:
    """Let samples of a batch be collected; only the first failure is told, since each may be in words of its own.

    Args:
        explainer: whose samples they are.
        collector: looks at the batch.
        batch: has been through the transfer hooks.
        failure: what the user is told where it fails.

    Raises:
        Exception: what made it fail, where ``on_error`` is ``"raise"``.
    """
    _, error = attempt(partial(collector.add, batch))
    if error is None:
        return
    if explainer.on_error == "raise":
        raise error
    if explainer.state.messages.first_time(failure):
        explainer.warn(error, failure)


def settle(explainer: Explainer, trainer: Trainer) -> None:
    """End the capture: the same probe on every rank, also on one that saw no batch. Collective."""
    state = explainer.state
    if state.probe is not None:
        return
    # what fails to join fails on every rank alike: each holds the same samples by then
    probe, error = attempt(partial(_capture(explainer, trainer).merge, trainer))
    state.capture = None
    if error is not None:
        if explainer.on_error == "raise":
            raise error
        explainer.warn(error, "no probe could be made of the batches")
    if probe is None:
        return
    size, _ = explainer.automatic_probe()
    if len(probe) < size:
        explainer.say(f"a probe of {size} samples was asked for, but the data has {len(probe)}: these are explained")
    state.probe = explainer.displayed(with_display_of(probe, dataset_of(trainer, explainer.probe_loader)))
    if state.expected not in (None, state.probe.fingerprint):
        why = "the run is resumed without its probe, and the data gives another"
        explainer.say(opening.OTHER_SAMPLES.format(epoch=trainer.current_epoch, why=why))


def displayed(explainer: Explainer, probe: Probe) -> Probe:
    """The probe with what the settings say about its display; what does not fit is told once and left out."""
    probe, complaints = apply_display(probe, explainer.display)
    for complaint in complaints:
        explainer.state.messages.caution(complaint)
    return probe


def _capture(explainer: Explainer, trainer: Trainer) -> Capture:
    state = explainer.state
    if state.capture is None:
        labels = cast("Callable[[Any], Tensor] | None", explainer.labels)
        state.capture = Capture(*explainer.automatic_probe(), labels, trainer.global_rank, trainer.world_size)
    return state.capture


def _emptied(tensor: Tensor) -> Tensor | None:
    """Its shape without a sample; nothing where samples cannot be cut, since no probe holds such a tensor."""
    return tensor.new_empty((0, *tensor.shape[1:])) if is_dense(tensor) else None
