"""A photograph of all that is reachable from an object, place by place: what differs between two of them was changed.

It shares nothing with the walk that makes shadows: attributes, slots, items and cells are read where they are, and
only what has none of them is asked for pickle's own reduction.
"""

import hashlib
import io
import itertools
import random
import threading
import types
import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin

ATOMS = (int, float, complex, bool, str, bytes, bytearray, type(None), torch.dtype, torch.device, torch.Size, range)
BY_IDENTITY = (type, types.ModuleType, types.CodeType, types.BuiltinFunctionType, torch.utils.data.Dataset)

Part = tuple[str, Any]


def photograph(*roots: Any) -> dict[str, str]:
    """What each place holds, from the roots on: its kind, which object it is, and its own content."""
    places: dict[str, str] = {}
    seen: dict[int, str] = {}
    kept: list[Any] = []  # so that no id is given twice
    stack: list[tuple[str, Any, bool]] = [
        (f"{number}", root, True) for number, root in reversed(list(enumerate(roots)))
    ]
    while stack:
        place, thing, lasting = stack.pop()
        if isinstance(thing, ATOMS):
            places[place] = _text(thing)
            continue
        if id(thing) in seen:
            places[place] = f"the same as {seen[id(thing)]}"
            continue
        seen[id(thing)] = place
        kept.append(thing)
        content, parts, own = _look(thing)
        # what a reduction makes for the occasion is another object each time
        places[place] = f"{type(thing).__qualname__} {id(thing) if lasting else ''} {content}"
        stack += [(f"{place}{name}", part, lasting and own) for name, part in reversed(list(parts))]
    return places


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The places that are not as they were, with what they held and hold."""
    names = dict.fromkeys((*before, *after))
    return [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names if before.get(name) != after.get(name)]


def digest(tensor: Tensor) -> str:
    """Of a tensor's values, whatever its layout."""
    if isinstance(tensor, UninitializedTensorMixin):
        return "uninitialised"
    tensor = tensor.detach()
    if tensor.device.type == "meta":
        return "meta"
    if tensor.is_nested:
        return ",".join(map(digest, tensor.unbind()))
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    # of a copy: what numpy has looked at cannot be resized any more
    plain = tensor.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format).cpu().flatten()
    return _hash(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")


def _look(thing: Any) -> tuple[str, Iterator[Part], bool]:
    """What is in an object itself, what it leads to, and whether that lasts."""
    if isinstance(thing, Tensor):
        plain = type(thing).__torch_dispatch__ is Tensor.__torch_dispatch__  # others keep caches there
        own = {name: value for name, value in thing.__dict__.items() if plain or isinstance(thing, nn.Parameter)}
        return (
            _tensor(thing),
            iter([*((f".{name}", value) for name, value in own.items()), (".grad", _grad(thing))]),
            True,
        )
    if isinstance(thing, pl.Trainer):
        return _trainer(thing), iter(()), True
    if isinstance(thing, torch.jit.ScriptModule):
        return f"training={thing.training}", iter(thing.state_dict(keep_vars=True).items()), False
    if isinstance(thing, BY_IDENTITY):
        return "", iter(()), True
    if isinstance(thing, weakref.ProxyTypes):
        return "", iter([(" target", getattr(thing._apply, "__self__", None))]), True
    if isinstance(thing, weakref.ReferenceType):
        return "", iter([("()", thing())]), True
    if isinstance(thing, torch.Generator):
        return digest(thing.get_state()), iter(()), True
    if isinstance(thing, numpy.ndarray) and thing.dtype != object:
        return f"{thing.dtype} {thing.shape} {thing.strides} {_hash(thing.tobytes())}", iter(()), True
    if isinstance(thing, numpy.random.Generator):
        return _hash(repr(thing.bit_generator.state).encode()), iter(()), True
    if isinstance(thing, random.Random):
        return _hash(repr(thing.getstate()).encode()), iter(()), True
    if isinstance(thing, io.IOBase):
        where = None if thing.closed or not thing.seekable() else thing.tell()
        return f"closed={thing.closed} at {where}", iter(()), True
    if isinstance(thing, types.GeneratorType):
        return f"at {thing.gi_frame and thing.gi_frame.f_lasti}", iter(()), True
    if isinstance(thing, types.FunctionType):
        return thing.__qualname__, _of_function(thing), True
    if isinstance(thing, types.CellType):
        return "", iter([("", _contents(thing))]), True
    if isinstance(thing, types.MethodType):
        return "", iter([(".__func__", thing.__func__), (".__self__", thing.__self__)]), True
    return _of_object(thing)


def _of_object(thing: Any) -> tuple[str, Iterator[Part], bool]:
    parts: list[Part] = []
    content = ""
    if isinstance(thing, (list, tuple, deque)):
        content = f"{len(thing)} items, at most {getattr(thing, 'maxlen', None)}"
        parts += [
            (f"[{index}]", item)
            for index, item in enumerate(list.__iter__(thing) if isinstance(thing, list) else thing)
        ]
    elif isinstance(thing, dict):
        content = f"{len(thing)} keys"
        for index, (key, value) in enumerate(dict.items(thing)):
            name = f"[{key!r}]" if isinstance(key, ATOMS) else f"[key {index}]"
            parts += [(f"{name} key", key), (name, value)]
    elif isinstance(thing, (set, frozenset)):
        content = f"{len(thing)} members {sorted(_text(item) for item in thing if isinstance(item, ATOMS))}"
        members = sorted((item for item in thing if not isinstance(item, ATOMS)), key=id)
        parts += [(f"{{{index}}}", item) for index, item in enumerate(members)]
    attributes = _attributes(thing)
    parts += attributes
    if not parts and not content:
        return _reduction(thing)
    return content, iter(parts), True


def _attributes(thing: Any) -> list[Part]:
    try:
        state = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        state = {}
    parts = [(f".{name}", value) for name, value in state.items()]
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if isinstance(kind.__dict__.get(name), types.MemberDescriptorType):
                try:
                    parts.append((f".{name}", kind.__dict__[name].__get__(thing)))
                except AttributeError:
                    parts.append((f".{name}", None))
    return parts


def _reduction(thing: Any) -> tuple[str, Iterator[Part], bool]:
    """By pickle's protocol: for what holds its state in C."""
    if isinstance(thing, (threading.Thread, itertools.chain)):
        return "", iter(()), True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this is going to end for some
            reduced = thing.__reduce_ex__(4)
    except Exception:
        return "", iter(()), True
    if isinstance(reduced, str):
        return reduced, iter(()), True
    rest = [list(part) if isinstance(part, Iterator) else part for part in reduced[1:]]
    return "", iter([(f" reduced[{index}]", part) for index, part in enumerate(rest)]), False


def _of_function(function: types.FunctionType) -> Iterator[Part]:
    for index, cell in enumerate(function.__closure__ or ()):
        yield f" closes over {function.__code__.co_freevars[index]}", cell
    yield ".__defaults__", function.__defaults__
    yield ".__kwdefaults__", function.__kwdefaults__
    yield ".__dict__", function.__dict__
    for name in function.__code__.co_names:
        if isinstance(value := function.__globals__.get(name), nn.Module):
            yield f" names {name}", value


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _tensor(tensor: Tensor) -> str:
    kind = f"{type(tensor).__qualname__} {tensor.dtype} {tensor.requires_grad} {tensor.device} {tensor.layout}"
    if isinstance(tensor, UninitializedTensorMixin):
        return kind
    version = None if tensor.is_inference() else tensor._version
    where = ""
    if tensor.layout == torch.strided and not tensor.is_nested:
        storage = "" if tensor.device.type == "meta" else tensor.untyped_storage()._cdata
        where = f"{tuple(tensor.shape)} {tensor.stride()} +{tensor.storage_offset()} of {storage}"
    return f"{kind} version {version} {where} {digest(tensor)}"


def _grad(tensor: Tensor) -> Tensor | None:
    return tensor.grad if tensor.is_leaf else None


def _trainer(trainer: pl.Trainer) -> str:
    results = trainer._results
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if not name.startswith("xai/")}
    logged = (
        [] if results is None else [f"{key}={float(item.value)}" for key, item in results.items() if "xai/" not in key]
    )
    steps = trainer.current_epoch, trainer.global_step, trainer.should_stop
    return f"{steps} {metrics} {logged}"


def _text(atom: Any) -> str:
    text = repr(atom)
    return text if len(text) <= 80 else f"{text[:40]}... {_hash(text.encode())}"


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
