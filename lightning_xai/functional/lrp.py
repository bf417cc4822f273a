"""Layer-wise relevance propagation: the score shared out backwards, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.field import beside, explaining_field
from lightning_xai.functional.passes.outputs import Targets
from lightning_xai.functional.propagation import Propagating, all_seen, composite_of, evenly_spread


def lrp(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    rule: str = "epsilon_plus",
    epsilon: float = 1e-6,
    of: str | int | None = None,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """What each value of the input contributed to the score by the rules of LRP; the model is left as it was.

    Rules go by what the model computes, not by its modules: functional, in-place and shared layers are as others.
    BatchNorm is one layer with that on whose output it is called. Activations such as GELU pass relevance on as it is,
    normalisations are linear for a fixed deviation, factors share a product evenly: AttnLRP. All else, such as
    softmax, has its gradient.
    What biases and these rules take is not in the sum: `bias_share` says how much it is.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: `"predicted"`, a class, (N,) or (N, T) classes, or a callable that makes (N,) or (N, T) scores of
            the model's output.
        rule: `"epsilon_plus"` (positive contributions in convolutions, epsilon in dense layers), `"epsilon"`, `"zero"`
            (input x gradient where all activations are ReLUs), `"alpha1_beta0"`, `"alpha2_beta1"`, or
            `"epsilon_plus_flat"` (what reaches the first layer is spread evenly over what it sees).
        epsilon: what keeps denominators from zero; larger, it damps what is small.
        of: the name or place of the input that is explained; None takes the first floating-point one, or token ids,
            of which what the embedding makes of them is explained.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most samples in one forward.

    Returns:
        float32, signed, of the shape of what is explained: (N, C, *spatial), or (N, L, D) of token ids; for T targets
        (N, T, ...).

    Raises:
        TypeError: nothing to differentiate by, or targets or an output of a kind that is not understood.
        ValueError: an unknown rule, a recurrent layer, convolutions that are not seen, scores that do not depend on
            the input, or epsilon, targets or `of` that do not fit.
        IndexError: a class that the model does not have.

    Bach et al. 2015, "On Pixel-Wise Explanations"; Montavon et al. 2019; Kohlbrenner et al. 2020; for attention
    Achtibat et al. 2024, "AttnLRP".
    """
    composite = composite_of(rule)
    if epsilon <= 0:
        raise ValueError(f"epsilon={epsilon} has to be positive; rule='zero' has none")
    parts = []
    # in one thread, so that a checkpointed block runs under the same mode again
    with (
        explaining_field(model, inputs, targets, forward, of) as field,
        torch.autograd.set_multithreading_enabled(False),
    ):
        for batch in field.batches(batch_size):
            with Propagating(composite, epsilon), batch.graph() as (explained, scores):
                all_seen(model, composite, scores)
                if composite.first is not None:
                    evenly_spread(explained, scores)
                carried = batch.gradient(explained, scores)
            relevance = carried if composite.first is not None else beside(explained.detach(), carried) * carried
            parts.append(relevance.float())
    return torch.cat(parts)
