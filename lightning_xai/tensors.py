"""Tensors inside tuples, mappings and output objects: find them, change them, cut them to some samples."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, TypeAlias

import torch
from torch import Tensor

Rearrange: TypeAlias = Callable[[Tensor], Tensor]
"""A view of a tensor with other dimensions: that of a layer's output as (N, C, *cells), for one."""

Path: TypeAlias = tuple[Any, ...]
"""The keys, places or names that lead from a tree to one of its parts."""


def first_tensor(tree: Any) -> Tensor | None:
    """The first tensor inside `tree`, or None."""
    return next(iter(tensors(tree)), None)


def replace_first(tree: Any, tensor: Tensor) -> Any:
    """A copy of `tree` whose first tensor is `tensor`; the other parts are the same objects."""
    if isinstance(tree, Tensor):
        return tensor
    for key, value in items(tree):
        if first_tensor(value) is not None:
            return rebuilt(tree, {key: replace_first(value, tensor)})
    raise TypeError(f"there is no tensor in a {type(tree).__name__}")


def replace_at(tree: Any, place: int, tensor: Tensor) -> Any:
    """A copy of `tree` with `tensor` in place of that of `tensors(tree)`; the other parts are the same objects."""
    places = count()
    return map_tensors(tree, lambda other: tensor if next(places) == place else other)


def map_tensors(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """`tree` with `change` applied to each tensor; the same object where nothing changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    changed = {key: map_tensors(value, change) for key, value in items(tree)}
    changed = {key: value for key, value in items(tree) if changed[key] is not value} and changed
    return rebuilt(tree, changed) if changed else tree


def select(tree: Any, rows: Tensor | slice, size: int) -> Any:
    """The samples `rows` of every tensor in `tree` whose first dimension is `size`."""
    return map_tensors(tree, lambda t: t[rows] if t.ndim and t.shape[0] == size else t)


def items(tree: Any) -> Sequence[tuple[Any, Any]]:
    """The parts of a mapping, tuple, list or dataclass with their keys, places or names; none of anything else."""
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, (tuple, list)):
        return list(enumerate(tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    return []


def rebuilt(tree: Any, changed: Mapping[Any, Any]) -> Any:
    """A copy of `tree` with other parts under these keys, places or names."""
    if isinstance(tree, (tuple, list)):
        values = [changed.get(index, value) for index, value in enumerate(tree)]
        try:
            return tree._make(values) if hasattr(tree, "_make") else type(tree)(values)
        except TypeError:  # a kind of its own, made of something else than its items
            return tuple(values) if isinstance(tree, tuple) else values
    new = copy.copy(tree)
    for key, value in changed.items():
        if isinstance(tree, Mapping):
            new[key] = value
        else:  # object.__setattr__: also frozen dataclasses
            object.__setattr__(new, key, value)
    return new


def tensors(tree: Any) -> list[Tensor]:
    """The tensors inside `tree`, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    return [tensor for _, value in items(tree) for tensor in tensors(value)]


def find(tree: Any, wanted: Callable[[Tensor], bool]) -> Path | None:
    """Where in `tree` the first such tensor is; None where there is none."""
    if isinstance(tree, Tensor):
        return () if wanted(tree) else None
    for key, part in items(tree):
        if (path := find(part, wanted)) is not None:
            return (key, *path)
    return None


def at(tree: Any, path: Path) -> Any:
    """The part of `tree` that a path leads to."""
    for key in path:
        tree = dict(items(tree))[key]
    return tree


def detached(tree: Any) -> Any:
    """`tree` with tensors that a new graph may hold: no inference tensors, nothing that requires grad."""

    def change(tensor: Tensor) -> Tensor:
        if tensor.is_inference():
            return tensor.clone()
        return tensor.detach() if tensor.requires_grad else tensor

    with torch.inference_mode(False), torch.no_grad():
        return map_tensors(tree, change)
