"""Concept activation vectors: the directions of a layer that tell concepts from random examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from lightning_xai.functional import dual
from lightning_xai.functional.gram import centred_products, combine, gram

LOSSES: dict[str, dual.Loss | None] = {
    "logistic": dual.logistic,
    "ridge": dual.squared,
    "svm": dual.squared_hinge,
    "mean": None,
}
POOLS = (None, "mean", "mean_last")

_BLOCK_BYTES = 4 * 2**20  # of one tensor while many problems are solved
_DEAD = 1e-13  # variance over squared length, below which float32 activations are constant


@dataclass(frozen=True)
class Sensitivities:
    """What the CAVs say of N probes. The first dimension of all is the probes', so that rows can be cut and joined.

    Args:
        derivatives: (N, concepts, randoms) of the class score along each unit CAV, logits per unit of activation.
        null_effects: (N, randoms) effects in logits of each random set in the concept's place.
        replicates: (N, concepts, replicates) share of the CAVs, fitted to resampled examples, with a derivative > 0.
        gradient_norm: (N,) length of the gradient at the layer.
    """

    derivatives: Tensor
    null_effects: Tensor
    replicates: Tensor
    gradient_norm: Tensor

    def __getitem__(self, rows: Any) -> Sensitivities:
        return Sensitivities(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class _Fitted:
    """P unit vectors as coefficients (P, n) of the examples `rows` (P, n), and what is between their two sets."""

    rows: Tensor
    coefficients: Tensor
    separation: Tensor
    accuracy: Tensor

    def dense(self, which: slice, examples: int) -> Tensor:
        rows, coefficients = self.rows[which], self.coefficients[which]
        return coefficients.new_zeros(len(rows), examples).scatter_add_(1, rows, coefficients)


@dataclass(frozen=True, eq=False)
class CAVs:
    """What `fit_cavs` returns. It refers to the activations it was fitted to, and holds no vectors until asked.

    Args:
        names: of the concepts.
        shape: of one example's activation, before it is pooled.
        pool: as given.
        classifier: as given.
        accuracy: (concepts, randoms) held out: leave-one-out, mean over the two classes, so that chance is 1/2.
        separation: (concepts, randoms) from random mean to concept mean along the unit CAV, in units of activation.
        cosines: (concepts, concepts) of the CAVs with the same random set, mean over the random sets.
        degenerate: (concepts,) bool: there is no direction, since the examples do not differ. Such a vector is zero.
        examples: the smallest number of a concept's and of a random set's examples.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    pool: str | None
    classifier: str
    accuracy: Tensor
    separation: Tensor
    cosines: Tensor
    degenerate: Tensor
    examples: tuple[int, int]
    _sets: tuple[Tensor, ...]
    _fitted: _Fitted
    _null: _Fitted
    _replicates: Tensor  # (concepts * randoms, replicates, n), not of unit length

    @cached_property
    def vectors(self) -> Tensor:
        """(concepts, randoms, d) float32, of unit length, towards the concept."""
        dense = self._fitted.dense(slice(None), self._number)
        return combine(dense.view(*self.accuracy.shape, -1), self._sets)

    @cached_property
    def null_vectors(self) -> Tensor:
        """(randoms, randoms, d): as `vectors`, the first random set in the concept's place; zero on the diagonal."""
        randoms = self.accuracy.shape[1]
        found = combine(self._null.dense(slice(None), self._number), self._sets)
        vectors = found.new_zeros(randoms, randoms, found.shape[-1])
        if len(found):
            first, second = zip(*combinations(range(randoms), 2), strict=True)
            vectors[first, second], vectors[second, first] = found, -found
        return vectors

    def sensitivities(self, gradients: Tensor) -> Sensitivities:
        """Of gradients (N, *shape) at the layer; see `layer_gradients`.

        Raises:
            ValueError: gradients of another shape than the activations.
        """
        if tuple(gradients.shape[1:]) != self.shape:
            raise ValueError(
                f"the gradients have the shape {tuple(gradients.shape)}, and the CAVs were fitted to activations "
                f"(n, {', '.join(map(str, self.shape))}). Take both at the same layer, with inputs of the same size."
            )
        concepts, randoms = self.accuracy.shape
        flat = _pooled(gradients, self.pool, torch.sum)
        products = centred_products(flat, self._sets)
        derivatives = products @ self._fitted.dense(slice(None), self._number).T
        return Sensitivities(
            derivatives.view(-1, concepts, randoms).float(),
            (products @ self._null_effects).float(),
            self._replicated(products),
            flat.float().norm(dim=1).to(products.device),
        )

    @property
    def _number(self) -> int:
        return sum(map(len, self._sets))

    @cached_property
    def _null_effects(self) -> Tensor:
        """(examples, randoms) coefficients of the vectors whose derivative is the random set's effect."""
        randoms, pairs = self.accuracy.shape[1], list(combinations(range(self.accuracy.shape[1]), 2))
        effects = self._null.coefficients.new_zeros(self._number, randoms)
        width = max(1, _BLOCK_BYTES // (8 * self._number))
        for start in range(0, len(pairs), width):
            which = slice(start, start + width)
            dense = self._null.dense(which, self._number) * self._null.separation[which, None]
            first, second = torch.tensor(pairs[which], dtype=torch.long, device=dense.device).T
            # with the sets exchanged the vector and the difference of the means change their signs
            effects.index_add_(1, first, dense.T).index_add_(1, second, dense.T, alpha=-1)
        return effects / max(1, randoms - 1)

    def _replicated(self, products: Tensor) -> Tensor:
        concepts, randoms = self.accuracy.shape
        replicates = self._replicates.view(concepts, randoms, *self._replicates.shape[1:])
        rows = self._fitted.rows.view(concepts, randoms, -1)
        shares = products.new_zeros(len(products), concepts, replicates.shape[2], dtype=torch.float32)
        if not shares.numel():
            return shares
        for concept, random in product(range(concepts), range(randoms)):
            derivatives = products[:, rows[concept, random]] @ replicates[concept, random].T
            shares[:, concept] += (derivatives > 0).float() / randoms
        return shares


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
    sets = [_pooled(examples, pool, torch.mean) for examples in given.values()]
    products, norms = gram(sets)
    if not products.isfinite().all():
        raise ValueError(_not_finite(given))
    solver = _Solver(products, norms, [len(part) for part in sets], LOSSES[classifier], C)
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
        cosines=_cosines(fitted, products, by_pair).float(),
        degenerate=(separation <= 0).any(1),
        examples=(min(map(len, concepts.values())), min(map(len, randoms))),
        _sets=tuple(sets),
        _fitted=fitted,
        _null=solver.fit(list(combinations(numbers[1], 2))),
        _replicates=solver.resampled(list(product(*numbers)), replicates),
    )


