"""A shadow answers as its model does, and nothing that runs on it is seen in the model."""

import dataclasses
import functools
import gc
import itertools
import random
import re
import sqlite3
import threading
import time
import tracemalloc
import types
import weakref
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any, ClassVar

import numpy
import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from lightning_xai.functional import grad_cam, inspecting
from lightning_xai.functional.passes import guard
from lightning_xai.functional.shadow import Snapshot, UnshadowableError, is_shadow, over, shadow
from tests.support import traps
from tests.support.photograph import changed, photograph
from tests.support.traps import Trapped

X = torch.linspace(-1, 1, 3 * 4).view(3, 4)


class Net(Trapped):
    """A linear layer whose forward also does what a trap of the table does."""

    def layers(self):
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x) + self.touch(x)


def trap(setup=None, touch=None, **attributes):
    return lambda: traps.trap(Net, setup, touch, **attributes)


def counting(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return self.calls / 10


@dataclasses.dataclass
class Box:
    content: object


class Slotted(Net):
    __slots__ = ("count",)

    def touch(self, x):
        self.count = getattr(self, "count", 0) + 1
        return self.count


class OnOwner:
    """What a user's callback is: hooks of it keep what they see."""

    def __init__(self):
        self.seen = []

    def hook(self, module, args, output):
        self.seen.append(output.detach())


class Closing(Net):
    """Its end closes something of the user's."""

    closed: ClassVar = []

    def __del__(self):
        self.closed.append(1)


class Handle:
    closed: ClassVar = []

    def __del__(self):
        self.closed.append(1)


class Unbuildable:
    def __init__(self, needed):
        self.needed = needed

    def __reduce__(self):
        return Unbuildable, ()


class Strict(Net):
    def __setattr__(self, name, value):
        if name == "frozen":
            raise AttributeError(name)
        super().__setattr__(name, value)


def hooked():
    net = Net()
    net.owner = OnOwner()
    net.linear.register_forward_hook(net.owner.hook)
    return net


def closing_over_a_counter():
    net, count = Net(), 0

    def hook(module, args, output):
        nonlocal count
        count += 1
        return output + count

    net.linear.register_forward_hook(hook)
    return net


def two_that_share_a_cell():
    net, total = Net(), []
    net.write, net.read = (lambda x: total.append(float(x.sum()))), (lambda: sum(total))
    net.linear.register_forward_hook(lambda module, args, output: (net.write(output), output + net.read())[1])
    return net


def metric_in_forward():
    net = Net()
    net.metric = torchmetrics.MeanMetric()
    net.metric(torch.tensor(5.0))
    net.linear.register_forward_hook(lambda module, args, output: net.metric.update(output))
    return net


def pruned():
    net = Net()
    prune.l1_unstructured(net.linear, "weight", amount=0.3)
    return net


def parametrized():
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    net = Net()
    parametrize.register_parametrization(net.linear, "weight", Doubled())
    return net


def on(part, change):
    def make():
        net = Net()
        setattr(net, part, change(getattr(net, part)))
        return net

    return make


class Rope(Net):
    def setup(self):
        self.register_buffer("cache", torch.zeros(1), persistent=False)

    def touch(self, x):
        if len(self.cache) < len(x):
            self.register_buffer("cache", torch.arange(len(x)).float(), persistent=False)
        return self.cache[: len(x), None]


def resized(self, x):
    if len(self.cache) < len(x):
        self.cache.resize_(len(x)).copy_(torch.arange(len(x)))
    return self.cache[: len(x), None]


def in_place(self, x):
    self.kept.add_(1)
    return self.kept.sum()


def carried(self, x):
    self.state = torch.tanh(x.mean()) if self.state is None else torch.tanh(self.state + x.mean())
    return self.state


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(4, 5, num_layers=2, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.rnn(x[:, None])[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.embed((x[:, 0] * 2).long().abs()))


class Lazy(Net):
    def setup(self):
        self.never_ran = nn.LazyLinear(3)
        self.kept = nn.LazyBatchNorm1d()


class Embedded(Net):
    def setup(self):
        self.embed = nn.Embedding(5, 3, max_norm=0.1)

    def touch(self, x):
        return self.embed((x[:, 0] > 0).long())


class Many(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(1500))
        self.extra = [nn.Linear(4, 4) for _ in range(1100)]  # in a plain list, as a user may hold experts
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layers[self.calls](x) + self.extra[1](x)


def keyed_by_modules():
    net = Net()
    net.counts = {net.linear: 0}

    def hook(module, args, output):
        net.counts[module] += 1
        return output + net.counts[module]

    net.linear.register_forward_hook(hook)
    return net


def referring_to_itself():
    net = Net()
    net.things = [net]
    net.things.append(net.things)
    net.parent, net.__dict__["proxy"] = weakref.ref(net), weakref.proxy(net)
    net.linear.register_forward_hook(lambda module, args, output: output + len(net.proxy.things[1]))
    return net


def in_another(holder):
    def make():
        net, inner = Net(), Net()
        object.__setattr__(net, "held", holder(inner))

        def touch(module, args, output):
            held = net.held
            found = (
                held.content if isinstance(held, Box) else next(iter(held.values() if isinstance(held, dict) else held))
            )
            found.calls = getattr(found, "calls", 0) + 1
            return output + found(args[0]) * found.calls

        net.linear.register_forward_hook(touch)
        return net

    return make


def no_grad_parameter_list():
    net = Net()
    net.weights = nn.ParameterList([nn.Parameter(torch.ones(3)) for _ in range(2)])
    net.linear.register_forward_hook(lambda module, args, output: output * net.weights[1])
    return net


def with_inference_tensors():
    with torch.inference_mode():
        net = Net()
        net.register_buffer("scale", torch.full((3,), 2.0))
    net.linear.register_forward_hook(lambda module, args, output: output * net.scale)
    return net


class Quantised(nn.Parameter):
    pass


def of_another_class():
    net = Net()
    weight = torch.Tensor._make_subclass(Quantised, net.linear.weight.detach().clone(), True)
    weight.scale = 3.0
    net.linear.weight = weight
    net.linear.register_forward_hook(lambda module, args, output: output * module.weight.scale)
    return net


def expanded():
    net = Net()
    net.register_buffer("mask", torch.ones(1).expand(3))
    net.linear.register_forward_hook(lambda module, args, output: output * net.mask)
    return net


def views_of_one_buffer():
    net = Net()
    net.register_buffer("whole", torch.zeros(6))
    net.register_buffer("front", net.whole[:3])

    def hook(module, args, output):
        net.whole.add_(1)
        return output + net.front  # must move with the whole

    net.linear.register_forward_hook(hook)
    return net


def odd_buffers():
    net = Net()
    net.register_buffer("complex", torch.ones(2, dtype=torch.complex64).conj())
    net.register_buffer("sparse", torch.eye(3).to_sparse())
    net.register_buffer("rows", torch.eye(3).to_sparse_csr())
    net.register_buffer("empty", torch.empty(3, device="meta"))
    net.register_buffer("ragged", torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))
    return net


def locked():
    net = Net()
    net.lock, net.thread, net.file = threading.Lock(), threading.Thread(target=print), Path(__file__).open()  # noqa: SIM115
    net.base, net.lines, net.rlock = sqlite3.connect(":memory:"), (line for line in "ab"), threading.RLock()
    return net


class Twice(nn.Module):
    """What Lightning's modules are, three deep."""

    def __init__(self, depth=2):
        super().__init__()
        self.inner, self.calls = Twice(depth - 1) if depth else nn.Linear(4, 3), 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x) * self.calls


