"""What a walk writes down is made again by these."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

HEAP_TYPE = 1 << 9
"""The flag of classes that are not built in."""


class Original:
    """Marks a thing that is to be the same object."""

    __slots__ = ("thing",)

    def __init__(self, thing: Any) -> None:
        self.thing = thing


class UnbuildableError(TypeError):
    """A class cannot be made again from what its own reduction says."""

    def __init__(self, kind: type, cause: Exception) -> None:
        super().__init__(f"a {kind.__qualname__} cannot be made again: {cause}")
        self.kind = kind


def same(thing: Any) -> Any:
    """The thing itself."""
    return thing


def generator(device: torch.device, state: Tensor) -> torch.Generator:
    """A generator in this state."""
    made = torch.Generator(device)
    made.set_state(state)
    return made


def made(kind: type, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What pickle's reduction of a `kind` makes; raises `UnbuildableError`."""
    try:
        return function(*arguments)
    except Exception as error:
        raise UnbuildableError(kind, error) from error


def restore(thing: Any, told: tuple[Callable[[Any, Any], None] | None, Any]) -> None:
    """Give a thing its state, as pickle does; raises `UnbuildableError`."""
    setter, state = told
    try:
        if setter is not None:
            setter(thing, state)
        elif hasattr(thing, "__setstate__"):
            thing.__setstate__(state)
        else:
            attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
            if attributes:
                thing.__dict__.update(attributes)
            for name, value in (slots or {}).items():
                object.__setattr__(thing, name, value)
    except Exception as error:
        raise UnbuildableError(type(thing), error) from error


def module(kind: type[nn.Module]) -> nn.Module:
    """An empty module of this class, whose end ends nothing."""
    if hasattr(kind, "__del__"):
        kind = type(kind.__name__, (kind,), {"__del__": lambda self: None, "__module__": kind.__module__})
    # object's own, or that of a dict or list which it is as well
    builtin: Any = next(base for base in kind.__mro__ if not base.__flags__ & HEAP_TYPE)
    return cast(nn.Module, builtin.__new__(kind))


def fill(module: nn.Module, state: tuple[dict[str, Any], dict[str, Any], list[Any] | dict[Any, Any] | None]) -> None:
    """Its attributes, slots and items, past any __setattr__ and __setitem__."""
    attributes, slots, items = state
    if isinstance(items, list):
        list.extend(cast("list[Any]", module), items)
    elif isinstance(items, dict):
        dict.update(cast("dict[Any, Any]", module), items)
    module.__dict__.update(attributes)
    for name, value in slots.items():
        object.__setattr__(module, name, value)


def slots(thing: Any) -> dict[str, Any]:
    """What `fill` takes of slots."""
    names: list[str] = []
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return {
        name: getattr(thing, name) for name in names if name not in ("__dict__", "__weakref__") and hasattr(thing, name)
    }


def items(module: nn.Module) -> list[Any] | dict[Any, Any] | None:
    """Of a module that is a container as well; as a plain one, past what its class makes of iteration."""
    if isinstance(module, dict):
        return dict(dict.items(module))
    return list(list.__iter__(module)) if isinstance(module, list) else None


def function(
    original: types.FunctionType, cells: tuple[types.CellType, ...], replaced: dict[str, Any]
) -> types.FunctionType:
    """The same code over other cells, and over other globals where some are replaced: None stands for itself."""
    names = {**original.__globals__, **replaced} if replaced else original.__globals__
    made = types.FunctionType(original.__code__, names, original.__name__, None, cells)
    names.update((name, made) for name, value in replaced.items() if value is None)
    made.__qualname__, made.__module__, made.__doc__ = original.__qualname__, original.__module__, original.__doc__
    return made


def fill_function(made: types.FunctionType, own: tuple[Any, Any, Any]) -> None:
    """Its defaults and attributes."""
    made.__defaults__, made.__kwdefaults__ = own[:2]
    made.__dict__.update(own[2])


def cached(wrapped: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """The function with an empty cache of its own."""
    return lru_cache(**parameters)(wrapped)


def fill_cell(cell: types.CellType, contents: tuple[Any]) -> None:
    """What a closure holds."""
    cell.cell_contents = contents[0]
