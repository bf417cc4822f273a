"""A tiny model, its data and a quiet Trainer, shared by the tests of the callbacks."""

from pathlib import Path
from types import ModuleType

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

CLASSES = 4
SIZE = 16


class Samples(Dataset):
    """Images with a bright row that tells the class, as (image, label), as an image alone or as a mapping.

    Args:
        count: how many.
        kind: ``"tuple"``, ``"tensor"`` or ``"mapping"``: what one sample is.
        seed: of the images and labels.
        classes: names of the classes, kept in ``.classes`` as image folders do.
    """

    def __init__(self, count: int = 12, kind: str = "tuple", seed: int = 0, classes: list[str] | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.kind = kind
        self.labels = torch.randint(0, CLASSES, (count,), generator=generator)
        self.images = torch.randn(count, 3, SIZE, SIZE, generator=generator)
        self.images[torch.arange(count), 0, self.labels * SIZE // CLASSES, :] += 4
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | Tensor | dict[str, Tensor]:
        image, label = self.images[index], self.labels[index]
        if self.kind == "tensor":
            return image
        return {"image": image, "label": label} if self.kind == "mapping" else (image, label)


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
    pl.seed_everything(seed, verbose=False)
    return Classifier(**settings)


def loader(count: int = 12, kind: str = "tuple", seed: int = 0, batch_size: int = 4, **settings) -> DataLoader:
    return DataLoader(Samples(count, kind, seed), batch_size, **settings)


def trainer(folder: Path, *callbacks, **settings) -> pl.Trainer:
    """On the CPU, silent, without checkpoints; logs to TensorBoard unless told otherwise."""
    settings.setdefault("logger", TensorBoardLogger(folder))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"max_epochs": 2, "log_every_n_steps": 1, **quiet, **settings},
    )


def events(folder: Path) -> tuple[dict[str, dict[int, float]], dict[str, list[int]]]:
    """What the TensorBoard files under a folder hold: scalars as tag -> step -> value, images as tag -> steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars: dict[str, dict[int, float]] = {}
    images: dict[str, list[int]] = {}
    for file in sorted(Path(folder).rglob("events.out.tfevents.*")):
        found = EventAccumulator(str(file), size_guidance={"images": 0, "scalars": 0}).Reload()
        for tag in found.Tags()["scalars"]:
            scalars.setdefault(tag, {}).update({event.step: event.value for event in found.Scalars(tag)})
        for tag in found.Tags()["images"]:
            images.setdefault(tag, []).extend(event.step for event in found.Images(tag))
    return scalars, images


def net_of(lightning: ModuleType) -> type:
    """A small convolutional LightningModule of `pytorch_lightning` or `lightning.pytorch`."""

    class Net(lightning.LightningModule):
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
