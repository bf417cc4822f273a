"""Saliency: what in the samples would change the answer most."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_xai.explanation.maps import Maps
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.functional.passes.explained import channel_dimension, floating_input
from lightning_xai.functional.saliency import saliency
from lightning_xai.probe import Probe


@dataclass(eq=False, kw_only=True)
class Saliency(Maps):
    """The absolute gradient of the class score at the input (Simonyan et al. 2013), epoch after epoch.

    Of images and signals the largest over the channels, of token ids the norm over what the embedding makes of them.
    Logs under ``xai/saliency/input`` what `GradCAM` logs of a layer; its settings are those of every explanation, and
    ``scale``.
    """

    title, map_names = "Saliency", ("input",)

    def maps(self, run: ModelRun, probe: Probe) -> dict[str, Tensor]:
        """One map, at the input's own resolution."""
        targets, inputs = self.targets(probe), probe.inputs
        gradient = saliency(run.model, inputs, targets, forward=run.on_probe, batch_size=self.batch_size)
        channels = channel_dimension(run.model, inputs, forward=run)
        if channels is None:
            return {"input": gradient}
        embedded = floating_input(inputs) is None
        return {"input": gradient.norm(dim=channels) if embedded else gradient.amax(channels)}
