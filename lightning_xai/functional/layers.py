"""Layers by name: the names a user sees, and what a user may write for them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
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


def takes_hooks(module: nn.Module) -> bool:
    """Whether what a module returns can be seen: TorchScript, as of `torch.jit.script`, runs without Python."""
    return not isinstance(module, torch.jit.ScriptModule)


def find_layers(model: nn.Module, layers: str | nn.Module | Sequence[str | nn.Module]) -> dict[str, nn.Module]:
    """The layers that `layers` names: exact names, patterns such as ``"encoder.*"``, or modules.

    A pattern passes over layers of TorchScript where it matches others.

    Raises:
        ValueError: a name or pattern that matches nothing, a module that is not in the model, a layer of TorchScript.
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
            found |= {name: module for name, module in matches.items() if takes_hooks(module)} or matches
    if scripted := [name for name, module in found.items() if not takes_hooks(module)]:
        raise ValueError(_scripted(scripted[0], named))
    if not found:
        raise ValueError("layers is empty: give at least one layer name, pattern or module")
    return found


def torchscript_note(model: nn.Module) -> str:
    """What to add to an error that nothing was found, where parts of the model are TorchScript; else nothing."""
    scripted = [name for name, module in named_layers(model).items() if not takes_hooks(module)]
    outermost = [name for name in scripted if name.rpartition(".")[0] not in scripted]
    if not outermost:
        return ""
    parts = ", ".join(map(repr, outermost[:8])) + (f" and {len(outermost) - 8} more" if len(outermost) > 8 else "")
    return f" Nothing inside of {parts} is seen, as TorchScript takes no hooks: give these parts as plain modules."


def close_matches(name: str, names: Iterable[str]) -> str:
    """`` Did you mean ...?``, or nothing where no name is close."""
    names = list(names)
    # a user who writes the last part of a dotted name means the whole
    close = [n for n in names if n.rpartition(".")[2] == name][:3] or difflib.get_close_matches(name, names, 5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def _scripted(name: str, named: dict[str, nn.Module]) -> str:
    names = list(named)
    plain = [other for other in names if takes_hooks(named[other])]
    outer = [other for other in plain if name.startswith(f"{other}.")]
    before = [other for other in plain if names.index(other) < names.index(name)]
    behind = plain[len(before) :]
    around = dict.fromkeys([*outer[-1:], *before[-1:], *behind[:1]])
    instead = f"Take a layer around it, such as {' or '.join(map(repr, around))}, or give" if around else "Give"
    return (
        f"layer {name!r} is TorchScript ({type(named[name]).__name__}), which takes no hooks, so it cannot be seen. "
        f"{instead} the plain module, as it was before torch.jit.script or torch.jit.trace."
    )


def _name_of(model: nn.Module, layer: nn.Module) -> str:
    for name, module in unwrapped_names(model):
        if module is layer and name:
            return name
    raise ValueError(
        f"the given {type(layer).__name__} is not a layer of this model. "
        "Give one of its submodules, or a name from lightning_xai.functional.named_layers(model)."
    )
