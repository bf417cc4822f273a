"""Concept effects in numbers and as curves: what TCAV says of what it measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from lightning_xai.functional.cav import CAVs, Sensitivities
from lightning_xai.functional.significance import LEVEL, beats_chance
from lightning_xai.functional.tcav import TCAVScores
from lightning_xai.reading import Measured, Reading, moments
from lightning_xai.report import Curve, Curves

SCALARS = ("score", "lower", "upper", "effect", "effect_lower", "effect_upper", "p_value")

# what is kept of a concept without finite activations: no direction, no effect, nothing significant
_NOTHING = {"p_value": 1.0, "accuracy": 0.5}
_CONCEPT_DIMENSIONS = {"accuracy": (0,), "separation": (0,), "directed": (0,), "cosines": (0, 1)}


def measured_effects(
    layer: str, cavs: CAVs, sensitivities: Sensitivities, scores: TCAVScores, concepts: Sequence[str]
) -> Measured:
    """What is stored of one layer. Those of ``concepts`` that have no CAVs get a row that says nothing."""
    rows = {"derivatives": sensitivities.derivatives, "null_effects": sensitivities.null_effects}
    shared = {name: getattr(scores, name) for name in (*SCALARS, "zero_gradients", "constant_gradient")}
    shared |= {name: getattr(cavs, name) for name in ("accuracy", "separation", "cosines")}
    shared["directed"] = beats_chance(cavs.accuracy, cavs.examples) & ~cavs.degenerate
    places = [list(concepts).index(name) for name in cavs.names]
    if len(places) < len(concepts):
        rows["derivatives"] = _spread(rows["derivatives"], places, len(concepts), (1,), 0.0)
        for name in {*shared} - {"zero_gradients", "constant_gradient"}:
            dimensions = _CONCEPT_DIMENSIONS.get(name, (1,))
            shared[name] = _spread(shared[name], places, len(concepts), dimensions, _NOTHING.get(name, 0.0))
    return Measured(*({f"{name}/{layer}": tensor for name, tensor in part.items()} for part in (rows, shared)))


def scalar_names(classes: Sequence[str], concepts: Sequence[str]) -> list[str]:
    """The names of what `effect_scalars` gives, below the layer."""
    return [
        *(f"{number}/{concept}/{name}" for number in classes for concept in concepts for name in SCALARS),
        *(f"{number}/zero_gradients" for number in classes),
        *(f"cav_accuracy/{concept}" for concept in concepts),
        *(f"cav_cosine/{first}/{second}" for first, second in combinations(concepts, 2)),
    ]


def effect_scalars(
    layer: str, shared: Mapping[str, Tensor], classes: Sequence[str], concepts: Sequence[str]
) -> dict[str, float]:
    """Per class and concept the scores, per class the probes without any gradient, per concept its CAVs."""
    both = torch.stack([shared[f"{name}/{layer}"].double() for name in SCALARS], -1).flatten()
    cosines = shared[f"cosines/{layer}"]
    pairs = [cosines[i, j] for i, j in combinations(range(len(concepts)), 2)]
    values = [
        *both.tolist(),
        *shared[f"zero_gradients/{layer}"].tolist(),
        *shared[f"accuracy/{layer}"].mean(1).tolist(),
        *map(float, pairs),
    ]
    return dict(zip(scalar_names(classes, concepts), map(float, values), strict=True))


def effect_curves(
    layer: str, history: Sequence[Reading], classes: Sequence[str], concepts: Sequence[str], random_sets: int
) -> Curves:
    """One panel a class, one line a concept; hollow what random concepts explain."""

    def over_run(name: str) -> Tensor:
        return torch.stack([reading.measured.shared[f"{name}/{layer}"] for reading in history], -1)

    effect, lower, upper = (over_run(name) for name in ("effect", "effect_lower", "effect_upper"))
    solid = (over_run("p_value") <= LEVEL) & over_run("directed")
    panels = {
        title: [
            Curve(concept, *(part[row, column].tolist() for part in (effect, lower, upper, solid)))
            for column, concept in enumerate(concepts)
        ]
        for row, title in enumerate(classes)
    }
    x, x_label = moments(history)
    latest = history[-1].measured.shared
    note = (
        f"Band: what {random_sets} random sets give in the concept's place. Hollow: not above it (p > {LEVEL} after "
        "Holm), or the layer does not tell the concept from random examples."
    )
    if blind := [name for name, told in zip(concepts, latest[f"directed/{layer}"].tolist(), strict=True) if not told]:
        note += f" Not told apart now: {', '.join(blind)}."
    if latest[f"constant_gradient/{layer}"].any():
        note += " The gradient is the same for all samples of a class here: each score is 0 or 1, the effect holds."
    title = f"Concept effects at {layer}, {x_label} {x[-1]}"
    return Curves(panels, x, x_label, "effect on the class's logit", title, note)


def _spread(values: Tensor, places: list[int], size: int, dimensions: Sequence[int], rest: float) -> Tensor:
    for dimension in dimensions:
        shape = list(values.shape)
        shape[dimension] = size
        index = torch.tensor(places, dtype=torch.long, device=values.device)
        values = values.new_full(shape, rest).index_copy(dimension, index, values)
    return values
