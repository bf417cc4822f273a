"""The bias share: what of the score LRP gives to no input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_xai.functional.field import explaining_field
from lightning_xai.functional.passes.outputs import Targets


def bias_share(
    model: nn.Module,
    inputs: Any,
    targets: Targets,
    relevance: Tensor,
    *,
    of: str | int | None = None,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """(score - sum of the relevance) / score: what biases take, and rules that do not conserve. One forward.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: as the relevance was made of.
        targets: likewise.
        relevance: (N, ...), or (N, T, ...) for T targets.
        of: as the relevance was made of.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most samples in one forward.

    Returns:
        float32 (N,), or (N, T) for T targets: 0 where the relevance is the whole score, below it where it is more.

    Raises:
        TypeError: nothing to differentiate by, or targets or an output of a kind that is not understood.
        ValueError: relevance, targets or `of` that do not fit.
        IndexError: a class that the model does not have.
    """
    with explaining_field(model, inputs, targets, forward, of) as field:
        point = field.point(batch_size)
        point.check_shape(relevance)
        scores = point.scores.double()
        return (1 - relevance.to(scores).flatten(scores.ndim).sum(-1) / scores).float()
