"""A module of Lightning around a net, and Lightning's own lines silenced."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn


class Module(LightningModule):
    """Trains a net to classify images; validation only passes by."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: Any) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


def silence() -> None:
    """Lightning's lines about hardware and its products, and its warnings of few workers and few batches."""
    logging.disable(logging.INFO)
    for noise in (".*does not have many workers.*", ".*LeafSpec.*", ".*number of training batches.*"):
        warnings.filterwarnings("ignore", message=noise)
