"""The tensors of a shadow: parameters share memory, what is small is its own, what is large is shared and watched."""

from __future__ import annotations

import sys
from array import array as PythonArray
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from lightning_xai.foreign.torch import address, of_class, version

T = TypeVar("T")

MIB = 2**20
UNINITIALISED = (UninitializedParameter, UninitializedBuffer)
BUFFER_BYTES = 64 * MIB
"""A larger buffer is shared."""
ATTRIBUTE_BYTES = 32 * MIB
"""What all tensors in plain attributes may take before the next one is shared."""
ITEM_BYTES = 16 * MIB
"""What all tensors and arrays inside containers may take: an epoch's outputs, kept in a list, are not copied."""


@dataclass
class Plan:
    """Which tensors of a model are shared, decided once, when its snapshot is taken.

    Args:
        parameters: storages that parameters lie in: a view of one is a view of the shadow's parameter.
        clone_parameters: whether parameters have memory of their own as well.
        own: parameters that have in any case, by id: those that their module writes to.
    """

    parameters: set[int] = field(default_factory=set)
    clone_parameters: bool = False
    own: set[int] = field(default_factory=set)
    _shared: set[int] = field(default_factory=set)
    _attributes: int = ATTRIBUTE_BYTES
    _items: int = ITEM_BYTES

    @classmethod
    def of(cls, parameters: Iterable[nn.Parameter], *, clone: bool) -> Plan:
        """The plan for a model with these parameters."""
        return cls({storage for p in parameters if (storage := storage_of(p)) is not None}, clone)

    def decide(self, tensor: Tensor, kind: str) -> bool:
        """Whether this ``"buffer"``, ``"attribute"`` or ``"item"`` of a container gets memory of its own."""
        if isinstance(tensor, UNINITIALISED):
            return True
        if storage_of(tensor) in self.parameters:
            owned = self.clone_parameters
        elif tensor.is_inference():
            owned = True  # autograd refuses to save it
        else:
            owned = self.affords(_bytes(tensor), kind)
        if not owned:
            self._shared.add(id(tensor))
        return owned

    def affords(self, size: int, kind: str) -> bool:
        """Whether so many bytes are copied for something of this kind; counts them if they are."""
        if kind == "buffer":
            return size <= BUFFER_BYTES
        if kind == "attribute":
            fits = size <= self._attributes
            self._attributes -= size * fits
        else:
            fits = size <= self._items
            self._items -= size * fits
        return fits

    def is_shared(self, tensor: Tensor) -> bool:
        """Whether `decide` said that it is shared."""
        return id(tensor) in self._shared


class Memory:
    """Makes the tensors of one shadow: storages are copied once, so that views of one stay views of one."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._storages: dict[int, torch.UntypedStorage] = {}

    def parameter(self, parameter: nn.Parameter) -> nn.Parameter:
        """Frozen, of the same class and attributes; uninitialised where the original is."""
        kind = type(parameter)
        made: nn.Parameter
        if isinstance(parameter, UNINITIALISED):
            made = _uninitialised(parameter)
        else:
            own = self._plan.clone_parameters or id(parameter) in self._plan.own or parameter.is_inference()
            data = self._copied(parameter.detach()) if own else parameter.detach()
            if issubclass(kind, nn.Parameter) and kind is not nn.Parameter:
                made = of_class(kind, data)
            else:
                made = nn.Parameter(data, False)
        return _with_attributes(made, parameter)

    def tensor(self, tensor: Tensor) -> Tensor:
        """The same memory where the plan shares it, else a copy."""
        if isinstance(tensor, UNINITIALISED):
            return _with_attributes(_uninitialised(tensor), tensor)  # type: ignore[no-any-return]
        data = tensor.detach()
        return _with_attributes(data if self._plan.is_shared(tensor) else self._copied(data), tensor)

    def _copied(self, tensor: Tensor) -> Tensor:
        storage = _plain_storage(tensor)
        if storage is None or storage.nbytes() > max(BUFFER_BYTES, 4 * _bytes(tensor)):
            return tensor.clone()
        key = address(storage)
        if key not in self._storages:
            self._storages[key] = storage.clone()  # type: ignore[no-untyped-call]
        view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return view.set_(self._storages[key], tensor.storage_offset(), tensor.size(), tensor.stride())


def _uninitialised(tensor: Any) -> Any:
    return type(tensor)(requires_grad=False, device=tensor.device, dtype=tensor.dtype)


def storage_of(tensor: Tensor) -> int | None:
    """What tells one storage from another; None where a tensor has none."""
    storage = _plain_storage(tensor)
    return None if storage is None else address(storage)


def version_of(tensor: Tensor) -> int | None:
    """Counts the writes to a tensor and its views; None where they are not counted."""
    return None if isinstance(tensor, UNINITIALISED) or tensor.is_inference() else version(tensor)


def bytes_of(array: Any) -> int | None:
    """What an array that is no tensor takes; None for all else."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(array) is numpy.ndarray:
        return int(array.nbytes)
    return memoryview(array).nbytes if type(array) in (bytearray, PythonArray) else None


def _plain_storage(tensor: Tensor) -> torch.UntypedStorage | None:
    """The storage that a tensor is a strided view of, and nothing more."""
    if type(tensor) is not Tensor and type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return None
    if isinstance(tensor, UNINITIALISED) or tensor.layout != torch.strided or tensor.is_nested:
        return None
    if tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or tensor.device.type == "meta":
        return None
    return tensor.untyped_storage()


def _bytes(tensor: Tensor) -> int:
    storage = _plain_storage(tensor)
    if storage is not None and not tensor.is_contiguous():
        return min(storage.nbytes(), tensor.numel() * tensor.element_size())
    try:
        return tensor.numel() * tensor.element_size()
    except RuntimeError:  # layouts without strides or a number of elements
        return 0


def _with_attributes(made: T, original: Tensor) -> T:
    if original.__dict__:
        made.__dict__.update(original.__dict__)
    return made
