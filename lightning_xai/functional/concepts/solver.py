"""Many small linear classifiers at once: each tells one set of examples from another, on a block of one Gram matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_xai.functional.concepts import directions, dual
from lightning_xai.functional.concepts.directions import Fitted

LOSSES: dict[str, dual.Loss | None] = {
    "logistic": dual.logistic,
    "ridge": dual.squared,
    "svm": dual.squared_hinge,
    "mean": None,
}
DEAD = 1e-13
"""Variance over squared length, below which float32 activations are constant."""


class Solver:
    """Fits pairs of sets, some at a time, on blocks of the Gram matrix."""

    def __init__(self, products: Tensor, norms: Tensor, sizes: list[int], loss: dual.Loss | None, cost: float) -> None:
        self.products, self.norms, self.loss, self.cost = products, norms, loss, cost
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        self.members = [torch.arange(s, s + n, device=products.device) for s, n in zip(starts, sizes, strict=True)]

    def fit(self, pairs: list[tuple[int, int]]) -> Fitted:
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
            return Fitted(empty.view(0, 1).long(), empty.view(0, 1), empty, empty)
        return Fitted(*map(torch.cat, zip(*parts, strict=True)))

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
        width = max(1, directions.BLOCK_BYTES // (8 * size * size * copies))
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
            alive = variance > DEAD * (share * self.norms[rows]).sum(1)
            yield rows, y, block / torch.where(alive, variance, 1)[:, None, None], alive

    def _raw(self, rows: Tensor) -> Tensor:
        return self.products[rows[:, :, None], rows[:, None, :]]

    def _lengths(self, rows: Tensor, a: Tensor) -> Tensor:
        return (a[:, None] @ self._raw(rows) @ a[..., None]).flatten().clamp_min(0).sqrt()


def mean_cosines(fitted: Fitted, products: Tensor, by_pair: tuple[int, int]) -> Tensor:
    dense = fitted.dense(slice(None), len(products)).view(*by_pair, -1)
    return torch.einsum("crm,drm->cd", dense @ products, dense) / by_pair[1]
