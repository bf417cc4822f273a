"""A network that may cheat, and Grad-CAM and TCAV that show whether it does.

    python examples/shortcut.py --correlation 1.0    # a mark in the corner always tells the class
    python examples/shortcut.py --correlation 0.5    # it tells the class half of the time
    python examples/shortcut.py --correlation 1.0 --stop-at-effect 1.0    # ends once the class leans on its mark

All runs explain the same held-out images, so they can be compared side by side in one TensorBoard. Grad-CAM shows
where the network looks; TCAV tells how many logits the class "disc" owes to its own mark, beside what sets of images
with marks of any code give. The truth is known as well: what the network loses without the mark, and what it loses
without the shape.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
import warnings
from pathlib import Path

import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from shapes import CLASSES, Shapes, make_marked, make_shapes
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai import TCAV, Concept, GradCAM, Probe, load_run
from lightning_xai.render import draw
from lightning_xai.report import Filmstrip

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
HELD_OUT_SEED = 1_000_000  # the same held-out images in every run
DISC = CLASSES.index("disc")
LAYER = "features.10"  # the last with a gradient of its own for every image: after it come one layer and the mean
EFFECT = f"xai/tcav/{LAYER}/disc/mark/effect"
COLUMNS = {
    "share on mark": "xai/grad_cam/auto/share/mark",
    "share on object": "xai/grad_cam/auto/share/object",
    "lift on mark": "xai/grad_cam/auto/lift/mark",
    "lift on object": "xai/grad_cam/auto/lift/object",
    "causal share of mark": "truth/causal_share_of_mark",
    "accuracy with mark": "truth/accuracy_with_mark",
    "without mark": "truth/accuracy_without_mark",
    "effect of mark": EFFECT,
}


class ShapeNet(LightningModule):
    """Four convolutions with a last map of 12 x 12, global average pooling, a linear layer.

    A cell of the last map sees 10 x 10 pixels: small enough to tell the mark from what is beside it.
    """

    def __init__(self, held_out: Shapes) -> None:
        super().__init__()
        self.held_out = held_out
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.Conv2d(64, 64, 1), nn.ReLU()),
        )
        self.head = nn.Linear(64, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self(images), labels)
        self.log("loss/train", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        self.log("loss/validation", cross_entropy(self(images), labels))

    def on_validation_epoch_end(self) -> None:
        self.log_dict(truth(self, self.held_out))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def truth(model: nn.Module, shapes: Shapes) -> dict[str, float]:
    """What the mark is worth, by taking it away: the label's logit with it, without it, and without the shape."""
    whole, unmarked, no_object = (
        model(normalise(images)) for images in (shapes.images, shapes.without_mark, shapes.without_object)
    )
    label = shapes.labels[:, None]
    by_mark = (whole - unmarked).gather(1, label).mean().clamp_min(0)
    by_object = (whole - no_object).gather(1, label).mean().clamp_min(0)
    return {
        "truth/causal_share_of_mark": float(by_mark / (by_mark + by_object).clamp_min(1e-9)),
        "truth/accuracy_with_mark": float((whole.argmax(1) == shapes.labels).float().mean()),
        "truth/accuracy_without_mark": float((unmarked.argmax(1) == shapes.labels).float().mean()),
    }


