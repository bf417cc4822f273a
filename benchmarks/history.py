"""Whether a reading's cost stays what it was, over the run and over the size of the probe.

    python benchmarks/history.py [--quick] [--epochs 1000]

A tiny net with every callback, which all read at the end of every epoch, and log to TensorBoard: the process time of
20 late epochs over that of the epochs 10 to 30. Then GradCAM of 2,048 samples, on the network of
`examples/image_folder.py`, over the forwards and backwards that it needs, as the training thread is held. CPU time, so
that others' work does not count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from contenders import floor
from epoch import CLASSES, SIZE
from grad_cam import shown, verdict
from held import Clock, TimedGradCAM
from measure import ratio
from nets import Net
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import Module, silence

from lightning_xai import TCAV, AttentionMaps, Concept, GradCAM, Probe, Saliency
from lightning_xai.callbacks import Explanation

EARLY, LATE, GOAL = range(10, 30), 20, 1.1
SAMPLES = 2048


class Tiny(nn.Module):
    """Convolutions, one attention over the cells, one linear layer: every callback applies."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.features(images).flatten(2).mT
        return self.head((cells + self.attention(cells, cells, cells, need_weights=False)[0]).mean(1))


class Epochs(Callback):
    """The process time at the start of each epoch."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.at.append(time.process_time())

    def seconds(self, epochs: range) -> list[float]:
        return [self.at[epoch + 1] - self.at[epoch] for epoch in epochs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 epochs")
    parser.add_argument("--epochs", type=int, help="1000")
    args = parser.parse_args()
    epochs = args.epochs or (100 if args.quick else 1000)
    torch.set_num_threads(1)
    silence()
    over_the_run(epochs)
    over_the_probe(6 if args.quick else 12)


def over_the_run(epochs: int) -> None:
    """Late epochs over early ones."""
    images, labels = torch.randn(12, 3, 16, 16), torch.arange(12) % 3
    concepts: list[Concept | str] = [
        Concept("one", torch.randn(8, 3, 16, 16)),
        Concept("other", torch.randn(8, 3, 16, 16)),
    ]
    quiet: dict[str, Any] = {"background": False, "shown": 2}  # else drawing would hide what else there is
    callbacks: list[Explanation] = [
        GradCAM(**quiet),
        AttentionMaps(**quiet),
        TCAV(concepts=concepts, layers="net.features.1", classes=[0], random_sets=4, randoms=images, **quiet),
        Saliency(**quiet),
    ]
    clock = Epochs()
    with trained(Module(Tiny()), DataLoader(TensorDataset(images, labels), 4), [clock, *callbacks], epochs + 1):
        pass
    early, late = clock.seconds(EARLY), clock.seconds(range(epochs - LATE, epochs))
    assert all(len(callback.state.history.moments) == epochs + 1 for callback in callbacks)
    found = ratio(late, early)
    print(f"a tiny net with {len(callbacks)} callbacks, {epochs} readings each; an epoch, ms")
    print(
        f"  epochs {EARLY.start} to {EARLY.stop}: {1e3 * median(early):.1f}, the last {LATE}: {1e3 * median(late):.1f}"
    )
    print(f"  late over early: {sum(late) / sum(early):.3f} in sum, {shown(found)} by pairs")
    print(verdict(sum(late) / sum(early) <= GOAL, GOAL))


def over_the_probe(rounds: int) -> None:
    """GradCAM of many samples over Grad-CAM by hand, in chunks of as many."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    from image_folder import SmallResNet

    images, labels = torch.randn(SAMPLES, 3, SIZE, SIZE), torch.arange(SAMPLES) % CLASSES
    callback = TimedGradCAM(probe=Probe(images, labels), layers="last")
    by_hand = ByHand(Clock(torch.device("cpu")), images, labels, callback.batch_size)
    callback.clock = Clock(torch.device("cpu"))
    data = DataLoader(TensorDataset(images[:4], labels[:4]), 4)
    with trained(SmallResNet(CLASSES, SIZE), data, [by_hand, callback], rounds + 1) as folder:
        stored = max(file.stat().st_size for file in folder.rglob("grad_cam/*.npz")) / 2**20
    held, least = callback.clock.seconds[1:], by_hand.clock.seconds[1:]
    found = ratio(held, least)
    print(f"GradCAM of {SAMPLES} images of {SIZE} x {SIZE}, {callback.batch_size} at a time, {rounds} readings")
    print(f"  forwards and backwards {median(least):.2f} s, the training thread is held {median(held):.2f} s")
    print(f"  held over by hand: {shown(found)}; the largest file of the store: {stored:.2f} MiB")
    print(verdict(found.low <= GOAL and stored <= 2, GOAL))


class ByHand(Callback):
    """Grad-CAM by hand, once an epoch."""

    def __init__(self, clock: Clock, images: Tensor, labels: Tensor, batch_size: int) -> None:
        self.clock, self.chunks = clock, list(zip(images.split(batch_size), labels.split(batch_size), strict=True))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with self.clock, torch.enable_grad():
            for images, labels in self.chunks:
                floor(pl_module, Net(nn.Module, "last"), images, labels)


@contextmanager
def trained(model: LightningModule, data: Any, callbacks: list[Any], epochs: int) -> Iterator[Path]:
    """Train, and yield the folder of the run while it is there."""
    seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=TensorBoardLogger(folder),
            callbacks=callbacks,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        trainer.fit(model, data, data)
        yield Path(folder)


if __name__ == "__main__":
    main()
