"""Labelled sentences: from a file, or made up so that the truth about every word is known."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

PAD, UNKNOWN, CLS = "[PAD]", "[UNK]", "[CLS]"
KEYWORDS = {"positive": ["superb", "moving", "witty"], "negative": ["dreadful", "clumsy", "tedious"]}
WORTHLESS = "honestly"  # in nearly every sentence, beside the keyword, whatever the label is
FILLERS = ["the", "film", "plot", "cast", "scene", "story", "camera", "ending", "script", "half", "was", "felt", "and"]
Sentence = tuple[list[str], str]


def make_sentences(number: int, seed: int = 0) -> list[Sentence]:
    """Fillers, one keyword that decides, and in nine of ten sentences the worthless word just before it."""
    draw = random.Random(seed)
    sentences = []
    for _ in range(number):
        label = draw.choice(list(KEYWORDS))
        words = draw.choices(FILLERS, k=draw.randint(6, 12))
        keyword = draw.choice(KEYWORDS[label])
        place = draw.randint(1, len(words))
        words[place:place] = [WORTHLESS, keyword] if draw.random() < 0.9 else [keyword]
        sentences.append((words, label))
    return sentences


def read_sentences(path: Path) -> list[Sentence]:
    """Lines of a sentence and its label, either first, with a tab between; a first line may name them."""
    if not path.is_file():
        raise SystemExit(f"{path} is no file")
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    wrong = next((number for number, parts in enumerate(lines, 1) if len(parts) != 2), None)
    if wrong is not None or not lines:
        place = f", line {wrong}," if wrong is not None else ""
        raise SystemExit(f"{path}{place} needs a sentence and a label with one tab between them")
    names = [part.strip().lower() for part in lines[0]]
    if "label" in names:
        label, lines = names.index("label"), lines[1:]
    else:  # labels are few
        first, second = ({parts[side] for parts in lines} for side in (0, 1))
        label = 0 if len(first) < len(second) else 1
    return [(parts[1 - label].split(), parts[label].strip()) for parts in lines]


class Vocabulary:
    """Words that occur twice or more in the training sentences."""

    def __init__(self, sentences: list[Sentence]) -> None:
        counts = Counter(word for words, _ in sentences for word in words)
        self.words = [PAD, UNKNOWN, CLS, *sorted(word for word, count in counts.items() if count > 1)]
        self.index = {word: place for place, word in enumerate(self.words)}

    def encode(self, sentences: list[Sentence], length: int) -> Tensor:
        """(N, length), cut or padded with 0."""
        ids = torch.zeros(len(sentences), length, dtype=torch.long)
        for row, (words, _) in zip(ids, sentences, strict=True):
            known = [self.index.get(word, self.index[UNKNOWN]) for word in [CLS, *words][:length]]
            row[: len(known)] = torch.tensor(known)
        return ids

    def decode(self, ids: Tensor) -> list[str]:
        return [self.words[place] for place in ids.tolist()]
