"""The loss functions and metrics that say what an output means."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Family: TypeAlias = Literal["classes", "yes or no", "values", "pairs"]
"""Classes of which one is right; each with an answer of its own; numbers; two embeddings that are compared."""
Scale: TypeAlias = Literal["logits", "probabilities", "log-probabilities", "values"]


class Meaning(NamedTuple):
    """What a loss function says of its input."""

    family: Family
    scale: Scale
    names: tuple[str, str] = ("input", "target")
    """Its first two parameters."""


_PAIR = ("input1", "input2")
LOSSES: Mapping[str, Meaning] = {
    "cross_entropy": Meaning("classes", "logits"),
    "multi_margin_loss": Meaning("classes", "logits"),
    "nll_loss": Meaning("classes", "log-probabilities"),
    "binary_cross_entropy_with_logits": Meaning("yes or no", "logits"),
    "multilabel_soft_margin_loss": Meaning("yes or no", "logits"),
    "binary_cross_entropy": Meaning("yes or no", "probabilities"),
    "mse_loss": Meaning("values", "values"),
    "l1_loss": Meaning("values", "values"),
    "smooth_l1_loss": Meaning("values", "values"),
    "huber_loss": Meaning("values", "values"),
    "gaussian_nll_loss": Meaning("values", "values"),
    "cosine_embedding_loss": Meaning("pairs", "values", _PAIR),
    "cosine_similarity": Meaning("pairs", "values", ("x1", "x2")),
    "triplet_margin_loss": Meaning("pairs", "values", ("anchor", "positive")),
    "triplet_margin_with_distance_loss": Meaning("pairs", "values", ("anchor", "positive")),
}
"""Of `torch.nn.functional`, whose losses as modules call them too. Others (kl_div, by hand) say nothing for sure."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One call of a loss function or a metric.

    Args:
        name: of the function, or the metric's class.
        meaning: what it says of its input.
        values: its input; of pairs the first embedding.
        target: what that is compared with.
        options: the other arguments by name.
        metric: whether it is a metric.
    """

    name: str
    meaning: Meaning
    values: Tensor
    target: Tensor
    options: Mapping[str, Any] = field(default_factory=dict)
    metric: bool = False


class Losses(TorchFunctionMode):
    """Tells of each loss function that is called inside, once it has returned."""

    def __init__(self, tell: Callable[[Judged], None]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if (meaning := LOSSES.get(name)) is not None:
            given = dict(zip(meaning.names, args, strict=False)) | (kwargs or {})
            values, target = (given.pop(argument, None) for argument in meaning.names)
            if isinstance(values, Tensor) and isinstance(target, Tensor):
                self._tell(Judged(name, meaning, values, target, given))
        return output


METRICS: Mapping[str, Meaning] = {
    "Multiclass": Meaning("classes", "logits"),
    "Multilabel": Meaning("yes or no", "logits"),
    "Binary": Meaning("yes or no", "logits"),
}
"""torchmetrics' classification metrics by how their names begin."""


def metric_meaning(metric: nn.Module) -> Meaning | None:
    """What a metric of torchmetrics says of its first argument, None for what is none or says nothing."""
    if not is_metric(metric):
        return None
    if ".regression." in type(metric).__module__:
        return Meaning("values", "values", ("preds", "target"))
    return next((m for start, m in METRICS.items() if type(metric).__name__.startswith(start)), None)


def is_metric(module: nn.Module) -> bool:
    """Whether a module is a metric of torchmetrics."""
    package = sys.modules.get("torchmetrics")
    return package is not None and isinstance(module, package.Metric)
