"""Train a small residual network on folders of images and watch how much its classes depend on concepts.

    python examples/concepts.py --data FOLDER                        # generated stripes, checks and red
    python examples/concepts.py --data FOLDER --concepts CONCEPTS    # your own: one folder of images a concept

FOLDER is as in image_folder.py. CONCEPTS holds folders of images: `striped`, `water`, ... About 50 images each are
enough, cut so that they show the concept and little else. They are resized and normalised as the data are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from image_folder import MEAN, STD, Images, SmallResNet, find_data
from PIL import Image
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_xai import TCAV, Concept, load_run
from lightning_xai.concept import drawn
from lightning_xai.render import draw


def make_concepts(folder: Path | None, size: int) -> list[Concept | str]:
    """The folders of a folder, whose images TCAV prepares as its probe is; or a few concepts that are generated."""
    if folder is not None:
        return [str(found) for found in Concept.folders_in(folder)]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def examples(kind: str) -> Tensor:
        return (drawn(kind, 50, (size, size)) - mean) / std

    return [Concept(kind, examples(kind)) for kind in ("stripes", "checks", "red")]


def save_effects(folder: Path) -> list[Path]:
    """The curves of the whole run, one picture a layer."""
    paths = []
    for tag, picture in load_run(folder).readings["tcav"][-1].report().pictures.items():
        paths.append(folder / f"{tag.removeprefix('xai/').replace('/', '-')}.png")
        Image.fromarray(draw(picture).numpy()).save(paths[-1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--concepts", type=Path, help="folder of folders of images, one a concept")
    parser.add_argument("--layers", nargs="+", default=["blocks"], help="names or patterns; before the last layer")
    parser.add_argument("--classes", type=int, nargs="+", help="indices of classes; by default the first four")
    parser.add_argument("--random-sets", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    parser.add_argument("--output", default="runs")
    args = parser.parse_args()

    seed_everything(0, verbose=False)
    train, validation, classes = find_data(args.data)
    print(f"{len(train)} training and {len(validation)} validation images of {len(classes)} classes")
    loading = {"batch_size": args.batch_size, "num_workers": args.workers}
    explained = args.classes or list(range(min(4, len(classes))))
    try:
        concepts = make_concepts(args.concepts, args.size)
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from error

    logger = TensorBoardLogger(args.output, args.data.resolve().name)
    tcav = TCAV(
        concepts=concepts,
        layers=args.layers,
        classes=explained,
        # never augmented data: what augmentation does to random sets would count as a concept
        randoms=Images(train, classes, args.size),
        random_sets=args.random_sets,
        class_names=classes,
        mean=MEAN,
        std=STD,
    )
    trainer = Trainer(max_epochs=args.epochs, logger=logger, callbacks=[tcav], log_every_n_steps=10)
    trainer.fit(
        SmallResNet(len(classes), args.size),
        DataLoader(Images(train, classes, args.size, augment=True), shuffle=True, **loading),
        DataLoader(Images(validation, classes, args.size), **loading),
    )
    for path in save_effects(Path(logger.log_dir)):
        print(f"effects: {path}")
    print(f"tensorboard --logdir {Path(args.output) / logger.name} --samples_per_plugin images=1000")


if __name__ == "__main__":
    main()
