"""What an output means, in torchmetrics' words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from lightning_xai.flow.own_step.losses import Scale

TaskName: TypeAlias = Literal[
    "multiclass", "multilabel", "binary", "regression", "segmentation", "tokens", "language", "detection", "embedding"
]
"""torchmetrics' three kinds of classification, and its other domains: ``tokens`` is a class for each place of a
sequence, ``language`` the next token, ``embedding`` what is compared with a partner's."""

TASKS: tuple[TaskName, ...] = get_args(TaskName)
WITH_CLASSES: tuple[TaskName, ...] = ("multiclass", "multilabel", "binary", "segmentation", "tokens", "language")
OF_PLACES: tuple[TaskName, ...] = ("segmentation", "tokens", "language")
"""Their score needs the labels: it is that of the places that have one."""


@dataclass(frozen=True)
class Task:
    """What an output means.

    Args:
        name: in torchmetrics' words.
        scale: of the output: logits, or probabilities, which are explained through their logarithm.
        classes: how many the output has; 1 where one number speaks of two, 0 without classes.
        independent: whether each class is a yes or no of its own.
        ignore: the label that means none, beside all that are outside of [0, classes).
        guessed: whether nothing but labels and shapes says so.
    """

    name: TaskName
    scale: Scale = "logits"
    classes: int = 0
    independent: bool = False
    ignore: int | None = None
    guessed: bool = False

    def __post_init__(self) -> None:
        if self.name not in TASKS:
            raise ValueError(f"task={self.name!r} is unknown: give one of {', '.join(map(repr, TASKS))}")
