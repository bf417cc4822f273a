"""SmoothGrad: the gradient around the input instead of at one point of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.field import explaining_field, generator, positions_of, summed_gradients, wide
from lightning_xai.functional.passes.outputs import Targets


def smooth_grad(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    samples: int = 16,
    noise: float = 0.15,
    squared: bool = False,
    seed: int = 0,
    positions: Sequence[int] | Tensor | None = None,
    of: str | int | None = None,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """The mean gradient under Gaussian noise, the same at every call; the model is left as it was.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: `"predicted"`, a class, (N,) or (N, T) classes, or a callable that makes (N,) or (N, T) scores of
            the model's output; a callable sees at most `batch_size` rows at a time. Classes are those without noise.
        samples: gradients a sample.
        noise: its standard deviation, as a share of each sample's own range.
        squared: the mean of the squares instead (Hooker et al. 2019).
        seed: of the noise.
        positions: (N,) where the samples are in a larger whole, of which these are a part: each has the noise of its
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
        ValueError: scores that do not depend on it, or samples, noise, positions, targets or `of` that do not fit.
        IndexError: a class that the model does not have.

    Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise".
    """
    if samples < 1 or noise < 0:
        raise ValueError(f"samples={samples}, noise={noise}: expected at least one sample, and no negative noise")
    with explaining_field(model, inputs, targets, forward, of) as field:
        point = field.point(batch_size)
        x, places = wide(point.x), positions_of(point, positions)
        flat = x.flatten(1)
        spread = (noise * (flat.amax(1) - flat.amin(1))).view(-1, *[1] * (x.ndim - 1))

        def step(numbers: Tensor, rows: Tensor) -> tuple[Tensor, float]:
            draws = [
                torch.randn(
                    x.shape[1:], generator=generator(seed, places[row], copy), dtype=torch.float32, device="cpu"
                )
                for copy, row in zip(numbers.tolist(), rows.tolist(), strict=True)
            ]
            return x[rows] + spread[rows] * torch.stack(draws).to(x), 1 / samples

        return summed_gradients(point, samples, batch_size, step, torch.square if squared else None).float()