def counting_in_an_attribute_of_a_function():
    def hook(module, args, output):
        hook.calls += 1
        return output + hook.calls

    hook.calls = 0
    net = Net()
    net.linear.register_forward_hook(hook)
    return net


class AsList(nn.Module, list):
    """Holds what it has seen in itself."""

    def __init__(self):
        nn.Module.__init__(self)
        self.linear = nn.Linear(4, 3)

    __hash__ = nn.Module.__hash__

    def forward(self, x):
        self.append(float(x.sum()))
        return self.linear(x) + len(self)


TRAPS = {
    "nothing": Net,
    "a counter": trap(touch=counting),
    "a list": trap(lambda self: setattr(self, "seen", []), lambda self, x: self.seen.append(1) or len(self.seen)),
    "a deque": trap(
        lambda self: setattr(self, "seen", deque(maxlen=3)), lambda self, x: self.seen.append(1) or len(self.seen)
    ),
    "state that is carried on": trap(lambda self: setattr(self, "state", None), carried),
    "a tensor that is written to": trap(lambda self: setattr(self, "kept", torch.zeros(2)), in_place),
    "a tensor in a list that is written to": trap(
        lambda self: setattr(self, "kept", [torch.zeros(2)]), lambda self, x: self.kept[0].add_(1).sum()
    ),
    "an array": trap(
        lambda self: setattr(self, "kept", numpy.zeros(2)),
        lambda self, x: float(self.kept.__iadd__(1).sum()),
    ),
    "a torch.Generator": trap(
        lambda self: setattr(self, "rng", torch.Generator().manual_seed(3)),
        lambda self, x: torch.randn(len(x), 3, generator=self.rng),
    ),
    "a numpy Generator": trap(
        lambda self: setattr(self, "rng", numpy.random.default_rng(0)), lambda self, x: self.rng.random()
    ),
    "a random.Random": trap(lambda self: setattr(self, "rng", random.Random(0)), lambda self, x: self.rng.random()),
    "itertools.count": trap(
        lambda self: setattr(self, "numbers", iter([1, 2, 3, 4, 5, 6])), lambda self, x: next(self.numbers)
    ),
    "slots": Slotted,
    "a dataclass": trap(
        lambda self: setattr(self, "box", Box([])), lambda self, x: self.box.content.append(1) or len(self.box.content)
    ),
    "a dict of another kind": trap(
        lambda self: setattr(self, "seen", OrderedDict(a=1)),
        lambda self, x: self.seen.update({len(self.seen): 1}) or len(self.seen),
    ),
    "a partial": trap(
        lambda self: setattr(self, "add", functools.partial(list.append, [])),
        lambda self, x: self.add(1) or len(self.add.args[0]),
    ),
    "a hook that is a bound method": hooked,
    "a closure's counter": closing_over_a_counter,
    "a counter at a function": counting_in_an_attribute_of_a_function,
    "a module that is a list": AsList,
    "a variable of two closures": two_that_share_a_cell,
    "torchmetrics in the forward": metric_in_forward,
    "pruned": pruned,
    "weight_norm, old": on("linear", weight_norm),
    "weight_norm": on("linear", parametrizations.weight_norm),
    "spectral_norm, old": on("linear", spectral_norm),
    "spectral_norm": on("linear", parametrizations.spectral_norm),
    "a parametrization": parametrized,
    "a cache that is replaced": Rope,
    "a cache that is resized": trap(lambda self: self.register_buffer("cache", torch.zeros(1)), resized),
    "a buffer that is written to": trap(lambda self: self.register_buffer("kept", torch.zeros(2)), in_place),
    "views of one buffer": views_of_one_buffer,
    "an expanded buffer": expanded,
    "an LSTM": lambda: Recurrent(nn.LSTM),
    "a GRU": lambda: Recurrent(nn.GRU),
    "tied weights": Tied,
    "lazy parts that never ran": Lazy,
    "an embedding that is renormed": Embedded,
    "a module in a dataclass": in_another(Box),
    "a module in a list": in_another(lambda inner: [inner]),
    "a module in a dict": in_another(lambda inner: {"a": inner}),
    "keyed by modules": keyed_by_modules,
    "references to itself": referring_to_itself,
    "many modules": Many,
    "parameters in a list": no_grad_parameter_list,
    "inference tensors": with_inference_tensors,
    "a parameter of another class": of_another_class,
    "odd buffers": odd_buffers,
    "what cannot be pickled": locked,
    "what cannot be made again": trap(lambda self: setattr(self, "thing", Unbuildable(1)), counting),
    "a class with __setattr__": Strict,
    "three deep": Twice,
}


