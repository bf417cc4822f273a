"""What was learned of a module's own step, and how a reading uses it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_xai.flow.namespaces import LightningModule
from lightning_xai.flow.own_step.arguments import Fed
from lightning_xai.flow.own_step.call import Call
from lightning_xai.flow.own_step.layout import Layout
from lightning_xai.flow.own_step.scores import clean_labels, label_classes, predicted_classes, score_table
from lightning_xai.flow.own_step.task import OF_PLACES, WITH_CLASSES, Task
from lightning_xai.flow.own_step.watch import Context, watch
from lightning_xai.tensors import Path

Labels = Callable[[Any], Tensor | None]


@dataclass(frozen=True, eq=False)
class Samples:
    """What a step makes of a batch.

    Args:
        inputs: that `OwnStep.output` takes.
        labels: (N, ...) those of `clean_labels`; None where there are none.
    """

    inputs: Any
    labels: Tensor | None


@dataclass(frozen=True, eq=False)
class OwnStep:
    """What a module's own step feeds to the model, what it takes, and what that means.

    Args:
        call: that a reading makes.
        seen: what the step was seen to do, in words.
        task: what its output means; None where that is unknown.
        layout: of what is taken; None where it is one number a sample, or unknown.
        unknown: why a score cannot be said, with the way out; empty where it can.
        labels: of a batch, where no loss or metric is given them.
        fed: where in a batch the first tensor that the model is fed comes from; None where there is no one place.
        labelled: where in a batch the labels come from; None where there is no one place.
    """

    call: Call
    seen: str
    task: Task | None = None
    layout: Layout | None = None
    unknown: str = ""
    labels: Labels | None = None
    fed: Path | None = None
    labelled: Path | None = None

    def samples(self, model: LightningModule, batch: Any, context: Context = nullcontext) -> Samples:
        """The inputs and labels of a batch as the step makes them. Runs the step once, on a shadow."""
        watched = watch(model, batch, self.call.step, self.call.is_over, context=context)
        fed = watched.of_model[self.call.number]
        labels = self._labels(batch, watched.judged[self.call.judged].target if self.call.judged is not None else None)
        inputs = None if self.call.signature is None else self.call.signature.inputs(fed.args, fed.kwargs)
        placed = labels if self.task is not None and self.task.name in OF_PLACES else None
        if self.call.repeats_step or placed is not None:
            inputs = Fed(inputs, batch if self.call.repeats_step else None, placed)
        return Samples(inputs, labels)

    def output(self, model: LightningModule, inputs: Any, context: Context = nullcontext) -> Any:
        """The model's own output of some inputs; where the step is run, what its loss takes."""
        return self.call.output(model, inputs, context)

    def values(self, output: Any) -> Any:
        """The part of an output that the task is about, (N, classes), (N, classes, places) or (N, numbers)."""
        values = self.call.values(output)
        return values if self.layout is None else self.layout.values(values)

    def table(self, output: Any, inputs: Any) -> Tensor:
        """What is explained: (N, classes) to choose from, or (N,) values.

        Raises:
            ValueError: it is unknown what the output means.
        """
        return score_table(self.values(output), inputs.labels if isinstance(inputs, Fed) else None, self.known)

    def classes(self, output: Any, inputs: Any, labels: Tensor | None, target: int | str) -> Tensor | None:
        """(N,) which column of the table is explained; None where it has none. No gradient passes here.

        Args:
            output: the model's.
            inputs: that it was made of.
            labels: those of `samples`.
            target: ``"label"``, where a sample without one is explained by its prediction; ``"predicted"``; a class.
        """
        if self.known.name not in WITH_CLASSES:
            return None
        table = self.table(output, inputs).detach()
        predicted = predicted_classes(self.values(output), table, self.known)
        if isinstance(target, int):
            return predicted.new_full((len(table),), target)
        known = label_classes(table, labels, self.known) if target == "label" else None
        return predicted if known is None else known.where(known >= 0, predicted)

    @property
    def known(self) -> Task:
        """The task. Raises ValueError where it is unknown."""
        if self.task is None:
            raise ValueError(self.unknown)
        return self.task

    def _labels(self, batch: Any, target: Tensor | None) -> Tensor | None:
        if self.task is None or self.layout is None:
            return None
        if target is None:
            target = None if self.labels is None else self.labels(batch)
            return None if target is None else clean_labels(target, self.task)
        return None if self.task.name == "embedding" else clean_labels(self.layout.labels(target), self.task)
