"""A comparison as JSON values for the page's script.

``groups`` hold what belongs to one layer of one callback: per run its ``heats`` (maps as bytes, each scaled to its
own largest value in ``tops``; a top of None is not finite) and ``drawn`` pictures; ``agreement`` by heat, run, position
and sample; ``charts``. ``colours`` and, for signed maps, ``two_sided`` are the house's: a strength s over a grey g is
light[s] + keep[s] / 255 * g; signed strengths are `MIDDLE` where nothing is.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lightning_xai.compare.agreement import agreement
from lightning_xai.compare.comparison import Comparison, Gallery, Heat, Section, Track
from lightning_xai.render import data_url
from lightning_xai.render.colormap import Floats, Pixels, blend, flat
from lightning_xai.render.overlay import stretched
from lightning_xai.report import Scalar

MAP_SIDE = 48
MIDDLE = 128
AGREEMENT = "rank correlation with the first run's maps of the same samples: 1 is the same order of places"


def encode(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison."""
    return {
        "names": list(comparison.names),
        "unit": comparison.unit,
        "positions": list(comparison.positions),
        "notes": list(comparison.notes),
        "colours": _colours(np.linspace(0, 1, 256, dtype=np.float32), signed=False),
        "two_sided": _colours(((np.arange(256) - MIDDLE) / 127).clip(-1, 1).astype(np.float32), signed=True),
        "images": [data_url(picture) for picture in comparison.gallery.pictures],
        "groups": [group for section in comparison.sections for group in _groups(comparison, section)],
    }


def _colours(strengths: Floats, *, signed: bool) -> dict[str, str]:
    light = blend(flat(0.0, 256), strengths, signed)
    keep = blend(flat(255.0, 256), strengths, signed) - light
    return {"light": _base64(light), "keep": _base64(keep[:, 0])}


@dataclass(frozen=True, eq=False)
class _Part:
    """What one track says of one layer: by the rest of the tag one value a moment, None where it says nothing."""

    track: Track
    heats: Mapping[str, Sequence[Heat | None]]
    drawn: Mapping[str, Sequence[int | None]]
    scalars: Mapping[str, Sequence[float | None]]
    chance: Mapping[str, Sequence[bool | None]]


def _groups(comparison: Comparison, section: Section) -> list[dict[str, Any]]:
    parts = [{} if track is None else _by_layer(track) for track in section.tracks]
    layers = dict.fromkeys(layer for part in parts for layer in part)
    return [_group(comparison, section, layer, [part.get(layer) for part in parts]) for layer in layers or [""]]


def _by_layer(track: Track) -> dict[str, _Part]:
    moments = track.moments
    found: dict[str, _Part] = {}
    for kind in ("heats", "drawn", "scalars", "chance"):
        held: list[Mapping[str, Any]] = [getattr(moment, kind) for moment in moments]
        for tag in dict.fromkeys(tag for values in held for tag in values):
            layer, _, rest = tag.removeprefix(f"{track.tag}/").partition("/")
            part = found.setdefault(layer, _Part(track, {}, {}, {}, {}))
            getattr(part, kind)[rest] = [values.get(tag) for values in held]
    return found


def _group(comparison: Comparison, section: Section, layer: str, parts: Sequence[_Part | None]) -> dict[str, Any]:
    missing = dict(section.missing)
    for name, part in zip(comparison.names, parts, strict=True):
        if part is None:
            missing.setdefault(name, f"it has no layer {layer}")
    agreements = _agreements(comparison, parts) if section.same_probe else {}
    charts = _charts(comparison, parts, layer) + _agreement_charts(comparison, agreements)
    return {
        "name": section.name,
        "layer": layer,
        "missing": missing,
        "paired": section.same_probe,
        "runs": [None if part is None else _run(comparison, part, layer) for part in parts],
        "agreement": agreements,
        "charts": sorted(charts, key=_telling),
    }


def _run(comparison: Comparison, part: _Part, layer: str) -> dict[str, Any]:
    return {
        "real": part.track.layers.get(layer, layer),
        "fingerprint": part.track.fingerprint,
        "taken": part.track.taken,
        "moments": _when(comparison, part.track),
        "at": list(part.track.at),
        "heats": {rest: _heats(heats, comparison.gallery) for rest, heats in part.heats.items()},
        "drawn": part.drawn,
    }


def _when(comparison: Comparison, track: Track) -> list[int]:
    return [moment.epoch if comparison.unit == "epoch" else moment.step for moment in track.moments]


# -- heatmaps ---------------------------------------------------------------------------------------------------


def _heats(heats: Sequence[Heat | None], gallery: Gallery) -> dict[str, Any]:
    """Maps of every moment in one block of bytes; a moment whose maps have another shape than the latest has none."""
    latest = next(heat for heat in reversed(heats) if heat is not None)
    height, width = _size(latest, gallery)
    frames: list[dict[str, Any] | None] = []
    blocks = []
    for heat in heats:
        if heat is None or heat.maps.shape != latest.maps.shape:
            frames.append(None)
            continue
        maps = _small(heat.maps if latest.signed else heat.maps.clip(0), height, width)
        largest = np.abs(maps).max((1, 2))
        with np.errstate(invalid="ignore"):  # infinity over infinity
            shares = maps / largest.clip(np.finfo(np.float32).tiny)[:, None, None]
        blocks.append(_bytes(np.nan_to_num(shares, nan=0, posinf=0, neginf=0), latest.signed))
        frames.append(
            {
                "block": len(blocks) - 1,
                "tops": _numbers(largest.tolist()),
                "images": list(heat.images),
                "answers": list(heat.answers),
                "right": list(heat.right),
                "title": heat.title,
            }
        )
    tops = [top for frame in frames if frame for top in frame["tops"] if top is not None]
    scale = latest.scale
    measures = scale is not None and math.isfinite(scale) and scale > 0
    return {
        "frames": frames,
        "labels": list(latest.labels),
        "height": height,
        "width": width,
        "maps": _base64(np.stack(blocks)),
        "top": scale if measures else max(tops, default=0.0),
        "own": scale is None,
        "signed": latest.signed,
    }


