"""Scores of samples with some of their features taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.hooks import altering
from lightning_xai.functional.layers import torchscript_note
from lightning_xai.functional.masks.absent import Baseline, absent
from lightning_xai.functional.masks.chosen import chosen_input
from lightning_xai.functional.masks.features import Features, in_cells, one_each
from lightning_xai.functional.passes import outputs
from lightning_xai.functional.passes.explained import channel_dimension
from lightning_xai.functional.passes.request import Request, explaining
from lightning_xai.tensors import map_tensors, select


@dataclass(frozen=True, eq=False)
class Masked:
    """Samples whose features can be taken away; used inside `masking`.

    Args:
        request: the forward and its inputs; its targets are classes, or a callable.
        x: (N, ...) the input that is masked, one of the request's.
        features: what is taken away as one.
        absent: (B, N or 1, ...) what then stands there, averaged over B; None for zeros in the place of what an
            embedding makes of token ids.
        whole: (N,) or (N, T) the scores of the samples as they are.
        batch_size: the most rows in one forward.
    """

    request: Request
    x: Tensor
    features: Features
    absent: Tensor | None
    whole: Tensor
    batch_size: int

    def scores(self, masks: Tensor) -> Tensor:
        """Masks (P, features), 1 where a feature stays -> (P, N) or (P, N, T), float64 on the CPU."""
        samples, backgrounds = len(self.x), 1 if self.absent is None else len(self.absent)
        kept = masks.to(self.x.device, torch.bool)
        features = replace(self.features, index=self.features.index.to(self.x.device))  # once, not with every batch
        jobs = torch.arange(len(masks) * backgrounds * samples, device=self.x.device)
        parts = []
        for job in torch.split(jobs, self.batch_size):
            rows, rest = job % samples, job // samples
            keep = features.at_positions(kept[rest // backgrounds])
            parts.append(self._run(rows, keep, rest % backgrounds).cpu().double())
        scores = torch.cat(parts)
        return scores.view(len(masks), backgrounds, samples, *scores.shape[1:]).mean(1)

    def spread(self, values: Tensor) -> Tensor:
        """(N, [T,] features) -> (N, [T,] ...) float32 of the shape of x, shared by what each feature covers."""
        return self.features.spread(values, self.x.shape[1:]).float().to(self.x.device)

    def _run(self, rows: Tensor, keep: Tensor, backgrounds: Tensor) -> Tensor:
        if self.absent is None:
            return self._embedded(rows, keep)
        if self.absent.shape[:2] == (1, 1):
            stand_in = self.absent[0]
        else:
            stand_in = self.absent[backgrounds, rows % self.absent.shape[1]]
        mixed = self.x.index_select(0, rows)
        torch.where(keep, mixed, stand_in, out=mixed)  # in place: fresh memory costs more than the choice
        return self._at(rows, mixed).scores()

    def _embedded(self, rows: Tensor, keep: Tensor) -> Tensor:
        request, ids = self._at(rows), self.x[rows]
        with altering(request.model, ids, lambda words: words * keep[..., None].to(words)) as altered:
            scores = request.scores()
        if not altered:
            raise TypeError(
                f"the token ids {tuple(self.x.shape)} go into no nn.Embedding as they are, whose vectors could be "
                "taken away: give baseline= the id of a neutral token, or the embedded tokens as the input, with "
                f"forward= for what follows.{torchscript_note(request.model)}"
            )
        return scores

    def _at(self, rows: Tensor, mixed: Tensor | None = None) -> Request:
        """The request for these samples, with what is mixed in the place of x."""
        targets = self.request.targets
        targets = targets if callable(targets) else select(targets, rows, len(self.x))
        return replace(self.request, inputs=_put(self.request.inputs, rows, self.x, mixed), targets=targets)


def _put(inputs: Any, rows: Tensor, x: Tensor, mixed: Tensor | None) -> Any:
    """Copies of these samples, with another tensor in the place of x: a model may write into them."""

    def at(tensor: Tensor) -> Tensor:
        if tensor is x and mixed is not None:
            return mixed
        return tensor[rows] if tensor.ndim and tensor.shape[0] == len(x) else tensor

    return map_tensors(inputs, at)


@contextmanager
def masking(
    model: nn.Module,
    inputs: Any,
    targets: outputs.Targets = "predicted",
    *,
    of: str | int | None = None,
    baseline: Baseline = None,
    background: Tensor | None = None,
    cells: int = 8,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Iterator[Masked]:
    """The guarded pass of a method that masks; one forward of the samples as they are fixes their classes."""
    with explaining(model, inputs, targets, forward) as request:
        x = chosen_input(request.inputs, of)
        if x.is_floating_point():
            features = in_cells(x.shape[1:], _channels(request, x), cells)
            stand_in: Tensor | None = absent(x, features, baseline, background)
        else:
            features, stand_in = one_each(x.shape[1]), _neutral(x, baseline, background)
        classes, whole = _as_they_are(request, len(x), batch_size, x.device)
        yield Masked(replace(request, targets=classes), x, features, stand_in, whole, batch_size)


def _channels(request: Request, x: Tensor) -> int | None:
    def forward(few: Tensor) -> Any:
        rows = torch.arange(len(few), device=x.device)
        return request.run(_put(request.inputs, rows, x, few.clone()))

    found = channel_dimension(request.model, x, forward=forward)
    return None if found is None else found - x.ndim


def _neutral(ids: Tensor, baseline: Baseline, background: Tensor | None) -> Tensor | None:
    """Token ids (1, N or 1, L) in the place of those that are taken away; None for zero vectors."""
    if background is not None:
        raise ValueError("a background of token ids is no set of words to choose from: give baseline= a neutral token")
    if baseline is None or baseline == "zero":
        return None
    if isinstance(baseline, (str, float)) or (isinstance(baseline, Tensor) and baseline.is_floating_point()):
        raise ValueError(
            f"baseline={baseline!r} is nothing that token ids {tuple(ids.shape)} can be replaced by: give 'zero' (of "
            "the embedding), the id of a neutral token, or whole ids of each sample"
        )
    return absent(ids, one_each(ids.shape[1]), baseline, None)


def _as_they_are(
    request: Request, samples: int, batch_size: int, device: torch.device
) -> tuple[outputs.Targets, Tensor]:
    """The targets as classes, which nothing that is taken away moves, and their scores."""
    classes, scores = [], []
    for rows in torch.split(torch.arange(samples, device=device), batch_size):
        some = request.some(rows)
        if callable(some.targets):
            scores.append(some.scores())
            continue
        output = some.run(some.inputs)
        classes.append(outputs.classes_of(output, some.targets))
        scores.append(outputs.asked_scores(output, classes[-1]))
    whole = torch.cat(scores).cpu().double()
    return torch.cat(classes) if classes else request.targets, whole
