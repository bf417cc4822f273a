"""Saliency: what in the input would change the answer most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.passes.explained import differentiable
from lightning_xai.functional.passes.outputs import Targets
from lightning_xai.functional.passes.request import each_gradient, explaining


def saliency(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """The absolute gradient of the scores at the input; the model is left as it was.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`. Explained is the
            first floating-point tensor; where there are token ids alone, what the embedding makes of them.
        targets: `"predicted"`, a class, (N,) or (N, T) classes, or a callable that makes (N,) or (N, T) scores of
            the model's output.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most samples in one forward.

    Returns:
        float32, of the shape of what is explained: (N, C, *spatial), or (N, L, D) of token ids; for T targets
        (N, T, ...).

    Raises:
        TypeError: nothing to differentiate by, or targets or an output of a kind that is not understood.
        ValueError: scores that do not depend on it, or targets that do not fit.
        IndexError: a class that the model does not have.

    Simonyan, Vedaldi and Zisserman 2013, "Deep Inside Convolutional Networks".
    """
    parts = []
    with explaining(model, inputs, targets, forward) as request:
        for start in range(0, request.shape[0], batch_size):
            with differentiable(request.some(slice(start, start + batch_size))) as (explained, scores):
                gradients = [gradient.abs().float() for (gradient,) in each_gradient(scores, [explained])]
            parts.append(gradients[0] if scores.ndim == 1 else torch.stack(gradients, 1))
        return torch.cat(parts)
