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
from lightning_xai.pictures import Curve, Curves
from lightning_xai.reading import Reading, moments
from lightning_xai.report import Scalar

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


def shared_directions(cavs: CAVs, concepts: Sequence[str]) -> dict[str, Tensor]:
    """What ``Measured.shared`` holds of a layer's directions, (concepts, ...) each.

    Those of ``concepts`` that have no direction get values that say nothing.
    """
    tensors = {name: getattr(cavs, name) for name in ("accuracy", "separation", "cosines")}
    tensors["directed"] = beats_chance(cavs.accuracy, cavs.examples) & ~cavs.degenerate
    indices = [list(concepts).index(name) for name in cavs.names]
    for name, dimensions in _CONCEPT_DIMENSIONS.items():
        tensors[name] = _spread(tensors[name], indices, len(concepts), dimensions, _NOTHING.get(name, 0.0))
    sound = torch.zeros(len(concepts), dtype=torch.bool, device="cpu")
    sound[indices] = True
    return {**tensors, "sound": sound}


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
    indices = sound.nonzero()[:, 0].tolist()
    tensors = {name: getattr(scores, name) for name in ("zero_gradients", "constant_gradient")}
    for name in _SCORES:
        tensors[name] = _spread(getattr(scores, name), indices, len(sound), (1,), _NOTHING.get(name, 0.0))
    return tensors


def effect_scalars(
    layer: str,
    scores: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
    classes: Sequence[str],
    concepts: Sequence[str],
) -> dict[str, float]:
    """Per class and concept the scores, per class the probes without any gradient, per concept its CAVs.

    Args:
        layer: its name.
        scores: (classes, concepts) each, see `all_scores`.
        shared: ``Measured.shared`` of the reading, see `shared_directions`.
        classes: as tagged.
        concepts: names.

    Returns:
        Name below the layer's tag -> value.
    """
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
    readings = [reading for reading in history if f"directed/{layer}" in reading.measured.shared]

    def curve(number: str, column: int, concept: str) -> Curve:
        start = f"{tag}/{number}/{concept}"

        def over_run(name: str) -> list[float]:
            return [reading.scalars.get(f"{start}/{name}", math.nan) for reading in readings]

        separated = [bool(reading.measured.shared[f"directed/{layer}"][column]) for reading in readings]
        solid = [p <= LEVEL and apart for p, apart in zip(over_run("p_value"), separated, strict=True)]
        effect, lower, upper = map(over_run, ("effect", "effect_lower", "effect_upper"))
        return Curve(concept, effect, lower, upper, solid, tag=f"{start}/effect")

    panels = {
        title: [curve(number, column, concept) for column, concept in enumerate(concepts)]
        for number, title in classes.items()
    }
    x, x_label = moments(readings)
    note = (
        f"Band: what {random_sets} random sets give in the concept's place. Hollow: not above it (p > {LEVEL} after "
        "Holm), or the layer does not tell the concept from random examples."
    )
    separated = readings[-1].measured.shared[f"directed/{layer}"].tolist()
    if blind := [name for name, apart in zip(concepts, separated, strict=True) if not apart]:
        note += f" Not told apart now: {', '.join(blind)}."
    if constant:
        note += " The gradient is the same for all samples of a class here: each score is 0 or 1, the effect holds."
    return Curves(
        panels, x, x_label, "effect on the class's logit", f"Concept effects at {layer}, {x_label} {x[-1]}", note
    )


def _spread(values: Tensor, indices: list[int], size: int, dimensions: Sequence[int], fill: float) -> Tensor:
    """Values of some concepts -> those of all.

    Args:
        values: along ``dimensions`` as many as there are ``indices``.
        indices: which of all concepts they are of.
        size: the number of all concepts.
        dimensions: those that the concepts lie along.
        fill: the value of the others.
    """
    for dimension in dimensions:
        shape = list(values.shape)
        shape[dimension] = size
        index = torch.tensor(indices, dtype=torch.long, device=values.device)
        values = values.new_full(shape, fill).index_copy(dimension, index, values)
    return values
