"""Expected gradients: integrated gradients from many baselines, which are samples of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.field import (
    backgrounds_of,
    explaining_field,
    generator,
    positions_of,
    summed_gradients,
    wide,
)
from lightning_xai.functional.passes.outputs import Targets


def expected_gradients(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    background: Tensor,
    samples: int = 16,
    seed: int = 0,
    positions: Sequence[int] | Tensor | None = None,
    of: str | int | None = None,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """The mean of (input - background) x gradient somewhere between the two; the model is left as it was.

    Known as GradientSHAP, too. Each background counts equally often, and the places are spread evenly over the way:
    a sample's attributions come to sum to its score less the mean of the backgrounds', with its own classes in all of
    them. `completeness_gap` says what they lack.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: `"predicted"`, a class, (N,) or (N, T) classes, or a callable that makes (N,) or (N, T) scores of
            the model's output; a callable sees at most `batch_size` rows at a time.
        background: (M, ...) samples like those that are explained; of token ids (M, L) others, or (M, L, D).
        samples: gradients a sample.
        seed: of the places and of the backgrounds' order.
        positions: (N,) where the samples are in a larger whole, of which these are a part: each has the draws of its
            position. None takes 0 to N - 1.
        of: the name or place of the input that is explained; None takes the first floating-point one, or token ids,
            of which what the embedding makes of them is explained.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most copies of samples in one forward.

    Returns:
        float32, signed, of the shape of what is explained: (N, C, *spatial), or (N, L, D) of token ids; for T targets
        (N, T, ...).

    Raises:
        TypeError: nothing to differentiate by, or targets or an output of a kind that is not understood.
        ValueError: scores that do not depend on it, or a background, samples, positions, targets or `of` that do not
            fit.
        IndexError: a class that the model does not have.

    Erion et al. 2021, "Improving performance of deep learning models with axiomatic attribution priors".
    """
    if samples < 1:
        raise ValueError(f"samples={samples}: expected at least one gradient a sample")
    with explaining_field(model, inputs, targets, forward, of) as field:
        point = field.point(batch_size)
        x, starts = wide(point.x), backgrounds_of(point, background)
        draws = [_draw(generator(seed, place), samples, len(starts)) for place in positions_of(point, positions)]
        chosen, shares = (torch.stack(part, 1).to(x.device) for part in zip(*draws, strict=True))

        def step(numbers: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            start = starts[chosen[numbers, rows]]
            share = shares[numbers, rows].to(x).view(-1, *[1] * (x.ndim - 1))
            way = x[rows] - start
            return start + share * way, way / samples

        return summed_gradients(point, samples, batch_size, step).float()


def _draw(random: torch.Generator, samples: int, backgrounds: int) -> tuple[Tensor, Tensor]:
    """(samples,) which background, and (samples,) which share of the way: one in each of as many equal parts."""
    rounds = -(-samples // backgrounds)
    orders = [torch.randperm(backgrounds, generator=random, device="cpu") for _ in range(rounds)]
    draw = torch.rand(samples, generator=random, dtype=torch.float64, device="cpu")
    return torch.cat(orders)[:samples], (torch.arange(samples, device="cpu") + draw) / samples
