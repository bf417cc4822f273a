"""Attention where it happens: a fused kernel that is called, or a softmax whose result weighs values."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from lightning_xai.functional.attention.fused import Fused
from lightning_xai.tensors import Rearrange

_SOFTMAX = {"softmax", "safe_softmax", "special_softmax"}
_DROPOUT = {"dropout", "alpha_dropout", "feature_dropout"}
_CASTS = {"to", "type", "type_as", "float", "half", "bfloat16", "double", "contiguous", "clone", "detach"}
_SHAPES = {"view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "unsqueeze", "squeeze", "expand"}
_PLACES = {"transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "t", "expand_as", "get", "getitem"}
_PARTS = {"chunk", "split", "unbind", "select", "narrow"}
_MASKS = {"masked_fill", "nan_to_num", "where", "mul", "rmul", "imul", "div", "truediv", "itruediv"}
_KEEPS = _CASTS | _SHAPES | _PLACES | _PARTS | _MASKS
_PRODUCT = {"matmul", "rmatmul", "bmm", "mm"}


@dataclass
class Softmax:
    """A softmax that ran in the module `name`, and whether its result was `used` as weights."""

    name: str
    shape: tuple[int, ...]
    used: bool = False


@dataclass
class _Derived:
    """A tensor that is a softmax moved or dropped out; `clean` is the one without dropout, None if it is itself."""

    softmax: Softmax
    clean: Tensor | None = None


class Watching(TorchFunctionMode):
    """Calls `fused` and `weighted` for each attention in a forward; what they return replaces what the model has.

    Which softmax is attention is seen from the data flow: its result, however moved, is summed against
    values along the dimension in which it sums to one.

    Args:
        running: the names of the running modules (`hooks.running_modules`).
        samples: N, for weights that hold samples and heads in one dimension.
    """

    def __init__(self, running: list[str], samples: int) -> None:
        super().__init__()
        self.running = running
        self.samples = samples
        self.heads: int | None = None
        self.softmaxes: list[Softmax] = []
        self._derived: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._products: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def fused(self, call: Fused) -> Tensor | None:
        """Called for a fused kernel; may return its output."""
        raise NotImplementedError

    def weighted(self, operand: Tensor, clean: Tensor, move: Rearrange) -> Tensor | None:
        """Called for explicit weights; may return what to use for `operand`.

        `clean` is the operand before dropout, and `move` makes either (N, heads, queries, keys).
        """
        raise NotImplementedError

    # ------------------------------------------------------------ what the forward calls

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name == "scaled_dot_product_attention":
            found = self.fused(Fused.from_call(*args, **kwargs))
            return func(*args, **kwargs) if found is None else found
        if func is F.multi_head_attention_forward:
            return self._inside_multi_head(args, kwargs)
        if name == "flex_attention":
            return self._flex(func, args, kwargs)
        if name in _SOFTMAX:
            return self._softmax(func(*args, **kwargs))
        if not self._derived or not args:
            return func(*args, **kwargs)
        if name in _PRODUCT or name == "einsum":
            args = self._used_in_product(name, args)
        elif name == "sum" and args[0] in self._products:
            args = (self._used_in_sum(args[0], *args[1:], **kwargs), *args[1:])
        output = func(*args, **kwargs)
        if name in _KEEPS or name in _DROPOUT:
            self._follow(func, name, args, kwargs, output)
        return output

    def _inside_multi_head(self, args: Any, kwargs: Any) -> Any:
        outer, self.heads = self.heads, kwargs.get("num_heads", args[4] if len(args) > 4 else None)
        try:
            with self:
                return within_mode(F.multi_head_attention_forward)(*args, **kwargs)
        finally:
            self.heads = outer

    def _flex(self, func: Any, args: Any, kwargs: Any) -> Any:
        query, key, value, *rest = args
        # with the identity for values the output is the weights themselves
        identity = torch.eye(key.shape[-2], dtype=value.dtype, device=value.device).expand(*value.shape[:-1], -1)
        weights = func(query, key, identity, *rest, **kwargs)[0]
        operand = self.weighted(weights, weights, self.move())
        output = func(*args, **kwargs)
        if operand is None:
            return output
        value = value.repeat_interleave(query.shape[1] // value.shape[1], 1).expand(query.shape[0], -1, -1, -1)
        return (operand @ value, *output[1:])

    def _softmax(self, output: Tensor) -> Tensor:
        self.softmaxes.append(Softmax(self.running[-1], tuple(output.shape)))
        self._derived[output] = _Derived(self.softmaxes[-1])
        return output

    # ------------------------------------------------------------ where a softmax goes

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any, output: Any) -> None:
        for index, source in enumerate(args[:3]):
            if not isinstance(source, Tensor) or source not in self._derived:
                continue
            derived = self._derived[source]
            if name in _DROPOUT:
                self._derived[output] = _Derived(derived.softmax, source if derived.clean is None else derived.clean)
                return
            if name in ("mul", "rmul") and isinstance(args[1 - index], Tensor):
                narrow = _narrowed(source)
                self._derived[narrow] = derived
                self._products[output] = (narrow, args[1 - index])
            if name in _MASKS and output.shape != source.shape:
                return
            clean: Any = None
            if derived.clean is not None:
                clean = func(*args[:index], derived.clean, *args[index + 1 :], **kwargs)
            for i, part in enumerate(output if isinstance(output, (tuple, list)) else [output]):
                if isinstance(part, Tensor) and part is not source:
                    one = clean[i] if isinstance(clean, (tuple, list)) else clean
                    self._derived[part] = _Derived(derived.softmax, one)
            return

    def _used_in_product(self, name: str, args: Any) -> Any:
        if name == "einsum":
            if not isinstance(args[0], str):
                return args
            operands = args[1] if isinstance(args[1], (tuple, list)) else args[1:]
            pairs = zip(operands, _summed(args[0]), strict=True)
            return (args[0], *(self._use(operand, dims) for operand, dims in pairs))
        first, second = args[:2] if name != "rmatmul" else args[1::-1]
        pair = [self._use(first, [-1]), self._use(second, [-2])]
        return (*(pair if name != "rmatmul" else pair[::-1]), *args[2:])

    def _used_in_sum(self, product: Tensor, dim: Any = None, *_: Any, **__: Any) -> Tensor:
        weights, values = self._products[product]
        dims = dim if isinstance(dim, (tuple, list)) else [] if dim is None else [dim]
        used = self._use(weights, [d % product.ndim - product.ndim for d in dims])
        return product if used is weights else used * values

    def _use(self, operand: Tensor, dims: Iterable[int]) -> Tensor:
        """`operand`, or what stands for it if it is a softmax, and one of the dimensions summed is its own."""
        if operand not in self._derived:
            return operand
        derived: _Derived = self._derived[operand]
        clean = operand if derived.clean is None else derived.clean
        own = [dim for dim in dims if -clean.ndim <= dim < clean.ndim and _sums_to_one(clean, dim)]
        if not own:
            return operand
        derived.softmax.used = True
        found = self.weighted(operand, clean, self.move(own[0]))
        return operand if found is None else found

    def move(self, dim: int = -1) -> Rearrange:
        """What makes (N, heads, queries, keys) of weights whose keys are `dim`, as of this point of the forward."""
        samples, heads = self.samples, self.heads

        def move(weights: Tensor) -> Tensor:
            weights = weights.movedim(dim, -1)
            if weights.ndim > 3:
                return weights.flatten(0, -4)
            if weights.ndim < 3:
                return weights.reshape(-1, 1, 1, weights.shape[-1])
            size, *rest = weights.shape
            return weights.reshape(-1, heads or (size // samples if size % samples == 0 else 1), *rest)

        return move


def within_mode(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of torch's that a mode sees from inside, call by call, instead of as one."""
    body: Any = function
    # the same code, but for the check that would hand it to the mode as a whole
    scope = {n: (lambda *_: False) if n.startswith("has_torch_function") else v for n, v in body.__globals__.items()}
    return types.FunctionType(body.__code__, scope, body.__name__, body.__defaults__, body.__closure__)


def _sums_to_one(weights: Tensor, dim: int) -> bool:
    """Whether the rows of the first matrix along `dim` sum to one, or to zero: masked."""
    rows = weights.movedim(dim, -1)
    while rows.ndim > 2:
        rows = rows[0]
    sums = rows.float().sum(-1)
    return bool(((sums - 1).abs().lt(0.02) | sums.eq(0) | sums.isnan()).all())


def _summed(equation: str) -> list[list[int]]:
    """The dimensions of each operand of an einsum that are summed."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    kept = right if arrow else {letter for letter in left if left.count(letter) == 1}
    dims = []
    for letters in left.split(","):
        before, _, after = letters.partition("...")
        places = {letter: i for i, letter in enumerate(before)}
        places |= {letter: i - len(after) for i, letter in enumerate(after)}
        dims.append([place for letter, place in places.items() if letter not in kept])
    return dims


def _narrowed(weights: Tensor) -> Tensor:
    """`weights` without the copies that `expand` made."""
    for dim in range(weights.ndim):
        if weights.stride(dim) == 0 and weights.shape[dim] > 1:
            weights = weights.narrow(dim, 0, 1)
    return weights
