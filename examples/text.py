"""Train a text classifier and watch which words it looks at, and which of them count.

    python examples/text.py                                       # sentences that it makes up
    python examples/text.py --model transformer --data FILE.tsv   # a sentence and a label a line, with a tab between

In the made-up sentences one keyword decides, and the word before it is worthless, though it is nearly always there.
At the end stands how much of the attention, and of the relevance, each of them has. The two differ in a transformer:
attention says where a layer looks, relevance (attention weighted by its gradient) what of it counts.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from sentences import KEYWORDS, WORTHLESS, Sentence, Vocabulary, make_sentences, read_sentences
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai import AttentionMaps, load_run
from lightning_xai.render import draw

LONGEST = 64


class Attention(nn.Module):
    """Additive attention: one weight for each state of a sequence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, states: Tensor, padding: Tensor) -> Tensor:
        weights = self.score(states).masked_fill(padding[..., None], -torch.inf).softmax(1)
        return (weights * states).sum(1)


class LSTMClassifier(nn.Module):
    def __init__(self, words: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.attention = Attention(width)
        self.head = nn.Linear(width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(ids))
        return self.head(self.attention(states, ids == 0))


class TransformerClassifier(nn.Module):
    """Two layers; the answer is read from the first token, [CLS]."""

    def __init__(self, words: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.position = nn.Parameter(0.02 * torch.randn(LONGEST, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.embedding(ids) + self.position[: ids.shape[1]]
        return self.head(self.encoder(embedded, src_key_padding_mask=ids == 0)[:, 0])


MODELS: dict[str, Callable[[int, int], nn.Module]] = {"lstm": LSTMClassifier, "transformer": TransformerClassifier}


class TextClassifier(LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, ids: Tensor) -> Tensor:
        return self.net(ids)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = cross_entropy(self(batch[0]), batch[1])
        self.log("loss/train", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        logits = self(batch[0])
        self.log("loss/validation", cross_entropy(logits, batch[1]))
        self.log("accuracy/validation", (logits.argmax(1) == batch[1]).float().mean())

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            metrics = self.trainer.callback_metrics
            accuracy, loss = metrics["accuracy/validation"], metrics["loss/validation"]
            print(f"epoch {self.current_epoch}   loss {loss:.3f}   accuracy {accuracy:.3f}", flush=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def print_shares(folder: Path) -> None:
    """How much of the last reading lies on the keyword and on the worthless word, over the explained sentences."""
    run = load_run(folder)
    probe, rows = run.probes["attention_maps"], run.readings["attention_maps"][-1].measured.rows
    if probe is None or probe.tokens is None:
        raise SystemExit(f"{folder} holds no sentences")
    groups = {"keyword": {word for words in KEYWORDS.values() for word in words}, "worthless": {WORTHLESS}}
    print(f"\n{'share on':30} {'keyword':>10} {'worthless':>10}")
    for key in (key for key in rows if key.startswith("maps/")):
        maps = rows[key] / rows[key].sum(1, keepdim=True).clamp_min(1e-12)
        shares = []
        for group in groups.values():
            hits = torch.tensor([[token in group for token in tokens] for tokens in probe.tokens])
            shares.append(float((maps * hits).sum(1)[hits.any(1)].mean()))
        print(f"{key.removeprefix('maps/'):30} {shares[0]:10.3f} {shares[1]:10.3f}")


def save_relevance(folder: Path) -> Path:
    pictures = load_run(folder).readings["attention_maps"][-1].report().pictures
    path = folder / "relevance.png"
    Image.fromarray(draw(pictures["xai/attention_maps/relevance"]).numpy()).save(path)
    return path


def tensors(sentences: list[Sentence], vocabulary: Vocabulary, classes: list[str], length: int) -> TensorDataset:
    labels = torch.tensor([classes.index(label) for _, label in sentences])
    dataset = TensorDataset(vocabulary.encode(sentences, length), labels)
    dataset.classes = classes  # names for the captions
    return dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(MODELS), default="lstm")
    parser.add_argument("--data", type=Path, help="labelled sentences; made up where there are none")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--sentences", type=int, default=2000, help="how many are made up")
    parser.add_argument("--probe", type=int, default=8, help="sentences that are explained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs"))
    args = parser.parse_args()
    torch.set_num_threads(1)  # on a busy machine, threads of so small a network wait for each other for minutes
    logging.disable(logging.INFO)  # Lightning's lines about hardware and its products
    for noise in (".*does not have many workers.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=noise)

    seed_everything(args.seed, verbose=False)
    sentences = make_sentences(args.sentences, args.seed) if args.data is None else read_sentences(args.data)
    classes = sorted({label for _, label in sentences})
    order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0)).tolist()
    cut = max(1, len(sentences) // 5)
    validation, train = ([sentences[i] for i in some] for some in (order[:cut], order[cut:]))
    vocabulary = Vocabulary(train)
    length = min(LONGEST, 1 + max(len(words) for words, _ in sentences))
    print(f"{len(train)} training and {len(validation)} validation sentences, {len(vocabulary.words)} words")

    logger = TensorBoardLogger(args.output, "text", args.model)
    trainer = Trainer(
        accelerator="cpu",  # a GPU gains nothing at this size
        max_epochs=args.epochs,
        logger=logger,
        callbacks=[AttentionMaps(decode=vocabulary.decode, probe_size=args.probe)],  # all there is to add
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(
        TextClassifier(MODELS[args.model](len(vocabulary.words), len(classes))),
        DataLoader(tensors(train, vocabulary, classes, length), batch_size=32, shuffle=True),
        DataLoader(tensors(validation, vocabulary, classes, length), batch_size=32),
    )
    if args.data is None:
        print_shares(Path(logger.log_dir))
    print(f"\nthe relevance over the run: {save_relevance(Path(logger.log_dir))}")
    print(f"tensorboard --logdir {args.output / 'text'} --samples_per_plugin images=1000")


if __name__ == "__main__":
    main()
