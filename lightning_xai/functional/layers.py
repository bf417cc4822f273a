"""Layers by name: the names a user sees, and what a user may write for them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

# what torch.compile, FSDP and the checkpoint wrapper put between a module and its own name
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """All submodules of `model` by name, the model itself excepted; names do not show wrappers."""
    return {name: module for name, module in unwrapped_names(model) if name}


def unwrapped_names(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules by name, the model itself first; a wrapper and what it wraps have one name."""
    modules = [
        (".".join(part for part in name.split(".") if part not in _WRAPPERS), module)
        for name, module in model.named_modules()
    ]
    if isinstance(model, (DataParallel, DistributedDataParallel)):
        modules = [(name.removeprefix("module").removeprefix("."), module) for name, module in modules]
    return modules


def find_layers(model: nn.Module, layers: str | nn.Module | Sequence[str | nn.Module]) -> dict[str, nn.Module]:
    """The layers that `layers` names: exact names, patterns such as ``"encoder.*"``, or modules.

    Raises:
        ValueError: a name or pattern that matches nothing, a module that is not in the model.
    """
    named = named_layers(model)
    found: dict[str, nn.Module] = {}
    for layer in [layers] if isinstance(layers, (str, nn.Module)) else layers:
        if isinstance(layer, nn.Module):
            found |= {name: named[name] for name in [_name_of(model, layer)]}
        elif layer in named:
            found[layer] = named[layer]
        else:
            matches = {name: module for name, module in named.items() if fnmatchcase(name, layer)}
            if not matches:
                raise ValueError(
                    f"the model has no layer {layer!r}.{close_matches(layer, named)} "
                    "All names: lightning_xai.functional.named_layers(model)."
                )
            found |= matches
    if not found:
        raise ValueError("layers is empty: give at least one layer name, pattern or module")
    return found


def close_matches(name: str, names: Iterable[str]) -> str:
    """`` Did you mean ...?``, or nothing where no name is close."""
    names = list(names)
    # a user who writes the last part of a dotted name means the whole
    close = [n for n in names if n.rpartition(".")[2] == name][:3] or difflib.get_close_matches(name, names, 5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def _name_of(model: nn.Module, layer: nn.Module) -> str:
    for name, module in unwrapped_names(model):
        if module is layer and name:
            return name
    raise ValueError(
        f"the given {type(layer).__name__} is not a layer of this model. "
        "Give one of its submodules, or a name from lightning_xai.functional.named_layers(model)."
    )
