"""The arguments of a call as inputs that can be explained, and the call that they are the arguments of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from lightning_xai.tensors import map_tensors

Form: TypeAlias = Literal["one", "args", "kwargs", "both"]


@dataclass(frozen=True, eq=False)
class Both:
    """Arguments by place and by name."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Fed:
    """Inputs of a forward that takes more than the model's own arguments; the first tensors are the model's.

    Args:
        arguments: of the first call; None where the step makes them anew.
        batch: that the step is run on; None where the call alone is repeated.
        labels: whose places the score is of; None where it needs none.
    """

    arguments: Any
    batch: Any = None
    labels: Tensor | None = None


@dataclass(frozen=True)
class Signature:
    """How inputs become the arguments of a call.

    Args:
        form: ``"one"`` argument by place, several ``"args"``, ``"kwargs"`` by name, or ``"both"``.
        lists: the arguments, by place or name, that are a list of samples, which is a tensor among the inputs.
    """

    form: Form
    lists: frozenset[int | str] = frozenset()

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any], samples: int) -> Signature:
        """That of a call with these arguments of so many samples."""
        form: Form = "one" if len(args) == 1 else "args"
        if kwargs:
            form = "both" if args else "kwargs"
        every: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        return cls(form, frozenset(key for key, value in every if _is_list_of_samples(value, samples)))

    def inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A tensor, a tuple or a mapping, in which lists of samples are stacked, of memory of its own.

        Raises:
            ValueError: samples of different shapes.
        """
        args = tuple(_owned(self._stacked(key, value)) for key, value in enumerate(args))
        kwargs = {key: _owned(self._stacked(key, value)) for key, value in kwargs.items()}
        if self.form == "both":
            return Both(args, kwargs)
        return kwargs if self.form == "kwargs" else args[0] if self.form == "one" else args

    def arguments(self, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The args and kwargs that these inputs stand for."""
        args: tuple[Any, ...] = (inputs,)
        kwargs: dict[str, Any] = {}
        if self.form == "args":
            args = tuple(inputs)
        elif self.form == "kwargs":
            args, kwargs = (), dict(inputs)
        elif self.form == "both":
            args, kwargs = inputs.args, inputs.kwargs
        return (
            tuple(list(value) if key in self.lists else value for key, value in enumerate(args)),
            {key: list(value) if key in self.lists else value for key, value in kwargs.items()},
        )

    def _stacked(self, key: int | str, value: Any) -> Any:
        if key not in self.lists:
            return value
        shapes = sorted({tuple(sample.shape) for sample in value})
        if len(shapes) > 1:
            raise ValueError(
                f"the model takes a list of samples of different shapes, {shapes[0]} and {shapes[-1]}: one map a "
                "sample needs one shape. Give probe= a Probe of samples of one shape"
            )
        return torch.stack(list(value))


def _is_list_of_samples(value: Any, samples: int) -> bool:
    plain = isinstance(value, (list, tuple)) and not hasattr(value, "_fields")
    return plain and len(value) == samples and all(isinstance(item, Tensor) and item.ndim == 3 for item in value)


def _owned(tree: Any) -> Any:
    return map_tensors(tree, lambda tensor: tensor.detach().clone())
