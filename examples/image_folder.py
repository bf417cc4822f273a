"""Train a small residual network on a folder of images and watch where it looks.

    python examples/image_folder.py --data FOLDER

FOLDER holds one folder of images a class, or `train` and `val` (or `test`) with such folders inside.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from math import log2
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from lightning_xai import GradCAM

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
Sample = tuple[Path, int]


class Images(Dataset[tuple[Tensor, int]]):
    """Square images, normalised; `augment` mirrors and shifts them at random."""

    def __init__(self, samples: list[Sample], classes: list[str], size: int, augment: bool = False) -> None:
        self.samples, self.classes, self.size, self.augment = samples, classes, size, augment

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.samples[index]
        try:
            picture = ImageOps.fit(Image.open(path).convert("RGB"), (self.size, self.size))
        except OSError as error:
            raise ValueError(f"{path} is no image that Pillow can read: {error}") from error
        image = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
        image = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        if self.augment:
            image = image.flip(2) if torch.rand(()) < 0.5 else image
            reach = self.size // 8
            down, right = torch.randint(-reach, reach + 1, (2,)).tolist()
            image = image.roll((down, right), (1, 2))
        return image, label


def find_samples(folder: Path, classes: list[str]) -> list[Sample]:
    suffixes = Image.registered_extensions()
    samples = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in suffixes
    ]
    missing = sorted(set(classes) - {classes[label] for _, label in samples})
    if missing:
        raise SystemExit(f"{folder} has no images of: {', '.join(missing)}")
    return samples


def find_data(folder: Path) -> tuple[list[Sample], list[Sample], list[str]]:
    """Training samples, validation samples and class names; a fifth is split off where nothing is set apart."""
    if not folder.is_dir():
        raise SystemExit(f"{folder} is no folder")
    held_out = next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)
    train = folder / "train" if held_out is not None else folder
    classes = sorted(path.name for path in train.glob("*") if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        found = f"one class, {classes[0]}" if classes else "no folders"
        raise SystemExit(f"{train} holds {found}; two or more folders of images are needed, one a class")
    samples = find_samples(train, classes)
    if held_out is not None:
        return samples, find_samples(held_out, classes), classes
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    cut = max(1, len(samples) // 5)
    return [samples[i] for i in order[cut:]], [samples[i] for i in order[:cut]], classes


class Residual(nn.Module):
    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()),
            *(nn.Conv2d(wider, wider, 3, 1, 1, bias=False), nn.BatchNorm2d(wider)),
        )
        self.skip = nn.Conv2d(channels, wider, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.skip(x)).relu()


class SmallResNet(LightningModule):
    """Halves the image until it is about 8 cells wide: what Grad-CAM can tell apart."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        halvings = max(1, round(log2(size / 8)))
        widths = [32 * 2 ** min(i, 2) for i in range(halvings + 1)]
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential(*(Residual(a, b, 2) for a, b in pairwise(widths)))
        self.last = Residual(widths[-1], widths[-1], 1)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(images))).mean((2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = cross_entropy(self(batch[0]), batch[1])
        self.log("loss/train", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        logits = self(batch[0])
        self.log("loss/validation", cross_entropy(logits, batch[1]), prog_bar=True)
        self.log("accuracy/validation", (logits.argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.05)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    parser.add_argument("--logger", choices=("tensorboard", "wandb"), default="tensorboard")
    parser.add_argument("--output", default="runs")
    args = parser.parse_args()

    seed_everything(0, verbose=False)
    train, validation, classes = find_data(args.data)
    print(f"{len(train)} training and {len(validation)} validation images of {len(classes)} classes")
    loading = {"batch_size": args.batch_size, "num_workers": args.workers}
    name = args.data.resolve().name
    Path(args.output).mkdir(parents=True, exist_ok=True)
    logger = TensorBoardLogger(args.output, name) if args.logger == "tensorboard" else WandbLogger(name, args.output)

    trainer = Trainer(
        max_epochs=args.epochs,
        logger=logger,
        callbacks=[GradCAM(mean=MEAN, std=STD)],  # this line is all there is to add
        log_every_n_steps=10,
    )
    trainer.fit(
        SmallResNet(len(classes), args.size),
        DataLoader(Images(train, classes, args.size, augment=True), shuffle=True, **loading),
        DataLoader(Images(validation, classes, args.size), **loading),
    )
    if args.logger == "tensorboard":
        print(f"tensorboard --logdir {Path(args.output) / name} --samples_per_plugin images=1000")


if __name__ == "__main__":
    main()
