"""Where each tensor of a step comes from: of which parts of the batch, parameters and buffers it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from lightning_xai.tensors import tensors

CONSTANT = ("empty", "zeros", "ones", "full", "eye", "arange", "rand", "randn", "randint")
"""Functions that take no values from their arguments, without their ``new_`` and ``_like``."""
OF_FIRST = ("to", "type_as", "view_as", "expand_as", "reshape_as")
"""Methods that take no values from what follows their tensor."""


@dataclass(frozen=True)
class Origin:
    """What a tensor is made of.

    Args:
        batch: places in the batch.
        parameters: the number of values of all parameters that act on it.
        buffers: whether a buffer does.
    """

    batch: tuple[str, ...]
    parameters: int
    buffers: bool

    @property
    def is_data(self) -> bool:
        """Whether it is made of the batch alone."""
        return bool(self.batch) and not self.parameters

    @property
    def is_made(self) -> bool:
        """Whether the step made it of nothing."""
        return not self.batch and not self.parameters


class Sources(TorchFunctionMode):
    """Follows tensors through all functions of torch that are called inside.

    A source is a bit of a number, so that what hundreds of parameters act on is one ``|``. What leaves torch on its
    way (numpy, Python's numbers) comes back as of unknown origin, that is as made by the step.

    Args:
        batch: the tensors of the batch, by place.
        model: whose parameters and buffers are sources.
    """

    def __init__(self, batch: Mapping[str, Tensor], model: nn.Module) -> None:
        super().__init__()
        self._names: list[str | None] = []
        self._numbers: list[int] = []
        self._buffers = self._used = 0
        self._bits = cast("MutableMapping[Tensor, int]", WeakIdKeyDictionary())
        for name, tensor in batch.items():
            self._bits[tensor] = self._bits.get(tensor, 0) | self._source(name, 0)
        for parameter in model.parameters():
            self._of(parameter)
        for buffer in model.buffers():
            self._bits[buffer] = bit = self._source(None, 0)
            self._buffers |= bit

    def origin(self, *trees: Any) -> Origin:
        """Of all tensors in some trees together."""
        bits = self._union(trees)
        set_bits = [index for index in range(bits.bit_length()) if bits >> index & 1]
        places = tuple(name for index in set_bits if (name := self._names[index]) is not None)
        return Origin(places, sum(self._numbers[index] for index in set_bits), bool(bits & self._buffers))

    def uses(self, tensor: Tensor) -> bool:
        """Whether some function of torch took this tensor of the batch, or what was made of it."""
        return bool(self._of(tensor) & self._used)

    @property
    def parameters(self) -> int:
        """The number of values of all parameters that have been seen."""
        return sum(self._numbers)

    def adopt(self, output: Any, *origins: Any) -> None:
        """Tensors of a module's output that came from no function of torch are made of all that went into it."""
        for tensor in tensors(output):
            if tensor not in self._bits:
                self._bits[tensor] = self._union(origins)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        changed = name in ("__setitem__", "__set__")
        made = [args[0]] if changed else tensors(output)
        self._used |= self._union((args, kwargs)) if made else 0
        if made and not _is_constant(name):
            bits = self._union((args[:1],) if name in OF_FIRST else (args, kwargs))
            for tensor in made:
                self._bits[tensor] = self._bits.get(tensor, 0) | bits
        return output

    def _union(self, trees: Iterable[Any]) -> int:
        bits = 0
        for tree in trees:
            for tensor in tensors(tree):
                bits |= self._of(tensor)
        return bits

    def _of(self, tensor: Tensor) -> int:
        known = self._bits.get(tensor)
        if known is None:
            # a module that is no part of the model (kept in a list) has parameters as well
            known = self._bits[tensor] = (
                self._source(None, tensor.numel()) if isinstance(tensor, nn.Parameter) and _has_values(tensor) else 0
            )
        return known

    def _source(self, name: str | None, numbers: int) -> int:
        self._names.append(name)
        self._numbers.append(numbers)
        return 1 << (len(self._names) - 1)


def _has_values(parameter: nn.Parameter) -> bool:
    return not isinstance(parameter, (nn.UninitializedParameter, nn.UninitializedBuffer))


def _is_constant(name: str) -> bool:
    return name.removeprefix("new_").removesuffix("_like") in CONSTANT
