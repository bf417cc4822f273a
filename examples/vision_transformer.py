"""A small vision transformer that may cheat as `shortcut.py` lets a network cheat, and what its attention says of it.

python examples/vision_transformer.py --correlation 1.0
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from shapes import CLASSES, make_shapes
from shortcut import HELD_OUT_SEED, loader, make_probe
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_xai import AttentionMaps, load_run
from lightning_xai.render import draw

SIZE, PATCH, WIDTH = 48, 6, 48
SHARES = ("relevance/share/mark", "rollout/share/mark", "relevance/share/object", "rollout/share/object")


class ViT(LightningModule):
    """Three layers over 8 x 8 patches and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(0.02 * torch.randn(1, (SIZE // PATCH) ** 2 + 1, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], 1) + self.places
        return self.head(self.encoder(tokens)[:, 0])

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("accuracy/validation", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def on_train_epoch_end(self) -> None:
        accuracy = self.trainer.callback_metrics["accuracy/validation"]
        print(f"epoch {self.current_epoch}   accuracy {accuracy:.3f}", flush=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--correlation", type=float, default=1.0, help="how often the mark tells the class")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=1536, help="training images")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    args = parser.parse_args()
    torch.set_num_threads(1)  # on a busy machine, threads of so small a network wait for each other for minutes
    logging.disable(logging.INFO)  # Lightning's lines about hardware and its products
    for noise in (".*does not have many workers.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=noise)

    seed_everything(0, verbose=False)
    train, validation = (make_shapes(n, correlation=args.correlation, seed=n) for n in (args.images, 256))
    held_out = make_shapes(64, correlation=1.0, seed=HELD_OUT_SEED)
    logger = TensorBoardLogger(args.output, "vision_transformer", f"correlation-{args.correlation}")
    trainer = Trainer(
        accelerator="cpu",  # a GPU gains nothing at this size
        max_epochs=args.epochs,
        logger=logger,
        callbacks=[AttentionMaps(probe=make_probe(held_out, per_class=1), scale="image")],
        log_every_n_steps=8,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(ViT(), loader(train, shuffle=True), loader(validation))

    for name in SHARES:
        print(f"{name:24} {float(trainer.callback_metrics[f'xai/attention_maps/{name}']):.2f}")
    folder = Path(logger.log_dir)
    pictures = load_run(folder).readings["attention_maps"][-1].report().pictures
    path = folder / "relevance.png"
    Image.fromarray(draw(pictures["xai/attention_maps/relevance/filmstrip"]).numpy()).save(path)
    print(f"\nthe relevance over the run: {path}")
    print(f"tensorboard --logdir {args.output / 'vision_transformer'} --samples_per_plugin images=1000")


if __name__ == "__main__":
    main()
