"""Shadows of modules whose class, or whose belongings, take a say in how they are copied, compared or kept."""

import contextvars
import dataclasses
import functools
import io
import itertools
import queue
import random
import sqlite3
import threading
import types
import weakref
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from lightning_xai.functional import inspecting
from lightning_xai.functional.shadow import shadow
from tests.support.photograph import changed, photograph

X = torch.linspace(-1, 1, 12).view(3, 4)


class Counting(nn.Module):
    """Its answer tells how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x) * self.calls


class Keeper(nn.Module):
    """Calls the module that it keeps in some place which is no submodule."""

    def __init__(self, place: Any, take: Any) -> None:
        super().__init__()
        self.linear, self.take = nn.Linear(4, 3), take
        self.__dict__["place"] = place

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.take(self.place)(x)


# ------------------------------------------------------------ classes


class WithoutState(Counting):
    def __getstate__(self) -> dict[str, Any]:
        return {"calls": -99}

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise AssertionError("a module's state is not asked for")


class Reduced(Counting):
    def __reduce__(self) -> Any:
        raise TypeError("no pickle of this")


class NotCopied(Counting):
    def __deepcopy__(self, memo: Any) -> Any:
        return self

    __copy__ = __deepcopy__


class Equal(Counting):
    """Equal to all of its kind, so that it has no hash: torch takes no such submodule."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    __hash__ = None


class Registry(type):
    made = 0

    def __call__(cls, *args: Any) -> Any:
        Registry.made += 1
        return super().__call__(*args)


class Registered(Counting, metaclass=Registry):
    pass


class Sized(Counting):
    def __new__(cls, size: int) -> Any:
        return super().__new__(cls)

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class Mapped(Counting, dict):
    __hash__ = Counting.__hash__

    def forward(self, x: Tensor) -> Tensor:
        self["calls"] = self.get("calls", 0) + 1
        return super().forward(x) * self["calls"]


class Listing(Counting, list):
    __hash__ = Counting.__hash__

    def forward(self, x: Tensor) -> Tensor:
        self.append(len(self))
        return super().forward(x) * len(self)


