"""The scores as a function of one tensor: a floating-point input, or what an embedding makes of token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.hooks import embedding
from lightning_xai.functional.layers import named_layers, torchscript_note, unwrapped_names
from lightning_xai.functional.passes import outputs
from lightning_xai.functional.passes.explained import described, place_of
from lightning_xai.functional.passes.request import Request, explaining
from lightning_xai.tensors import replace_at, tensors


@dataclass(frozen=True)
class Field:
    """The scores of samples as a function of what is explained; used inside `explaining_field`.

    Args:
        request: the samples, how they are run, and for which targets.
        place: which of `tensors(request.inputs)` is explained; where it holds token ids, what their embedding makes
            of them.
    """

    request: Request
    place: int

    @property
    def tensor(self) -> Tensor:
        """The input in which the explained tensor is, or from which it is made: (N, ...)."""
        return tensors(self.request.inputs)[self.place]

    @property
    def embedded(self) -> bool:
        """Whether what an embedding returns is explained."""
        return not self.tensor.is_floating_point()

    def some(self, rows: Tensor | slice) -> Field:
        """The field of these samples, each as often as it is among them."""
        return replace(self, request=self.request.some(rows))

    def batches(self, batch_size: int) -> Iterator[Field]:
        """The fields of `batch_size` samples at a time."""
        for start in range(0, self.request.shape[0], batch_size):
            yield self.some(slice(start, start + batch_size))

    def scores(self, x: Tensor | None = None) -> Tensor:
        """(N,) or (N, T), where the samples are or at `x`, without a graph."""
        with torch.no_grad(), self.run(x) as (_, scores):
            return scores

    @contextmanager
    def graph(self, x: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """What is explained, where the samples are or at `x`, and the scores, connected; differentiate inside.

        Raises:
            TypeError: token ids go into no embedding.
            ValueError: the scores do not depend on it.
        """
        with torch.enable_grad(), self.run(x) as (explained, scores):
            if not scores.requires_grad:
                raise self.disconnected(explained)
            yield explained, scores

    def gradient(self, explained: Tensor, scores: Tensor) -> Tensor:
        """Of the scores (N,) or (N, T) at what is explained: (N, ...) or (N, T, ...), at least float32."""
        columns = scores[:, None] if scores.ndim == 1 else scores
        gradients = []
        for index, column in enumerate(columns.unbind(1)):
            again = index + 1 < columns.shape[1]
            (gradient,) = torch.autograd.grad(column.sum(), [explained], retain_graph=again, allow_unused=True)
            if gradient is None:
                raise self.disconnected(explained)
            gradients.append(wide(gradient))
        return gradients[0] if scores.ndim == 1 else torch.stack(gradients, 1)

    def point(self, batch_size: int) -> Point:
        """Where the samples are, by one forward of them; their classes are fixed by it."""
        classes: list[Tensor] = []
        explained, scores = [], []
        for batch in self.batches(batch_size):
            with torch.no_grad(), replace(batch, request=_noting(batch.request, classes)).run(None) as (x, found):
                explained.append(x.detach())
                scores.append(found)
        x = torch.cat(explained) if self.embedded else self.tensor
        targets = self.request.targets if callable(self.request.targets) else torch.cat(classes)
        field = replace(self, request=replace(self.request, targets=targets))
        return Point(field, x, torch.cat(scores))

    def embed(self, ids: Tensor) -> Tensor:
        """What the embedding that takes the token ids makes of others."""
        few = self.some(slice(1))
        with torch.no_grad(), embedding(self.request.model, few.tensor) as vectors_of:
            few.request.scores()
        module = dict(unwrapped_names(self.request.model))[next(iter(vectors_of))]
        with torch.no_grad():
            vectors: Tensor = module(ids)
        return vectors

    def disconnected(self, explained: Tensor) -> ValueError:
        """That the scores do not depend on what is explained."""
        what = "what the embedding returns" if self.embedded else self._name()
        return ValueError(
            f"the scores do not depend on {what}, {tuple(explained.shape)}: it is not used, or passes "
            "through detach(), no_grad() or numpy on the way. Put the input that counts first or say which it is "
            "with of=, or explain a layer behind."
        )

    def _name(self) -> str:
        floating = [t.is_floating_point() for t in tensors(self.request.inputs)]
        return "the first floating-point input" if not any(floating[: self.place]) else "the input that of= names"

    @contextmanager
    def run(self, x: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        """What is explained, at `x` or at the samples, and its scores, connected by a graph."""
        if self.embedded:
            with embedding(self.request.model, self.tensor, x) as vectors_of:
                scores = self.request.scores()
                if not vectors_of:
                    raise TypeError(_no_embedding(self.request, self.tensor))
                yield next(iter(vectors_of.values())), scores
            return
        explained = (self.tensor if x is None else x).detach().requires_grad_(torch.is_grad_enabled())
        # a clone, since an in-place operation may follow
        inputs = replace_at(self.request.inputs, self.place, explained.clone())
        yield explained, replace(self.request, inputs=inputs).scores()


@dataclass(frozen=True)
class Point:
    """Where the samples are in a field whose classes no longer move.

    Args:
        field: asked for the classes of the samples as they are, wherever they are moved to.
        x: (N, ...) what is explained.
        scores: (N,) or (N, T) there.
    """

    field: Field
    x: Tensor
    scores: Tensor

    def check_shape(self, attributions: Tensor) -> None:
        """Raises ValueError for attributions of another shape than these samples have."""
        shape = (*self.scores.shape, *self.x.shape[1:])
        if attributions.shape != shape:
            raise ValueError(
                f"the attributions have the shape {tuple(attributions.shape)}; expected that of what is explained, "
                f"{tuple(shape)}"
            )

    def at(self, rows: Tensor, x: Tensor) -> Tensor:
        """The scores of copies of samples that are moved to `x`."""
        return self.field.some(rows).scores(x)

    def gradient(self, rows: Tensor, x: Tensor) -> Tensor:
        """(B, ...) or (B, T, ...), of copies of samples that are moved to `x`."""
        field = self.field.some(rows)
        with field.graph(x) as (explained, scores):
            return field.gradient(explained, scores)


def attributed(
    field: Field,
    batch_size: int,
    attribute: Callable[[Tensor, Tensor], Tensor],
    rules: Callable[[Tensor], None] = lambda scores: None,
) -> Tensor:
    """Float32 (N, ...) or (N, T, ...), of one forward and backward of the samples, `batch_size` at a time.

    Args:
        field: the samples; that their classes are not fixed saves a forward.
        batch_size: the most samples in one forward.
        attribute: made of what is explained, and of its gradient.
        rules: called with the scores; may change the graph before it is differentiated.
    """
    parts = []
    for batch in field.batches(batch_size):
        with batch.graph() as (explained, scores):
            rules(scores)
            gradient = batch.gradient(explained, scores)
        parts.append(attribute(beside(explained.detach(), gradient), gradient).float())
    return torch.cat(parts)


@contextmanager
def explaining_field(
    model: nn.Module,
    inputs: Any,
    targets: outputs.Targets,
    forward: Callable[[Any], Any] | None,
    of: str | int | None,
) -> Iterator[Field]:
    """The guarded pass of an attribution, and the field that is explained.

    Raises:
        TypeError: there is neither a floating-point input nor an embedding that token ids go into.
        ValueError: `of` is none of the inputs.
    """
    with explaining(model, inputs, targets, forward) as request:
        place = place_of(request.inputs, of)
        if place is None or not (tensors(request.inputs)[place].is_floating_point() or _embeddings(model)):
            raise TypeError(_no_gradient(request, place is not None))
        yield Field(request, place)


def beside(values: Tensor, gradient: Tensor) -> Tensor:
    """Values (N, ...) of the samples so that they go with a gradient (N, ...) or (N, T, ...) of equal cells."""
    values = wide(values)
    return values if values.ndim == gradient.ndim else values.unsqueeze(1)


def wide(tensor: Tensor) -> Tensor:
    """At least float32: what is summed and divided in half precision is lost."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _noting(request: Request, classes: list[Tensor]) -> Request:
    """The same request, which leaves on the list the classes that its targets mean."""
    targets = request.targets
    if callable(targets):
        return request

    def scores(output: Any) -> Tensor:
        classes.append(outputs.classes_of(output, targets))
        return outputs.asked_scores(output, classes[-1])

    return replace(request, targets=scores)


def _embeddings(model: nn.Module) -> list[str]:
    return [name for name, module in named_layers(model).items() if isinstance(module, nn.Embedding)]


def _no_gradient(request: Request, ids: bool) -> str:
    lacks = "no nn.Embedding that the token ids" if ids else "no token ids (N, L) that"
    return (
        f"the inputs ({described(request.inputs)}) have no gradient: there is no floating-point tensor among them, and "
        f"{lacks} could go into an embedding. Give the inputs as floating-point numbers (images.float()), with "
        f"forward= where the model takes them otherwise.{torchscript_note(request.model)}"
    )


def _no_embedding(request: Request, ids: Tensor) -> str:
    names = ", ".join(map(repr, _embeddings(request.model)[:8]))
    return (
        f"the token ids {tuple(ids.shape)} go into no nn.Embedding as they are; the model has {names}. Give the "
        "embedded tokens as the input, with forward= for what follows."
    )