class _Solver:
    """Fits pairs of sets, some at a time, on blocks of the Gram matrix."""

    def __init__(self, products: Tensor, norms: Tensor, sizes: list[int], loss: dual.Loss | None, cost: float) -> None:
        self.products, self.norms, self.loss, self.cost = products, norms, loss, cost
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        self.members = [torch.arange(s, s + n, device=products.device) for s, n in zip(starts, sizes, strict=True)]

    def fit(self, pairs: list[tuple[int, int]]) -> _Fitted:
        parts = []
        for rows, y, block, alive in self._blocks(pairs):
            present = y.abs()
            cost = self.cost * present
            solution = self._solve(block, y, cost, torch.zeros_like(y))
            if self.loss is None:
                held_out = dual.mean_without_one(block, y, cost)
            else:
                held_out = dual.without_one(block, y, cost, self.loss, solution)
            a = solution.a
            length = self._lengths(rows, a)
            alive = alive & (length > 0)
            a = torch.where(alive[:, None], a / length[:, None], 0)
            positive, negative = (y > 0).to(y), (y < 0).to(y)
            means = positive / positive.sum(1, keepdim=True) - negative / negative.sum(1, keepdim=True)
            separation = (a * (self._raw(rows) @ means[..., None])[..., 0]).sum(1)
            right = (held_out * y > 0).to(y)
            accuracy = ((right * positive).sum(1) / positive.sum(1) + (right * negative).sum(1) / negative.sum(1)) / 2
            parts.append((rows, a, separation, torch.where(alive, accuracy, 0.5)))
        if not parts:
            empty = self.products.new_zeros(0)
            return _Fitted(empty.view(0, 1).long(), empty.view(0, 1), empty, empty)
        return _Fitted(*map(torch.cat, zip(*parts, strict=True)))

    def resampled(self, pairs: list[tuple[int, int]], replicates: int) -> Tensor:
        """(pairs, replicates, n): coefficients of fits in which each example counts as often as it was drawn."""
        if replicates == 0:
            return self.products.new_zeros(len(pairs), 0, 1)
        random = torch.Generator().manual_seed(0)
        sizes = map(len, self.members)
        draws = [torch.randint(size, (replicates, size), generator=random, device="cpu") for size in sizes]
        counts = torch.cat([torch.zeros_like(d).scatter_add_(1, d, torch.ones_like(d)) for d in draws], 1)
        counts = counts.to(self.products)
        found = []
        for rows, y, block, _ in self._blocks(pairs, replicates):
            start = self._solve(block, y, self.cost * y.abs(), torch.zeros_like(y), 1e-3).f
            often = (counts[:, rows] * y.abs()).transpose(0, 1)  # (pairs, replicates, n)
            # the coefficient of an example that was not drawn is 0: a third of the problem is left out
            drawn = often.argsort(descending=True)[..., : int((often > 0).sum(-1).max())]
            pair = torch.arange(len(rows), device=rows.device)[:, None, None]
            solution = self._solve(
                block[pair[..., None], drawn[..., None], drawn[..., None, :]].flatten(0, 1),
                y[pair, drawn].flatten(0, 1),
                self.cost * often.gather(2, drawn).flatten(0, 1),
                start[pair, drawn].flatten(0, 1),
                1e-3,
            )
            found.append(torch.zeros_like(often).scatter_(2, drawn, solution.a.view(drawn.shape)).float())
        return torch.cat(found).to(self.products)

    def _solve(self, block: Tensor, y: Tensor, cost: Tensor, start: Tensor, tolerance: float = 1e-9) -> dual.Solution:
        if self.loss is None:
            return dual.mean_difference(block, y, cost)
        return dual.minimise(block, y, cost, self.loss, start=start, tolerance=tolerance)

    def _blocks(self, pairs: list[tuple[int, int]], copies: int = 1) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Some pairs at a time: rows (P, n), labels (P, n), scaled blocks (P, n, n), and whether examples differ."""
        size = max((len(self.members[i]) + len(self.members[j]) for i, j in pairs), default=1)
        width = max(1, _BLOCK_BYTES // (8 * size * size * copies))
        for start in range(0, len(pairs), width):
            some = pairs[start : start + width]
            rows = torch.zeros(len(some), size, dtype=torch.long, device=self.products.device)
            y = self.products.new_zeros(len(some), size)
            for row, label, (one, other) in zip(rows, y, some, strict=True):
                both = torch.cat([self.members[one], self.members[other]])
                row[: len(both)] = both
                label[: len(self.members[one])] = 1
                label[len(self.members[one]) : len(both)] = -1
            block, present = self._raw(rows), y.abs()
            share = present / present.sum(1, keepdim=True)
            variance = (share * block.diagonal(dim1=1, dim2=2)).sum(1) - (
                share[:, None] @ block @ share[..., None]
            ).flatten()
            alive = variance > _DEAD * (share * self.norms[rows]).sum(1)
            yield rows, y, block / torch.where(alive, variance, 1)[:, None, None], alive

    def _raw(self, rows: Tensor) -> Tensor:
        return self.products[rows[:, :, None], rows[:, None, :]]

    def _lengths(self, rows: Tensor, a: Tensor) -> Tensor:
        return (a[:, None] @ self._raw(rows) @ a[..., None]).flatten().clamp_min(0).sqrt()


def _cosines(fitted: _Fitted, products: Tensor, by_pair: tuple[int, int]) -> Tensor:
    dense = fitted.dense(slice(None), len(products)).view(*by_pair, -1)
    return torch.einsum("crm,drm->cd", dense @ products, dense) / by_pair[1]


def _pooled(activation: Tensor, pool: str | None, over: Any) -> Tensor:
    """(n, *shape) -> (n, d)."""
    if pool is None:
        return activation.flatten(1)
    cells = tuple(range(2, activation.ndim)) if pool == "mean" else tuple(range(1, activation.ndim - 1))
    pooled: Tensor = over(activation, cells, dtype=torch.float32)
    return pooled


# ------------------------------------------------------------ what was given


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
