"""Where an integral over [0, 1] is looked at."""

from __future__ import annotations

import torch
from torch import Tensor


def gauss_legendre(steps: int) -> tuple[Tensor, Tensor]:
    """Places and weights (steps,), float64: exact for polynomials of degree 2 steps - 1.

    The places are the eigenvalues of the recurrence of Legendre's polynomials (Golub and Welsch 1969).
    """
    order = torch.arange(1, steps, dtype=torch.float64, device="cpu")
    beside_diagonal = order / (4 * order**2 - 1).sqrt()
    places, vectors = torch.linalg.eigh(torch.diag(beside_diagonal, -1))  # reads the lower triangle alone
    return (places + 1) / 2, vectors[0].square()
