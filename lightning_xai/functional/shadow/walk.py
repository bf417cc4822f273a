"""The walk from a model to all that it reaches, by pickle's protocol; what stands in for each thing is decided here."""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_xai.foreign.torch import compiled_from, registries, reset_metric, uncompiled
from lightning_xai.functional.shadow import rebuild
from lightning_xai.functional.shadow.memory import Memory, Plan, bytes_of

MANY = 1_000
"""Items, above which a container is copied without its items: an epoch's outputs, a vocabulary."""
TOO_MANY = 4_000_000
"""Items, above which a container is shared."""
ITEMS, FEW = 15_000, 100
"""Once so many items have been walked in all, containers of more than a few are copied without theirs."""
TEXT = 4_096
"""Characters or bytes, above which an unchangeable text is shared rather than written out and read again."""

ATOMS = frozenset({int, float, complex, bool, type(None)})
CACHED = type(functools.lru_cache(len))
IN_MEMORY = (io.StringIO, io.BytesIO)
CONTAINERS = (list, tuple, dict, set, frozenset, deque, OrderedDict, defaultdict)
SHARED: tuple[type, ...] = (
    type,
    types.ModuleType,
    types.CodeType,
    types.GeneratorType,
    torch.dtype,
    torch.device,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
    Dataset,
    DataLoader,
    Sampler,
)
"""What a forward does not change, or what has no second of its kind."""
SHARED_PACKAGES = (
    "concurrent", "datasets", "logging", "lmdb", "matplotlib", "mlflow", "multiprocessing", "pandas", "PIL", "polars",
    "pyarrow", "sentencepiece", "tensorboard", "threading", "tokenizers", "torch._dynamo", "torch._inductor",
    "torch.distributed", "torch.fx", "typing", "wandb",
)  # fmt: skip
COMPILED = "_torchdynamo_orig_callable"
"""The attribute of a compiled function that holds what was compiled."""


class UnshadowableError(TypeError):
    """A part of a model cannot be copied.

    Args:
        part: the object.
        why: what it is.
    """

    def __init__(self, part: Any, why: str) -> None:
        super().__init__(why)
        self.part = part


