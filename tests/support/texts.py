"""Short texts in which one word decides, as token ids, and their loader."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

WORDS = ["[PAD]", "[CLS]", "good", "bad", "a", "film", "plot", "scene"]
LENGTH = 9


def texts(count: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ids (N, LENGTH) that begin with [CLS], hold one word that decides and end in padding; and labels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, len(WORDS), (count, LENGTH), generator=generator)
    labels = torch.arange(count) % 2
    ids[:, 0], ids[torch.arange(count), 1 + torch.arange(count) % 3] = 1, 2 + labels
    lengths = 5 + torch.arange(count) % 4
    return ids * (torch.arange(LENGTH) < lengths[:, None]), labels


def decode(ids: Tensor) -> list[str]:
    return [WORDS[place] for place in ids.tolist()]


def text_loader(count: int = 8, seed: int = 0, mapping: bool = False) -> DataLoader:
    ids, labels = texts(count, seed)
    if not mapping:
        return DataLoader(TensorDataset(ids, labels), 4)
    samples = [
        {"input_ids": row, "attention_mask": (row > 0).long(), "labels": label}
        for row, label in zip(ids, labels, strict=True)
    ]
    return DataLoader(samples, 4)
