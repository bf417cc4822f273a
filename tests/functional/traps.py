"""Models of a few lines whose forward changes something, by name: each takes (3, 4) inputs."""

import functools
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

CHANGING: dict[str, Callable[[], nn.Module]] = {}
"""Whose forward changes what the model reaches."""


def changing(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    CHANGING[make.__name__.lower().replace("_", " ").strip()] = make
    return make


class Head(nn.Module):
    """A linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


class By(Head):
    """A head whose output is multiplied by what a function of the module returns; with attributes of choice."""

    def __init__(self, factor: Callable[[Any], Any], **attributes: Any) -> None:
        super().__init__()
        self.factor = factor
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) * self.factor(self)


# ------------------------------------------------------------------------------------------------- attributes


@changing
class A_counter(Head):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) / self.calls


@changing
class A_list(Head):
    def __init__(self):
        super().__init__()
        self.outputs = []

    def forward(self, x):
        self.outputs.append(super().forward(x))
        return torch.stack(self.outputs).mean(0)


@changing
class A_list_that_holds_itself(A_list):
    def __init__(self):
        super().__init__()
        self.outputs = [torch.zeros(3, 3)]
        self.ring = [self.outputs]
        self.ring.append(self.ring)

    def forward(self, x):
        self.ring[1][1][0].append(torch.ones(3, 3))
        return super().forward(x)


@changing
class A_deque_of_the_last_two(Head):
    def __init__(self):
        super().__init__()
        self.last = deque(maxlen=2)

    def forward(self, x):
        self.last.append(super().forward(x))
        return sum(self.last)


class Recurrent(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.cell, self.head, self.hidden = nn.GRUCell(4, 5), nn.Linear(5, 3), hidden

    def step(self, x, hidden):
        return self.cell(x, None if hidden is None or not len(hidden) else hidden.detach())


@changing
class A_hidden_state(Recurrent):
    def __init__(self):
        super().__init__(None)

    def forward(self, x):
        self.hidden = self.step(x, self.hidden)
        return self.head(self.hidden)


@changing
class A_hidden_state_in_a_list(Recurrent):
    def __init__(self):
        super().__init__([None])

    def forward(self, x):
        self.hidden[0] = self.step(x, self.hidden[0])
        return self.head(self.hidden[0])


@dataclass
class State:
    hidden: Tensor | None = None
    seen: list[int] = field(default_factory=list)


@changing
class A_hidden_state_in_a_dataclass(Recurrent):
    def __init__(self):
        super().__init__(State())

    def forward(self, x):
        self.hidden.hidden = self.step(x, self.hidden.hidden)
        self.hidden.seen.append(len(x))
        return self.head(self.hidden.hidden)


@changing
class Slots(Head):
    __slots__ = ("calls",)

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) / self.calls


@changing
def a_count_by_itertools():
    return By(lambda self: next(self.numbers), numbers=itertools.count(1))


@changing
def numpy_array():
    def factor(self):
        self.array += 1
        return float(self.array.sum())

    return By(factor, array=numpy.zeros(3))


# ------------------------------------------------------------------------------------------------- random streams


@changing
def a_torch_generator():
    return By(lambda self: torch.rand(3, generator=self.rng), rng=torch.Generator().manual_seed(1))


@changing
def a_numpy_generator():
    return By(lambda self: self.rng.random(), rng=numpy.random.default_rng(1))


@changing
def a_random_random():
    return By(lambda self: self.rng[0].random(), rng=(random.Random(1),))


# ------------------------------------------------------------------------------------------------- functions


@changing
def a_closures_counter():
    calls = 0

    def factor(_):
        nonlocal calls
        calls += 1
        return calls

    return By(factor)


def _nested(times):
    def outer(module):
        return inner() + len(seen) + module.head.bias.numel()

    def inner():
        seen.append(times)
        return times

    seen = []
    return outer


@changing
def a_closure_in_a_closure():
    return By(_nested(2))


@changing
def a_mutable_default():
    def factor(self, seen=[]):  # noqa: B006
        seen.append(1)
        return len(seen)

    return By(factor)


@changing
def a_functions_attribute():
    def factor(_):
        factor.calls += 1
        return factor.calls

    factor.calls = 0
    return By(factor)


def counted(_):
    counted.calls += 1
    return counted.calls


@changing
def an_attribute_of_a_global_function():
    counted.calls = 0
    return By(counted)


@changing
def a_partial_over_a_list():
    def factor(seen, _):
        seen.append(1)
        return len(seen)

    return By(functools.partial(factor, []))


class Owner:
    def __init__(self):
        self.calls = 0

    def __call__(self, *_):
        self.calls += 1

    def hook(self, module, args, output):
        self.calls += 1
        return output * self.calls


@changing
def a_bound_method_as_a_hook():
    model = Head()
    model.head.register_forward_hook(Owner().hook)
    return model


@changing
def an_object_as_a_hook():
    model, seen = By(lambda self: 1 + self.owner.calls), Owner()
    model.owner = seen
    model.head.register_forward_pre_hook(seen)
    return model


@changing
def a_forward_put_on_the_instance():
    model, seen = Head(), []
    plain = model.forward

    def forward(x):
        seen.append(1)
        return plain(x) * len(seen)

    model.forward = forward
    return model


# ------------------------------------------------------------------------------------------------- buffers


@changing
class A_buffer_registered_anew(Head):
    def __init__(self):
        super().__init__()
        self.register_buffer("cosines", torch.ones(1), persistent=False)

    def forward(self, x):
        self.register_buffer("cosines", torch.linspace(0, 1, len(self.cosines) + 1).cos(), persistent=False)
        return super().forward(x) * self.cosines.sum()


@changing
class A_buffer_resized_in_place(Head):
    def __init__(self):
        super().__init__()
        self.register_buffer("cache", torch.zeros(2))

    def forward(self, x):
        self.cache.resize_(len(self.cache) + 1).copy_(torch.linspace(0, 1, len(self.cache)))
        return super().forward(x) * self.cache.sum()


@changing
class A_buffer_written_through_a_view(Head):
    def __init__(self):
        super().__init__()
        self.register_buffer("all", torch.zeros(4))
        self.register_buffer("first", self.all[:2])
        self.last = self.all[2:]

    def forward(self, x):
        self.first += 1
        self.last += 2
        return super().forward(x) * self.all.sum()


@changing
class A_plain_tensor_written_in_place(Head):
    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(3)

    def forward(self, x):
        self.cache.add_(1)
        return super().forward(x) * self.cache


@changing
class An_inference_buffer(Head):
    def __init__(self):
        super().__init__()
        with torch.inference_mode():
            self.register_buffer("mean", torch.zeros(3))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) - self.mean * self.calls


@changing
def batch_norm_without_eval():
    class Always(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            return nn.functional.batch_norm(self.head(x), self.norm.running_mean, self.norm.running_var, training=True)

    return Always()


# ------------------------------------------------------------------------------------------------- metrics and weights


@changing
class A_metric(Head):
    def __init__(self):
        super().__init__()
        self.mean = torchmetrics.MeanMetric()

    def forward(self, x):
        output = super().forward(x)
        self.mean.update(output.detach().abs())
        return output


@changing
class Metrics_in_a_collection(Head):
    def __init__(self):
        super().__init__()
        self.metrics = torchmetrics.MetricCollection([torchmetrics.MeanMetric(), torchmetrics.SumMetric()])

    def forward(self, x):
        output = super().forward(x)
        self.metrics.update(output.detach().abs())
        return output


@changing
def pruned_weights():
    model = Head()
    prune.random_unstructured(model.head, "weight", 0.5)
    return model


@changing
def weight_norm_of_old():
    model = Head()
    weight_norm(model.head)
    return model


@changing
def spectral_norm_of_old():
    class Training(Head):  # the power iteration runs in training alone
        def forward(self, x):
            self.head.training = True
            return super().forward(x)

    model = Training()
    spectral_norm(model.head)
    return model


@changing
def spectral_norm_by_parametrization():
    class Training(Head):
        def forward(self, x):
            self.head.parametrizations.weight[0].training = True
            return super().forward(x)

    model = Training()
    parametrizations.spectral_norm(model.head)
    return model


class Warned(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, weight):
        self.calls += 1
        return weight / self.calls


@changing
def a_parametrization_that_counts():
    model = Head()
    nn.utils.parametrize.register_parametrization(model.head, "weight", Warned())
    return model


class Embedded(nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.embedding, self.head = embedding, nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.embedding((x > 0).long()).mean(1))


@changing
def an_embedding_of_a_largest_norm():
    return Embedded(nn.Embedding(5, 4, max_norm=0.1))


@changing
def an_embedding_bag_of_a_largest_norm():
    class Bag(Embedded):
        def forward(self, x):
            return self.head(self.embedding((x > 0).long()))

    return Bag(nn.EmbeddingBag(5, 4, max_norm=0.1))
