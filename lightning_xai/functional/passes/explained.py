"""What an attribution explains: the first floating-point input, or what an embedding makes of token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from lightning_xai.functional.hooks import Call, embedding, graph_nodes, trace
from lightning_xai.functional.layers import named_layers, torchscript_note
from lightning_xai.functional.passes.request import Request, explaining, input_tensor
from lightning_xai.tensors import map_tensors, tensors


@contextmanager
def differentiable(request: Request) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensor that is explained and the scores, connected by a graph; differentiate inside the context.

    Raises:
        TypeError: there is neither a floating-point input nor an embedding that token ids go into.
        ValueError: the scores do not depend on it.
    """
    given = floating_input(request.inputs)
    with torch.enable_grad():
        if given is None:
            with _embedded(request) as (explained, scores):
                yield _connected(explained, scores, "what the embedding returns"), scores
            return
        explained = given.clone().requires_grad_()
        # a clone, since an in-place operation may follow
        inputs = map_tensors(request.inputs, lambda tensor: explained.clone() if tensor is given else tensor)
        scores = replace(request, inputs=inputs).scores()
        yield _connected(explained, scores, "the first floating-point input"), scores


def floating_input(inputs: Any) -> Tensor | None:
    """The first floating-point tensor of the inputs with a value for each sample, None where there is none.

    Masks are passed over: what a mapping calls so, or else what has the shape of token ids beside it.
    """
    samples, ids = input_tensor(inputs).shape[0], token_ids(inputs)
    if isinstance(inputs, Mapping):
        inputs, ids = [value for key, value in inputs.items() if "mask" not in str(key)], None
    for tensor in tensors(inputs):
        fits = tensor.is_floating_point() and tensor.ndim > 0 and tensor.shape[0] == samples
        if fits and (ids is None or tensor.shape != ids.shape):
            return tensor
    return None


def token_ids(inputs: Any) -> Tensor | None:
    """The (N, L) whole numbers among the inputs that stand for tokens, None where there are none."""
    if isinstance(inputs, Mapping) and isinstance(inputs.get("input_ids"), Tensor):
        found: Tensor = inputs["input_ids"]
        return found
    whole = (torch.long, torch.int32)
    return next((t for t in tensors(inputs) if t.ndim == 2 and t.dtype in whole), None)


@contextmanager
def _embedded(request: Request) -> Iterator[tuple[Tensor, Tensor]]:
    ids = token_ids(request.inputs)
    embeddings = [name for name, module in named_layers(request.model).items() if isinstance(module, nn.Embedding)]
    if ids is None or not embeddings:
        given = ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in tensors(request.inputs))
        lacks = "no token ids (N, L) that" if ids is None else "no nn.Embedding that the token ids"
        raise TypeError(
            f"the inputs ({given}) have no gradient: there is no floating-point tensor among them, and {lacks} could "
            "go into an embedding. Give the inputs as floating-point numbers (images.float()), with forward= where "
            f"the model takes them otherwise.{torchscript_note(request.model)}"
        )
    with embedding(request.model, ids) as found:
        scores = request.scores()
        if not found:
            raise TypeError(
                f"the token ids {tuple(ids.shape)} go into no nn.Embedding as they are; the model has "
                f"{', '.join(map(repr, embeddings[:8]))}. Give the embedded tokens as the input, with forward= for "
                "what follows."
            )
        yield next(iter(found.values())), scores


def _connected(explained: Tensor, scores: Tensor, what: str) -> Tensor:
    if get_gradient_edge(explained).node not in graph_nodes(scores):
        raise ValueError(
            f"the scores do not depend on {what}, {tuple(explained.shape)}: it is not used, or passes through "
            "detach(), no_grad() or numpy on the way. Put the input that counts first, or explain a layer behind."
        )
    return explained


def channel_dimension(model: nn.Module, inputs: Any, *, forward: Callable[[Any], Any] | None = None) -> int | None:
    """The dimension of the explained tensor that holds channels, None where each value is a cell of its own.

    Images (N, 1 or 3, H, W) have theirs first, embeddings last; of other inputs the layer says it that takes them.
    Two samples are run.
    """
    with explaining(model, inputs, forward=forward) as whole:
        given = floating_input(whole.inputs)
        if given is None:
            return 2
        if given.ndim < 3 or (given.ndim == 4 and given.shape[1] in (1, 3)):
            return 1 if given.ndim > 2 else None
        few = whole.some(slice(2))
        given = floating_input(few.inputs)
        assert given is not None
        return _channels(tuple(given.shape), trace(model, lambda: few.run(few.inputs)))


def _channels(shape: tuple[int, ...], calls: list[Call]) -> int | None:
    """By the first layer that takes as many numbers as the input has, and knows how many channels it takes."""
    numbers = torch.Size(shape).numel()
    for call in calls:
        features = _features(call.module)
        if features is None or torch.Size(call.taken).numel() != numbers:
            continue
        places = [place for place in range(1, len(shape)) if shape[place] == features]
        if not places:
            return None
        return places[0] if hasattr(call.module, "in_channels") else places[-1]
    return 1


def _features(module: nn.Module) -> int | None:
    for name in ("in_channels", "in_features", "input_size", "embed_dim"):
        if isinstance(found := getattr(module, name, None), int):
            return found
    normalised = getattr(module, "normalized_shape", None)
    return int(normalised[0]) if isinstance(normalised, tuple) and len(normalised) == 1 else None
