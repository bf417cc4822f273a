"""Concept activation vectors: the directions of a layer that tell concepts from random examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import torch
from torch import Tensor

from lightning_xai.functional.concepts.directions import CAVs, pooled
from lightning_xai.functional.concepts.gram import gram
from lightning_xai.functional.concepts.solver import LOSSES, Solver, mean_cosines

POOLS = (None, "mean", "mean_last")


def fit_cavs(
    concepts: Mapping[str, Tensor],
    randoms: Sequence[Tensor],
    *,
    classifier: str = "logistic",
    C: float = 1.0,
    pool: str | None = None,
    replicates: int = 20,
) -> CAVs:
    """The unit vectors from each random set to each concept, and between the random sets (Kim et al. 2018).

    Args:
        concepts: name -> activations (n, *shape) of a layer, any floating-point type; see `activations`.
        randoms: activations (m, *shape) of sets of random examples.
        classifier: `"logistic"`, `"ridge"`, `"svm"` (squared hinge), or `"mean"`: the difference of the means, which
            is the direction of FastCAV (Schmalwasser et al. 2025) and of pattern-CAV (Pahde et al. 2022) as well.
        C: what the loss counts against |w|^2 / 2, where the activations of the two sets are scaled to a mean squared
            distance of 1 from their mean: it means the same at every layer and epoch. `"mean"` does not use it.
        pool: `"mean"` averages the cells of (n, channels, *cells), `"mean_last"` those of (n, *cells, channels):
            faster, blind to position.
        replicates: number of fits to resampled examples, for the interval of the score.

    Raises:
        ValueError: no concept or random set, fewer than two examples, shapes that differ, NaN or infinity, settings
            that do not exist.
        TypeError: activations that are no floating-point tensors.

    The held-out accuracy is exact for ridge and mean, and one Newton step from the full fit for the others.
    """
    _check_settings(classifier, C, pool, replicates)
    given = _named_sets(concepts, randoms)
    sets = [pooled(examples, pool, torch.mean) for examples in given.values()]
    products, norms = gram(sets)
    if not products.isfinite().all():
        raise ValueError(_not_finite(given))
    solver = Solver(products, norms, [len(part) for part in sets], LOSSES[classifier], C)
    numbers = range(len(concepts)), range(len(concepts), len(sets))
    fitted = solver.fit(list(product(*numbers)))
    by_pair = len(concepts), len(randoms)
    separation = fitted.separation.view(by_pair)
    return CAVs(
        names=tuple(concepts),
        shape=tuple(next(iter(given.values())).shape[1:]),
        pool=pool,
        classifier=classifier,
        accuracy=fitted.accuracy.view(by_pair).float(),
        separation=separation.float(),
        cosines=mean_cosines(fitted, products, by_pair).float(),
        degenerate=(separation <= 0).any(1),
        examples=(min(map(len, concepts.values())), min(map(len, randoms))),
        _sets=tuple(sets),
        _fitted=fitted,
        _null=solver.fit(list(combinations(numbers[1], 2))),
        _replicates=solver.resampled(list(product(*numbers)), replicates),
    )


def _check_settings(classifier: str, cost: float, pool: str | None, replicates: int) -> None:
    for name, value, known in (("classifier", classifier, tuple(LOSSES)), ("pool", pool, POOLS)):
        if value not in known:
            raise ValueError(f"{name}={value!r} is unknown; expected one of {', '.join(map(repr, known))}")
    if not 0 < cost < float("inf"):
        raise ValueError(f"C={cost} is no positive number")
    if replicates < 0:
        raise ValueError(f"replicates={replicates} is negative; 0 leaves the interval of the score out")


def _named_sets(concepts: Mapping[str, Tensor], randoms: Sequence[Tensor]) -> dict[str, Tensor]:
    if isinstance(randoms, Tensor):
        randoms = list(randoms)
    if not concepts or not randoms:
        raise ValueError(f"{len(concepts)} concepts and {len(randoms)} random sets were given; one of each is needed")
    given = {f"concept {name!r}": examples for name, examples in concepts.items()}
    given |= {f"random set {index}": examples for index, examples in enumerate(randoms)}
    first, shape = next(iter(given)), None
    for name, examples in given.items():
        if not isinstance(examples, Tensor) or not examples.is_floating_point():
            kind = str(examples.dtype) if isinstance(examples, Tensor) else type(examples).__name__
            raise TypeError(f"{name} is {kind}; expected activations, a floating-point tensor (n, *shape)")
        if examples.ndim < 2 or len(examples) < 2:
            raise ValueError(
                f"{name} has the shape {tuple(examples.shape)}; a direction needs at least two examples (n, *shape), "
                "and a useful one about 50"
            )
        shape = shape or examples.shape[1:]
        if examples.shape[1:] != shape:
            raise ValueError(
                f"the examples of {name} have the shape {tuple(examples.shape[1:])}, those of {first} {tuple(shape)}. "
                "All have to be activations of the same layer, for inputs of the same size; pool='mean' after a "
                "resize, or the same transform, makes them so."
            )
    return given


def _not_finite(given: dict[str, Tensor]) -> str:
    for name, examples in given.items():
        if wrong := int((~examples.flatten(1).isfinite()).any(1).sum()):
            return f"NaN or infinity in the activations of {wrong} of the {len(examples)} examples of {name}"
    return "the activations are so large that their products overflow float32"
