"""GradCAM: where in the images the model found its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from lightning_xai.explanation.maps import Maps
from lightning_xai.flow.import_paths import import_object
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.functional.grad_cam import VARIANTS, check_variant, grad_cam
from lightning_xai.functional.last_spatial_layer import last_spatial_layer
from lightning_xai.probe import Probe

AUTO = "auto"


@dataclass(eq=False, kw_only=True)
class GradCAM(Maps):
    """Grad-CAM heatmaps of the same samples, epoch after epoch (Selvaraju et al. 2017).

    Logs under ``xai/<name>/<layer>`` a grid of overlays, their ``/filmstrip`` over the run, and the scalars
    ``drift`` (share of the relevance that moved since the last reading), ``peak`` (largest value), ``zero_maps``
    and ``nan_maps`` (counts); for a probe with masks also ``share/<mask>``, ``lift/<mask>`` and
    ``pointing/<mask>``.

    Args:
        layers: names or patterns (``"backbone.layer*"``). None takes the last module with spatial output that
            runs, tagged ``auto``.
        variant: ``"grad_cam"``, ``"grad_cam_plus_plus"``, ``"xgrad_cam"``, ``"hires_cam"``, ``"layer_cam"``,
            ``"eigen_cam"``, ``"eigen_grad_cam"``, ``"score_cam"`` or ``"ablation_cam"``.
        reshape: a function of the layer's output that returns (N, C, *spatial), for layouts of its own.

    The other settings are those of every explanation, and ``scale``: ``"run"`` draws all maps on one colour scale, the
    largest value so far; ``"image"`` each on its own.
    """

    layers: str | list[str] | None = None
    variant: str = "grad_cam"
    reshape: str | Callable[[Tensor], Tensor] | None = None

    identifying, map_names = ("layers", "variant"), (AUTO,)
    importable = (*Maps.importable, "reshape")

    def __post_init__(self) -> None:
        check_variant(self.variant)
        if isinstance(self.reshape, str):
            self.reshape = import_object(self.reshape)
        super().__post_init__()

    @property
    def method(self) -> str:
        """The variant's name."""
        return self.variant

    @property
    def title(self) -> str:
        """The variant's name in the literature."""
        return VARIANTS[self.variant].title

    def maps(self, run: ModelRun, probe: Probe) -> dict[str, Tensor]:
        """By layer as tagged; a layer that is not named is found in the first reading."""
        targets = self.targets(probe)
        if not self.layer_names:
            self.layer_names = {AUTO: last_spatial_layer(run.model, probe.inputs, targets, forward=run)}
        tensors = grad_cam(
            run.model,
            probe.inputs,
            targets,
            layer=list(self.layer_names.values()),
            variant=self.variant,
            reshape=cast("Callable[[Tensor], Tensor] | None", self.reshape),
            forward=run.on_probe,
            batch_size=self.batch_size,
        )
        maps = cast("dict[str, Tensor]", tensors)
        return {tag: maps[name] for tag, name in self.layer_names.items()}
