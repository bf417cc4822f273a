"""Models of a few lines that hold what is hard to copy, by name: each takes (3, 4) inputs and counts its forwards."""

import functools
import io
import logging
import sqlite3
import tempfile
import threading
import warnings
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from .traps import By, Head

HOLDING: dict[str, Callable[[], nn.Module]] = {}
"""That hold something which is no plain attribute, and change a part of it."""


def holding(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    HOLDING[make.__name__.lower().replace("_", " ").strip()] = make
    return make


@contextmanager
def _ignoring(text: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", text)
        yield


class Counting(nn.Module):
    """The inputs, divided by the number of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x / self.calls


class Holder(Head):
    """Runs a counting module that lies somewhere in ``thing``.

    Args:
        thing: put into the attribute ``thing``.
        find: takes the module out of the holder.
    """

    def __init__(self, thing: Any, find: Callable[[Any], Any]) -> None:
        super().__init__()
        self.thing, self.find = thing, find

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.find(self)(x))


@dataclass
class Parts:
    module: nn.Module


# ------------------------------------------------------------------------------------------------- modules elsewhere


@holding
def a_module_in_a_dataclass():
    return Holder(Parts(Counting()), lambda self: self.thing.module)


@holding
def a_module_in_a_dict():
    return Holder({"a": [Counting()]}, lambda self: self.thing["a"][0])


@holding
def a_module_in_a_set():
    return Holder({Counting()}, lambda self: next(iter(self.thing)))


@holding
def a_dict_keyed_by_modules():
    part = Counting()
    model = Holder({part: 1}, lambda self: self.part if self.thing[self.part] else None)
    model.part = part
    return model


@holding
def a_namespace_and_a_defaultdict():
    thing = SimpleNamespace(parts=defaultdict(list, a=[Counting()]), order=OrderedDict(b=1))
    return Holder(thing, lambda self: self.thing.parts["a"][0])


@holding
def a_module_in_hparams():
    class Lit(pl.LightningModule):
        def __init__(self, part, width=3):
            super().__init__()
            self.save_hyperparameters()
            self.head = nn.Linear(4, width)

        def forward(self, x):
            return self.head(self.hparams.part(x))

    with _ignoring("Attribute 'part' is an instance of `nn.Module`"):
        return Lit(Counting())


@holding
def a_weak_reference():
    part = Counting()
    model = Holder(weakref.ref(part), lambda self: self.thing())
    model.part = part
    return model


@holding
def a_weak_proxy():
    part = Counting()
    model = Holder(weakref.proxy(part), lambda self: self.thing)
    model.part = part
    return model


@holding
def a_dead_weak_reference():
    model = Holder(weakref.ref(Counting()), lambda self: self.part if self.thing() is None else None)
    model.part = Counting()
    return model


@holding
def a_weak_dictionary():
    part = Counting()
    model = Holder(weakref.WeakValueDictionary(a=part), lambda self: self.thing["a"])
    model.part = part
    return model


@holding
def a_child_that_knows_its_parent():
    model = Holder(None, lambda self: self.part.parent[0].part)
    model.part = Counting()
    model.part.parent = [model]
    return model


@holding
def a_lambda_over_a_module():
    part = Counting()
    return Holder(lambda x: part(x), lambda self: self.thing)


GLOBAL = Counting()


@holding
def a_function_over_a_global_module():
    GLOBAL.calls = 0
    model = Holder(lambda x: GLOBAL(x), lambda self: self.thing)
    model.part = GLOBAL
    return model


@holding
def a_partial_over_a_module():
    return Holder(functools.partial(lambda part, x: part(x), Counting()), lambda self: self.thing)


@holding
def a_bound_method_of_a_module():
    return Holder(Counting().forward, lambda self: self.thing)


@holding
def lightning_modules_in_three_levels():
    class Lit(pl.LightningModule):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    return Lit(Lit(Lit(Holder([Counting()], lambda self: self.thing[0]))))


# ------------------------------------------------------------------------------------------------- classes of their own


def _of(kind: type) -> nn.Module:
    part = kind()
    model = Holder(None, lambda self: self.part)
    model.part = part
    return model


@holding
def a_class_with_an_end():
    class Ending(Counting):
        def __del__(self):
            self.calls = None

    return _of(Ending)


@holding
def a_class_that_refuses_copies():
    class Refusing(Counting):
        def __deepcopy__(self, memo):
            raise TypeError("not to be copied")

        def __getstate__(self):
            raise TypeError("not to be pickled")

        def __reduce__(self):
            raise TypeError("not to be pickled")

        def __setattr__(self, name, value):
            if name == "sealed" or not self.__dict__.get("sealed"):
                super().__setattr__(name, value)
            elif name != "calls":
                raise AttributeError(f"{name} is sealed")
            else:
                self.__dict__[name] = value

        def __init__(self):
            super().__init__()
            self.sealed = True

    return _of(Refusing)


@holding
def a_class_with_equality_and_no_hash():
    class Equal(Counting):
        def __eq__(self, other):
            return type(other) is type(self)

        __hash__ = None

    return _Unhashable(Equal())


class _Unhashable(Holder):
    """Whose parts are not registered: torch itself cannot list modules without a hash."""

    def __init__(self, part):
        super().__init__([part], lambda self: self.thing[0].forward)


@holding
def a_class_of_a_metaclass():
    class Meta(type):
        def __call__(cls, *args):
            return super().__call__(*args)

    class Made(Counting, metaclass=Meta):
        pass

    return _of(Made)


@holding
def a_class_whose_new_wants_arguments():
    class New(Counting):
        def __new__(cls, size):
            made = super().__new__(cls)
            object.__setattr__(made, "size", size)
            return made

        def __init__(self, size):
            super().__init__()

    return _of(functools.partial(New, 3))


@holding
def a_module_that_is_a_dict():
    class Both(Counting, dict):
        def forward(self, x):
            self["calls"] = self.get("calls", 0) + 1
            return x / self["calls"]

        def __hash__(self):
            return id(self)

    return _of(Both)


@holding
def a_module_that_is_a_list():
    class Both(Counting, list):
        def forward(self, x):
            self.append(1)
            return x / len(self)

        def __hash__(self):
            return id(self)

    return _of(Both)


@holding
def a_list_that_is_more():
    class More(list):
        calls = 0

        def __call__(self, x):
            self.calls += 1
            self.append(1)
            return x / (self.calls + len(self))

    return Holder(More([1]), lambda self: self.thing)


@holding
def a_module_of_1500():
    model = Holder(None, lambda self: self.part[700])
    model.part = nn.ModuleList([Counting() if index == 700 else nn.Identity() for index in range(1500)])
    return model


@holding
def many_children():
    model = Holder(None, lambda self: self.child1100)
    for index in range(1200):
        model.add_module(f"child{index}", Counting() if index == 1100 else nn.Identity())
    return model


@holding
def a_list_of_many_modules():
    return Holder([Counting() for _ in range(1100)], lambda self: self.thing[1050])


@holding
def a_cached_method():
    class Cached(Counting):
        @functools.lru_cache  # noqa: B019
        def scale(self, size):
            return torch.full((1,), float(size))

        def forward(self, x):
            return super().forward(x) * self.scale(x.shape[1])

    return _of(Cached)


# ------------------------------------------------------------------------------------------------- what has no second


class Unbuildable:
    """Its reduction works, and what it says does not."""

    def __init__(self, secret):
        self.secret = secret

    def __reduce__(self):
        return Unbuildable, ()


def _opened(owner):
    file = tempfile.TemporaryFile()  # noqa: SIM115
    weakref.finalize(owner, file.close)
    return file


def _generating():
    yield from range(5)


@holding
def what_cannot_be_pickled():
    class Loaded(Holder):
        def forward(self, x):
            with self.lock:
                return super().forward(x)

    model = Loaded([Counting()], lambda self: self.thing[0])
    model.lock = threading.RLock()
    model.file = _opened(model)
    model.text = io.StringIO("text")
    model.rows = sqlite3.connect(":memory:")
    model.numbers = _generating()
    model.thread = threading.Thread(target=print)
    model.local = threading.local()
    model.log_to = logging.getLogger("somewhere")
    model.odd = [Unbuildable("secret")]
    model.path = Path("somewhere")
    return model


class Experiment:
    """Logs as hosted loggers do: to a thread's queue, under a lock; its attributes are made when asked for."""

    def __init__(self):
        self._lock, self._file = threading.Lock(), _opened(self)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_: None


@holding
def an_experiment_of_a_logger():
    model = Holder([Counting()], lambda self: self.thing[0])
    model.experiment = Experiment()
    return model


# ------------------------------------------------------------------------------------------------- tensors


class Quantised(nn.Parameter):
    """Integers with a scale beside them, as low-bit weights are kept."""


def _quantised():
    weight = torch.Tensor._make_subclass(Quantised, torch.arange(12, dtype=torch.int8).view(3, 4), False)
    weight.scale, weight.calls = torch.tensor(0.1), [0]
    return weight


@holding
def a_parameter_with_attributes():
    class Low(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.calls = _quantised(), 0

        def forward(self, x):
            self.calls += 1
            assert type(self.weight) is Quantised
            return x @ (self.weight * self.weight.scale).T / self.calls

    return Low()


@holding
def tied_weights():
    class Tied(Holder):
        def __init__(self):
            super().__init__([Counting()], lambda self: self.thing[0])
            self.second = nn.Linear(4, 3)
            self.second.weight = self.head.weight
            self.view = self.head.weight.detach()[:, :2]

        def forward(self, x):
            assert self.second.weight is self.head.weight
            assert self.view.data_ptr() == self.head.weight.data_ptr()
            return super().forward(x) + self.second(x)

    return Tied()


class Sequences(Holder):
    def __init__(self, kind):
        super().__init__([Counting()], lambda self: self.thing[0])
        self.rnn = kind(4, 4, batch_first=True, bidirectional=False)

    def forward(self, x):
        return super().forward(self.rnn(x[:, None])[0][:, 0])


@holding
def an_lstm():
    return Sequences(nn.LSTM)


@holding
def a_gru():
    return Sequences(nn.GRU)


def _weighted(norm):
    def make():
        model = Holder([Counting()], lambda self: self.thing[0])
        norm(model.head)
        return model

    return make


HOLDING["weight norm by parametrization"] = _weighted(parametrizations.weight_norm)
HOLDING["an orthogonal weight"] = _weighted(parametrizations.orthogonal)


@holding
def lists_and_dicts_of_parameters():
    class Lists(Head):
        def __init__(self):
            super().__init__()
            self.scales = nn.ParameterList([nn.Parameter(torch.ones(3) * index) for index in range(3)])
            self.named = nn.ParameterDict({"shift": nn.Parameter(torch.ones(3))})
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) * sum(self.scales) * self.calls + self.named["shift"]

    return Lists()


def _buffered(make_buffer, use=lambda x, b: x):
    def make():
        model = By(lambda self: self.counter.add_(1), counter=torch.ones(3))
        model.register_buffer("odd", make_buffer())
        model.factor = lambda self: use(self.counter.add_(1), self.odd)
        return model

    return make


def _read_only():
    with tempfile.NamedTemporaryFile() as file:
        file.write(numpy.ones(3, dtype=numpy.float32).tobytes())
        file.flush()
        mapped = numpy.memmap(file.name, dtype=numpy.float32, mode="r", shape=(3,))
    with _ignoring("The given NumPy array is not writable"):
        return torch.from_numpy(mapped)


def _quantized():
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


BUFFERS = {
    "an expanded buffer": (lambda: torch.ones(1).expand(3), lambda x, b: x * b),
    "a buffer over read-only memory": (_read_only, lambda x, b: x * b),
    "a complex buffer": (lambda: torch.ones(3, dtype=torch.complex64) * 1j, lambda x, b: x * b.imag),
    "a conjugated buffer": (lambda: (torch.ones(3, dtype=torch.complex64) * 1j).conj(), lambda x, b: x * b.imag),
    "a negated buffer": (lambda: (torch.ones(3, dtype=torch.complex64) * 1j).conj().imag, lambda x, b: x * b),
    "a sparse buffer": (lambda: torch.eye(3).to_sparse(), lambda x, b: (b @ x[:, None])[:, 0]),
    "a compressed buffer": (lambda: torch.eye(3).to_sparse_csr(), lambda x, b: (b @ x[:, None])[:, 0]),
    "a nested buffer": (
        lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]),
        lambda x, b: x * b.unbind()[0],
    ),
    "a jagged buffer": (
        lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged),
        lambda x, b: x * b.unbind()[0],
    ),
    "a buffer without memory": (lambda: torch.ones(3, device="meta"), lambda x, b: x * b.numel()),
    "a buffer that is transposed": (lambda: torch.arange(9.0).view(3, 3).T, lambda x, b: x @ b),
    "a quantised buffer": (_quantized, lambda x, b: x * b.dequantize()),
}  # fmt: skip
HOLDING |= {name: _buffered(*pair) for name, pair in BUFFERS.items()}


# ------------------------------------------------------------------------------------------------- compiled


def eagerly(function):
    return torch.compile(function, backend="eager")


@holding
def a_compiled_module():
    model = Holder([Counting()], lambda self: self.thing[0])
    model.compile(backend="eager")
    return model


@holding
def a_compiled_part():
    return Holder(eagerly(Counting()), lambda self: self.thing)


@holding
def a_compiled_function():
    model = Holder([Counting()], lambda self: lambda x: self.double(self.thing[0](x)))
    model.double = eagerly(lambda x: x * 2)
    return model
