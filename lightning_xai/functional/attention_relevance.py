"""Attention weighted by its gradient: which tokens speak for a class, through all layers (Chefer et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.attention.passing import Chunks, Event, Passing, latest_events
from lightning_xai.functional.attention.watching import within_mode
from lightning_xai.functional.attention_rollout import unit_rows
from lightning_xai.functional.hooks import running_modules
from lightning_xai.functional.passes import outputs
from lightning_xai.functional.passes.outputs import Targets
from lightning_xai.functional.passes.request import explaining


def attention_relevance(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    rows: Sequence[int] | None = None,
    forward: Callable[[Any], Any] | None = None,
) -> Tensor:
    """What each token adds to each other for a class: R = R + A' R, A' the mean over heads of (gradient * A)+.

    One forward and one backward. Where attention is fused nothing of the size L x L is kept: a row of R is carried
    from the last layer to the first, while the backward makes the weights a few queries at a time.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: one a sample: `"predicted"`, a class, (N,) classes, or a callable that makes (N,) scores.
        rows: the tokens that are explained, negative from the end; None takes all.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.

    Returns:
        float32 (N, rows, L), each token's own 1 included where the rows are tokens of the same sequence. With
        cross-attention (N, rows of the decoder, L of the encoder) by the rule for two sequences, and the head means
        of all layers are kept. An attention with a single query of its own, as over the states of an LSTM, has one
        row.

    Raises:
        ValueError: no attention that the scores depend on, layers over different sequences (windows), targets
            that do not fit.
        IndexError: a row or class that there is none of.
        TypeError: targets, or an output, of a kind that is not understood.

    Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability".
    """
    with (
        explaining(model, inputs, targets, forward) as request,
        running_modules(model) as running,
        torch.enable_grad(),
        # in one thread, so that a checkpointed block runs under the same mode again
        torch.autograd.set_multithreading_enabled(False),
        Passing(running, request.shape[0]) as passing,
    ):
        scores = outputs.asked_scores(request.run(request.inputs), request.targets)
        if scores.shape != request.shape[:1]:
            raise ValueError(
                f"the targets make scores of the shape {tuple(scores.shape)}; expected one score a sample, "
                f"({request.shape[0]},)"
            )
        return _propagated(passing, scores, rows)


def _propagated(passing: Passing, scores: Tensor, rows: Sequence[int] | None) -> Tensor:
    events = passing.events
    if not events or not scores.requires_grad:
        raise ValueError("the scores depend on no attention that is seen; attention_maps says what is")
    latest = latest_events(events)
    crossing = [e for e in events if e.shape[1] != e.shape[2] or latest[e.queries] != latest[e.keys]]
    if not crossing:
        return _one_sequence(passing, scores, rows)
    read = latest[crossing[0].keys]
    encoder = [event for index, event in enumerate(events) if index <= read]
    return _two_sequences(passing, scores, rows, encoder, crossing)


def _one_sequence(passing: Passing, scores: Tensor, rows: Sequence[int] | None) -> Tensor:
    # windows of one size in all layers agree with each other, not with the number of samples
    _check_shapes(passing.events, (len(scores), *passing.events[0].shape[1:]))
    relevance = unit_rows(rows, scores.new_empty(passing.events[0].shape))

    def consume(event: Event, chunks: Chunks) -> None:
        nonlocal relevance
        relevance = relevance + sum(relevance[..., some] @ chunk for some, chunk in chunks)

    _backward(passing, scores, consume)
    return relevance


def _two_sequences(
    passing: Passing, scores: Tensor, rows: Sequence[int] | None, encoder: list[Event], crossing: list[Event]
) -> Tensor:
    """The rules for an encoder and a decoder that reads it: (N, rows, L of the encoder)."""
    found: dict[Event, Tensor] = {}

    def consume(event: Event, chunks: Chunks) -> None:
        found[event] = torch.cat([chunk for _, chunk in chunks], 1)

    _backward(passing, scores, consume)
    n, queries, keys = crossing[0].shape
    decoder = [event for event in passing.events if event not in encoder and event not in crossing]
    _check_shapes(encoder, (n, keys, keys))
    _check_shapes(crossing, (n, queries, keys))
    _check_shapes(decoder, (n, queries, queries))
    of_encoder = torch.eye(keys, dtype=torch.float32, device=scores.device).expand(n, -1, -1)
    of_decoder = torch.eye(queries, dtype=torch.float32, device=scores.device).expand(n, -1, -1)
    between = torch.zeros(n, queries, keys, dtype=torch.float32, device=scores.device)
    for event in passing.events:
        if (positive := found.get(event)) is None:
            continue
        if event in encoder:
            of_encoder = of_encoder + positive @ of_encoder
        elif event in crossing:
            between = between + _normalised(of_decoder).mT @ positive @ _normalised(of_encoder)
        else:
            of_decoder, between = of_decoder + positive @ of_decoder, between + positive @ between
    return unit_rows(rows, between) @ between


def _normalised(relevance: Tensor) -> Tensor:
    """What was added to the identity, its rows scaled to one; the identity again added."""
    identity = torch.eye(relevance.shape[-1], dtype=relevance.dtype, device=relevance.device)
    added = relevance - identity
    total = added.sum(-1, keepdim=True)
    return added / torch.where(total > 0, total, 1) + identity


def _backward(passing: Passing, scores: Tensor, consume: Callable[[Event, Chunks], None]) -> None:
    passing.consume = consume
    # inside the mode, so that a checkpointed block that runs again has our nodes
    within_mode(torch.autograd.grad)(scores.sum(), [passing.anchor], allow_unused=True)


def _check_shapes(events: list[Event], expected: tuple[int, int, int]) -> None:
    for event in events:
        if event.shape != expected:
            raise ValueError(
                f"the attention in {event.name!r} is {event.shape} (samples, queries, keys), where {expected} goes "
                "before: relevance passes through layers over the same sequence, not through windows or pooling"
            )
