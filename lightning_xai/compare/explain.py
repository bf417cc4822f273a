"""One Grad-CAM reading of a finished model."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch

from lightning_xai.callbacks.base import Explanation
from lightning_xai.callbacks.grad_cam import GradCAM
from lightning_xai.callbacks.namespaces import NAMESPACES, Trainer
from lightning_xai.callbacks.run import Run, find_forward, import_object
from lightning_xai.functional.hooks import inspecting
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
        ValueError: the class is no LightningModule, or the settings do not fit the model.
    """
    kind = import_object(model)
    if not (isinstance(kind, type) and issubclass(kind, tuple(n.LightningModule for n in NAMESPACES))):
        raise ValueError(f"{model} is no LightningModule: give the class that the checkpoint was made of")
    loaded: Any = kind.load_from_checkpoint(checkpoint, map_location="cpu")
    callback = GradCAM(probe=probe, layers=None if layers is None else list(layers), variant=variant)
    moment = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
    return _read(callback, loaded, probe, epoch=moment["epoch"], step=moment["global_step"])
