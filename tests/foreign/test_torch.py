"""What torch and torchmetrics keep private is still there, and means what we take it for."""

import pytest
import torch
import torchmetrics
from torch import nn

from lightning_xai.foreign import torch as private


def test_a_version_counts_the_writes_to_a_tensor_and_its_views():
    tensor = torch.zeros(3)
    before = private.version(tensor)
    tensor[1:].add_(1)
    assert private.version(tensor) == before + 1
    with torch.inference_mode(), pytest.raises(RuntimeError, match="version counter"):
        private.version(torch.zeros(3))


def test_views_have_the_address_of_their_storage():
    tensor = torch.zeros(3)
    assert private.address(tensor.untyped_storage()) == private.address(tensor[1:].untyped_storage())
    assert private.address(tensor.untyped_storage()) != private.address(torch.zeros(3).untyped_storage())


def test_many_tensors_are_copied_at_once():
    targets, sources = [torch.zeros(2), torch.zeros(3)], [torch.ones(2), torch.full((3,), 2.0)]
    private.copy_each(targets, sources)
    assert all(torch.equal(target, source) for target, source in zip(targets, sources, strict=True))


def test_a_parameter_of_a_class_of_its_own_is_made_without_its_constructor():
    class Counted(nn.Parameter):
        def __new__(cls, data, count):
            raise AssertionError

    made = private.of_class(Counted, torch.ones(2))
    assert type(made) is Counted and not made.requires_grad and made.tolist() == [1, 1]


def test_the_registries_are_those_a_module_looks_its_parts_up_in():
    module = nn.Sequential(nn.BatchNorm1d(2))
    children, _, _ = private.registries(module)
    _, parameters, buffers = private.registries(module[0])
    assert children["0"] is module[0]
    assert parameters["weight"] is module[0].weight and buffers["running_mean"] is module[0].running_mean


def test_what_compile_wrapped_is_found():
    module = nn.Linear(2, 2)
    assert private.compiled_from(torch.compile(module, backend="eager")) is module
    assert private.compiled_from(module) is None


def test_a_module_that_was_compiled_in_place_forgets_it():
    module = nn.Linear(2, 2)
    assert private.uncompiled(module.__dict__) == {}
    module.compile(backend="eager")
    assert module.__dict__["_compiled_call_impl"] is not None
    module.__dict__.update(private.uncompiled(module.__dict__))
    assert module(torch.ones(1, 2)).shape == (1, 2)


def test_a_metric_is_as_after_its_reset():
    metric = torchmetrics.MeanMetric()
    metric.update(torch.tensor([3.0]))
    reset = private.reset_metric(metric)
    metric.reset()
    same = {
        name: torch.as_tensor(value).equal(torch.as_tensor(reset[name])) for name, value in metric.metric_state.items()
    }
    assert same and all(same.values())
    assert reset["_update_count"] == metric._update_count == 0
    assert private.reset_metric(nn.Linear(2, 2)) == {}


def test_no_function_mode_is_asked_inside():
    class Refusing(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            raise AssertionError

    with Refusing(), private.without_function_modes():
        torch.ones(2).add(1)


def test_the_classes_with_channels_first():
    layers = (nn.Conv1d(1, 1, 1), nn.BatchNorm2d(1), nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool1d(1), nn.AvgPool3d(1))
    assert all(isinstance(layer, private.CHANNELS_FIRST) for layer in (*layers, nn.MaxPool2d(1)))
    assert not isinstance(nn.Linear(1, 1), private.CHANNELS_FIRST)
