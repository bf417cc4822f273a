"""Whether a concept's effect is more than a set of random examples would have."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

TESTS = ("t", "rank")
LEVEL = 0.05


def check_test(test: str, concepts: int, randoms: int) -> None:
    """Raises ValueError for an unknown test, or too few random sets for any concept to be significant."""
    if test not in TESTS:
        raise ValueError(f"test={test!r} is unknown; expected one of {', '.join(map(repr, TESTS))}")
    needed = 3 if test == "t" else round(concepts / LEVEL) - 1
    if randoms < needed:
        instead = "" if test == "t" else ", or test='t', for which 10 are enough"
        raise ValueError(
            f"test={test!r} with {concepts} concept{'s' * (concepts != 1)} needs at least {needed} random sets, and "
            f"{randoms} {'was' if randoms == 1 else 'were'} given. Give {needed}{instead}."
        )


def prediction_t(effect: Tensor, null: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One-sided p-values of effects (...) among R null effects (..., R), and the band (lower, upper) of the null.

    (effect - mean) / (s sqrt(1 + 1/R)) is compared with Student's t of R - 1 degrees of freedom: is this one more
    draw? An effect above the band has p < `LEVEL`, before `holm`. Where the null effects do not vary, p = 1.
    """
    randoms = null.shape[-1]
    centre = null.mean(-1)
    spread = null.std(-1) * math.sqrt(1 + 1 / randoms)
    p = torch.where(spread > 0, student_t_tail((effect - centre) / spread, randoms - 1), 1)
    reach = student_t_quantile(LEVEL, randoms - 1) * spread
    return p, centre - reach, centre + reach


def rank(effect: Tensor, null: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `prediction_t`, by the rank among the null effects: exact where effect and null are exchangeable."""
    randoms = null.shape[-1]
    p = (1 + (null >= effect[..., None]).sum(-1)).double() / (randoms + 1)
    last = max(1, math.floor(LEVEL * (randoms + 1) + 1e-9))
    ordered = null.sort(-1).values
    return p, ordered[..., last - 1], ordered[..., -last]


def holm(p: Tensor) -> Tensor:
    """p-values (..., m) of m hypotheses, adjusted for their number (Holm 1979)."""
    ordered, order = p.sort(-1)
    factor = torch.arange(p.shape[-1], 0, -1, device=p.device)
    adjusted = (ordered * factor).cummax(-1).values.clamp_max(1)
    return torch.empty_like(p).scatter_(-1, order, adjusted)


def beats_chance(accuracy: Tensor, examples: tuple[int, int]) -> Tensor:
    """Of accuracies (concepts, randoms), balanced and held out: which concepts have a direction, (concepts,) bool.

    Args:
        accuracy: as in `CAVs`.
        examples: of a concept and of a random set; their mean accuracy is compared with chance, one-sided at `LEVEL`.
    """
    deviation = math.sqrt((1 / examples[0] + 1 / examples[1]) / 16)
    return accuracy.mean(1) > 0.5 + 1.645 * deviation


def student_t_tail(t: Tensor, freedom: int) -> Tensor:
    """P(T > t), float64: small tails keep their digits."""
    nodes, weights = _gauss_legendre()
    # with T = sqrt(freedom) / tan(angle) the density is sin(angle) ** (freedom - 1), and the tail starts at 0
    angle = torch.atan2(torch.tensor(math.sqrt(freedom), dtype=torch.float64, device="cpu"), t.double().cpu())
    density = (angle[..., None] * nodes).sin() ** (freedom - 1)
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return (constant * angle * (density * weights).sum(-1)).to(t.device)


@cache
def student_t_quantile(tail: float, freedom: int) -> float:
    """t with P(T > t) = tail, for a tail below 1/2."""
    low, high = 0.0, 1.0
    while float(student_t_tail(torch.tensor(high, dtype=torch.float64, device="cpu"), freedom)) > tail:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        above = float(student_t_tail(torch.tensor(middle, dtype=torch.float64, device="cpu"), freedom)) > tail
        low, high = (middle, high) if above else (low, middle)
    return high


@cache
def _gauss_legendre(number: int = 128) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1] (Golub and Welsch 1969)."""
    k = torch.arange(1, number, dtype=torch.float64, device="cpu")
    off = k / (4 * k * k - 1).sqrt()
    values, vectors = torch.linalg.eigh(off.diag(1) + off.diag(-1))
    return (values + 1) / 2, vectors[0].square()
