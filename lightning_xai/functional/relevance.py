"""Attention weighted by its gradient: which tokens speak for a class, through all layers (Chefer et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional import outputs
from lightning_xai.functional.hooks import following, inspecting
from lightning_xai.functional.nested import usable
from lightning_xai.functional.outputs import Targets
from lightning_xai.functional.request import input_tensor


def attention_relevance(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    rows: Sequence[int] | None = None,
    forward: Callable[[Any], Any] | None = None,
) -> Tensor:
    """What each token adds to each other for a class: R = R + A' R, A' the mean over heads of (gradient * A)+.

    One forward and one backward. Where attention is fused nothing of the size L x L is kept: a row of R is carried
    from the last layer to the first, while the backward makes the weights a few queries at a time.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: one a sample: `"predicted"`, a class, (N,) classes, or a callable that makes (N,) scores.
        rows: the tokens that are explained, negative from the end; None takes all.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.

    Returns:
        float32 (N, rows, L), each token's own 1 included. With cross-attention (N, rows of the decoder, L of the
        encoder) by the rule for two sequences, and the head means of all layers are kept. An attention with a
        single query of its own, as over the states of an LSTM, has one row.

    Raises:
        ValueError: no attention that the scores depend on, layers over different sequences (windows), targets
            that do not fit.
        IndexError: a row or class that there is none of.
        TypeError: targets, or an output, of a kind that is not understood.

    Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability".
    """
    with inspecting(model):
        inputs = usable(inputs)
        samples = input_tensor(inputs).shape[0]
        # in one thread, so that a checkpointed block runs under the same mode again
        with following(model) as running, torch.enable_grad(), torch.autograd.set_multithreading_enabled(False):
            with _Relevance(running, samples) as events:
                output = outputs.call(model, inputs) if forward is None else forward(inputs)
                scores = outputs.asked_scores(output, usable(targets))
                if scores.shape != (samples,):
                    raise ValueError(
                        f"the targets make scores of shape {tuple(scores.shape)}; expected one score a sample, ({samples},)"
                    )
                return events.relevance(scores, rows)
