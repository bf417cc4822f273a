"""Projects of every usual kind: a module, its batches, and the score of each sample written by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

SIZE, CLASSES, WORDS, LENGTH = 16, 4, 12, 7


@dataclass(frozen=True)
class Project:
    """One kind of project.

    Args:
        module: makes the LightningModule.
        sample: the index-th sample, as a dataset gives it.
        score: (module, batch) -> (N,) what is explained, in plain torch.
        task: what its output means.
        seen: what its step feeds.
        collate: makes a batch of samples; None as a DataLoader does.
    """

    module: Callable[[], pl.LightningModule]
    sample: Callable[[int], Any]
    score: Callable[[Any, Any], Tensor]
    task: str
    seen: str
    collate: Callable[[list[Any]], Any] | None = None

    def loader(self, samples: int = 8, batch_size: int = 4) -> DataLoader:
        return DataLoader(Samples(self.sample, samples), batch_size, collate_fn=self.collate)

    def batch(self, samples: int = 6) -> Any:
        return next(iter(self.loader(samples, samples)))


class Samples(Dataset):
    def __init__(self, sample: Callable[[int], Any], count: int) -> None:
        self.sample, self.count = sample, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.sample(index)


class Module(pl.LightningModule):
    """What all have: a small net, and steps that are the same."""

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = cnn() if net is None else net
        self.setup_parts()

    def setup_parts(self) -> None: ...

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def draw(index: int) -> torch.Generator:
    return torch.Generator().manual_seed(100 + index)


def image(index: int) -> Tensor:
    return torch.rand(3, SIZE, SIZE, generator=draw(index))


def label(index: int) -> int:
    return index % CLASSES


def ids(index: int) -> Tensor:
    return torch.randint(2, WORDS, (LENGTH,), generator=draw(index))


def padding(index: int) -> Tensor:
    return (torch.arange(LENGTH) < LENGTH - index % 3).long()


def features() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU())


def cnn(outputs: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(features(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs))


def at_label(logits: Tensor, labels: Tensor) -> Tensor:
    return logits[torch.arange(len(logits)), labels]


class DictBatch(Module):
    def setup_parts(self):
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, x):
        return self.net(x)

    def step(self, batch):
        return self.criterion(self(batch["image"]), batch["label"])


class NoForward(Module):
    def step(self, batch):
        return F.cross_entropy(self.net(batch["pixels"] / 255), batch["y"])


class EncoderHead(Module):
    def setup_parts(self):
        self.net = None
        self.encoder, self.head = features(), nn.Linear(8, CLASSES)

    def step(self, batch):
        x, y = batch
        return F.cross_entropy(self.head(self.encoder(x).mean((2, 3))), y)


class Regression(Module):
    def setup_parts(self):
        self.net, self.criterion = cnn(1), nn.MSELoss()

    def forward(self, x):
        return self.net(x)

    def step(self, batch):
        x, y = batch
        return self.criterion(self(x)[:, 0], y)


class MultiLabel(Module):
    def setup_parts(self):
        self.criterion = nn.BCEWithLogitsLoss()

    def forward(self, x):
        return self.net(x)

    def step(self, batch):
        x, y = batch
        return self.criterion(self(x), y.float())


class Segmentation(Module):
    def setup_parts(self):
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, CLASSES, 1))

    def forward(self, x):
        return self.net(x)

    def step(self, batch):
        return F.cross_entropy(self(batch["image"]), batch["mask"], ignore_index=255)


class TwoViews(Module):
    def forward(self, x):
        return self.net(x)

    def step(self, batch):
        (one, other), _, _ = batch
        return -F.cosine_similarity(self(one), self(other)).mean()


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Embedding(WORDS, 8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, ids, mask, kinds):
        x = self.embed(ids) + kinds[..., None]
        x = x + self.attend(x, x, x, key_padding_mask=mask == 0)[0]
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class FourItems(Module):
    def setup_parts(self):
        self.net, self.head = Attending(), nn.Linear(8, CLASSES)

    def forward(self, ids, mask, kinds):
        return self.head(self.net(ids, mask, kinds))

    def step(self, batch):
        ids, mask, kinds, label = batch
        return F.cross_entropy(self(ids, mask, kinds), label)


@dataclass
class Window:
    past: Tensor
    future: Tensor


class Forecasting(Module):
    def setup_parts(self):
        self.net = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 24, 6))

    def forward(self, past):
        return self.net(past[:, None])

    def step(self, batch):
        return F.smooth_l1_loss(self(batch.past), batch.future)


class TokenClassification(Module):
    def setup_parts(self):
        self.net = nn.Sequential(nn.Embedding(WORDS, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    def forward(self, input_ids, attention_mask):
        return {"logits": self.net(input_ids) * attention_mask[..., None]}

    def step(self, batch):
        out = self(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return F.cross_entropy(out["logits"].view(-1, CLASSES), batch["tags"].view(-1))


class Language(Module):
    def setup_parts(self):
        self.net = nn.Sequential(nn.Embedding(WORDS, 8), nn.ReLU(), nn.Linear(8, WORDS))

    def forward(self, ids):
        return self.net(ids)

    def step(self, ids):
        logits = self(ids)
        return F.cross_entropy(logits[:, :-1].reshape(-1, WORDS), ids[:, 1:].reshape(-1))


class Detector(nn.Module):
    """Takes a list of images; returns a dict of boxes and scores for each, as torchvision's detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.score = features(), nn.Conv2d(8, 1, 1)

    def forward(self, images):
        found = []
        for x in images:
            scores = self.score(self.body(x[None])).sigmoid().flatten()
            found.append({"boxes": torch.zeros(len(scores), 4), "scores": scores})
        return found


