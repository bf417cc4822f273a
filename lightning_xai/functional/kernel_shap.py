"""KernelSHAP: Shapley values of the parts of the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_xai.functional.masks import Baseline, attributed, coalitions, masking
from lightning_xai.functional.passes.outputs import Targets


def kernel_shap(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    of: str | int | None = None,
    baseline: Baseline = None,
    background: Tensor | None = None,
    masks: int | None = None,
    cells: int = 8,
    seed: int = 0,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """What each feature adds to the score, over all orders in which features can come (Shapley values).

    They sum to the score less that of a sample with nothing left. Exact where `masks` holds every coalition, 2^features
    - 2; with the default of two masks a feature where features meet in pairs. Beyond that coalitions are drawn in
    pairs with their complements. The classes are those of the samples as they are; the model is left as it was.

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
        background: (M, ...) samples in the place of a baseline: absent features are taken from each in turn, and the
            scores averaged.
        masks: coalitions that are run, at least two a feature, which is the default. Of many features less than
            about ten each make it worse, not better.
        cells: of an image along each side, of a signal along its axis. Columns and tokens are features themselves.
        seed: of the coalitions that are drawn, the same ones for all samples and in every call.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most rows in one forward.

    Returns:
        float32, signed, of the shape of the masked input, or (N, L) of token ids; for T targets (N, T, ...). A
        feature's value is shared evenly by the numbers that it covers, so that sums are those of the features.

    Raises:
        TypeError: nothing to mask, or targets or an output of a kind that is not understood.
        ValueError: more cells than positions, a baseline or targets that do not fit,
            or too few masks.
        IndexError: a class that the model does not have.

    Lundberg and Lee 2017, "A Unified Approach to Interpreting Model Predictions"; Covert and Lee 2021, "Improving
    KernelSHAP".
    """
    settings: dict[str, Any] = {"of": of, "baseline": baseline, "background": background, "cells": cells}
    with masking(model, inputs, targets, **settings, forward=forward, batch_size=batch_size) as masked:
        return masked.spread(attributed(masked, coalitions(masked.features.number, masks, seed)))
