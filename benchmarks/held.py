"""How long GradCAM holds the training thread at a reading, beside the floor: forward and backward to the layer.

    python benchmarks/held.py [--quick] [--rounds 20]

ResNet-18 at its last stage, 8 images of 224 x 224, TensorBoard. A round is an epoch: one reading of each contender.
The time is that of the hook from its start to its end. On a CPU it is the training thread's own CPU time: neither
what runs behind it nor others' work counts. A held time is over the floor of the same round, as the median with its
95% interval; the goal is met where the interval reaches it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from statistics import median

import torch
from contenders import floor
from grad_cam import shown, verdict
from measure import ratio, synchronise
from nets import NETS
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from training import Module, silence

from lightning_xai import GradCAM, Probe

NET, SIZE, BATCH, GOAL = NETS["resnet18"], 224, 8, 1.2


class Clock:
    """Seconds between its entry and its exit, in a list: the thread's CPU time, on a GPU those that pass."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []

    def now(self) -> float:
        synchronise(self.device)
        return time.thread_time() if self.device.type == "cpu" else time.perf_counter()

    def __enter__(self) -> None:
        self.start = self.now()

    def __exit__(self, *_: object) -> None:
        self.seconds.append(self.now() - self.start)


class TimedGradCAM(GradCAM):
    clock: Clock

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with self.clock:
            super().on_validation_epoch_end(trainer, pl_module)


class TimedFloor(Callback):
    """Grad-CAM by hand, once an epoch."""

    def __init__(self, clock: Clock, images: Tensor, labels: Tensor) -> None:
        self.clock, self.images, self.labels = clock, images, labels

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with self.clock, torch.enable_grad():
            images, labels = (tensor.to(pl_module.device) for tensor in (self.images, self.labels))
            floor(pl_module.get_submodule("net"), NET, images, labels).cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--rounds", type=int, help="20, with --quick 6 (the fewest that give a 95%% interval)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device, rounds = torch.device(args.device), args.rounds or (6 if args.quick else 20)
    torch.set_num_threads(1)
    silence()
    seconds = held(rounds, device)
    print(
        f"GradCAM, resnet18 at {NET.layer}, {BATCH} images of {SIZE} x {SIZE}, TensorBoard; {rounds} readings, {device}"
    )
    print(f"  {'the training thread is held':<28} {'ms':>8}   over the floor")
    for name, spent in seconds.items():
        print(f"  {name:<28} {1e3 * median(spent):8.1f}   {shown(ratio(spent, seconds['floor']))}")
    print(verdict(ratio(seconds["background=True"], seconds["floor"]).low <= GOAL, GOAL))


def held(rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Contender -> the seconds of each reading."""
    seed_everything(0, verbose=False)
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.arange(BATCH)
    clocks = {name: Clock(device) for name in ("floor", "background=True", "background=False")}
    callbacks: list[Callback] = [TimedFloor(clocks["floor"], images, labels)]
    for background in (True, False):
        name = "behind" if background else "before"
        callback = TimedGradCAM(
            probe=Probe(images, labels), layers=f"net.{NET.layer}", name=name, background=background
        )
        callback.clock = clocks[f"background={background}"]
        callbacks.append(callback)
    data = DataLoader(TensorDataset(images[:2], labels[:2]), batch_size=2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=rounds + 1,  # the first reading allocates and chooses algorithms
            logger=TensorBoardLogger(folder),
            callbacks=callbacks,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Module(NET.build()), data, data)
    return {name: clock.seconds[1:] for name, clock in clocks.items()}


if __name__ == "__main__":
    main()
