"""All that can be reached from a module, by pickle's protocol, as place -> description.

Nothing here is shared with the library's own walk: functions are taken apart into their closures, bound methods into
function and owner, weak references into targets, tensors into class, dtype, sizes, strides, memory, bytes and version.
"""

import copyreg
import hashlib
import random
import types
import weakref
from collections import deque
from collections.abc import Mapping

import numpy
import torch
from torch import nn

ATOMS = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
OPAQUE = (type, types.ModuleType, types.CodeType, types.BuiltinFunctionType, types.GeneratorType)


def photograph(*things, without=()):
    """Equal as long as nothing that can be reached from these things, and no global random stream, has changed.

    What can be reached through the things of `without` alone is left out.
    """
    streams = [random.getstate(), numpy.random.get_state(), torch.get_rng_state().numpy()]  # noqa: NPY002
    waiting, alive, found = [("", list(things)), ("random", streams)], [], {}
    seen = {id(thing): "what is left out" for thing in without}
    while waiting:
        place, thing = waiting.pop()
        if isinstance(thing, ATOMS):
            found[place] = repr(thing)
            continue
        if id(thing) in seen:
            found[place] = f"as {seen[id(thing)]}"
            continue
        seen[id(thing)] = place
        alive.append(thing)  # ids must not be given twice
        found[place], parts = _described(thing)
        waiting += [(f"{place}.{name}", part) for name, part in reversed(parts)]
    return found


def changed(before, after):
    """The places in which two photographs differ."""
    return [place for place in {**before, **after} if before.get(place) != after.get(place)]


def _described(thing):
    kind = type(thing)
    name = kind.__qualname__
    if isinstance(thing, torch.Tensor):
        return _tensor(thing), sorted(thing.__dict__.items())
    if isinstance(thing, torch.Generator):
        return hashlib.blake2b(thing.get_state().numpy().tobytes()).hexdigest(), []
    if isinstance(thing, numpy.ndarray) and thing.dtype != object:
        return hashlib.blake2b(thing.tobytes()).hexdigest(), []
    if isinstance(thing, OPAQUE) or kind in weakref.ProxyTypes:
        return getattr(thing, "__qualname__", name) if kind not in weakref.ProxyTypes else "proxy", []
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _filled(cell)]
        parts = [("cells", cells), ("defaults", [thing.__defaults__, thing.__kwdefaults__]), ("own", thing.__dict__)]
        return thing.__qualname__, parts
    if isinstance(thing, types.MethodType):
        return name, [("function", thing.__func__), ("owner", thing.__self__)]
    if isinstance(thing, weakref.ReferenceType):
        return name, [("target", thing())]
    own = list(getattr(thing, "__dict__", {}).items())
    if isinstance(thing, nn.Module) and not isinstance(thing, torch.jit.ScriptModule):
        own += [(n, getattr(thing, n)) for k in kind.__mro__ for n in _slots(k) if hasattr(thing, n)]
    if isinstance(thing, Mapping):
        own += [("factory", getattr(thing, "default_factory", None))]
        own += [(f"key {index}", key) for index, key in enumerate(thing)]
        return f"{name} of {len(thing)}", [*own, *((str(index), value) for index, value in enumerate(thing.values()))]
    if isinstance(thing, (list, tuple, deque, set, frozenset)):
        return f"{name} of {len(thing)}", [*own, *((str(index), item) for index, item in enumerate(thing))]
    if isinstance(thing, nn.Module):
        return name, own
    if hasattr(thing, "cache_info"):
        return f"{name} {thing.cache_info()}", own
    try:
        reduced = copyreg.dispatch_table.get(kind, lambda it: it.__reduce_ex__(4))(thing)
    except Exception:
        return f"{name}, which cannot be pickled", []
    if isinstance(reduced, str):
        return reduced, []
    pieces = [list(part) if index in (3, 4) and part is not None else part for index, part in enumerate(reduced)]
    return name, [(f"part {index}", part) for index, part in enumerate(pieces[1:])]


def _tensor(tensor):
    if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)):
        return type(tensor).__qualname__
    kind = f"{type(tensor).__qualname__} {tensor.dtype} {tensor.layout} {tensor.requires_grad} {tensor.is_inference()}"
    kind += "" if tensor.is_inference() else f" version {tensor._version}"
    if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type == "meta":
        return f"{kind} {tensor}"
    data = tensor.detach()
    content = data.clone().contiguous().resolve_conj().view(-1).view(torch.uint8).numpy().tobytes()
    place = f"{tuple(data.shape)} {data.stride()} {data.storage_offset()} {data.data_ptr()}"
    return f"{kind} {place} {hashlib.blake2b(content).hexdigest()}"


def _slots(kind):
    slots = kind.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _filled(cell):
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