def _bytes(shares: Floats, signed: bool) -> Pixels:
    strengths = shares * 127 + MIDDLE if signed else shares * 255
    return np.clip(np.rint(strengths), 0, 255).astype(np.uint8)


def _size(heat: Heat, gallery: Gallery) -> tuple[int, int]:
    image = gallery.pictures[heat.images[0]]
    height, width = (min(sizes) for sizes in zip(heat.maps.shape[1:], image.shape[:2], strict=True))
    return min(height, MAP_SIDE), min(width, MAP_SIDE)


def _small(maps: Floats, height: int, width: int) -> Floats:
    """Float maps no finer than what is drawn of them."""
    maps = maps.astype(np.float32)
    if maps.shape[1:] == (height, width):
        return maps
    tops = np.abs(maps).max((1, 2), keepdims=True).clip(np.finfo(np.float32).tiny)
    return stretched(maps / tops, height, width) * tops


# -- numbers ----------------------------------------------------------------------------------------------------


def _agreements(comparison: Comparison, parts: Sequence[_Part | None]) -> dict[str, list[Any]]:
    """By heat one entry a run: its agreement with the first run that has it, by position and sample; None for that."""
    result: dict[str, list[Any]] = {}
    for rest in dict.fromkeys(rest for part in parts if part for rest in part.heats):
        first, *others = [part for part in parts if part and rest in part.heats]
        if others:
            result[rest] = [_beside(first, part, rest) if part in others else None for part in parts]
    return result


def _beside(first: _Part, second: _Part, rest: str) -> list[list[float | None] | None]:
    rows: list[list[float | None] | None] = []
    for places in zip(first.track.at, second.track.at, strict=True):
        one, other = (
            part.heats[rest][place] if place >= 0 else None for part, place in zip((first, second), places, strict=True)
        )
        alike = one is not None and other is not None and len(one.maps) == len(other.maps)
        rows.append(_numbers(agreement(one.maps, other.maps).tolist()) if alike and one and other else None)
    return rows


def _agreement_charts(comparison: Comparison, agreements: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    charts = []
    for rest, runs in agreements.items():
        lines = [
            {"run": run, "x": list(comparison.positions), "y": [_mean(row or ()) for row in rows]}
            for run, rows in enumerate(runs)
            if rows is not None
        ]
        name = "/".join(filter(None, ("agreement", rest)))
        charts.append({"name": name, "meaning": AGREEMENT, "lines": lines})
    return charts


def _charts(comparison: Comparison, parts: Sequence[_Part | None], layer: str) -> list[dict[str, Any]]:
    """One chart a scalar, one line a run; the ends of a band are drawn with what they belong to."""
    names = list(dict.fromkeys(name for part in parts if part for name in part.scalars))
    declared = {name: found for part in parts if part for name, found in _declared(part, layer).items()}
    bands = {name: (scalar.lower, scalar.upper) for name, scalar in declared.items() if scalar.lower and scalar.upper}
    ends = {end for band in bands.values() for end in band}
    return [
        {
            "name": name,
            "meaning": declared[name].meaning if name in declared else "",
            "leads": name in declared and declared[name].leads,
            "lines": [
                {"run": run, "x": _when(comparison, part.track), **_line(part, name, bands.get(name))}
                for run, part in enumerate(parts)
                if part and name in part.scalars
            ],
        }
        for name in names
        if name not in ends
    ]


def _telling(chart: Mapping[str, Any]) -> tuple[bool, bool]:
    """What leads first, then what is about something named; what is about all maps at once comes last."""
    name: str = chart["name"]
    return not chart.get("leads"), "/" not in name and name != "agreement"


def _line(part: _Part, name: str, band: tuple[str, str] | None) -> dict[str, Any]:
    keys = {"y": name} if band is None else {"y": name, "lower": band[0], "upper": band[1]}
    line: dict[str, Any] = {key: _numbers(part.scalars[name]) for key, name in keys.items() if name in part.scalars}
    return {**line, "chance": list(part.chance[name])} if name in part.chance else line


def _declared(part: _Part, layer: str) -> dict[str, Scalar]:
    """The scalars of this layer by the rest of their tags, as the callback declared them."""
    start = f"{part.track.tag}/{layer}/"
    found = {}
    for scalar in part.track.scalars:
        if scalar.name.startswith(start):
            lower, upper = (None if end is None else end.removeprefix(start) for end in (scalar.lower, scalar.upper))
            found[scalar.name.removeprefix(start)] = replace(scalar, lower=lower, upper=upper)
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def _numbers(values: Iterable[float | None]) -> list[float | None]:
    """Five digits; None for what is no number."""
    return [float(f"{value:.5g}") if value is not None and math.isfinite(value) else None for value in values]


def _base64(array: Pixels) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
