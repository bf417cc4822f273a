"""The backward of attention: A' = (gradient * A)+ as it passes, without the matrices that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node

from lightning_xai.foreign.torch import without_function_modes
from lightning_xai.functional.attention.fused import Fused
from lightning_xai.functional.attention.watching import Watching
from lightning_xai.tensors import Rearrange

Chunks = Iterator[tuple[slice, Tensor]]  # some queries, and their rows (N, queries, S) of A'


@dataclass(eq=False)
class Event:
    """One attention of the forward, (N, L, S), between the nodes that made its queries and keys, and its output."""

    name: str
    shape: tuple[int, int, int]
    queries: Node | None
    keys: Node | None
    output: Node | None = None


class Passing(Watching):
    """Puts a node into the graph where each attention is; `consume` is given A' when the backward passes there."""

    def __init__(self, running: list[str], samples: int) -> None:
        super().__init__(running, samples)
        self.events: list[Event] = []
        # makes every attention part of the graph: parameters are frozen, and inputs may be integers
        self.anchor = torch.zeros((), dtype=torch.float32, device="cpu", requires_grad=True)
        self.consume: Callable[[Event, Chunks], None]

    def fused(self, call: Fused) -> Tensor:
        move = self.move()
        if call.mask is not None and call.mask.requires_grad:
            return self._through(call.weights().to(call.value.dtype), move) @ call.value
        shape = (*call.query.shape[:-1], call.key.shape[-2])
        event = self._event(move, shape, call.query.grad_fn, call.key.grad_fn)
        options = (call.mask, call.causal, call.scale)
        return _output(_FusedNode, event, call.query, call.key, call.value, self.anchor, options, self, event, move)

    def weighted(self, operand: Tensor, clean: Tensor, move: Rearrange) -> Tensor:
        return self._through(operand, move)

    def _through(self, weights: Tensor, move: Rearrange) -> Tensor:
        event = self._event(move, weights.shape, *_scored_by(weights.grad_fn))
        return _output(_WeightsNode, event, weights, self.anchor, self, event, move)

    def _event(self, move: Rearrange, shape: Sequence[int], queries: Node | None, keys: Node | None) -> Event:
        n, _, length, width = move(torch.empty(shape, dtype=torch.float32, device="meta")).shape
        self.events.append(Event(self.running[-1], (n, length, width), queries, keys))
        return self.events[-1]


def _output(node: type[torch.autograd.Function], event: Event, *args: Any) -> Tensor:
    output: Tensor = node.apply(*args)  # type: ignore[no-untyped-call]
    event.output = output.grad_fn
    return output


class _FusedNode(torch.autograd.Function):
    """The fused kernel; its backward makes the weights some queries at a time, passes A' on and forgets them."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        anchor: Tensor,
        options: tuple[Tensor | None, bool, float],
        passing: Passing,
        event: Event,
        move: Rearrange,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.options, ctx.passing, ctx.event, ctx.move = options, passing, event, move
        mask, causal, scale = options
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        call = Fused(*ctx.saved_tensors, *ctx.options)
        with without_function_modes(), torch.autocast(grad.device.type, enabled=False):
            dtype = torch.promote_types(call.query.dtype, torch.float32)  # that of the weights
            query, key, value, grad = (t.to(dtype) for t in (call.query, call.key, call.value, grad))
            grads = [torch.zeros_like(t) for t in (query, key, value)]

            def chunks() -> Chunks:
                for rows in call.chunks():
                    weights, above = call.weights(rows), grad[..., rows, :]
                    product = (above @ value.mT).mul_(weights)
                    yield rows, ctx.move(product).clamp_min(0).mean(1).float()
                    if any(ctx.needs_input_grad[:2]):
                        scores = product.sub_(weights * product.sum(-1, keepdim=True)).mul_(call.scale)
                        grads[0][..., rows, :] = scores @ key
                        grads[1] += scores.mT @ query[..., rows, :]
                    if ctx.needs_input_grad[2]:
                        grads[2] += weights.mT @ above

            ctx.passing.consume(ctx.event, chunks())
        inputs = (call.query, call.key, call.value)
        found = [g.to(t) if n else None for g, t, n in zip(grads, inputs, ctx.needs_input_grad, strict=False)]
        return (*found, None, None, None, None, None)


class _WeightsNode(torch.autograd.Function):
    """Weights that the model computes itself, unchanged; the backward passes A' on."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, anchor: Tensor, passing: Passing, event: Event, move: Rearrange) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.passing, ctx.event, ctx.move = passing, event, move
        return weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (weights,) = ctx.saved_tensors
        with without_function_modes():
            positive = ctx.move((grad.float() * weights).clamp_min(0)).mean(1).float()
            ctx.passing.consume(ctx.event, iter([(slice(None), positive)]))
        return (grad, None, None, None, None)


def latest_events(events: list[Event]) -> dict[Node | None, int]:
    """For what made queries and keys: the index of the last attention that it depends on, or -1."""
    index = {event.output: i for i, event in enumerate(events)}
    latest: dict[Node | None, int] = {None: -1}
    waiting = [node for event in events for node in (event.queries, event.keys)]
    while waiting:
        node = waiting[-1]
        if node is None or node in latest:
            waiting.pop()
            continue
        above = [] if node in index else [parent for parent, _ in node.next_functions]
        missing = [parent for parent in above if parent not in latest]
        if missing:
            waiting += missing
        else:
            latest[node] = index.get(node, max((latest[parent] for parent in above), default=-1))
    return latest


def _scored_by(node: Node | None) -> tuple[Node | None, Node | None]:
    """What made the queries and the keys of weights: the operands of the last matrix product before them."""
    while node is not None:
        above = [parent for parent, _ in node.next_functions]
        if node.name().partition("Backward")[0] in {"Mm", "Bmm", "Addmm", "Baddbmm"}:
            return above[-2], above[-1]
        node = next((parent for parent in above if parent is not None), None)
    return None, None