class Lookup(Counting):
    """What it lacks is looked for in its layer."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("linear"), name)


class Guarded(Counting):
    def __getattribute__(self, name: str) -> Any:
        if name in ("__reduce_ex__", "__deepcopy__", "__getstate__"):
            raise AttributeError(name)
        return super().__getattribute__(name)


class Cached(Counting):
    @functools.cached_property
    def scale(self) -> Tensor:
        return torch.ones(1)

    def forward(self, x: Tensor) -> Tensor:
        self.scale.add_(1)
        return super().forward(x) * self.scale


CLASSES = {
    "__getstate__": WithoutState,
    "__reduce__": Reduced,
    "__deepcopy__": NotCopied,
    "__eq__ without a hash": lambda: Keeper([Equal()], lambda place: place[0]),
    "a metaclass": Registered,
    "__new__ with arguments": lambda: Sized(3),
    "a module that is a dict": Mapped,
    "a module that is a list": Listing,
    "__getattr__": Lookup,
    "__getattribute__": Guarded,
    "a cached property": Cached,
}


# ------------------------------------------------------------ places


class Settings(dict):
    """What Lightning keeps hyperparameters in: items are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class Logger:
    """A user's logger, whose run is open, kept in an attribute."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.random = random.Random(0)

    def log(self, value: float) -> None:
        self.sent.append(value)


@dataclasses.dataclass(frozen=True)
class Frozen:
    content: Any


@dataclasses.dataclass(slots=True)
class Narrow:
    content: Any


def kept(hold: Any, take: Any) -> Any:
    return lambda: Keeper(hold(Counting()), take)


def first(place: Any) -> Any:
    return next(iter(place))


PLACES = {
    "hparams": kept(lambda module: Settings(net=module), lambda place: place.net),
    "a set": kept(lambda module: {module}, first),
    "a frozen set": kept(lambda module: frozenset({module}), first),
    "a tuple": kept(lambda module: (module,), first),
    "a frozen dataclass": kept(Frozen, lambda place: place.content),
    "a dataclass with slots": kept(Narrow, lambda place: place.content),
    "a namespace": kept(lambda module: types.SimpleNamespace(net=module), lambda place: place.net),
    "a mapping of modules to modules": kept(lambda module: {module: module}, lambda place: place[first(place)]),
    "a read-only mapping": kept(lambda module: types.MappingProxyType({"net": module}), lambda place: place["net"]),
    "a default dict": kept(lambda module: defaultdict(lambda: module), lambda place: place["any"]),
    "an ordered dict": kept(lambda module: OrderedDict(net=module), lambda place: place["net"]),
    "a partial": kept(lambda module: functools.partial(module), lambda place: place),
    "a bound method": kept(lambda module: module.forward, lambda place: place),
    "a default argument": kept(lambda module: lambda x, net=module: net(x), lambda place: place),
    "a lambda in a lambda": kept(lambda module: lambda: lambda x: module(x), lambda place: place()),
    "a cached method": kept(lambda module: functools.lru_cache(module.forward), lambda place: place),
    "a cached function": kept(lambda module: functools.cache(lambda x: module(x)), lambda place: place),
    "a weak reference": kept(lambda module: (module, weakref.ref(module)), lambda place: place[1]()),
    "a weak method": kept(lambda module: (module, weakref.WeakMethod(module.forward)), lambda place: place[1]()),
    "a weak mapping": kept(
        lambda module: (module, weakref.WeakKeyDictionary({module: module})), lambda place: place[1][place[0]]
    ),
    "a partial method": kept(lambda module: functools.partialmethod(module), lambda place: place.func),
}


# ------------------------------------------------------------ state


def forward_with(setup: Any, touch: Any) -> Any:
    """A net with this set-up, to whose output `touch(net, x)` is added."""

    class Touching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)
            setup(self)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) + touch(self, x)

    return Touching


def carried(read: Any, write: Any) -> Any:
    def touch(net: Any, x: Tensor) -> Tensor:
        state = torch.tanh(read(net) + x.mean())
        write(net, state)
        return state

    return touch


def counted(function: Any) -> Any:
    function.calls = getattr(function, "calls", 0) + 1
    return function.calls


def with_attribute(net: Any) -> None:
    def helper(x: Tensor) -> int:
        return counted(helper)

    net.helper = helper


def logging(net: Any) -> None:
    net.log = Logger()


def view_of(net: Any) -> None:
    net.register_buffer("whole", torch.zeros(2, 3))
    net.register_buffer("row", net.whole[1])


STATES = {
    "a text in memory": forward_with(
        lambda net: setattr(net, "text", io.StringIO()),
        lambda net, x: net.text.write("a forward") and len(net.text.getvalue()),
    ),
    "a queue": forward_with(
        lambda net: setattr(net, "queue", queue.Queue()), lambda net, x: net.queue.put(1) or net.queue.qsize()
    ),
    "a number that counts": forward_with(
        lambda net: setattr(net, "numbers", itertools.count()), lambda net, x: next(net.numbers)
    ),
    "a method of a list": forward_with(
        lambda net: net.__dict__.update(seen=[], see=None) or setattr(net, "see", net.seen.append),
        lambda net, x: net.see(1) or len(net.seen),
    ),
    "an array of objects": forward_with(
        lambda net: setattr(net, "things", numpy.array([{}, None], dtype=object)),
        lambda net, x: net.things[0].update({len(net.things[0]): 1}) or len(net.things[0]),
    ),
    "carried in a list": forward_with(
        lambda net: setattr(net, "state", [torch.zeros(())]),
        carried(lambda net: net.state[0], lambda net, state: net.state.__setitem__(0, state)),
    ),
    "carried in a dataclass": forward_with(
        lambda net: setattr(net, "state", Narrow(torch.zeros(()))),
        carried(lambda net: net.state.content, lambda net, state: setattr(net.state, "content", state)),
    ),
    "carried in a dict by copy_": forward_with(
        lambda net: setattr(net, "state", {"h": torch.zeros(())}),
        carried(lambda net: net.state["h"].clone(), lambda net, state: net.state["h"].copy_(state.detach())),
    ),
    "a view is written to": forward_with(view_of, lambda net, x: net.row.add_(1) + net.whole.sum()),
    "an attribute of a function": forward_with(with_attribute, lambda net, x: net.helper(x)),
    "a user's logger": forward_with(
        logging, lambda net, x: net.log.log(float(x.sum())) or len(net.log.sent) + net.log.random.random()
    ),
    "a bag of embeddings": forward_with(
        lambda net: setattr(net, "bag", nn.EmbeddingBag(5, 3, max_norm=0.1)),
        lambda net, x: net.bag((x > 0).long()),
    ),
}

TRAPS = {**CLASSES, **PLACES, **STATES}


def seeded(make: Any) -> nn.Module:
    torch.manual_seed(0)
    return make().train()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", TRAPS.values(), ids=TRAPS.keys())
def test_a_shadow_answers_the_same_and_leaves_no_trace(make: Any) -> None:
    model, twin = seeded(make), seeded(make)
    before, made = photograph(model), Registry.made
    found = shadow(model)
    with inspecting(found):
        answers = [found(X) for _ in range(3)]
    assert changed(before, photograph(model)) == []
    assert Registry.made == made
    with torch.no_grad():
        expected = [twin.eval()(X) for _ in range(3)]
    torch.testing.assert_close(answers, expected)


@pytest.mark.parametrize("make", TRAPS.values(), ids=TRAPS.keys())
def test_the_guard_alone_would_leave_a_trace(make: Any) -> None:
    model = seeded(make)
    before = photograph(model)
    with inspecting(model):
        model(X)
    assert changed(before, photograph(model)) != []


SHARED = {
    "a generator": lambda: (number for number in range(3)),
    "a queue between threads": queue.SimpleQueue,
    "a lock": threading.Lock,
    "a thread": threading.Thread,
    "a database": lambda: sqlite3.connect(":memory:"),
    "a file": lambda: Path(__file__).open(),  # noqa: SIM115
    "a context variable": lambda: contextvars.ContextVar("kept"),
    "a class": lambda: Narrow,
    "Python's own module": lambda: random,
    "an optimizer": lambda: torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1),
    "a scheduler": lambda: torch.optim.lr_scheduler.LinearLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)),
    "a dataset": lambda: torch.utils.data.TensorDataset(X),
    "a loader": lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X)),
}


@pytest.mark.parametrize("make", SHARED.values(), ids=SHARED.keys())
def test_what_has_no_second_of_its_kind_is_the_same_object(make: Any) -> None:
    model = Counting()
    model.__dict__["thing"] = make()
    assert shadow(model).thing is model.thing
    getattr(model.thing, "close", int)()
