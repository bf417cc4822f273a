"""Small projects that explanations are checked on: a module and its data, the same each time they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai.flow.namespaces import NAMESPACES, LightningModule

CLASSES, SIZE = 3, 16


@dataclass(frozen=True)
class Project:
    """What is trained while an explanation is checked.

    Args:
        module: makes the LightningModule; its weights follow torch's seed.
        data: makes a loader of the same samples in the same order, 12 or more, in batches that are smaller.
    """

    module: Callable[[], LightningModule]
    data: Callable[[], DataLoader[Any]]


class Classifier(NAMESPACES[-1].LightningModule):  # type: ignore[misc]
    """Convolutions with BatchNorm and in-place ReLU, dropout, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes)."""
        return self.head(self.features(images))  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        self.log("val_loss", nn.functional.cross_entropy(self(images), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 0.01)


class Attending(Classifier):
    """Patches, a class token, and two layers of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 4, 4)  # type: ignore[assignment]
        self.token = nn.Embedding(1, 8)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True), 2, enable_nested_tensor=False
        )
        self.head = nn.Linear(8, CLASSES)  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes)."""
        cells = self.features(images).flatten(2).mT
        tokens = torch.cat([self.token.weight.expand(len(cells), 1, -1), cells], 1)
        return self.head(self.encoder(tokens)[:, 0])  # type: ignore[no-any-return]


def images() -> DataLoader[Any]:
    """18 images of noise with a bright row that tells their class, in batches of 5."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(18, device="cpu") % CLASSES
    pixels = torch.randn(18, 3, SIZE, SIZE, generator=random, dtype=torch.float32, device="cpu")
    pixels[torch.arange(18, device="cpu"), 0, 4 * labels + 1] += 4
    return DataLoader(TensorDataset(pixels, labels), 5)


def classification() -> Project:
    """Images, and a small convolutional network with every kind of state that a reading could move."""
    return Project(Classifier, images)


def attention() -> Project:
    """The same images, and a small vision transformer."""
    return Project(Attending, images)