def seeded(make):
    torch.manual_seed(0)
    return make().train()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", TRAPS.values(), ids=TRAPS.keys())
def test_a_shadow_answers_the_same_and_leaves_no_trace(make):
    model, twin = seeded(make), seeded(make)
    for each in (model, twin):
        with torch.no_grad():
            each(X)  # so that all that a forward makes is there
    before = photograph(model)
    found = shadow(model)
    assert changed(before, photograph(model)) == [], "by making it"
    with inspecting(found):
        answers = [found(X) for _ in range(3)]
    assert changed(before, photograph(model)) == [], "by running it"
    with torch.no_grad():
        expected = [twin.eval()(X) for _ in range(3)]
    for answer, same in zip(answers, expected, strict=True):
        torch.testing.assert_close(answer, same.detach(), rtol=1e-6, atol=1e-6)
        assert not answer.requires_grad
    assert is_shadow(found)
    assert not any(module.training for module in found.modules())


LASTING = """a counter, a list, state that is carried on, a tensor that is written to, a torch.Generator, slots,
a numpy Generator, a dataclass, a closure's counter, a variable of two closures, a hook that is a bound method,
torchmetrics in the forward, an embedding that is renormed, keyed by modules, three deep"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", re.split(r",\s+", LASTING))
def test_the_guard_alone_would_leave_a_trace(name):
    model = seeded(TRAPS[name])
    model(X)
    before = photograph(model)
    with inspecting(model):
        model(torch.cat([X, X]))
    assert photograph(model) != before


def test_parameters_are_the_same_memory_and_frozen():
    model = Recurrent(nn.LSTM)
    found = shadow(model)
    for one, other in zip(model.parameters(), found.parameters(), strict=True):
        assert one.data_ptr() == other.data_ptr()
        assert one.requires_grad and not other.requires_grad
    assert all(flat is own for flat, own in zip(found.rnn._flat_weights, found.rnn.parameters(), strict=True))


def test_parameters_are_copied_where_that_is_asked():
    model = Net()
    taken = Snapshot(model, clone_parameters=True)
    found = taken.shadow()
    before = model.linear.weight.detach().clone()
    assert not taken.wrote_to_parameters()
    with torch.no_grad():
        found.linear.weight.clamp_(-0.1, 0.1)
    assert taken.wrote_to_parameters() and not taken.written()
    assert torch.equal(model.linear.weight, before)


def test_what_is_written_to_in_spite_of_it_is_known():
    model = Net()
    taken = Snapshot(model)
    found = taken.shadow()
    assert taken.written() == []
    with torch.no_grad():
        found.linear.bias.add_(1)
    assert [id(thing) for thing in taken.written()] == [id(model.linear.bias)]


def test_each_shadow_is_as_the_model_was():
    model = seeded(trap(touch=counting))
    taken = Snapshot(model)
    first, second = taken.shadow(), taken.shadow()
    with inspecting(first), inspecting(second):
        assert torch.equal(first(X), second(X))
        assert not torch.equal(first(X), taken.shadow()(X))


def test_an_end_ends_nothing_of_the_user_s():
    model = Closing()
    model.handle = Handle()
    found = shadow(model)
    assert found.handle is model.handle
    del found
    gc.collect()
    assert Closing.closed == [] and Handle.closed == []


def test_nothing_is_kept():
    model = hooked()
    found = shadow(model)
    gone = [weakref.ref(part) for part in (found, found.linear, found.linear.weight)]
    with inspecting(found):
        found(X)
    del found
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


def test_compiled_parts_are_taken_back_to_what_they_wrap():
    model = Net()
    model.function = torch.compile(lambda x: x + 1, backend="eager")
    model.linear = torch.compile(model.linear, backend="eager")
    model.compile(backend="eager")
    found = shadow(model)
    assert type(found.linear) is nn.Linear
    assert found._compiled_call_impl is None
    assert isinstance(found.function, types.FunctionType) and found.function(1) == 2
    assert type(model.linear).__name__ == "OptimizedModule" and model._compiled_call_impl is not None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["scripted", "traced"])
def test_what_is_compiled_by_torchscript_is_refused_by_its_part(how):
    model = Net()
    model.part = torch.jit.script(nn.Linear(4, 3)) if how == "scripted" else torch.jit.trace(nn.Linear(4, 3), X)
    with pytest.raises(UnshadowableError, match="TorchScript") as caught:
        shadow(model)
    assert caught.value.part is model.part


class Hashed(Net):
    """A hash that is made of what the module holds, which a half made one does not."""

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return self.key == other.key


def test_what_cannot_be_made_again_half_way_is_refused_and_the_guard_is_left():
    model = Net()
    inner = Hashed()
    inner.key, inner.peers = "a", set()
    inner.peers.add(inner)
    model.inner = inner
    with pytest.raises(UnshadowableError, match="AttributeError"):
        shadow(model)


def test_what_is_nested_too_deeply_is_refused():
    model = Net()
    model.chain = nn.Linear(4, 4)
    for _ in range(400):
        model.chain = nn.Sequential(model.chain)
    with pytest.raises(UnshadowableError, match="nested too deeply"):
        shadow(model)


def test_read_only_memory(tmp_path):
    numpy.arange(3, dtype=numpy.float32).tofile(tmp_path / "mask")
    model = Net()
    model.register_buffer("mask", torch.from_file(str(tmp_path / "mask"), shared=False, size=3, dtype=torch.float32))
    held = numpy.memmap(tmp_path / "mask", dtype=numpy.float32, mode="r")
    with pytest.warns(UserWarning, match="not writable"):
        model.register_buffer("read_only", torch.from_numpy(numpy.asarray(held)))
    model.linear.register_forward_hook(lambda module, args, output: output * model.read_only)
    expected = model(X).detach()
    found = shadow(model)
    with inspecting(found):
        torch.testing.assert_close(found(X), expected)
    with inspecting(model):  # where no shadow can be made
        torch.testing.assert_close(model(X), expected)


class Heavy(Net):
    """An epoch's outputs in lists, as Lightning 2 has them kept."""

    def __init__(self, mib):
        super().__init__()
        self.outputs = [torch.zeros(2**18) for _ in range(mib // 2)]
        self.pairs_of_tensors = [(torch.zeros(2**18), 1) for _ in range(mib // 2)]
        self.arrays = [numpy.zeros(2**18, dtype=numpy.float32) for _ in range(mib // 16)]
        self.pairs = [(i, str(i)) for i in range(10**6)]
        self.register_buffer("queue", torch.zeros(70 * 2**18))


@pytest.mark.parametrize("mib", [256, pytest.param(1024, marks=pytest.mark.slow)])
def test_what_is_large_is_shared(mib):
    model = Heavy(mib)
    started = time.process_time()
    taken = Snapshot(model)
    found = taken.shadow()
    spent = time.process_time() - started
    own = [t for t in found.outputs if not any(t.data_ptr() == other.data_ptr() for other in model.outputs)]
    own += [
        t for t, _ in found.pairs_of_tensors if not any(t.data_ptr() == o.data_ptr() for o, _ in model.pairs_of_tensors)
    ]
    assert len(own) <= 48, "of one MiB each, at most 5% of a GiB"
    assert found.queue.data_ptr() == model.queue.data_ptr()
    assert found.pairs is not model.pairs and found.pairs[5] is model.pairs[5]
    assert spent < 1
    found.pairs.append((1, 2))
    found.outputs.append(X)
    assert len(model.pairs) == 10**6 and len(model.outputs) == mib // 2
    found.queue.add_(1)
    assert [id(thing) for thing in taken.written()] == [id(model.queue)]


def test_making_one_takes_little_memory():
    model = Heavy(64)
    tracemalloc.start()
    Snapshot(model).shadow()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48 * 2**20


def test_a_function_that_holds_the_model_is_rebuilt_over_the_shadow():
    model = seeded(trap(touch=counting))
    found = shadow(model)
    pairs = list(zip(model.modules(), found.modules(), strict=True))

    class Holder:
        inner = model

        def __call__(self, x):
            return self.held(x)

    holder = Holder()
    holder.held = model
    forwards = (lambda x: model(x), model.forward, functools.partial(model.forward), lambda x, m=model: m(x), holder)
    for forward in forwards:
        with inspecting(found):
            over(forward, pairs)(X)
        assert not hasattr(model, "calls")
    assert found.calls == len(forwards)
    for other in (torch.relu, lambda x: x, functools.partial(torch.add, 1)):
        assert over(other, pairs) is other


# ---------------------------------------------------------------- the guard, where there is no shadow


def test_one_restoration_that_fails_harms_no_other(monkeypatch):
    class Replacing(Net):
        def setup(self):
            self.register_buffer("kept", torch.zeros(2))

        def touch(self, x):
            self.register_buffer("kept", self.kept + 1)
            return 0

    model = Replacing().train()
    kept, restore = model.kept, guard._restore_parameter

    def restores(parameter, *state):
        if parameter is model.linear.bias:
            raise RuntimeError("no more")
        restore(parameter, *state)

    monkeypatch.setattr(guard, "_restore_parameter", restores)
    with pytest.warns(RuntimeWarning, match=r"not be left quite as it was: a parameter \(no more\)"), inspecting(model):
        model(X)
    assert model.kept is kept and torch.equal(kept, torch.zeros(2))
    assert model.linear.weight.requires_grad and all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "make",
    [expanded, odd_buffers, Lazy, lambda: trap(lambda self: self.register_buffer("cache", torch.zeros(1)), resized)()],
)
@pytest.mark.filterwarnings("ignore")
def test_the_guard_holds_odd_buffers(make):
    model = seeded(make)
    before = {name: str(buffer) for name, buffer in model.named_buffers()}
    with inspecting(model):
        model(X)
    assert {name: str(buffer) for name, buffer in model.named_buffers()} == before
    assert all(p.requires_grad for p in model.parameters())


def test_functions_leave_no_parameter_frozen_whatever_happens():
    class Fails(Net):
        def touch(self, x):
            raise ArithmeticError("broken")

    model = Fails()
    with pytest.raises(ArithmeticError):
        grad_cam(model, X, 0, layer="linear")
    assert all(p.requires_grad for p in model.parameters())
    assert guard.inspecting is inspecting


def test_count_is_left_alone():
    numbers = itertools.count()
    model: Any = Net()
    model.numbers = numbers
    with_one = shadow(model)
    next(with_one.numbers)
    assert next(numbers) in (0, 1)  # what Python no longer pickles is shared
