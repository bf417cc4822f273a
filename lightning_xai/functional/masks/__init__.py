"""Masked: scores of the samples with features taken away, by one bank of masks for all samples and readings."""

from lightning_xai.functional.masks.absent import Baseline
from lightning_xai.functional.masks.bank import Bank, attributed, leave_one_out
from lightning_xai.functional.masks.coalitions import coalitions
from lightning_xai.functional.masks.features import Features
from lightning_xai.functional.masks.masked import Masked, masking
from lightning_xai.functional.masks.neighbours import Fit, fitted, neighbours

__all__ = [
    "Bank",
    "Baseline",
    "Features",
    "Fit",
    "Masked",
    "attributed",
    "coalitions",
    "fitted",
    "leave_one_out",
    "masking",
    "neighbours",
]
