"""From an output and its labels to one number a sample that can be explained: the score of each class, or the value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_xai.flow.own_step.task import OF_PLACES, WITH_CLASSES, Task

TINY = 1e-7
"""What a probability is kept away from 0 and 1 by, in its logarithm."""


def logits_of(values: Tensor, task: Task) -> Tensor:
    """Numbers whose softmax, or sigmoid, gives the model's probabilities."""
    if task.scale != "probabilities":
        return values
    inside = values.clamp(TINY, 1 - TINY)
    return inside.logit() if task.independent else inside.log()


def score_table(values: Any, labels: Tensor | None, task: Task) -> Tensor:
    """What is explained of each sample: (N, classes) where there are classes to choose from, else (N,).

    Of places that have a class each, a class has the mean logit of those that are labelled with it; without such a
    place of those that are predicted so, else of all. Of the next token the last labelled place counts.

    Args:
        values: those of `Layout.values`; (N,) similarities; the dicts of a detector.
        labels: those of `clean_labels`; None where there are none.
        task: what they mean.
    """
    if task.name == "detection":
        return torch.stack([found["scores"].sum() for found in values])
    if task.name not in WITH_CLASSES:
        numbers: Tensor = values
        return numbers.mean(1) if numbers.ndim > 1 else numbers
    logits = logits_of(values, task)
    if task.name not in OF_PLACES:
        return logits
    if task.name == "language":
        last = _last(labels, logits.shape[2], logits)
        return logits.gather(2, last[:, None, None].expand(-1, logits.shape[1], 1))[:, :, 0]
    predicted = members(logits)
    inside = predicted if labels is None else members(logits, labels)
    inside = torch.where(inside.any(2, keepdim=True), inside, predicted)
    inside = torch.where(inside.any(2, keepdim=True), inside, torch.ones_like(inside))
    return (logits * inside).sum(2) / inside.sum(2)


def clean_labels(labels: Tensor, task: Task) -> Tensor:
    """Labels of `Layout.labels` in which -1 stands for whatever is no class of the output: -100, 255, ignore_index."""
    if labels.is_floating_point() or task.independent or task.name not in WITH_CLASSES:
        return labels
    inside = (labels >= 0) & (labels < task.classes)
    inside = inside if task.ignore is None else inside & (labels != task.ignore)
    return torch.where(inside, labels, -1).long()


def members(logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """(N, classes, places): which places are labelled with which class; without labels, predicted so."""
    if labels is not None and labels.ndim == 3:  # yes or no for each class
        return labels > 0.5
    if logits.shape[1] == 1:
        return logits > 0
    classes = logits.argmax(1) if labels is None else labels
    return classes[:, None] == torch.arange(logits.shape[1], device=logits.device)[:, None]


def label_classes(table: Tensor, labels: Tensor | None, task: Task) -> Tensor | None:
    """(N,) the class that each sample's label stands for, -1 for none; None without labels or classes.

    Of several labels the present one with the lowest score; of places the class of most of them but 0, which is the
    background by convention, or 0 where there is no other; of the next token the last labelled place's.
    """
    if labels is None or task.name not in WITH_CLASSES:
        return None
    if task.name == "multiclass":
        return labels
    if task.name == "binary":
        return (labels[:, 0] > 0.5).long()
    if task.name == "multilabel":
        lowest = table.detach().masked_fill(labels <= 0.5, torch.inf).argmin(1)
        return torch.where((labels > 0.5).any(1), lowest, -1)
    if task.name == "language":
        return labels.gather(1, _last(labels, labels.shape[1], table)[:, None])[:, 0]
    return _commonest(members(table[..., None], labels), task)


def predicted_classes(values: Any, table: Tensor, task: Task) -> Tensor:
    """(N,) the class that the model gives each sample; of places chosen as `label_classes` does."""
    if task.name in ("segmentation", "tokens"):
        return _commonest(members(logits_of(values, task)), task)
    return (table[:, 0] > 0).long() if task.classes == 1 else table.argmax(1)


def present(labels: Tensor) -> Tensor:
    """(pairs, 2) sample and class of all labels that are present, of (N, classes)."""
    return (labels > 0.5).nonzero()


def _commonest(inside: Tensor, task: Task) -> Tensor:
    """(N,) of (N, classes, places): the class of most places but 0; 0 without another, -1 without any."""
    counts = inside.sum(2)
    if task.classes == 1:  # one number of two classes
        return (counts[:, 0] > 0).long()
    others = counts.clone()
    if not task.independent:
        others[:, 0] = 0
    commonest = torch.where(others.any(1), others.argmax(1), 0)
    return torch.where(counts.any(1), commonest, -1)


def _last(labels: Tensor | None, places: int, like: Tensor) -> Tensor:
    """(N,) the last place with a label; the last of all without labels."""
    end = torch.full((len(like),), places - 1, dtype=torch.long, device=like.device)
    if labels is None:
        return end
    order = torch.arange(1, places + 1, device=like.device)
    last = ((labels >= 0) * order).amax(1) - 1
    return torch.where(last < 0, end, last)
