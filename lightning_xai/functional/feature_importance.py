"""Feature importance: what each column of a table adds to the scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_xai.functional.layers import close_matches
from lightning_xai.functional.masks import attributed, coalitions, leave_one_out, masking
from lightning_xai.functional.masks.chosen import chosen_input
from lightning_xai.functional.passes.outputs import Targets

Method = Literal["kernel_shap", "permutation"]


def feature_importance(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    method: Method = "kernel_shap",
    background: int | Tensor = 32,
    masks: int | None = None,
    of: str | int | None = None,
    seed: int = 0,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """What each column of a table adds to the score of each sample, against a background of samples.

    A column's importance is the mean absolute value over the samples, `found.abs().mean(0)`. The classes are those of
    the samples as they are; the model is left as it was.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a table (N, columns), a tuple for `model(*inputs)` or a mapping for `model(**inputs)` that holds one.
        targets: `"predicted"`, a class, (N,) or (N, T) classes, or a callable that makes (N,) or (N, T) scores of
            the model's output; a callable sees at most `batch_size` rows at a time.
        method: `"kernel_shap"` shares out between the columns what the score is above that of the background;
            `"permutation"` is what is lost when one column alone is taken from the background.
        background: (M, columns), or how many of the samples are drawn as such (all where there are fewer).
        masks: coalitions of KernelSHAP, at least two a column, which is the default.
        of: the name or place of the table; None takes the first floating-point input.
        seed: of what is drawn.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most rows in one forward.

    Returns:
        float32 (N, columns), signed; for T targets (N, T, columns).

    Raises:
        TypeError: no floating-point table, or targets or an output of a kind that is not understood.
        ValueError: an input that is no table, an unknown method, a background or targets that do not fit, or too few
            masks.
        IndexError: a class that the model does not have.

    Lundberg and Lee 2017; Fisher, Rudin and Dominici 2019, "All Models are Wrong, but Many are Useful".
    """
    if method not in get_args(Method):
        raise ValueError(f"method={method!r} is unknown.{close_matches(method, get_args(Method))}")
    table = chosen_input(inputs, of)
    if table.ndim != 2 or not table.is_floating_point():
        raise ValueError(
            f"feature_importance explains the columns of a floating-point table (N, columns), and the input is "
            f"{table.dtype} {tuple(table.shape)}; occlusion, kernel_shap and lime take images, signals and tokens"
        )
    settings: dict[str, Any] = {"of": of, "background": _background(table, background, seed)}
    with masking(model, inputs, targets, **settings, forward=forward, batch_size=batch_size) as masked:
        columns = masked.features.number
        bank = leave_one_out(columns) if method == "permutation" else coalitions(columns, masks, seed)
        return masked.spread(attributed(masked, bank))


def _background(table: Tensor, background: int | Tensor, seed: int) -> Tensor:
    if isinstance(background, Tensor):
        return background
    if background < 1:
        raise ValueError(f"background={background} samples leave nothing to put in a column's place; give 1 or more")
    drawn = torch.randperm(len(table), generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    return table[drawn[:background].sort().values.to(table.device)]
