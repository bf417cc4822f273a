"""A tiny convolutional LightningModule of `Samples`."""

import random
from types import ModuleType
from typing import Any

import numpy
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.support.data import CLASSES
from tests.support.training import seeded


class Classifier(pl.LightningModule):
    """Convolutions with BatchNorm and in-place ReLU, dropout, one linear layer; takes every kind of `Samples`."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 8, 3, 2, 1),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(8, CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.backbone(image))

    def loss(self, batch: Tensor | tuple[Tensor, Tensor] | dict[str, Tensor]) -> Tensor:
        if isinstance(batch, Tensor):
            return self(batch).square().mean()
        image, label = batch.values() if isinstance(batch, dict) else batch
        return nn.functional.cross_entropy(self(image), label)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.01)


def classifier(seed: int = 0, **settings) -> Classifier:
    """The same weights for the same seed."""
    return seeded(Classifier, seed, **settings)


class Augmented(Classifier):
    """Normalises and draws from every random stream once a batch is on its device."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, labels = batch
        return (images - 0.5) / 2 + 0.1 * torch.rand(1) + random.random() + numpy.random.rand(1).item(), labels  # noqa: NPY002


def net_of(lightning: ModuleType) -> type:
    """A small convolutional LightningModule of `pytorch_lightning` or `lightning.pytorch`."""
    Module: Any = lightning.LightningModule

    class Net(Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))

        def forward(self, image):
            return self.head(self.backbone(image))

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Net
