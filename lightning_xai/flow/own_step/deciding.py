"""Which of the losses and metrics of a step says what its output means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_xai.flow.own_step.call import Taken, origin_of
from lightning_xai.flow.own_step.losses import Judged
from lightning_xai.flow.own_step.sources import Sources
from lightning_xai.flow.own_step.watch import Watched
from lightning_xai.tensors import tensors

Target = Literal["data", "tokens", "input", "partner", "nothing"]
"""What a loss compares its input with: the batch's labels, its own next tokens, what was fed, another output, or what
the step itself made in a way that says nothing."""

SAME = 0.9
"""Of the labels of a language model, how many are the next token at least: some are masked."""


@dataclass(frozen=True, eq=False)
class Decision:
    """The loss or metric that counts.

    Args:
        index: among all of the step.
        judged: its call.
        target: what it is compared with.
        taken: what is taken of it.
    """

    index: int
    judged: Judged
    target: Target
    taken: Taken = "values"


def is_decided(watched: Watched) -> bool:
    """Whether no later loss can count more: labels are compared with what all parameters act on, or metrics begin.

    While the model is still running (it makes its own loss) its output is waited for.
    """
    sources = watched.sources
    assert sources is not None
    running = watched.of_model and watched.of_model[-1].output is None
    if running or not watched.judged:
        return False
    losses = [j for j in watched.judged if not j.metric and target_of(j, watched, sources) in ("data", "tokens")]
    whole = any(sources.origin(judged.values).parameters == sources.parameters for judged in losses)
    return whole or (bool(losses) and watched.judged[-1].metric)


def decide(
    watched: Watched, is_of_batch: Callable[[int], bool], is_batch_wide: Callable[[int], bool]
) -> Decision | None:
    """The loss that counts: compared with data of the batch, on whose input the most parameters act.

    Without one the metric of which the same holds, then a loss that compares embeddings; None where there is nothing.

    Args:
        watched: the step, with its sources.
        is_of_batch: whether a target of unknown origin changes with the order of the samples.
        is_batch_wide: whether a loss's input has a column for each sample.
    """
    sources = watched.sources
    assert sources is not None
    every = []
    for index, judged in enumerate(watched.judged):
        target = target_of(judged, watched, sources)
        if target == "nothing" and is_of_batch(index):
            target = "data"
        if target == "data" and judged.meaning.family != "values" and is_batch_wide(index):
            target = "nothing"
        taken: Taken = "values"
        if target == "partner":
            taken = "pair"
        elif target == "nothing" and _are_similarities(judged, watched):
            target, taken = "partner", "partner"
        every.append(Decision(index, judged, target, taken))
    numbers = [sources.origin(decision.judged.values).parameters for decision in every]
    labels: tuple[Target, ...] = ("data", "tokens")
    for targets, metric in ((labels, False), (labels, True), (("partner",), False), (("input",), False)):
        fit = [d for d in every if d.target in targets and d.judged.metric is metric and numbers[d.index]]
        if fit:
            return max(fit, key=lambda decision: numbers[decision.index])
    return None


def _are_similarities(judged: Judged, watched: Watched) -> bool:
    """Whether each row of a loss's input has one entry that counts, and no module made them."""
    of_module = any(origin_of(judged.values, call.output) is not None for call in watched.of_model)
    named = judged.meaning.family == "classes" and judged.target.ndim == 1
    return named and judged.values.ndim == 2 and not of_module


def target_of(judged: Judged, watched: Watched, sources: Sources) -> Target:
    """What a loss compares its input with, by where that comes from."""
    target, values = sources.origin(judged.target), sources.origin(judged.values)
    if judged.meaning.family == "pairs":
        return "partner"
    if target.parameters:
        return "partner" if judged.meaning.family == "values" and values.parameters else "nothing"
    if not target.batch:
        return "nothing"
    everything = tensors([(call.args, call.kwargs) for call in watched.of_model])
    # labels that are fed as well, to a model that makes its own loss, do not act on its output
    fed = [tensor for tensor in everything if set(sources.origin(tensor).batch) <= set(values.batch)]
    if judged.meaning.family == "classes" and not judged.target.is_floating_point():
        return "tokens" if _are_next_tokens(judged.target, fed) else "data"
    made_of_target = set(target.batch) <= set(values.batch)
    same = any(tensor.numel() == judged.target.numel() for tensor in fed)
    return "input" if made_of_target and same else "data"


def _are_next_tokens(labels: Tensor, fed: list[Tensor]) -> bool:
    """Whether labels are the token ids that the model is fed, one place on."""
    for ids in fed:
        if ids.ndim != 2 or ids.is_floating_point() or ids.dtype is torch.bool or ids.shape[1] < 2:
            continue
        samples, length = ids.shape
        if labels.numel() not in (samples * length, samples * (length - 1)):
            continue
        # of as many labels as tokens the last is beyond what was fed
        rows, following = labels.reshape(samples, -1)[:, : length - 1], ids[:, 1:]
        labelled = rows >= 0
        if labelled.any() and float((rows == following)[labelled].float().mean()) > SAME:
            return True
    return False
