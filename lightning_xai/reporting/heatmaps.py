"""Heatmaps of a probe, described: what GradCAM and its kin show of their maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Size, Tensor

from lightning_xai.functional.metrics.localization import drift, mask_lift, mask_share, pointing_game, shows_relevance
from lightning_xai.pictures import Filmstrip, Grid, Overlay, Picture, Traces
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading, moments, thinned
from lightning_xai.report import TableRow
from lightning_xai.tensors import tensors

COLUMNS = 16
MASK_METRICS = {"share": mask_share, "lift": mask_lift, "pointing": pointing_game}


def heatmap_scalars(key: str, probe: Probe, history: Sequence[Reading]) -> dict[str, float]:
    """What the maps ``rows[key]`` of the latest reading say in numbers; means are over the maps that show something."""
    maps = history[-1].measured.rows[key]
    nan = ~maps.flatten(1).isfinite().all(1)
    showing = shows_relevance(maps)
    drifts = _drift(key, history)
    scalars = {
        "drift": _mean(drifts[~nan[: len(drifts)]]),
        "peak": float(maps.nan_to_num(posinf=0.0, neginf=0.0).amax()),
        "zero_maps": float((~showing & ~nan).sum()),
        "nan_maps": float(nan.sum()),
    }
    for kind, function in MASK_METRICS.items():
        for name, mask in (probe.masks or {}).items():
            scalars[f"{kind}/{name}"] = _mean(function(maps, mask)[showing])
    return scalars


def heatmap_pictures(
    key: str, title: str, probe: Probe, history: Sequence[Reading], scale: float | None
) -> dict[str, Picture]:
    """The grid of the latest maps of the probe's samples, and their history.

    Maps along one axis are drawn as traces, of volumes the slice with the most relevance is shown.

    Args:
        key: of the maps (N, *cells) in ``rows``.
        title: one line above.
        probe: the samples that are shown.
        history: readings, of which as many as there is room for are drawn, the last among them.
        scale: the value that takes the last colour; None scales each map by its own maximum.

    Returns:
        What follows the tag -> picture: ``""`` the grid, ``"/filmstrip"`` the history.
    """
    readings = comparable_readings(key, len(probe), history, COLUMNS)
    captions = sample_captions(probe, readings[-1].measured)
    strip = torch.stack([reading.measured.rows[key][: len(probe)] for reading in readings], 1)
    if strip.ndim == 3:
        signals = next((t for t in tensors(probe.inputs) if t.ndim == 3 and t.is_floating_point()), None)
        return {"": Traces(signals, strip[:, -1], captions, scale, title)}
    images, strip = _flat(probe, strip)
    x, unit = moments(readings)
    columns = [f"{unit} {number}" for number in x]
    return {
        "": Grid(images, strip[:, -1], captions, scale, title),
        "/filmstrip": Filmstrip(images, strip, captions, columns, scale, title),
    }


def heatmap_rows(key: str, probe: Probe, measured: Measured, scale: float | None) -> list[TableRow]:
    """One row for each of the probe's samples; none where the maps are not laid over images.

    Args:
        key: of the maps (N, *cells) in ``rows``.
        probe: the samples that are shown.
        measured: of the latest reading.
        scale: the value that takes the last colour; None scales each map by its own maximum.
    """
    maps = measured.rows[key][: len(probe)]
    if maps.ndim == 2:
        return []
    images, strip = _flat(probe, maps[:, None])
    prediction, confidence = _answers(measured)
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
    prediction, confidence = _answers(measured)
    captions = []
    for i in range(len(probe)):
        lines = [] if probe.targets is None else [f"label {probe.label(int(probe.targets[i]))}"]
        if prediction[i] >= 0:
            lines.append(f"pred {probe.label(prediction[i])} {confidence[i]:.0%}")
        captions.append("\n".join(lines))
    return captions


def comparable_readings(key: str, samples: int, history: Sequence[Reading], at_most: int) -> list[Reading]:
    """Readings spread over the run, the latest among them, whose maps can stand beside the latest's.

    After a resume another probe may have taken over.

    Args:
        key: of the maps (N, *cells) in ``rows``.
        samples: how many samples they need to have.
        history: all readings.
        at_most: how many there is room for.
    """
    shape = history[-1].measured.rows[key].shape[1:]
    readings = [reading for reading in history if _has(reading, key, shape, samples)]
    return [readings[index] for index in thinned(len(readings), at_most)]


def _has(reading: Reading, key: str, shape: Size, samples: int) -> bool:
    maps = reading.measured.rows.get(key)
    return maps is not None and len(maps) >= samples and maps.shape[1:] == shape


def _drift(key: str, history: Sequence[Reading]) -> Tensor:
    """Of the samples whose earlier maps are at hand; from an even map in the first reading."""
    maps = history[-1].measured.rows[key]
    earlier = next((r.measured.rows[key] for r in reversed(history[:-1]) if _has(r, key, maps.shape[1:], 1)), None)
    if earlier is None:
        return drift(maps)
    number = min(len(maps), len(earlier))
    return drift(maps[:number], earlier[:number])


def _answers(measured: Measured) -> tuple[list[int], list[float]]:
    rows = measured.rows
    if "prediction" in rows:
        return rows["prediction"].tolist(), rows["confidence"].tolist()
    number = max(map(len, rows.values()), default=0)
    return [-1] * number, [math.nan] * number


def _flat(probe: Probe, strip: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N, H, W, 3) uint8 and maps (N, T, h, w); of volumes the latest map's most relevant slice."""
    images = probe.images()
    if strip.ndim == 5:
        slices = strip[:, -1].nan_to_num().sum((-2, -1)).argmax(1)
        depth = strip.shape[2]
        strip = torch.stack([sample[:, index] for sample, index in zip(strip, slices.tolist(), strict=True)])
        volume = next((t for t in tensors(probe.inputs) if t.ndim == 5 and t.shape[1] in (1, 3)), None)
        if volume is not None:
            depths = ((2 * slices + 1) * volume.shape[2] // (2 * depth)).tolist()
            planes = torch.stack([sample[:, plane] for sample, plane in zip(volume, depths, strict=True)])
            images = Probe(planes, mean=probe.mean, std=probe.std).images()
    if images is None:
        height, width = strip.shape[-2:]
        images = torch.full((len(strip), height, width, 3), 128, dtype=torch.uint8, device="cpu")
    return images, strip


def _mean(values: Tensor) -> float:
    # nothing to average is no relevance anywhere; NaN would stop every monitor
    return float(values.mean()) if len(values) else 0.0
