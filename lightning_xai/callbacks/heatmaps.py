"""Heatmaps of a probe, described: what GradCAM and its kin show of their maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_xai.functional.localization import drift, mask_lift, mask_share, pointing_game, shows_relevance
from lightning_xai.probe import Probe, tensors
from lightning_xai.reading import Measured, Reading, moments, thinned
from lightning_xai.report import Filmstrip, Grid, Overlay, Picture, TableRow, Traces

COLUMNS = 16
SCALARS = ("drift", "peak", "zero_maps", "nan_maps")
MASK_SCALARS = {"share": mask_share, "lift": mask_lift, "pointing": pointing_game}


def scalar_names(probe: Probe | None) -> list[str]:
    """The names of what `heatmap_scalars` gives for this probe."""
    masks = (probe.masks if probe is not None else None) or {}
    return [*SCALARS, *(f"{kind}/{mask}" for kind in MASK_SCALARS for mask in masks)]


def heatmap_scalars(key: str, probe: Probe, history: Sequence[Reading]) -> dict[str, float]:
    """What the maps ``rows[key]`` of the latest reading say in numbers; means are over the maps that show something."""
    maps = history[-1].measured.rows[key]
    earlier = comparable(key, history)[:-1]
    nan = ~maps.flatten(1).isfinite().all(1)
    showing = shows_relevance(maps)
    scalars = {
        "drift": _mean(drift(maps, earlier[-1].measured.rows[key] if earlier else None)[~nan]),
        "peak": float(maps.nan_to_num(posinf=0.0, neginf=0.0).amax()),
        "zero_maps": float((~showing & ~nan).sum()),
        "nan_maps": float(nan.sum()),
    }
    for kind, function in MASK_SCALARS.items():
        for name, mask in (probe.masks or {}).items():
            scalars[f"{kind}/{name}"] = _mean(function(maps, mask)[showing])
    return scalars


def heatmap_pictures(
    key: str, title: str, probe: Probe, history: Sequence[Reading], scale: float | None
) -> dict[str, Picture]:
    """The grid of the latest maps under ``""`` and their history under ``"/filmstrip"``.

    Maps along one axis are drawn as traces, of volumes the slice with the most relevance is shown.
    """
    readings = comparable(key, history)
    shown = [readings[index] for index in thinned(len(readings), COLUMNS)]
    latest = shown[-1].measured
    captions = sample_captions(probe, latest)
    strip = torch.stack([reading.measured.rows[key] for reading in shown], 1)
    if strip.ndim == 3:
        signals = next((t for t in tensors(probe.inputs) if t.ndim == 3 and t.is_floating_point()), None)
        return {"": Traces(signals, strip[:, -1], captions, scale, title)}
    images, strip = _flat(probe, strip)
    places, unit = moments(shown)
    columns = [f"{unit} {place}" for place in places]
    return {
        "": Grid(images, strip[:, -1], captions, scale, title),
        "/filmstrip": Filmstrip(images, strip, captions, columns, scale, title),
    }


def heatmap_rows(key: str, probe: Probe, measured: Measured, scale: float | None) -> list[TableRow]:
    """One row a sample; none where the maps are not laid over images."""
    maps = measured.rows[key]
    if maps.ndim == 2:
        return []
    images, strip = _flat(probe, maps[:, None])
    prediction, confidence = measured.rows["prediction"].tolist(), measured.rows["confidence"].tolist()
    return [
        TableRow(
            sample_id=i,
            label="" if probe.targets is None else probe.label(int(probe.targets[i])),
            prediction="" if prediction[i] < 0 else probe.label(prediction[i]),
            confidence=confidence[i],
            input=images[i],
            heatmap=Overlay(images[i], strip[i, 0], scale),
        )
        for i in range(len(probe))
    ]


def sample_captions(probe: Probe, measured: Measured) -> list[str]:
    """Label, prediction and its probability of each sample."""
    prediction, confidence = measured.rows["prediction"].tolist(), measured.rows["confidence"].tolist()
    captions = []
    for i in range(len(probe)):
        lines = [] if probe.targets is None else [f"label {probe.label(int(probe.targets[i]))}"]
        if prediction[i] >= 0:
            lines.append(f"pred {probe.label(prediction[i])} {confidence[i]:.0%}")
        captions.append("\n".join(lines))
    return captions


def comparable(key: str, history: Sequence[Reading]) -> list[Reading]:
    """The readings with maps of the latest's shape: after a resume another probe may have taken over."""
    shape = history[-1].measured.rows[key].shape
    return [r for r in history if key in r.measured.rows and r.measured.rows[key].shape == shape]


def _flat(probe: Probe, strip: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N, H, W, 3) uint8 and maps (N, T, h, w); of volumes the latest map's most relevant slice."""
    images = probe.images()
    if strip.ndim == 5:
        slices = strip[:, -1].nan_to_num().sum((-2, -1)).argmax(1)
        depth = strip.shape[2]
        strip = torch.stack([sample[:, index] for sample, index in zip(strip, slices.tolist(), strict=True)])
        volume = next((t for t in tensors(probe.inputs) if t.ndim == 5 and t.shape[1] in (1, 3)), None)
        if volume is not None:
            places = ((2 * slices + 1) * volume.shape[2] // (2 * depth)).tolist()
            planes = torch.stack([sample[:, place] for sample, place in zip(volume, places, strict=True)])
            images = Probe(planes, mean=probe.mean, std=probe.std).images()
    if images is None:
        height, width = strip.shape[-2:]
        images = torch.full((len(strip), height, width, 3), 128, dtype=torch.uint8, device="cpu")
    return images, strip


def _mean(values: Tensor) -> float:
    # nothing to average is no relevance anywhere; NaN would stop every monitor
    return float(values.mean()) if len(values) else 0.0