class Walk(pickle.Pickler):
    """Writes a model down; `makers` holds, by number, how each thing is made that is not written down.

    Args:
        plan: which tensors are copied.
        stand_ins: what makes that which takes the place of an object, by the object's id.
        shared: further types that are shared.
        modules: ids of the model's modules: functions that name one as a global are rebuilt.
    """

    def __init__(
        self, plan: Plan, stand_ins: Mapping[int, Callable[[], Any]], shared: tuple[type, ...], modules: frozenset[int]
    ) -> None:
        self.written = io.BytesIO()
        super().__init__(self.written, protocol=5)
        self.makers: list[Callable[[Memory], Any]] = []
        self.parameters: list[nn.Parameter] = []
        self.shared_tensors: list[Tensor] = []
        self.shared_containers: list[Any] = []
        self._plan, self._stand_ins, self._modules = plan, stand_ins, modules
        self._shared = (*SHARED, *shared)
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is given twice
        self._attributes: set[int] = set()
        self._buffers: set[int] = set()
        self._walked: set[int] = set()
        self._items = ITEMS
        self._inert: dict[int, bool] = {}

    def persistent_id(self, thing: Any) -> int | None:
        """The number of what is not written down; None for what is."""
        kind = type(thing)
        if kind in ATOMS or (kind is str and len(thing) <= TEXT):
            return None
        if (number := self._numbers.get(id(thing))) is not None:
            return number
        maker = self._maker(thing, kind)
        return None if maker is None else self._number(thing, maker)

    def wrote(self, ids: Iterable[int]) -> bool:
        """Whether one of the things with these ids was reached."""
        return not self._numbers.keys().isdisjoint(ids)

    def _number(self, thing: Any, maker: Callable[[Memory], Any]) -> int:
        self._kept.append(thing)
        self.makers.append(maker)
        self._numbers[id(thing)] = len(self.makers) - 1
        return len(self.makers) - 1

    def _maker(self, thing: Any, kind: type) -> Callable[[Memory], Any] | None:
        if kind in (str, bytes):
            return None if len(thing) <= TEXT else lambda _: thing
        if (stand_in := self._stand_ins.get(id(thing))) is not None:
            return lambda _: stand_in()
        if kind in weakref.ProxyTypes:
            return None
        if isinstance(thing, Tensor):
            return self._tensor(thing)
        if kind in CONTAINERS:
            return self._container(thing)
        if kind is types.FunctionType:
            return None if self._reaches(thing) else lambda _: thing
        if kind is types.BuiltinFunctionType:  # a module's own, or a bound method
            return (lambda _: thing) if isinstance(thing.__self__, (types.ModuleType, type(None))) else None
        if isinstance(thing, self._shared) or kind.__module__.startswith(SHARED_PACKAGES):
            return None if isinstance(thing, nn.Module) else lambda _: thing
        if isinstance(thing, rebuild.Original):
            original = thing.thing
            return lambda _: original
        size = bytes_of(thing)
        return None if size is None or self._plan.affords(size, "item") else lambda _: thing

    def _tensor(self, tensor: Tensor) -> Callable[[Memory], Any]:
        if type(tensor).__name__ == "DTensor":
            raise UnshadowableError(tensor, "a DTensor, whose parts are on several devices")
        if isinstance(tensor, nn.Parameter):
            self.parameters.append(tensor)
            return lambda memory: memory.parameter(tensor)
        place = "buffer" if id(tensor) in self._buffers else "attribute" if id(tensor) in self._attributes else "item"
        if not self._plan.decide(tensor, place):
            self.shared_tensors.append(tensor)
        return lambda memory: memory.tensor(tensor)

    def _container(self, container: Any) -> Callable[[Memory], Any] | None:
        if not container or id(container) in self._walked:
            return None
        self._items -= len(container)
        if len(container) <= (MANY if self._items >= 0 else FEW):
            return None
        items = container.values() if isinstance(container, Mapping) else container
        if any(issubclass(kind, (nn.Module, nn.Parameter)) for kind in set(map(type, items))):
            return None
        if len(container) > TOO_MANY:
            self.shared_containers.append(container)
            return lambda _: container
        return lambda _: container if isinstance(container, tuple) else container.copy()

    def reducer_override(self, thing: Any) -> Any:
        """How a thing is made again: pickle's reduction, but for what has its own."""
        kind = type(thing)
        if kind is OrderedDict and not thing and not thing.__dict__:  # hooks that a module does not have
            return OrderedDict, ()
        if kind in weakref.ProxyTypes:
            return self._proxy(thing)
        if isinstance(thing, nn.Module):
            return self._module(thing)
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        if kind is types.MappingProxyType:
            return kind, (dict(thing),)
        if kind is CACHED:
            return self._cached(thing)
        if kind is types.CellType:
            return self._cell(thing)
        if kind is types.MethodType:
            return types.MethodType, (thing.__func__, thing.__self__)
        if isinstance(thing, weakref.ReferenceType):
            target = thing()
            refer = weakref.WeakMethod if isinstance(thing, weakref.WeakMethod) else weakref.ref
            return self._same(thing) if target is None else (refer, (target,))
        if isinstance(thing, torch.Generator):
            return rebuild.generator, (thing.device, thing.get_state())
        return self._by_protocol(thing)

    def _same(self, thing: Any) -> Any:
        return rebuild.same, (rebuild.Original(thing),)

    def _by_protocol(self, thing: Any) -> Any:
        kind = type(thing)
        if hasattr(kind, "__del__") and kind not in IN_MEMORY:  # a second one would close what the first one holds
            return self._same(thing)
        try:
            reduce = copyreg.dispatch_table.get(kind)
            reduced = reduce(thing) if reduce is not None else thing.__reduce_ex__(4)
        except Exception:  # files, locks, handles: whatever cannot be pickled
            return self._same(thing)
        if isinstance(reduced, str):
            return self._same(thing)
        function, arguments, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
        made = rebuild.made, (kind, function, arguments)
        return (*made, None if state is None else (setter, state), items, pairs, rebuild.restore)

    def _module(self, module: nn.Module) -> Any:
        if isinstance(module, torch.jit.ScriptModule):
            raise UnshadowableError(module, "TorchScript")
        kind = type(module)
        if (wrapped := compiled_from(module)) is not None:
            return rebuild.same, (wrapped,)
        if kind.__name__ == "FullyShardedDataParallel":
            raise UnshadowableError(module, "FSDP, whose parameters are on several devices")
        if getattr(module, "max_norm", None) is not None and isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            self._plan.own.add(id(module.weight))  # its forward scales rows down where they are
        state = dict(module.__dict__)
        for registered in (state, *registries(module)):
            self._walked.add(id(registered))
        self._kept.append(state)
        self._attributes.update(id(value) for value in state.values() if isinstance(value, Tensor))
        self._buffers.update(id(value) for value in registries(module)[2].values() if value is not None)
        # what a metric has gathered may be large, and says nothing here
        state |= {"training": False, **uncompiled(state), **reset_metric(module)}
        return rebuild.module, (kind,), (state, rebuild.slots(module), rebuild.items(module)), None, None, rebuild.fill

    def _reaches(self, function: types.FunctionType) -> bool:
        """Whether calls of a function may share something that changes: in its closure, defaults or attributes."""
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        # names that may be bound anew: what is inert as a value may be a counter here
        names = [cell.cell_contents for cell in function.__closure__ or () if is_filled(cell)]
        names += [value for name, value in function.__dict__.items() if not name.startswith(("__", "_torch"))]
        if any(type(value) in (*ATOMS, str, bytes) for value in names) or self._globals_replaced(function):
            return True
        if COMPILED in function.__dict__:
            return True
        return any(not self._is_inert(thing) for thing in (*names, *defaults, *function.__dict__.values()))

    def _is_inert(self, thing: Any) -> bool:
        if type(thing) is types.FunctionType:
            if id(thing) not in self._inert:
                self._inert[id(thing)] = False  # inside: what holds itself may keep something in its own attributes
                self._inert[id(thing)] = not self._reaches(thing)
            return self._inert[id(thing)]
        return type(thing) in (*ATOMS, str, bytes) or isinstance(thing, SHARED)

    def _globals_replaced(self, function: types.FunctionType) -> dict[str, Any]:
        """The model's modules that a function names; None for itself, where it keeps something in its attributes."""
        named = {name: function.__globals__.get(name) for name in function.__code__.co_names}
        replaced = {name: value for name, value in named.items() if id(value) in self._modules}
        return replaced | {name: None for name, value in named.items() if value is function and function.__dict__}

    def _function(self, function: types.FunctionType) -> Any:
        if (original := function.__dict__.get(COMPILED)) is not None:
            return rebuild.same, (original,)
        own = (function.__defaults__, function.__kwdefaults__, function.__dict__)
        arguments = (rebuild.Original(function), function.__closure__ or (), self._globals_replaced(function))
        return rebuild.function, arguments, own, None, None, rebuild.fill_function

    def _cached(self, function: Any) -> Any:
        if self._is_inert(function.__wrapped__):
            return self._same(function)
        return rebuild.cached, (function.__wrapped__, function.cache_parameters())

    def _cell(self, cell: types.CellType) -> Any:
        if not is_filled(cell):
            return types.CellType, ()
        return types.CellType, (), (cell.cell_contents,), None, None, rebuild.fill_cell

    def _proxy(self, proxy: Any) -> Any:
        # a bound method names the object behind it
        target = getattr(getattr(proxy, "_apply", None), "__self__", None)
        return self._same(proxy) if target is None else (weakref.proxy, (target,))


def is_filled(cell: types.CellType) -> bool:
    """Whether a closure's variable has a value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
