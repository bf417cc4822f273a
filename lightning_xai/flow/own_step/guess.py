"""Where no loss says what an output means: what its labels and its own names say, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_xai.attempt import attempt
from lightning_xai.batches import split_batch
from lightning_xai.flow.own_step.call import Call, origin_of
from lightning_xai.flow.own_step.layout import FAMILIES, Layout
from lightning_xai.flow.own_step.look import Look
from lightning_xai.flow.own_step.own import Labels, OwnStep
from lightning_xai.flow.own_step.task import Task, TaskName
from lightning_xai.flow.own_step.words import fed_words
from lightning_xai.functional.passes import outputs

SAY_TASK = (
    "Give task= ('multiclass', 'multilabel', 'regression', 'segmentation', ...), or target=, a function of the output "
    "that returns one score a sample"
)


def unknown(look: Look, why: str) -> OwnStep:
    """The first call of the model, without a score."""
    return OwnStep(look.repeating(0, ()), fed_words(look.step, look.batch, look.watched), unknown=f"{why}. {SAY_TASK}")


def guessed(look: Look, labels: Labels | None, name: TaskName | None) -> OwnStep:
    """By the user's word; as detections or two embeddings where the step handles them so; by labels of classes."""
    seen, calls = fed_words(look.step, look.batch, look.watched), look.watched.of_model
    output = calls[-1].output
    if name in (None, "detection") and _are_detections(output, look.samples):
        return OwnStep(look.repeating(len(calls) - 1, ()), seen, Task("detection", "values"))
    of_batch = labels if labels is not None else _second
    found, _ = attempt(lambda: of_batch(look.batch))
    used = found is not None and (labels is not None or look.sources.uses(found))
    if name in (None, "embedding") and _are_two_views(look) and not used:
        pair = look.rerunning("calls")
        rows, error = attempt(lambda: look.rows(pair))
        if rows is not None:
            return OwnStep(pair, f"{seen} and compares two outputs", Task("embedding", "values"))
        return unknown(look, f"{seen} and compares two outputs; but of their similarity, {error}")
    if name in ("detection", "embedding"):
        return unknown(look, f"{seen}, and its output is not seen to be task={name!r}")
    values, error = attempt(lambda: outputs.logits(output))
    if values is None:
        return unknown(look, f"{seen}, and no loss or metric says what comes out: {error}")
    of_output, error = attempt(lambda: _call_of(look, values))
    if of_output is None:
        return unknown(look, f"{seen}, and no loss or metric says what comes out; of it, {error}")
    if name is not None:
        layout = Layout(FAMILIES[name], tuple(values.shape[1:]))
        return OwnStep(of_output, seen, _task(name, layout, values, False), layout, labels=of_batch)
    kind = _kind_by_labels(values, found if used and not _are_two_views(look) else None)
    if kind is None:
        what = f"an output of shape {tuple(values.shape)}"
        return unknown(look, f"{seen}, which gives {what}, and no loss or metric says what that means")
    layout = Layout(FAMILIES[kind], tuple(values.shape[1:]))
    return OwnStep(of_output, seen, _task(kind, layout, values, True), layout, labels=of_batch)


def _call_of(look: Look, values: Tensor) -> Call:
    calls = look.watched.of_model
    path = origin_of(values, calls[-1].output)
    if len(calls) == 1 and look.signature(calls[0]) is not None:
        return look.repeating(0, path)
    call = look.rerunning("output")
    rows, _ = look.rows(call)
    if rows != 1:
        raise ValueError(f"it has {rows} rows a sample")
    return call


def _task(name: TaskName, layout: Layout, values: Tensor, guess: bool) -> Task:
    if layout.family == "values":
        return Task(name, "values", guessed=guess)
    return Task(name, "logits", int(layout.values(values).shape[1]), layout.family == "yes or no", guessed=guess)


def _kind_by_labels(values: Tensor, labels: Tensor | None) -> TaskName | None:
    """Classes where whole labels, those aside that mean none, are in the range of the columns."""
    if labels is None or len(labels) != len(values):
        return None
    columns = 1 if values.ndim == 1 else values.shape[1]
    classes = labels[(labels >= 0) & (labels != 255)]
    if values.ndim > 2 or not len(classes) or int(classes.max()) >= max(columns, 2):
        return None
    return "binary" if columns == 1 else "multiclass"


def _second(batch: Any) -> Tensor | None:
    return split_batch(batch)[1]


def _are_detections(output: Any, samples: int) -> bool:
    """A list of a dict a sample with the scores of its boxes, as torchvision's detectors return it."""
    listed = isinstance(output, (list, tuple)) and len(output) == samples
    return listed and all(isinstance(found, Mapping) and {"boxes", "scores"} <= found.keys() for found in output)


def _are_two_views(look: Look) -> bool:
    """Whether the same module is called on two views, and returns a row a sample of each."""
    calls = look.watched.of_model
    if len(calls) < 2 or calls[0].module is not calls[1].module:
        return False
    shapes = [call.output.shape if isinstance(call.output, Tensor) else () for call in calls[:2]]
    return shapes[0] == shapes[1] and len(shapes[0]) == 2 and shapes[0][0] == look.samples
