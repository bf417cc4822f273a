"""Deconvolution: the net run backwards, as a deconvnet runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_xai.functional.field import attributed, explaining_field
from lightning_xai.functional.field.rectifiers import deconvolved
from lightning_xai.functional.passes.outputs import Targets


def deconvolution(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    of: str | int | None = None,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """The gradient whose ReLUs look at what comes back instead of at their input; the model is left as it was.

    Each passes on what is positive, also where it was not active. Module, functional and in-place ReLUs give the same.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: `"predicted"`, a class, (N,) or (N, T) classes, or a callable that makes (N,) or (N, T) scores of
            the model's output.
        of: the name or place of the input that is explained; None takes the first floating-point one, or token ids,
            of which what the embedding makes of them is explained.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most samples in one forward.

    Returns:
        float32, signed, of the shape of what is explained: (N, C, *spatial), or (N, L, D) of token ids; for T targets
        (N, T, ...).

    Raises:
        TypeError: nothing to differentiate by, or targets or an output of a kind that is not understood.
        ValueError: a net without a ReLU, scores that do not depend on the input, or targets or `of` that do not fit.
        IndexError: a class that the model does not have.

    Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks".
    """
    with explaining_field(model, inputs, targets, forward, of) as field:
        return attributed(field, batch_size, lambda x, gradient: gradient, deconvolved)