class Detection(Module):
    def setup_parts(self):
        self.net = Detector()

    def training_step(self, batch, batch_idx):
        images, targets = batch
        wanted = torch.stack([target["boxes"].new_tensor(len(target["boxes"])) for target in targets])
        return sum((d["scores"].sum() - w).square() for d, w in zip(self.net(images), wanted, strict=True))

    def validation_step(self, batch, batch_idx):
        images, _ = batch
        self.net(list(images))


class Pair(NamedTuple):
    views: Any
    label: Any
    name: Any


def _boxes(index: int) -> dict[str, Tensor]:
    return {"boxes": torch.rand(1 + index % 2, 4, generator=draw(index)), "labels": torch.ones(1 + index % 2).long()}


def _multi_hot(index: int) -> Tensor:
    return torch.tensor([1, index % 2, 0, 1 - index % 2])


def _mask(index: int) -> Tensor:
    mask = torch.zeros(SIZE, SIZE, dtype=torch.long)
    mask[4:9, 4:9], mask[0] = 1 + index % 3, 255
    return mask


def _segmented(module: Any, batch: Any) -> Tensor:
    logits, mask = module.net(batch["image"]), batch["mask"]
    classes = [int(m[m != 255].max()) for m in mask]
    return torch.stack([z[c][m == c].mean() for z, m, c in zip(logits, mask, classes, strict=True)])


def _tags(index: int) -> Tensor:
    return torch.where(padding(index) == 1, torch.arange(LENGTH) % 2 * (1 + index % 3), -100)


def _tagged(module: Any, batch: Any) -> Tensor:
    logits = module(batch["input_ids"], batch["attention_mask"])["logits"]
    classes = [int(t.max()) for t in batch["tags"]]
    return torch.stack([z[t == c][:, c].mean() for z, t, c in zip(logits, batch["tags"], classes, strict=True)])


def _lowest(module: Any, batch: Any) -> Tensor:
    x, y = batch
    return module(x).masked_fill(y == 0, torch.inf).amin(1)


PROJECTS: dict[str, Project] = {
    "dict batch": Project(
        DictBatch,
        lambda i: {"image": image(i), "label": label(i), "crs": "EPSG:4326"},
        lambda m, b: at_label(m.net(b["image"]), b["label"]),
        "multiclass",
        'validation_step feeds batch["image"] to self',
    ),
    "no forward": Project(
        NoForward,
        lambda i: {"pixels": (image(i) * 255).to(torch.uint8), "y": label(i)},
        lambda m, b: at_label(m.net(b["pixels"] / 255), b["y"]),
        "multiclass",
        'validation_step feeds what it makes of batch["pixels"] to self.net',
    ),
    "encoder and head": Project(
        EncoderHead,
        lambda i: (image(i), label(i)),
        lambda m, b: at_label(m.head(m.encoder(b[0]).mean((2, 3))), b[1]),
        "multiclass",
        "validation_step feeds batch[0] to self.encoder (then calls self.head)",
    ),
    "regression": Project(
        Regression,
        lambda i: (image(i), 3.0 * torch.rand((), generator=draw(i))),
        lambda m, b: m.net(b[0])[:, 0],
        "regression",
        "validation_step feeds batch[0] to self",
    ),
    "multi-label": Project(
        MultiLabel,
        lambda i: (image(i), _multi_hot(i)),
        _lowest,
        "multilabel",
        "validation_step feeds batch[0] to self",
    ),
    "segmentation": Project(
        Segmentation,
        lambda i: {"image": image(i), "mask": _mask(i)},
        _segmented,
        "segmentation",
        'validation_step feeds batch["image"] to self',
    ),
    "two views": Project(
        TwoViews,
        lambda i: Pair([image(i), image(i).flip(2)], label(i), f"{i}.png"),
        lambda m, b: F.cosine_similarity(m.net(b[0][0]), m.net(b[0][1])),
        "embedding",
        "validation_step feeds batch.views[0] to self (then calls self)",
    ),
    "four items": Project(
        FourItems,
        lambda i: (ids(i), padding(i), torch.arange(LENGTH) % 2, label(i)),
        lambda m, b: at_label(m(*b[:3]), b[3]),
        "multiclass",
        "validation_step feeds batch[0], batch[1] and batch[2] to self",
    ),
    "forecasting": Project(
        Forecasting,
        lambda i: (torch.rand(24, generator=draw(i)), torch.rand(6, generator=draw(i + 50))),
        lambda m, b: m(b.past).mean(1),
        "regression",
        "validation_step feeds batch.past to self",
        lambda samples: Window(*(torch.stack(part) for part in zip(*samples, strict=True))),
    ),
    "token classification": Project(
        TokenClassification,
        lambda i: {"input_ids": ids(i), "attention_mask": padding(i), "tags": _tags(i)},
        _tagged,
        "tokens",
        'validation_step feeds batch["input_ids"] and batch["attention_mask"] to self',
    ),
    "language model": Project(
        Language,
        ids,
        lambda m, b: at_label(m(b)[:, -2], b[:, -1]),
        "language",
        "validation_step feeds batch to self",
    ),
    "detection": Project(
        Detection,
        lambda i: (image(i), _boxes(i)),
        lambda m, b: torch.stack([found["scores"].sum() for found in m.net(b[0])]),
        "detection",
        "validation_step feeds batch[0][0], batch[0][1], batch[0][2] and 3 more to self.net",
        lambda samples: tuple(zip(*samples, strict=True)),
    ),
}