class Progress(Callback):
    """Prints a line an epoch and keeps its numbers for the summary."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs.append(metrics)
        print(
            f"epoch {trainer.current_epoch}   loss {metrics['loss/validation']:.3f}"
            f"   relevance on the mark {metrics[COLUMNS['share on mark']]:.2f}"
            f"   on the object {metrics[COLUMNS['share on object']]:.2f}"
            f"   effect of the mark {metrics[EFFECT]:.2f}"
            f"   ({time.perf_counter() - self.start:.0f} s)",
            flush=True,
        )


def normalise(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std


def make_probe(shapes: Shapes, per_class: int) -> Probe:
    """The first images of each class, with the truth about where the shape and the mark are."""
    chosen = torch.cat([(shapes.labels == label).nonzero()[:per_class, 0] for label in range(len(CLASSES))])
    return Probe(
        normalise(shapes.images[chosen]),
        shapes.labels[chosen],
        masks={"object": shapes.object[chosen], "mark": shapes.mark[chosen]},
        class_names=CLASSES,
        mean=MEAN,
        std=STD,
    )


def make_tcav(held_out: Shapes) -> TCAV:
    """What the mark of discs does to the class "disc", beside marks of any code.

    Both are marks: images without any are nothing that a network of this data has ever seen, and it may answer to
    that alone.
    """
    return TCAV(
        concepts=[Concept("mark", normalise(make_marked(50, code=DISC, seed=HELD_OUT_SEED + 1)))],
        layers=LAYER,
        classes=[DISC],
        randoms=normalise(make_shapes(500, correlation=0.0, seed=HELD_OUT_SEED + 2).images),
        probe=make_probe(held_out, per_class=32),
        class_names=list(CLASSES),
    )


def loader(shapes: Shapes, *, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(normalise(shapes.images), shapes.labels), batch_size=32, shuffle=shuffle)


def make_logger(kind: str, output: Path, version: str) -> Logger:
    """A logger whose run is named after its settings."""
    if kind == "wandb":
        output.mkdir(parents=True, exist_ok=True)
        return WandbLogger(project="shortcut", name=version, save_dir=str(output))
    folder = output / "shortcut" / version
    if folder.exists():
        # TensorBoard would draw the events of both runs as one curve.
        if not any(folder.glob("events.out.tfevents.*")):
            raise SystemExit(f"{folder} holds something else than an earlier run: move it, or give --output")
        print(f"replacing the earlier run in {folder}")
        shutil.rmtree(folder)
    return TensorBoardLogger(str(output), name="shortcut", version=version)


def save_filmstrip(folder: Path) -> Path:
    """The history of the probe, drawn from what the run has stored."""
    run = load_run(folder)
    probe, readings = run.probes["grad_cam"], run.readings["grad_cam"]
    if probe is None or probe.targets is None or (images := probe.images()) is None:
        raise SystemExit(f"{folder} holds no images with labels")
    maps = torch.stack([reading.measured.rows["maps/auto"] for reading in readings], 1)
    picture = Filmstrip(
        images=images,
        maps=maps,
        captions=[probe.label(int(target)) for target in probe.targets],
        columns=[f"epoch {reading.epoch}" for reading in readings],
        scale=float(maps.max()),
        title=f"Grad-CAM, {folder.name}",
    )
    path = folder / "filmstrip.png"
    Image.fromarray(draw(picture).numpy()).save(path)
    return path


def save_effects(folder: Path) -> Path:
    """The effect over the run, as it was logged."""
    report = load_run(folder).readings["tcav"][-1].report()
    path = folder / "effects.png"
    Image.fromarray(draw(report.pictures[f"xai/tcav/{LAYER}/effects"]).numpy()).save(path)
    return path


def print_summary(epochs: list[dict[str, float]]) -> None:
    width = max(map(len, COLUMNS))
    first, last = epochs[0], epochs[-1]
    print(f"\n{'':{width}}   {'epoch 0':>8}   {f'epoch {len(epochs) - 1}':>8}")
    for title, name in COLUMNS.items():
        print(f"{title:{width}}   {first[name]:8.2f}   {last[name]:8.2f}")
    print(
        "\nshare: part of Grad-CAM's relevance inside the mask. lift: share over area, 1 is a blind map."
        "\ncausal share: the logit that removing the mark costs, of what removing mark or object costs."
        f"\neffect of the mark's concept in logits, and the random band: {last[EFFECT]:.2f}, "
        f"{last[f'{EFFECT}_lower']:.2f} to {last[f'{EFFECT}_upper']:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--correlation", type=float, default=1.0, help="how often the mark tells the class")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=1536, help="training images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logger", choices=("tensorboard", "wandb"), default="tensorboard")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--stop-at-effect", type=float, help="end the run when the mark's effect passes these logits")
    args = parser.parse_args()
    if not 0 <= args.correlation <= 1:
        parser.error(f"--correlation is a probability between 0 and 1, not {args.correlation}")
    if args.epochs < 1 or args.images < 1:
        parser.error("--epochs and --images start at 1")
    torch.set_num_threads(1)  # on a busy machine, threads of so small a network wait for each other for minutes
    logging.disable(logging.INFO)  # Lightning's lines about hardware and its products
    for noise in (".*does not have many workers.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=noise)

    version = f"correlation-{args.correlation}" + (f"-seed-{args.seed}" if args.seed else "")
    logger = make_logger(args.logger, args.output, version)
    print(f"{args.images} images whose mark tells the class with probability {args.correlation}")

    seed_everything(args.seed, verbose=False)
    train = make_shapes(args.images, correlation=args.correlation, seed=2 * args.seed)
    validation = make_shapes(256, correlation=args.correlation, seed=2 * args.seed + 1)
    held_out = make_shapes(256, correlation=1.0, seed=HELD_OUT_SEED)

    progress = Progress()
    callbacks = [GradCAM(probe=make_probe(held_out, per_class=2)), make_tcav(held_out), progress]
    if args.stop_at_effect is not None:
        # patience never runs out: an effect that falls is what one hopes for
        callbacks.append(
            EarlyStopping(EFFECT, mode="max", stopping_threshold=args.stop_at_effect, patience=args.epochs + 1)
        )
    trainer = Trainer(
        accelerator="cpu",  # a GPU gains nothing at this size
        max_epochs=args.epochs,
        logger=logger,
        callbacks=callbacks,
        log_every_n_steps=8,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(ShapeNet(held_out), loader(train, shuffle=True), loader(validation))

    print_summary(progress.epochs)
    folder = Path(logger.save_dir or args.output) / str(logger.name) / str(logger.version)
    if len(progress.epochs) < args.epochs:
        print(f"\nstopped after epoch {len(progress.epochs) - 1}: the mark's effect passed {args.stop_at_effect}")
    print(f"\nfilmstrip: {save_filmstrip(folder)}\neffects: {save_effects(folder)}")
    if args.logger == "tensorboard":
        logdir = args.output / "shortcut"
        print(f"pictures over time: tensorboard --logdir {logdir} --samples_per_plugin images=1000")


if __name__ == "__main__":
    main()
