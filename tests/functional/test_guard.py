"""The guard of what cannot be copied: buffers of every kind stay as they are, each restoration for itself."""

import random

import pytest
import torch
from torch import Tensor, nn

from lightning_xai.functional import guard, inspecting
from tests.support.photograph import changes, photograph

from .holdings import BUFFERS, HOLDING
from .traps import CHANGING, Head

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def changes_under_guard(model: nn.Module, inputs: Tensor = X) -> list[str]:
    before = photograph(model)
    with inspecting(model):
        model(inputs)
    return changes(before, photograph(model))


@pytest.mark.filterwarnings("ignore:.*(prototype|beta state|deprecated)")  # odd tensors' own
@pytest.mark.parametrize("name", BUFFERS)
def test_a_buffer_that_is_read_stays(name):
    model = HOLDING[name]()
    assert [place for place in changes_under_guard(model) if "odd" in place] == []


@pytest.mark.parametrize("name", ["a buffer registered anew", "batch norm without eval"])
def test_a_buffer_that_is_written_is_brought_back(name):
    model = CHANGING[name]()
    model(X)
    assert changes_under_guard(model) == []


@pytest.mark.parametrize("name", ["a buffer resized in place", "a buffer written through a view"])
def test_a_buffers_values_are_brought_back(name):
    model = CHANGING[name]()
    model(X)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    changes_under_guard(model)
    torch.testing.assert_close(dict(model.named_buffers()), before)


class Sparse(Head):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.eye(3).to_sparse())

    def forward(self, x):
        self.mask.mul_(2)
        return (self.mask @ super().forward(x).T).T


def test_a_sparse_buffer_that_is_written_is_brought_back():
    model = Sparse()
    changes_under_guard(model)
    torch.testing.assert_close(model.mask.to_dense(), torch.eye(3))


class Sealed(Head):
    """Refuses that its training flag is set by name."""

    def __setattr__(self, name, value):
        if name == "training" and "training" in self.__dict__:
            raise AttributeError("sealed")
        super().__setattr__(name, value)


def test_a_module_that_refuses_attributes():
    model = Sealed()
    with inspecting(model):
        assert not model.training
    assert model.training


class Part(nn.Module):
    """Puts out nothing, and has one of everything that is restored."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.linear.bias.requires_grad_(False)
        self.linear.weight.grad = torch.ones(3, 4)
        self.norm.eval()

    def forward(self, x):
        self.norm.running_mean.add_(1)
        self.linear.weight.grad = None
        self.linear.register_buffer("late", torch.ones(1))
        self.linear.weight.requires_grad_(True)
        return self.norm(self.linear(x))


RESTORATIONS = {
    "_set_training": "a training flag",
    "_restore_parameter": "a parameter",
    "_restore_buffer": "a buffer",
}


def state(model: nn.Module) -> dict[str, object]:
    return {
        "a training flag": [module.training for module in model.modules()],
        "a parameter": [(p.requires_grad, None if p.grad is None else p.grad.sum().item()) for p in model.parameters()],
        "a buffer": [buffer.sum().item() for buffer in model.buffers()],
        "the names of tensors": [
            [name for name, _ in module.named_buffers(recurse=False)] for module in model.modules()
        ],
    }


@pytest.mark.parametrize("name", RESTORATIONS)
def test_one_restoration_that_fails_stops_no_other(monkeypatch, name):
    works = getattr(guard, name)
    calls = []

    def failing(*args):
        if args[-1] is False:  # what is done, not undone
            return works(*args)
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError("this cannot be restored")
        return works(*args)

    model = Part()
    before = state(model)
    monkeypatch.setattr(guard, name, failing)
    with pytest.warns(RuntimeWarning, match=f"not be left quite as it was: {RESTORATIONS[name]} .this cannot"):
        changes_under_guard(model)
    after = state(model)
    assert {what for what in before if before[what] != after[what]} <= {RESTORATIONS[name]}
    assert len(calls) > 1


def test_names_that_cannot_be_restored(monkeypatch):
    def failing(store):
        def restore():
            raise RuntimeError("locked")

        return "the names of tensors", restore

    model = Part()
    before = state(model)
    monkeypatch.setattr(guard, "_tensors_saved", failing)
    with pytest.warns(RuntimeWarning, match="not be left quite as it was: the names of tensors"):
        changes_under_guard(model)
    after = state(model)
    assert {what for what in before if before[what] != after[what]} <= {"the names of tensors", "a buffer"}


@pytest.mark.filterwarnings("ignore:.*jit.script. is deprecated")
def test_a_scripted_part_is_restored():
    model = nn.Sequential(Head(), torch.jit.script(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())))
    model[1][0].eval()
    before = state(model)
    with inspecting(model):
        model(X)
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert state(model) == before


def test_a_stream_that_cannot_be_restored_stops_no_other(monkeypatch):
    before, python = torch.get_rng_state(), random.getstate()

    def failing(state):
        raise RuntimeError("no stream")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "set_rng_state", failing)
        with pytest.warns(RuntimeWarning, match="a random stream .no stream"), inspecting(Head()):
            torch.rand(1)
            random.random()
    assert not torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python
    torch.set_rng_state(before)
