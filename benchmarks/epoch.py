"""What the whole callback takes of an epoch, pictures and TensorBoard included."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from measure import synchronise
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.profilers import SimpleProfiler
from torch.utils.data import DataLoader, TensorDataset
from training import silence

from lightning_xai import GradCAM

CLASSES, SIZE = 10, 32


class Epochs(NamedTuple):
    """Seconds of each epoch, validation included, and the part that all hooks of GradCAM took in it."""

    seconds: list[float]
    callback: list[float]


class HookTimes(SimpleProfiler):
    """Lightning's times of every hook, without the work that a GPU still has queued at the end of an epoch."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def start(self, action_name: str) -> None:
        if action_name.endswith("epoch_end"):
            synchronise(self.device)
        super().start(action_name)

    def summary(self) -> str:
        return ""


def train_with_grad_cam(images: int, epochs: int, device: torch.device) -> Epochs:
    """Train the network of `examples/image_folder.py` on generated images of CIFAR-10's shape."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    from image_folder import SmallResNet

    silence()
    seed_everything(0, verbose=False)
    callback, times = GradCAM(background=False), HookTimes(device)  # else its thread would not be counted
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=epochs,
            logger=TensorBoardLogger(folder),
            callbacks=[callback],
            profiler=times,
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(SmallResNet(CLASSES, SIZE), loader(images, shuffle=True), loader(images // 4))
    recorded = times.recorded_durations
    mine = {name: spent for name, spent in recorded.items() if name.startswith(f"[Callback]{callback.state_key}.")}
    readings = next(spent for name, spent in mine.items() if name.endswith(".on_validation_epoch_end"))
    rest = (sum(map(sum, mine.values())) - sum(readings)) / epochs  # every batch's hooks and the like
    return Epochs(recorded["run_training_epoch"], [reading + rest for reading in readings])


def loader(images: int, shuffle: bool = False) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Noise, with a mean for each class so that there is something to learn."""
    labels = torch.arange(images) % CLASSES
    data = torch.randn(images, 3, SIZE, SIZE) + labels[:, None, None, None] / CLASSES
    return DataLoader(TensorDataset(data, labels), batch_size=32, shuffle=shuffle)
