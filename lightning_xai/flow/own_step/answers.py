"""What a model gives each sample, as numbers that are kept and captions are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_xai.flow.own_step.scores import label_classes, logits_of, members, predicted_classes
from lightning_xai.flow.own_step.task import Task


def answers(values: Any, table: Tensor, labels: Tensor | None, task: Task) -> dict[str, Tensor]:
    """By name, the first dimension the samples; without labels those that speak of them are missing.

    Of one class a sample: ``prediction``, ``confidence``, ``label`` (-1 for none), ``probability`` of the label. Of
    several: ``probabilities``, ``labels``. Of places: ``class``, its share ``predicted`` and ``labelled``. Else
    ``predicted`` and ``value`` of numbers, or ``similarity``. Nothing of detections.

    Args:
        values: those of `OwnStep.values`.
        table: `score_table` of them.
        labels: those of `OwnStep.samples`.
        task: what they mean.
    """
    table = table.detach().float()
    if task.name == "embedding":
        return {"similarity": table}
    if task.name == "regression":
        return {"predicted": table} | ({} if labels is None else {"value": labels.detach().float().flatten(1).mean(1)})
    if task.name == "multilabel":
        return {"probabilities": table.sigmoid()} | ({} if labels is None else {"labels": labels > 0.5})
    if task.name in ("segmentation", "tokens"):
        return _of_places(values.detach(), table, labels, task)
    return {} if task.name == "detection" else _of_class(values, table, labels, task)


def _of_class(values: Any, table: Tensor, labels: Tensor | None, task: Task) -> dict[str, Tensor]:
    shares = torch.cat([(-table).sigmoid(), table.sigmoid()], 1) if task.classes == 1 else table.softmax(1)
    prediction = predicted_classes(values, table, task)
    found = {"prediction": prediction, "confidence": shares.gather(1, prediction[:, None])[:, 0]}
    label = label_classes(table, labels, task)
    if label is None:
        return found
    share = shares.gather(1, label.clamp_min(0)[:, None])[:, 0]
    return {**found, "label": label, "probability": torch.where(label >= 0, share, torch.nan)}


def _of_places(values: Tensor, table: Tensor, labels: Tensor | None, task: Task) -> dict[str, Tensor]:
    predicted = predicted_classes(values, table, task)
    known = label_classes(table, labels, task)
    classes = predicted if known is None else torch.where(known >= 0, known, predicted)
    column = (classes if task.classes > 1 else torch.zeros_like(classes))[:, None, None]

    def share(inside: Tensor) -> Tensor:
        return inside.gather(1, column.expand(-1, 1, inside.shape[2]))[:, 0].float().mean(1)

    found = {"class": classes, "predicted": share(members(logits_of(values, task)))}
    return found if labels is None else {**found, "labelled": share(members(values, labels))}
