"""A bank of masks, and the matrix that makes of its scores what each feature counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_xai.functional.masks.masked import Masked


@dataclass(frozen=True, eq=False)
class Bank:
    """The same for every sample and at every reading, so that what moves is the model.

    Args:
        masks: (P, features), 1 where a feature stays.
        operator: (features, 1 + P) float64; its first column belongs to the sample as it is.
    """

    masks: Tensor
    operator: Tensor


def leave_one_out(features: int) -> Bank:
    """What is lost with each feature alone."""
    eye = torch.eye(features, dtype=torch.float64, device="cpu")
    return Bank(1 - eye, torch.cat([torch.ones(features, 1, dtype=torch.float64, device="cpu"), -eye], 1))


def scored(masked: Masked, bank: Bank) -> Tensor:
    """(1 + P, N) or (1 + P, N, T) float64: of the samples as they are, and under each mask."""
    return torch.cat([masked.whole[None], masked.scores(bank.masks)])


def attributed(masked: Masked, bank: Bank) -> Tensor:
    """(N, features) or (N, T, features) float64: what each feature counts."""
    return combined(bank, scored(masked, bank))


def combined(bank: Bank, scores: Tensor) -> Tensor:
    """The matrix times the scores."""
    return torch.einsum("fp,pn...->n...f", bank.operator, scores)
