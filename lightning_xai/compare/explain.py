"""One Grad-CAM reading of a finished model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch

from lightning_xai.callbacks.grad_cam import GradCAM
from lightning_xai.flow.import_paths import import_object
from lightning_xai.flow.measuring import measure_with
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.flow.namespaces import NAMESPACES, LightningModule, Trainer
from lightning_xai.functional.passes.guard import inspecting
from lightning_xai.probe import Probe
from lightning_xai.reading import Reading
from lightning_xai.report import Report


def explain(
    checkpoint: str | PathLike[str],
    model: str,
    probe: Probe,
    *,
    layers: Sequence[str] | None = None,
    variant: str = "grad_cam",
) -> Report:
    """What `GradCAM` reports of the model in a checkpoint.

    Args:
        checkpoint: written by a Trainer.
        model: its class, as ``module:Class``; made by ``load_from_checkpoint``.
        probe: what is explained, sent through the model's transfer hooks as a batch (inputs, targets) is.
        layers: names or patterns; None takes the last spatial layer.
        variant: as `GradCAM` takes it.

    Raises:
        ValueError: the class is no LightningModule or needs more than the checkpoint tells, or the settings do not
            fit the model.
    """
    callback = GradCAM(layers=None if layers is None else list(layers), variant=variant)
    kind = _class(model)
    held = _read(checkpoint)
    module = _make(kind, checkpoint)
    callback.resolve(module)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(module)
    batch = None if probe.targets is None or isinstance(probe.inputs, Mapping) else (None, None)
    run = ModelRun(trainer, module, structure=batch)
    try:
        with inspecting(module):
            measured = measure_with(callback, run, run.prepare(probe), {})
    except (IndexError, TypeError) as error:
        raise ValueError(f"the probe does not fit {model}: {error}") from error
    return callback.report(probe, [Reading(held["epoch"], held["global_step"], measured)])


def _class(model: str) -> Any:
    kind = import_object(model)
    kinds = tuple(namespace.LightningModule for namespace in NAMESPACES)
    if not (isinstance(kind, type) and issubclass(kind, kinds)):
        raise ValueError(f"{model} is no LightningModule: name the class that the checkpoint was made of")
    return kind


def _read(checkpoint: str | PathLike[str]) -> dict[str, Any]:
    try:
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file raises anything
        raise ValueError(
            f"{checkpoint} is no checkpoint that loads with weights_only: {error}\nWhere it holds objects of your own, "
            "allow them with torch.serialization.add_safe_globals in the module of the model"
        ) from error
    if not isinstance(held, dict) or not {"epoch", "global_step", "state_dict"} <= held.keys():
        raise ValueError(f"{checkpoint} was not written by a Trainer: it names no epoch, or no weights")
    return held


def _make(kind: Any, checkpoint: str | PathLike[str]) -> LightningModule:
    try:
        made: LightningModule = kind.load_from_checkpoint(checkpoint, map_location="cpu")
    except TypeError as error:
        raise ValueError(
            f"{kind.__name__} cannot be made from what {checkpoint} holds: {error}. Call self.save_hyperparameters() "
            "in its __init__, so that checkpoints know its arguments"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"the weights in {checkpoint} are not those of {kind.__name__}: {error}") from error
    return made
