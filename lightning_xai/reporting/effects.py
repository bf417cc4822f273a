"""Concept effects in numbers and as curves: what TCAV says of what it measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, product

import torch
from torch import Tensor

from lightning_xai.functional.concepts.directions import CAVs, Sensitivities
from lightning_xai.functional.metrics.significance import LEVEL, beats_chance
from lightning_xai.functional.tcav import TCAVScores
from lightning_xai.reading import Reading, moments
from lightning_xai.report import Curve, Curves, Scalar

_EACH = "{layer}/{class}/{concept}"
SCALARS = (
    Scalar(
        f"{_EACH}/score",
        "share of samples whose logit rises along the concept (Kim et al. 2018)",
        f"{_EACH}/lower",
        f"{_EACH}/upper",
    ),
    Scalar(f"{_EACH}/lower", "lower end of the score's 95% interval"),
    Scalar(f"{_EACH}/upper", "upper end of the score's 95% interval"),
    Scalar(
        f"{_EACH}/effect",
        "logits that the concept is worth to the class, to first order; hollow inside the band of random concepts",
        f"{_EACH}/effect_lower",
        f"{_EACH}/effect_upper",
        chart=_EACH,
        leads=True,
    ),
    Scalar(f"{_EACH}/effect_lower", "lower end of what random concepts are worth"),
    Scalar(f"{_EACH}/effect_upper", "upper end of what random concepts are worth"),
    Scalar(
        f"{_EACH}/p_value", "chance of such an effect of a random concept; one-sided, corrected for their number (Holm)"
    ),
    Scalar(
        "{layer}/{class}/zero_gradients", "samples of the class that say nothing at this layer: they have no gradient"
    ),
    Scalar(
        "{layer}/cav_accuracy/{concept}",
        "how well the layer tells the concept from random examples, held out; 0.5 is chance",
    ),
    Scalar("{layer}/cav_cosine/{pair}", "how alike two concepts' directions are"),
)
_SCORES = ("score", "lower", "upper", "effect", "effect_lower", "effect_upper", "p_value")

# what is said of a concept without finite activations: no direction, no effect, nothing significant
_NOTHING = {"p_value": 1.0, "accuracy": 0.5}
_CONCEPT_DIMENSIONS = {"accuracy": (0,), "separation": (0,), "directed": (0,), "cosines": (0, 1)}


def told_apart(cavs: CAVs, concepts: Sequence[str]) -> dict[str, Tensor]:
    """What is kept of the directions of a layer. Those of ``concepts`` that have none get what says nothing."""
    found = {name: getattr(cavs, name) for name in ("accuracy", "separation", "cosines")}
    found["directed"] = beats_chance(cavs.accuracy, cavs.examples) & ~cavs.degenerate
    places = [list(concepts).index(name) for name in cavs.names]
    for name in found:
        found[name] = _spread(found[name], places, len(concepts), _CONCEPT_DIMENSIONS[name], _NOTHING.get(name, 0.0))
    sound = torch.zeros(len(concepts), dtype=torch.bool, device="cpu")
    sound[places] = True
    return {**found, "sound": sound}


def is_constant(sensitivities: Sensitivities, targets: Tensor) -> bool:
    """Whether the gradient is the same for all samples of a class, of which there are two or more."""
    for number in sorted(set(targets.tolist())):
        derivatives = sensitivities.derivatives[targets.to(sensitivities.derivatives.device) == number].double()
        largest = derivatives.abs().amax()
        spread = (derivatives.amax(0) - derivatives.amin(0)).amax()
        if len(derivatives) > 1 and largest > 0 and spread <= 1e-4 * largest:
            return True
    return False


def all_scores(scores: TCAVScores, sound: Tensor) -> dict[str, Tensor]:
    """Scores of the ``sound`` concepts -> those of all, (classes, concepts), and what is of classes alone."""
    places = sound.nonzero()[:, 0].tolist()
    both = {name: _spread(getattr(scores, name), places, len(sound), (1,), _NOTHING.get(name, 0.0)) for name in _SCORES}
    return {**both, **{name: getattr(scores, name) for name in ("zero_gradients", "constant_gradient")}}


def effect_scalars(
    layer: str,
    scores: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
    classes: Sequence[str],
    concepts: Sequence[str],
) -> dict[str, float]:
    """Per class and concept the scores, per class the probes without any gradient, per concept its CAVs."""
    values: dict[str, float] = {}
    for (row, number), (column, concept) in product(enumerate(classes), enumerate(concepts)):
        values |= {f"{number}/{concept}/{name}": float(scores[name][row, column]) for name in _SCORES}
    values |= {f"{c}/zero_gradients": float(n) for c, n in zip(classes, scores["zero_gradients"], strict=True)}
    accuracy, cosines = shared[f"accuracy/{layer}"].mean(1), shared[f"cosines/{layer}"]
    values |= {f"cav_accuracy/{name}": float(value) for name, value in zip(concepts, accuracy, strict=True)}
    for (i, first), (j, second) in combinations(enumerate(concepts), 2):
        values[f"cav_cosine/{first}/{second}"] = float(cosines[i, j])
    return values


def effect_curves(
    tag: str,
    layer: str,
    history: Sequence[Reading],
    classes: Mapping[str, str],
    concepts: Sequence[str],
    random_sets: int,
    constant: bool,
) -> Curves:
    """One panel a class, one line a concept; hollow what random concepts explain.

    Args:
        tag: of the layer.
        layer: its name.
        history: readings with their scalars.
        classes: as tagged -> title of its panel.
        concepts: names.
        random_sets: how many random sets give the band.
        constant: whether the gradient is the same for all samples of a class.
    """
    held = [reading for reading in history if f"directed/{layer}" in reading.measured.shared]

    def curve(number: str, place: int, concept: str) -> Curve:
        start = f"{tag}/{number}/{concept}"

        def over_run(name: str) -> list[float]:
            return [reading.scalars.get(f"{start}/{name}", math.nan) for reading in held]

        told = [bool(reading.measured.shared[f"directed/{layer}"][place]) for reading in held]
        solid = [p <= LEVEL and apart for p, apart in zip(over_run("p_value"), told, strict=True)]
        effect, lower, upper = map(over_run, ("effect", "effect_lower", "effect_upper"))
        return Curve(concept, effect, lower, upper, solid, tag=f"{start}/effect")

    panels = {
        title: [curve(number, place, concept) for place, concept in enumerate(concepts)]
        for number, title in classes.items()
    }
    x, x_label = moments(held)
    note = (
        f"Band: what {random_sets} random sets give in the concept's place. Hollow: not above it (p > {LEVEL} after "
        "Holm), or the layer does not tell the concept from random examples."
    )
    told = held[-1].measured.shared[f"directed/{layer}"].tolist()
    if blind := [name for name, apart in zip(concepts, told, strict=True) if not apart]:
        note += f" Not told apart now: {', '.join(blind)}."
    if constant:
        note += " The gradient is the same for all samples of a class here: each score is 0 or 1, the effect holds."
    return Curves(
        panels, x, x_label, "effect on the class's logit", f"Concept effects at {layer}, {x_label} {x[-1]}", note
    )


def _spread(values: Tensor, places: list[int], size: int, dimensions: Sequence[int], rest: float) -> Tensor:
    for dimension in dimensions:
        shape = list(values.shape)
        shape[dimension] = size
        index = torch.tensor(places, dtype=torch.long, device=values.device)
        values = values.new_full(shape, rest).index_copy(dimension, index, values)
    return values
