"""From a model's inputs to its output, and from the output to predictions and to scores that can be explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

Targets: TypeAlias = "int | Tensor | Literal['predicted'] | Callable[[Any], Tensor]"

_WAY_OUT = "Pass forward= (inputs -> logits), or a callable target (output -> one score a sample)"


def call(model: nn.Module, inputs: Any) -> Any:
    """`model(tensor)`, `model(*tuple)` or `model(**mapping)`."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def logits(output: Any) -> Tensor:
    """The logits in a model's output: (N, C), or (N,) or (N, 1) for one logit of two classes.

    Taken from a tensor, the first tensor of a tuple, the key `logits` or `out` (or the only tensor) of a
    mapping, or the attribute `logits`.

    Raises:
        TypeError: an output of another kind.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        found: Tensor = output.logits
        return found
    tensors: list[Tensor] = []
    if isinstance(output, Mapping):
        named = [output[key] for key in ("logits", "out") if isinstance(output.get(key), Tensor)]
        tensors = named or [value for value in output.values() if isinstance(value, Tensor)]
        if named or len(tensors) == 1:
            return tensors[0]
    elif isinstance(output, (tuple, list)):
        tensors = [value for value in output if isinstance(value, Tensor)]
        if tensors:
            return tensors[0]
    keys = f" with the keys {sorted(map(str, output))}" if isinstance(output, Mapping) else ""
    raise TypeError(
        f"found no logits in the model's output, a {type(output).__name__}{keys}. Expected a tensor, a tuple that "
        f"holds one, or a mapping or object with `logits`. {_WAY_OUT}."
    )


def predict(output: Any) -> tuple[Tensor, Tensor]:
    """The predicted class (N,) and its probability (N,); one logit is the one of class 1."""
    values = _class_logits(output).detach().float()
    if values.shape[1] == 1:
        positive = values[:, 0] > 0
        probability = values[:, 0].sigmoid()
        return positive.long(), torch.where(positive, probability, 1 - probability)
    confidence, prediction = values.softmax(1).max(1)
    return prediction, confidence


def scores(output: Any, targets: Targets) -> Tensor:
    """What is explained: (N, T) scores, differentiable; logits, or what a callable target returns.

    Args:
        output: what the model returned.
        targets: a class, (N,) or (N, T) classes, `"predicted"`, or a callable: output -> (N,) or (N, T). Of one
            logit, class 1 is the logit and class 0 its negative.

    Raises:
        TypeError: targets that are no class indices; an output in which no logits are found.
        ValueError: a number of targets that does not fit.
        IndexError: a class that the model does not have.
    """
    found = asked_scores(output, targets)
    return found[:, None] if found.ndim == 1 else found


def asked_scores(output: Any, targets: Targets) -> Tensor:
    """`scores` in the shape that was asked for: (N, T) only where the targets or the callable are (N, T)."""
    if callable(targets):
        return _checked(targets(output))
    values = _class_logits(output)
    classes = classes_of(output, targets)
    both = torch.cat([-values, values], 1) if values.shape[1] == 1 else values
    return both.gather(1, classes) if classes.ndim == 2 else both.gather(1, classes[:, None])[:, 0]


def classes_of(output: Any, targets: int | Tensor | str) -> Tensor:
    """The classes that `targets` means for this output: (N,) or (N, T), checked. Raises as `scores`."""
    values = _class_logits(output)
    samples = values.shape[0]
    if isinstance(targets, str):
        if targets != "predicted":
            raise ValueError(f'targets={targets!r} is unknown; expected "predicted", classes, or a callable')
        return predict(output)[0]
    if not isinstance(targets, (int, Tensor)) or isinstance(targets, bool):
        raise TypeError(f"targets is a {type(targets).__name__}; expected an int, a tensor, a callable or 'predicted'")
    if isinstance(targets, int):
        targets = torch.tensor(targets, dtype=torch.long, device=values.device)
    classes = targets.to(values.device)
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise TypeError(
            f"targets is a tensor of {classes.dtype}; expected class indices: targets.long() if the values are "
            "classes, targets.argmax(1) if they are one-hot"
        )
    if classes.ndim == 0:
        classes = classes.expand(samples)
    if classes.ndim > 2 or classes.shape[0] != samples:
        raise ValueError(
            f"targets has the shape {tuple(classes.shape)} for {samples} samples; expected ({samples},), or "
            f"({samples}, T) for T classes of each sample"
        )
    count = max(values.shape[1], 2)  # one logit speaks of two classes
    wrong = ((classes < 0) | (classes >= count)).nonzero()
    if len(wrong):
        raise IndexError(
            f"target {int(classes[tuple(wrong[0])])} of sample {int(wrong[0, 0])} is out of range: "
            f"the model has {count} classes, 0 to {count - 1}"
        )
    return classes.long()


def _checked(score: Any) -> Tensor:
    if not isinstance(score, Tensor) or score.ndim not in (1, 2):
        given = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else f"a {type(score).__name__}"
        raise ValueError(
            f"the callable target returned {given}; expected one score a sample, a tensor (N,), or (N, T) for T scores"
        )
    return score


def _class_logits(output: Any) -> Tensor:
    values = logits(output)
    if values.ndim == 1:
        return values[:, None]
    if values.ndim != 2:
        raise ValueError(
            f"the logits have the shape {tuple(values.shape)}; expected (N, classes). Say which cells or tokens are "
            "explained with a callable target that returns one score a sample: for class 3 of (N, classes, H, W) "
            "logits `lambda output: output[:, 3].mean((1, 2))`, for that of the first of (N, L, classes) "
            "`lambda output: output[:, 0, 3]`."
        )
    return values
