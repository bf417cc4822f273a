"""TCAV: how much the scores of classes depend on concepts, and whether more than on random examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.activations import earlier_layer, layer_gradients
from lightning_xai.functional.concepts.directions import CAVs, Sensitivities
from lightning_xai.functional.layers import find_layers
from lightning_xai.functional.metrics import significance


@dataclass(frozen=True, eq=False)
class TCAVScores:
    """What `tcav` returns: tensors (K, concepts) for K classes, unless said otherwise.

    Args:
        classes: (K,) indices.
        names: of the concepts.
        score: share of probes and random sets with a strictly positive derivative (Kim et al. 2018). It is 1 on many
            untrained networks: read it beside the effect.
        lower, upper: 95% interval of the score, over resampled concept and random examples.
        effect: logits that the difference between concept and random mean is worth along the CAV, to first order:
            the mean over probes of (gradient . w)(w . difference), averaged over the random sets.
        effect_lower, effect_upper: the band in which the effects of random sets lie, of the test used.
        p_value: one-sided, that a random set has such an effect, adjusted for the number of concepts.
        saturated: bool, every derivative of the class has one sign.
        probes, zero_gradients, constant_gradient: (K,) number of probes, of those with no gradient at all, and
            whether all have the same one: then the score can only be 0 or 1 for each CAV, and an earlier layer says
            more.
    """

    classes: Tensor
    names: tuple[str, ...]
    score: Tensor
    lower: Tensor
    upper: Tensor
    effect: Tensor
    effect_lower: Tensor
    effect_upper: Tensor
    p_value: Tensor
    saturated: Tensor
    probes: Tensor
    zero_gradients: Tensor
    constant_gradient: Tensor


def tcav(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    cavs: CAVs,
    *,
    layer: str | nn.Module,
    forward: Callable[[Any], Any] | None = None,
    test: str = "t",
    batch_size: int = 32,
) -> TCAVScores:
    """How much the logit of each class in `targets` depends on each concept; the model is left as it was.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: the probes: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: (N,) the class that each probe is an example of, and whose logit is differentiated.
        cavs: fitted to activations of the same layer.
        layer: a name or module.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        test: `"t"`, the prediction t test, or `"rank"`; see `score_concepts`.
        batch_size: the most samples in one forward.

    Raises:
        ValueError: a layer that does not run, or of another shape; targets that do not fit; too few random sets.
        IndexError: a class that the model does not have.

    Warns where the gradient is the same for all probes of a class, as before global average pooling and one linear
    layer, and names a layer to take instead.
    """
    significance.check_test(test, *cavs.accuracy.shape)
    ((name, module),) = find_layers(model, layer).items()
    gradients = layer_gradients(model, inputs, targets, module, forward=forward, batch_size=batch_size)[name]
    scores = score_concepts(
        cavs.sensitivities(gradients), targets, names=cavs.names, separation=cavs.separation, test=test
    )
    if scores.constant_gradient.any():
        better = earlier_layer(model, inputs, targets, module, forward=forward)
        warnings.warn(constant_gradient_message(name, better), stacklevel=2)
    return scores


def score_concepts(
    sensitivities: Sensitivities,
    targets: Tensor,
    *,
    names: Sequence[str],
    separation: Tensor,
    classes: Sequence[int] | None = None,
    test: str = "t",
) -> TCAVScores:
    """The scores as a function of stored tensors: no model, no activations, no randomness.

    Args:
        sensitivities: of the probes, from `CAVs.sensitivities`.
        targets: (N,) the probes' classes.
        names: of the concepts, without repetition.
        separation: from `CAVs`.
        classes: those to report; all in `targets` where None.
        test: `"t"` compares the effect with those of the random sets by `prediction_t`; `"rank"` by their order,
            exact for sets of one size, for which it needs 20 m - 1 random sets where there are m concepts.

    Raises:
        ValueError: a class without probes, tensors that do not fit, names that repeat, too few random sets.
    """
    probes, concepts, randoms = sensitivities.derivatives.shape
    significance.check_test(test, concepts, randoms)
    if len(set(names)) != len(names):
        raise ValueError(f"the names of concepts repeat: {', '.join(map(repr, names))}")
    if targets.shape != (probes,) or separation.shape != (concepts, randoms) or len(names) != concepts:
        raise ValueError(
            f"sensitivities are of {probes} probes, {concepts} concepts and {randoms} random sets; targets "
            f"{tuple(targets.shape)}, {len(names)} names and a separation {tuple(separation.shape)} do not fit"
        )
    targets = targets.to(sensitivities.derivatives.device)
    present = sorted(set(targets.tolist()))
    if absent := [c for c in classes or () if c not in present]:
        raise ValueError(f"there are no probes of class {', '.join(map(str, absent))}; targets has {present}")
    chosen = list(present if classes is None else classes)
    columns = [_of_class(sensitivities[targets == c], separation, test) for c in chosen]
    found = {key: torch.stack([column[key] for column in columns]) for key in columns[0]}
    return TCAVScores(classes=torch.tensor(chosen, dtype=torch.long, device="cpu"), names=tuple(names), **found)


def constant_gradient_message(layer: str, better: str | None) -> str:
    """What to tell the user where `TCAVScores.constant_gradient`."""
    way_out = f" Take an earlier layer, such as {better!r}." if better else " Take an earlier layer."
    return (
        f"at layer {layer!r} the gradient is the same for every probe of a class, as before global average pooling "
        f"and one linear layer: a TCAV score can only be 0 or 1 there for each CAV.{way_out}"
    )


def _of_class(sensitivities: Sensitivities, separation: Tensor, test: str) -> dict[str, Tensor]:
    derivatives, norm = sensitivities.derivatives.double(), sensitivities.gradient_norm
    effects = derivatives.mean(0) * separation.double()  # (concepts, randoms)
    null = sensitivities.null_effects.double().mean(0)  # (randoms,)
    effect = effects.mean(1)
    if test == "rank":
        # each random set among all other sets, this concept with them: what the concept is among all random sets
        null = (null * (len(null) - 1) - effects) / len(null)
        p, low, high = significance.rank(effect, null)
    else:
        p, low, high = significance.prediction_t(effect, null.expand_as(effects))
    positive = derivatives > 0
    score = positive.double().mean((0, 2))
    replicates = sensitivities.replicates.double().mean(0)  # (concepts, replicates)
    around = torch.cat([replicates, score[:, None]], 1)
    lower, upper = around.quantile(around.new_tensor([0.025, 0.975]), dim=1)
    spread = derivatives.amax(0) - derivatives.amin(0)
    largest = derivatives.abs().amax()
    return {
        "score": score.float(),
        "lower": lower.minimum(score).float(),
        "upper": upper.maximum(score).float(),
        "effect": effect.float(),
        "effect_lower": low.float(),
        "effect_upper": high.float(),
        "p_value": significance.holm(p),
        "saturated": positive.all(2).all(0) | (derivatives < 0).all(2).all(0),
        "probes": torch.tensor(len(derivatives), dtype=torch.long, device="cpu"),
        "zero_gradients": (norm == 0).sum(),
        "constant_gradient": (largest > 0) & (spread.amax() <= 1e-4 * largest) & (len(derivatives) > 1),
    }
