"""From what the module's own step was seen to do: the call that a reading makes, and what its output means."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from lightning_xai.attempt import attempt
from lightning_xai.flow.namespaces import LightningModule
from lightning_xai.flow.own_step.call import origin_of
from lightning_xai.flow.own_step.deciding import Decision
from lightning_xai.flow.own_step.guess import guessed, unknown
from lightning_xai.flow.own_step.layout import FAMILIES, Layout
from lightning_xai.flow.own_step.look import Look
from lightning_xai.flow.own_step.losses import Judged
from lightning_xai.flow.own_step.own import Labels, OwnStep
from lightning_xai.flow.own_step.task import Task, TaskName
from lightning_xai.flow.own_step.watch import Context, UnwatchableError, steps_of
from lightning_xai.flow.own_step.words import fed_words
from lightning_xai.samples import batch_size, places, select
from lightning_xai.tensors import tensors

MOST = 32
"""Samples on which a step is watched."""
WAY_OUT = (
    "Give forward= (a function of the model and its inputs), inputs= (a function of the batch that returns what the "
    "model takes) or probe= (a Probe of that)"
)


def learn(
    model: LightningModule,
    batch: Any,
    *,
    context: Context = nullcontext,
    labels: Labels | None = None,
    task: TaskName | None = None,
) -> OwnStep:
    """Run the module's own step on a batch and see what it feeds to the model and what that means.

    Args:
        model: a shadow, attached to its stand-in of a Trainer.
        batch: of samples that are explained, as it is after the transfer hooks.
        context: the precision plugin's forward context.
        labels: the class indices (N,) of a batch, by which an output is guessed to be of classes where no loss says so.
        task: what the output means, where the user says it.

    Raises:
        ValueError: the step cannot be watched, raises, or calls no model; says what it did and the ways out.
    """
    size = batch_size(batch)
    few = select(batch, range(min(size, MOST)), size)
    looks = [Look(model, few, step, context) for step in steps_of(model)]
    if not looks:
        raise UnwatchableError(f"{type(model).__name__} has no step that can be run to look at it. {WAY_OUT}")
    failures = []
    for look in looks:
        _, error = attempt(look.run)
        failures += [] if error is None else [f"{look.step} raised {type(error).__name__}: {error}"]
        if look.decision is not None and task in (None, *_compatible(look.decision)):
            return placed(look, told(look, look.decision, task))
    for look in looks:
        if look.calls_model:
            return placed(look, guessed(look, labels, task))
    what = failures[0] if failures else f"{looks[0].step} calls no module with parameters"
    raise ValueError(f"{what}. {WAY_OUT}")


def placed(look: Look, own: OwnStep) -> OwnStep:
    """The same, with where inputs and labels are in a batch."""
    return replace(own, fed=look.fed_from(own.call), labelled=look.labelled_from)


def _compatible(decision: Decision) -> list[TaskName]:
    """The tasks whose outputs are laid out as what a loss takes."""
    if decision.taken != "values":
        return ["embedding"]
    return [name for name, family in FAMILIES.items() if family == decision.judged.meaning.family]


def told(look: Look, decision: Decision, name: TaskName | None = None) -> OwnStep:
    """What a loss or metric says. ``name`` is the user's word for the task."""
    judged, seen = decision.judged, fed_words(look.step, look.batch, look.watched)
    what = f"{seen}, and compares its output by {judged.name}"
    if decision.target == "input" and name is None:
        return unknown(look, f"{what} with what it was made of: a reconstruction has no score of its own")
    call = None
    if decision.taken == "values":
        sources = enumerate(look.watched.of_model)
        paths = [(number, path) for number, c in sources if (path := origin_of(judged.values, c.output)) is not None]
        if paths and look.signature(look.watched.of_model[paths[0][0]]) is not None:
            call = look.repeating(*paths[0], judged=decision.index)
    if call is None:
        call = look.rerunning(decision.taken, decision.index)
    rows, stacked = 1, False
    if call.repeats_step or len(judged.values) != look.samples:
        found, error = attempt(lambda: look.rows(call))
        if found is None:
            return unknown(look, f"{what}; but of what that is given, {error}")
        rows, stacked = found
    if decision.taken != "values":
        return OwnStep(call, seen, Task("embedding", "values"), Layout("values", (), rows, stacked))
    layout = Layout(judged.meaning.family, tuple(judged.values.shape[1:]), rows, stacked)
    task = task_of(look, decision, layout, name)
    if name is None and task.name in ("segmentation", "tokens") and not _are_of_places(look, judged, task):
        return unknown(look, f"{what} with targets that it matches to the output itself, as detectors do")
    return OwnStep(call, seen, task, layout)


def task_of(look: Look, decision: Decision, layout: Layout, name: TaskName | None) -> Task:
    """The task of a loss, by its family and the places of its input."""
    judged = decision.judged
    values = layout.values(judged.values)
    if layout.family == "values":
        return Task(name or "regression", "values")
    scale = judged.meaning.scale
    if judged.metric and _are_probabilities(values, layout):
        scale = "probabilities"
    independent, classes = layout.family == "yes or no", int(values.shape[1])
    if name is None:
        if values.ndim > 2:
            fed = tensors([(call.args, call.kwargs) for call in look.watched.of_model])
            images = any(tensor.is_floating_point() and tensor.ndim >= 4 for tensor in fed)
            name = "language" if decision.target == "tokens" else "segmentation" if images else "tokens"
        else:
            name = "multiclass" if not independent else "binary" if classes == 1 else "multilabel"
    ignore = judged.options.get("ignore_index")
    return Task(name, scale, classes, independent, ignore if isinstance(ignore, int) else None)


def _are_of_places(look: Look, judged: Judged, task: Task) -> bool:
    """Whether a target has as many labels as a part of the batch that it is made of, or one for each class of those."""
    parts, names = places(look.batch), look.sources.origin(judged.target).batch
    numbers = [parts[name].numel() * classes for name in names for classes in (1, task.classes)]
    return not names or judged.target.numel() in numbers


def _are_probabilities(values: Any, layout: Layout) -> bool:
    inside = bool(((values >= 0) & (values <= 1)).all())
    if layout.family == "yes or no":
        return inside
    return inside and bool(((values.sum(1) - 1).abs() < 1e-2).all())
