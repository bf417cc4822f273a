"""GradCAM: where in the images the model found its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor

from lightning_xai.callbacks.base import Explanation
from lightning_xai.callbacks.flow.namespaces import LightningModule
from lightning_xai.callbacks.flow.run import Run
from lightning_xai.callbacks.flow.settings import import_object
from lightning_xai.callbacks.heatmaps import heatmap_pictures, heatmap_rows, heatmap_scalars, scalar_names
from lightning_xai.functional.grad_cam import check_variant, grad_cam
from lightning_xai.functional.layers import find_layers
from lightning_xai.functional.spatial import last_spatial_layer
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Picture, Report, TableRow

AUTO = "auto"
TITLES = {
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "xgrad_cam": "XGrad-CAM",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "eigen_cam": "Eigen-CAM",
    "eigen_grad_cam": "Eigen-Grad-CAM",
    "score_cam": "Score-CAM",
    "ablation_cam": "Ablation-CAM",
}


@dataclass(eq=False, kw_only=True)
class GradCAM(Explanation):
    """Grad-CAM heatmaps of the same samples, epoch after epoch (Selvaraju et al. 2017).

    Logs under ``xai/<name>/<layer>`` a grid of overlays, their ``/filmstrip`` over the run, and the scalars
    ``drift`` (share of the relevance that moved since the last reading), ``peak`` (largest value), ``zero_maps``
    and ``nan_maps`` (counts); for a probe with masks also ``share/<mask>``, ``lift/<mask>`` and
    ``pointing/<mask>``.

    Args:
        probe_size: samples of the automatic probe.
        layers: names or patterns (``"backbone.layer*"``). None takes the last module with spatial output that
            runs, tagged ``auto``.
        variant: ``"grad_cam"``, ``"grad_cam_plus_plus"``, ``"xgrad_cam"``, ``"hires_cam"``, ``"layer_cam"``,
            ``"eigen_cam"``, ``"eigen_grad_cam"``, ``"score_cam"`` or ``"ablation_cam"``.
        reshape: a function of the layer's output that returns (N, C, *spatial), for layouts of its own.
        scale: ``"run"`` draws all maps on one colour scale, the largest value so far; ``"image"`` each on its own.

    The other settings are those of every explanation.
    """

    probe_size: int = 8
    layers: str | list[str] | None = None
    variant: str = "grad_cam"
    reshape: str | Callable[[Tensor], Tensor] | None = None
    scale: Literal["run", "image"] = "run"

    def __post_init__(self) -> None:
        check_variant(self.variant)
        self.at_least_one("probe_size")
        if isinstance(self.reshape, str):
            self.reshape = import_object(self.reshape)
        if self.scale not in ("run", "image"):
            raise ValueError(f"scale={self.scale!r} is unknown: give 'run' or 'image'")
        super().__post_init__()

    @property
    def method(self) -> str:
        return self.variant

    def wanted(self) -> tuple[int, None]:
        return self.probe_size, None

    def identity(self) -> dict[str, Any]:
        return {"layers": self.layers, "variant": self.variant}

    def resolve(self, model: LightningModule) -> None:
        named = {} if self.layers is None else find_layers(model, self.layers)
        self.layer_names = {name: name for name in named}

    def scalars(self, probe: Probe | None) -> list[str]:
        return [f"{self.tag}/{layer}/{name}" for layer in self._tagged() for name in scalar_names(probe)]

    def charts(self) -> dict[str, list[str]]:
        masks = (self.explained.masks if self.explained is not None else None) or {}
        return {
            f"{self.tag}/{layer}, share of the relevance": [f"{self.tag}/{layer}/share/{mask}" for mask in masks]
            for layer in self._tagged()
            if masks
        }

    def _tagged(self) -> list[str]:
        return list(self.layer_names) or [AUTO]

    def measure(self, run: Run, probe: Probe) -> Measured:
        targets = self.targets(probe)
        if not self.layer_names:
            self.layer_names = {AUTO: last_spatial_layer(run.model, probe.inputs, targets, forward=run)}
        outputs: list[Any] = []

        def forward(inputs: Any) -> Any:
            output = run(inputs)
            if not outputs:
                outputs.append(output)
            return output

        found = grad_cam(
            run.model,
            probe.inputs,
            targets,
            layer=list(self.layer_names.values()),
            variant=self.variant,
            reshape=cast("Callable[[Tensor], Tensor] | None", self.reshape),
            forward=forward,
        )
        maps = cast("dict[str, Tensor]", found)
        rows = {f"maps/{tag}": maps[name] for tag, name in self.layer_names.items()}
        shared = {f"peak/{tag}": rows[f"maps/{tag}"].nan_to_num(posinf=0.0).amax() for tag in self.layer_names}
        return Measured({**rows, **self.predictions(outputs[0], len(probe))}, shared)

    def report(self, measured: Measured, probe: Probe, history: Sequence[Reading]) -> Report:
        scalars: dict[str, float] = {}
        pictures: dict[str, Picture] = {}
        tables: dict[str, list[TableRow]] = {}
        for layer, real in self.layer_names.items():
            tag, key = f"{self.tag}/{layer}", f"maps/{layer}"
            peak = max(float(reading.measured.shared.get(f"peak/{layer}", 0.0)) for reading in history)
            scale = peak if self.scale == "run" else None
            title = f"{TITLES[self.variant]} at {real}, epoch {history[-1].epoch}"
            scalars |= {f"{tag}/{name}": value for name, value in heatmap_scalars(key, probe, history).items()}
            drawn = heatmap_pictures(key, title, probe, history, scale)
            pictures |= {f"{tag}{part}": picture for part, picture in drawn.items()}
            if rows := heatmap_rows(key, probe, measured, scale):
                tables[f"{tag}/samples"] = rows
        return Report(history[-1].epoch, scalars, pictures, tables)
