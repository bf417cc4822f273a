"""A look at one step: its first run, and runs with other samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_xai.flow.namespaces import LightningModule
from lightning_xai.flow.own_step.arguments import Signature
from lightning_xai.flow.own_step.call import Call, Taken
from lightning_xai.flow.own_step.checks import differentiable, other_samples, rows_of
from lightning_xai.flow.own_step.deciding import Decision, decide, is_decided
from lightning_xai.flow.own_step.sources import Sources
from lightning_xai.flow.own_step.watch import Context, ModuleCall, Watched, watch
from lightning_xai.functional.passes.guard import inspecting
from lightning_xai.samples import batch_size, places, select
from lightning_xai.tensors import Path, find, first_tensor


class Look:
    """At one step on a few samples.

    Args:
        model: the shadow.
        batch: the samples.
        step: the method's name.
        context: the precision plugin's forward context.
    """

    def __init__(self, model: LightningModule, batch: Any, step: str, context: Context) -> None:
        self.model, self.batch, self.step, self.context = model, batch, step, context
        self.samples = batch_size(batch)
        self.decision: Decision | None = None
        self._watched: Watched | None = None

    def run(self) -> None:
        """The first run, and what it decides."""
        with inspecting(self.model):
            self._watched = watch(self.model, self.batch, self.step, is_decided, context=self.context, follow=True)
        self.decision = decide(self.watched, self._is_of_batch, self._is_batch_wide)

    @property
    def calls_model(self) -> bool:
        """Whether it was seen to call what may be trained."""
        return self._watched is not None and bool(self._watched.of_model)

    @property
    def watched(self) -> Watched:
        """What the step did in its first run."""
        assert self._watched is not None
        return self._watched

    @property
    def sources(self) -> Sources:
        """Where the tensors of that run come from."""
        assert self.watched.sources is not None
        return self.watched.sources

    def signature(self, call: ModuleCall) -> Signature | None:
        """How a call's arguments are inputs; None where parameters or buffers act on them, so that they change."""
        origin = self.sources.origin(call.args, call.kwargs)
        changes = bool(origin.parameters) or origin.buffers
        return None if changes else Signature.of(call.args, call.kwargs, self.samples)

    def fed_from(self, call: Call) -> Path | None:
        """Where in the batch the first tensor that is fed comes from; None where it is made of several or none."""
        fed = self.watched.of_model[call.number]
        return self._path(first_tensor((fed.args, fed.kwargs)))

    @property
    def labelled_from(self) -> Path | None:
        """Where in the batch the labels come from; None where that is several places or none."""
        return None if self.decision is None else self._path(self.decision.judged.target)

    def _path(self, tensor: Tensor | None) -> Path | None:
        names = () if tensor is None else self.sources.origin(tensor).batch
        source = places(self.batch)[names[0]] if len(names) == 1 else None
        return None if source is None else find(self.batch, lambda part: part is source)

    def repeating(self, number: int, path: Path | None, judged: int | None = None) -> Call:
        """That calls a module as the step did; where its arguments change, the step is run for them."""
        call = self.watched.of_model[number]
        return Call(self.step, call.name, number, self.signature(call), path, judged, calls=number + 1)

    def rerunning(self, taken: Taken, judged: int | None = None) -> Call:
        """That runs the step, from its first call of the model on where its arguments can be kept."""
        first = self.watched.of_model[0]
        calls = 2 if taken == "calls" else len(self.watched.of_model)
        return Call(self.step, first.name, 0, self.signature(first), None, judged, taken, calls)

    def rows(self, call: Call) -> tuple[int, bool]:
        """How the rows of what a call takes from the step belong to samples; see `checks.rows_of`.

        Raises:
            ValueError: a row is not of one sample alone, or has no gradient.
        """
        values = call.taken_from(self.watched)
        if not isinstance(values, Tensor):
            raise ValueError(f"it is a {type(values).__name__}, no tensor")
        if self.samples == 1:
            return max(len(values), 1) if values.ndim else 1, False
        with inspecting(self.model), differentiable(self.model):
            others = call.taken_from(self._again(other_samples(self.samples), call.is_over))
        rows = rows_of(values, others, self.samples)
        if rows is None:
            raise ValueError(
                f"it has the shape {tuple(values.shape)} of {self.samples} samples, and is not of one sample alone: it "
                "changes with the others of the batch, or with random numbers"
            )
        if call.repeats_step and not others.requires_grad:
            raise ValueError("it has no gradient: it passes through no_grad(), detach() or numpy")
        return rows

    def _again(self, rows: list[int], until: Callable[[Watched], bool]) -> Watched:
        """The step on some of the samples; `inspecting` brings the random numbers of the first run back."""
        batch = select(self.batch, rows, self.samples)
        return watch(self.model, batch, self.step, until, context=self.context)

    def _is_of_batch(self, index: int) -> bool:
        """Whether a target that came from no tensor of the batch changes with the order of the samples."""
        target = self.watched.judged[index].target
        with inspecting(self.model):
            again = self._again(list(reversed(range(self.samples))), lambda watched: len(watched.judged) > index)
        return len(again.judged) > index and not _equal(again.judged[index].target, target)

    def _is_batch_wide(self, index: int) -> bool:
        """Whether a loss's input has a column for each sample."""
        values = self.watched.judged[index].values
        if values.ndim != 2 or values.shape[1] % self.samples or values.shape[0] != values.shape[1]:
            return False
        with inspecting(self.model):
            fewer = self._again(list(range(1, self.samples)), lambda watched: len(watched.judged) > index)
        return len(fewer.judged) > index and fewer.judged[index].values.shape[1] < values.shape[1]


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
