"""Maps: the family of callbacks that measure one map a sample, over an image, a sequence or a volume."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_xai.explanation.base import Explanation
from lightning_xai.explanation.padding import real_positions
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.functional.passes.explained import token_ids
from lightning_xai.pictures import Picture
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Report, Scalar, TableRow
from lightning_xai.reporting.heatmaps import heatmap_pictures, heatmap_rows, heatmap_scalars
from lightning_xai.reporting.tokens import sequence_picture

MAP_SCALARS = (
    Scalar(
        "{layer}/drift",
        "share of the relevance that moved since the last reading, 0 to 1; of the first, from an even map",
    ),
    Scalar("{layer}/peak", "largest value of all maps"),
    Scalar("{layer}/zero_maps", "samples whose map shows nothing"),
    Scalar("{layer}/nan_maps", "samples whose map is not finite"),
)
MASK_SCALARS = (
    Scalar(
        "{layer}/share/{mask}",
        "share of the relevance inside the mask",
        chart="{layer}, share of the relevance",
        leads=True,
    ),
    Scalar("{layer}/lift/{mask}", "this share over the mask's share of the area: 1 is what a blind map has"),
    Scalar("{layer}/pointing/{mask}", "share of the maps whose largest cell touches the mask, or is next to it"),
)
EXACT_PEAKS = 12
"""Layers, above which what is kept of their largest values is rounded up to bfloat16."""
MOST_PEAKS = 26
"""Layers, above which it is not kept: the scale is then that of the readings that are shown."""


@dataclass(eq=False, kw_only=True)
class Maps(Explanation):
    """One map a sample and layer. A method adds `maps` and a title.

    Args:
        scale: ``"run"`` draws all maps on one colour scale, the largest value so far; ``"image"`` each on its own.

    The other settings are those of every explanation.
    """

    scale: Literal["run", "image"] = "run"

    scalars: ClassVar[tuple[Scalar, ...]] = (*MAP_SCALARS, *MASK_SCALARS)
    map_names: ClassVar[tuple[str, ...]] = ()
    """The names of the maps below the tag, where they are known without a model."""

    def __post_init__(self) -> None:
        if self.scale not in ("run", "image"):
            raise ValueError(f"scale={self.scale!r} is unknown: give 'run' or 'image'")
        super().__post_init__()

    @property
    @abstractmethod
    def title(self) -> str:
        """What the pictures are called: the method's name."""

    @abstractmethod
    def maps(self, run: ModelRun, probe: Probe) -> Mapping[str, Tensor]:
        """Name below the tag -> (N, *cells), not negative. Called inside the guarded pass."""

    def things(self, probe: Probe | None) -> dict[str, Sequence[str]]:
        """Before a model is known the layers are those that every model has."""
        things = super().things(probe)
        return {**things, "layer": things["layer"] or self.map_names}

    def measure(self, run: ModelRun, probe: Probe) -> Measured:
        """The maps, and the largest value of each so far."""
        maps = self.maps(run, probe)
        self.layer_names = self.layer_names or {name: name for name in maps}
        lengths = [tensor.shape[1] for tensor in maps.values() if tensor.ndim == 2]
        if lengths and probe.tokens is not None and "real" not in run.rows:
            real = real_positions(probe, run.model, token_ids(probe.inputs), max(lengths))
            run.rows |= {} if real is None else {"real": real}
        return Measured({f"maps/{name}": tensor for name, tensor in maps.items()}, {}, running_peaks(maps, run.earlier))

    def report(self, probe: Probe, history: Sequence[Reading]) -> Report:
        """The grid, the filmstrip, the scalars and the table of each layer."""
        scalars: dict[str, float] = {}
        pictures: dict[str, Picture] = {}
        tables: dict[str, list[TableRow]] = {}
        shown = probe[: self.shown]
        for layer, module in self.layer_names.items():
            tag, key = f"{self.tag}/{layer}", f"maps/{layer}"
            scale = largest(layer, history) if self.scale == "run" else None
            where = "" if module in self.map_names else f" at {module}"
            title = f"{self.title}{where}, epoch {history[-1].epoch}"
            scalars |= {f"{tag}/{name}": value for name, value in heatmap_scalars(key, probe, history).items()}
            if history[-1].measured.rows[key].ndim == 2 and shown.tokens is not None:
                of_layer = {"": sequence_picture(key, title, shown, history, scale)}
            else:
                of_layer = heatmap_pictures(key, title, shown, history, scale)
            pictures |= {f"{tag}{suffix}": picture for suffix, picture in of_layer.items()}
            if rows := heatmap_rows(key, shown, history[-1].measured, scale):
                tables[f"{tag}/samples"] = rows
        return Report(history[-1].epoch, scalars, pictures, tables)


def running_peaks(maps: Mapping[str, Tensor], earlier: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each sample the largest value so far, by ``peak/<name>``; see `largest`."""
    if len(maps) > MOST_PEAKS:
        return {}
    peaks = {}
    for name, tensor in maps.items():
        key = f"peak/{name}"
        peak = tensor.detach().float().nan_to_num(posinf=0.0, neginf=0.0).flatten(1).amax(1)
        if len(maps) > EXACT_PEAKS:
            rounded = peak.bfloat16()
            # up: a scale below a value would cut it off
            peak = torch.where(rounded.float() < peak, torch.nextafter(rounded, rounded.new_tensor(torch.inf)), rounded)
        peaks[key] = torch.maximum(peak, earlier[key].to(peak)) if key in earlier else peak
    return peaks


def largest(name: str, history: Sequence[Reading]) -> float:
    """The largest value of the maps of this name in the run so far."""
    peaks = history[-1].measured.kept.get(f"peak/{name}")
    if peaks is not None:
        return float(peaks.max())
    maps = (reading.measured.rows.get(f"maps/{name}") for reading in history)
    return max(float(tensor.nan_to_num(posinf=0.0, neginf=0.0).max()) for tensor in maps if tensor is not None)
