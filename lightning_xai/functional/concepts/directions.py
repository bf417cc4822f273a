"""Concept directions at a layer, as coefficients of their examples, and what they say of gradients."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from lightning_xai.functional.concepts.gram import centred_products, combine

BLOCK_BYTES = 4 * 2**20
"""Of one tensor while many problems are solved."""


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
class Fitted:
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
    _fitted: Fitted
    _null: Fitted
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
        flat = pooled(gradients, self.pool, torch.sum)
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
        width = max(1, BLOCK_BYTES // (8 * self._number))
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


def pooled(activation: Tensor, pool: str | None, over: Any) -> Tensor:
    """(n, *shape) -> (n, d)."""
    if pool is None:
        return activation.flatten(1)
    cells = tuple(range(2, activation.ndim)) if pool == "mean" else tuple(range(1, activation.ndim - 1))
    means: Tensor = over(activation, cells, dtype=torch.float32)
    return means
