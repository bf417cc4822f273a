"""LIME: a linear model of the scores around each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_xai.functional.masks import Baseline, fitted, masking, neighbours
from lightning_xai.functional.passes.outputs import Targets


def lime(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    of: str | int | None = None,
    baseline: Baseline = None,
    masks: int = 512,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    cells: int = 8,
    seed: int = 0,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """Coefficients of a ridge regression of the score on which features are there, near the sample.

    The classes are those of the samples as they are; the model is left as it was.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: `"predicted"`, a class, (N,) or (N, T) classes, or a callable that makes (N,) or (N, T) scores of
            the model's output; a callable sees at most `batch_size` rows at a time.
        of: the name or place of the input whose features are taken away; None takes the first floating-point one, or
            the token ids where there is none.
        baseline: what stands for an absent feature: None or `"zero"` (of token ids the embedding's vector), `"mean"`
            of the sample's own positions (of a table, of the column), `"blur"` (what is finer than a cell is gone), a
            number, a tensor of one sample or of all, or a neutral token's id: a padding token may change the mask too.
        masks: forwards of each sample, its own the first of them; each other mask keeps a feature with probability
            one half.
        kernel_width: how fast a mask counts less with its cosine distance d to the whole: exp(-d^2 / (2 width^2)).
        ridge: the penalty of the squared coefficients.
        cells: of an image along each side, of a signal along its axis. Columns and tokens are features themselves.
        seed: of the masks, the same ones for all samples and in every call.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most rows in one forward.

    Returns:
        float32, signed, of the shape of the masked input, or (N, L) of token ids; for T targets (N, T, ...). A
        feature's value is shared evenly by the numbers that it covers, so that sums are those of the features.

    Raises:
        TypeError: nothing to mask, or targets or an output of a kind that is not understood.
        ValueError: more cells than positions, a baseline or targets that do not fit,
            no more masks than features, or a width or ridge that is not positive.
        IndexError: a class that the model does not have.

    Ribeiro, Singh and Guestrin 2016, "Why Should I Trust You?"; kernel and regression as in their package.
    """
    settings: dict[str, Any] = {"of": of, "baseline": baseline, "cells": cells}
    with masking(model, inputs, targets, **settings, forward=forward, batch_size=batch_size) as masked:
        bank = neighbours(masked.features.number, masks, kernel_width, ridge, seed)
        return masked.spread(fitted(masked, bank).values)
