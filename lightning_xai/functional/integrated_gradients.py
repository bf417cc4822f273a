"""Integrated gradients: the change of the score on the way from a baseline to the input, shared among its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_xai.functional.field import (
    Baseline,
    baseline_of,
    beside,
    explaining_field,
    gauss_legendre,
    summed_gradients,
    wide,
)
from lightning_xai.functional.passes.outputs import Targets


def integrated_gradients(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    baseline: Baseline = None,
    steps: int = 32,
    of: str | int | None = None,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """The input less the baseline, times the mean gradient on the straight way between; the model is left as it was.

    The attributions of a sample sum to its score less that of the baseline, up to what the steps miss:
    `completeness_gap` says how much. Steps are Gauss-Legendre places; classes are those of the samples as they are.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: `"predicted"`, a class, (N,) or (N, T) classes, or a callable that makes (N,) or (N, T) scores of
            the model's output; a callable sees at most `batch_size` rows at a time.
        baseline: `"zero"` (None), `"mean"` of the sample's own positions (of a table, of the columns), `"blur"`, a
            number, a tensor of one sample or of all; of token ids a whole number is the id of a neutral token.
        steps: gradients a sample.
        of: the name or place of the input that is explained; None takes the first floating-point one, or token ids,
            of which what the embedding makes of them is explained.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most steps of samples in one forward.

    Returns:
        float32, signed, of the shape of what is explained: (N, C, *spatial), or (N, L, D) of token ids; for T targets
        (N, T, ...).

    Raises:
        TypeError: nothing to differentiate by, or targets or an output of a kind that is not understood.
        ValueError: scores that do not depend on it, or a baseline, steps, targets or `of` that do not fit.
        IndexError: a class that the model does not have.

    Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks".
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: the way from the baseline needs at least one")
    with explaining_field(model, inputs, targets, forward, of) as field:
        point = field.point(batch_size)
        start = wide(baseline_of(point, baseline))
        way = point.x - start
        places, weights = (values.to(way) for values in gauss_legendre(steps))

        def step(numbers: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            share, weight = (values[numbers].view(-1, *[1] * (way.ndim - 1)) for values in (places, weights))
            return start[rows] + share * way[rows], weight

        mean = summed_gradients(point, steps, batch_size, step)
        return (beside(way, mean) * mean).float()
