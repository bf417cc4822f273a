"""Runs written straight into stores, without training."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from lightning_xai.callbacks import GradCAM
from lightning_xai.flow.opening import write_entry
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Curve, Curves, Report, Scalar, Traces
from lightning_xai.store import RunStore

CLASSES = ["cat", "dog", "emu"]


def probe(seed=0, samples=4, size=24):
    """Images with a bright square as their object."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(samples, 3, size, size, generator=generator)
    masks = torch.zeros(samples, size, size, dtype=torch.bool)
    masks[:, : size // 3, : size // 3] = True
    return Probe(images, torch.arange(samples) % len(CLASSES), masks={"object": masks}, class_names=CLASSES)


def measured(seed, samples=4, cells=6, layers=("auto",)):
    """Maps at random, as `GradCAM` measures them."""
    generator = torch.Generator().manual_seed(seed)
    maps = {f"maps/{layer}": torch.rand(samples, cells, cells, generator=generator) * (1 + seed) for layer in layers}
    rows = {
        "prediction": torch.randint(0, len(CLASSES), (samples,), generator=generator),
        "confidence": torch.rand(samples, generator=generator),
    }
    return Measured({**maps, **rows}, {f"peak/{layer}": maps[f"maps/{layer}"].amax() for layer in layers})


def write(
    folder,
    explained=None,
    epochs=(0, 1, 2),
    seed=0,
    name=None,
    readings=None,
    layers=("auto",),
    steps=None,
    kind=GradCAM,
):
    """A run of `GradCAM` in ``folder/xai``; returns the folder."""
    explained = probe() if explained is None else explained
    store = RunStore(folder / "xai")
    callback = kind(name=name)
    callback.layer_names = dict.fromkeys(layers, "features")
    write_entry(callback, store, store.add_probe(explained))
    history = []
    for place, epoch in enumerate(epochs):
        held = readings[place] if readings else measured(seed + place, len(explained), layers=layers)
        step = steps[place] if steps else 10 * (epoch + 1)
        history.append(Reading(epoch, step, held))
        report = callback.report(explained, history)
        history[-1] = replace(history[-1], scalars=report.scalars)
        store.add(name or "grad_cam", history[-1], report=report)
    return folder


def silent():
    """Measured of four samples: one map as usual, one without relevance, one that is not finite, one faint."""
    found = measured(0)
    maps = found.rows["maps/auto"].clone()
    maps[1], maps[2, 0, 0], maps[3] = 0, math.nan, maps[3] / 100
    return Measured({**found.rows, "maps/auto": maps}, found.shared)


def signed(seed):
    """Measured of four samples whose maps have both signs; one shows nothing, one is not finite, one is faint."""
    found = measured(seed)
    maps = found.rows["maps/auto"] - 0.6 * (1 + seed)
    if seed == 2:
        maps[1], maps[2, 0, 0], maps[3] = 0, math.nan, maps[3] / 20
    return Measured({**found.rows, "maps/auto": maps}, {"peak/auto": maps.nan_to_num().abs().amax()})


@dataclass(eq=False, kw_only=True)
class Signed(GradCAM):
    """Draws maps with a sign."""

    def report(self, probe, history):
        report = super().report(probe, history)
        scale = max(float(reading.measured.rows["maps/auto"].nan_to_num().abs().max()) for reading in history)
        drawn: dict[str, Any] = dict(report.pictures)
        pictures = {tag: replace(picture, signed=True, scale=scale) for tag, picture in drawn.items()}
        return replace(report, pictures=pictures)


@dataclass(eq=False, kw_only=True)
class Curious(GradCAM):
    """Reports curves with a band, and a picture that is no heatmap over an image."""

    scalars = (
        Scalar("{layer}/effect", "how much", "{layer}/effect_lower", "{layer}/effect_upper", leads=True),
        Scalar("{layer}/effect_lower", "of chance"),
        Scalar("{layer}/effect_upper", "of chance"),
    )

    def report(self, probe, history):
        values = [float(reading.measured.shared["peak/auto"]) for reading in history]
        scalars = {"xai/curious/auto/effect": values[-1]}
        scalars |= {f"xai/curious/auto/effect_{end}": values[-1] + by for end, by in (("lower", -1), ("upper", 1))}
        lower, upper = [v - 1 for v in values], [v + 1 for v in values]
        curve = Curve("stripes", values, lower, upper, [v > 2 for v in values], tag="xai/curious/auto/effect")
        lines = history[-1].measured.rows["maps/auto"].mean(1)
        pictures = {
            "xai/curious/auto/effects": Curves({"cat": [curve]}, range(len(values)), "epoch", "logits", "effects"),
            "xai/curious/auto": Traces(None, lines, ["x"] * len(probe), None, "traces"),
        }
        return Report(history[-1].epoch, scalars, pictures)
