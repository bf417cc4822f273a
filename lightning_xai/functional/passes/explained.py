"""Which input an attribution explains, and where its channels are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.hooks import Call, trace
from lightning_xai.functional.layers import close_matches
from lightning_xai.functional.passes.request import explaining, input_tensor
from lightning_xai.tensors import tensors

_WHOLE = (torch.long, torch.int32)


def place_of(inputs: Any, of: str | int | None) -> int | None:
    """Which of `tensors(inputs)` is explained, None where there is none that could be.

    Args:
        inputs: what the model takes.
        of: the name or place of one of them; None takes the first floating-point one, then token ids.

    Raises:
        ValueError: `of` names none of them, or one without a value for each sample.
        TypeError: `of` names no tensor of floating-point or whole numbers.
    """
    if of is not None:
        return _named(inputs, of)
    chosen = floating_input(inputs)
    chosen = token_ids(inputs) if chosen is None else chosen
    return next((place for place, tensor in enumerate(tensors(inputs)) if tensor is chosen), None)


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
        ids: Tensor = inputs["input_ids"]
        return ids
    return next((t for t in tensors(inputs) if t.ndim == 2 and t.dtype in _WHOLE), None)


def described(tree: Any) -> str:
    """The tensors inside `tree` by type and shape, for errors."""
    return ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in tensors(tree))


def _named(inputs: Any, of: str | int) -> int:
    parts = inputs if isinstance(inputs, (Mapping, tuple, list)) else [inputs]
    names = list(parts) if isinstance(parts, Mapping) else list(range(len(parts)))
    if of not in names:
        close = close_matches(of, map(str, names)) if isinstance(of, str) else ""
        raise ValueError(f"of={of!r} is none of the inputs.{close} There are {', '.join(map(repr, names))}.")
    part, samples = parts[of], input_tensor(inputs).shape[0]  # type: ignore[index]
    if not isinstance(part, Tensor) or not (part.is_floating_point() or part.dtype in _WHOLE):
        raise TypeError(
            f"of={of!r} is {described(part) if isinstance(part, Tensor) else f'a {type(part).__name__}'}; expected a "
            "tensor of floating-point numbers, or of token ids that go into an embedding"
        )
    if part.shape[:1] != (samples,):
        raise ValueError(
            f"of={of!r} has the shape {tuple(part.shape)} for {samples} samples; expected ({samples}, ...), one row a "
            "sample"
        )
    before = names[: names.index(of)]
    return sum(len(tensors(parts[name])) for name in before)


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
