"""The guard, where no shadow can be made: what cannot be put back is told, and takes nothing else with it."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_xai.functional import inspecting

X = torch.ones(2, 4)


class Net(nn.Module):
    """Its forward changes all that the guard puts back."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.norm.running_mean = self.norm.running_mean + 1
        torch.rand(1), random.random(), numpy.random.rand()  # noqa: NPY002
        return self.norm(self.linear(x))


def state(model: nn.Module) -> dict[str, Any]:
    return {
        "training flags": [module.training for module in model.modules()],
        "parameters": [parameter.requires_grad for parameter in model.parameters()],
        "names of tensors": [(name, id(buffer)) for name, buffer in model.named_buffers()],
        "buffers": [buffer.tolist() for buffer in model.buffers()],
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": numpy.random.get_state()[2],  # noqa: NPY002
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "cache": torch.is_autocast_cache_enabled(),
    }


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    fast_path, cache = torch.backends.mha.get_fastpath_enabled(), torch.is_autocast_cache_enabled()
    yield
    torch.backends.mha.set_fastpath_enabled(fast_path)
    torch.set_autocast_cache_enabled(cache)


# ------------------------------------------------------------ one that fails


class Stuck(nn.Parameter):
    """Once frozen, it stays so."""

    error: BaseException = RuntimeError("stuck")

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        if requires_grad:
            raise self.error
        return super().requires_grad_(requires_grad)


def with_a_stuck_parameter(patch: pytest.MonkeyPatch) -> nn.Module:
    model = Net()
    model.linear.bias = Stuck(torch.zeros(3))
    return model


class Unwritable(Tensor):
    """Takes no copy of another tensor."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.__name__ == "copy_" and isinstance(args[0], cls):
            raise RuntimeError("stuck")
        return super().__torch_function__(function, types, args, kwargs or {})


def with_an_unwritable_buffer(patch: pytest.MonkeyPatch) -> nn.Module:
    model = Net()
    model.register_buffer("count", torch.zeros(1).as_subclass(Unwritable))
    return model


def where_stuck(owner: Any, name: str, *, silently: bool = False) -> Callable[[pytest.MonkeyPatch], nn.Module]:
    """A setter of the process works no more once the pass is under way."""

    def make(patch: pytest.MonkeyPatch) -> nn.Module:
        works, under_way = getattr(owner, name), []

        def setter(*values: Any) -> None:
            if not under_way:
                works(*values)
            elif not silently:
                raise RuntimeError("stuck")

        model = Net()
        model.linear.register_forward_hook(lambda *_: under_way.append(1))
        patch.setattr(owner, name, setter)
        return model

    return make


FAILURES = {
    "parameters": (with_a_stuck_parameter, r"the model .*: a parameter \(stuck\)"),
    "buffers": (with_an_unwritable_buffer, r"the model .*: a buffer \(stuck\)"),
    "torch": (where_stuck(torch, "set_rng_state"), r"the process .*: torch's random stream \(stuck\)"),
    "python": (where_stuck(random, "setstate"), r"the process .*: Python's random stream \(stuck\)"),
    "numpy": (where_stuck(numpy.random, "set_state"), r"the process .*: numpy's random stream \(stuck\)"),
    "fast path": (
        where_stuck(torch.backends.mha, "set_fastpath_enabled", silently=True),
        r"the process .*: attention's fast path \(it does not take the value that it had\)",
    ),
    "cache": (where_stuck(torch, "set_autocast_cache_enabled"), r"the process .*: the autocast cache \(stuck\)"),
}


@pytest.mark.parametrize(
    ("lost", "make", "message"), [(lost, *how) for lost, how in FAILURES.items()], ids=FAILURES.keys()
)
def test_what_fails_is_told_and_takes_nothing_with_it(
    monkeypatch: pytest.MonkeyPatch, lost: str, make: Callable[[pytest.MonkeyPatch], nn.Module], message: str
) -> None:
    model = make(monkeypatch)
    before = state(model)
    with pytest.warns(RuntimeWarning, match=message), inspecting(model):
        model(X)
    monkeypatch.undo()
    after = state(model)
    assert {name for name in before if before[name] != after[name]} == {lost}


@pytest.mark.parametrize("lost", FAILURES.keys())
def test_an_error_in_the_pass_comes_through_all_the_same(monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    make, message = FAILURES[lost]
    with (
        pytest.raises(ArithmeticError, match="in the pass"),
        pytest.warns(RuntimeWarning, match=message),
        inspecting(model := make(monkeypatch)),
    ):
        model(X)
        raise ArithmeticError("in the pass")


def test_an_interrupt_while_things_are_put_back_waits_until_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_a_stuck_parameter(monkeypatch)
    monkeypatch.setattr(Stuck, "error", KeyboardInterrupt())
    before = state(model)
    with pytest.raises(KeyboardInterrupt), inspecting(model):
        model(X)
    after = state(model)
    assert {name for name in before if before[name] != after[name]} == {"parameters"}


# ------------------------------------------------------------ buffers of every kind


def with_buffer(make: Callable[[], Tensor]) -> nn.Module:
    model = nn.Linear(4, 3)
    model.register_buffer("kept", make())
    return model


BUFFERS: dict[str, Callable[[], Tensor]] = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "rows": lambda: torch.eye(3).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "meta": lambda: torch.empty(3, device="meta"),
    "conjugate": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "negative": lambda: torch.tensor([1 + 2j]).conj().imag,
    "eight bits": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "expanded": lambda: torch.ones(1).expand(3),
    "empty": lambda: torch.empty(0),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS.keys())
def test_a_pass_over_any_kind_of_buffer_says_nothing(make: Callable[[], Tensor]) -> None:
    model = with_buffer(make)
    kept, version = model.kept, model.kept._version
    with inspecting(model):
        model(X)
    assert model.kept is kept and kept._version == version


@pytest.mark.filterwarnings("ignore::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize("kind", ["sparse", "rows", "conjugate", "negative", "expanded"])
def test_a_buffer_of_any_kind_that_was_written_to_is_put_back(kind: str) -> None:
    model = with_buffer(BUFFERS[kind])
    before = str(model.kept)
    with inspecting(model):
        model.kept[:1].mul_(3) if kind == "expanded" else model.kept.mul_(3)
        assert str(model.kept) != before
    assert str(model.kept) == before


class Watched(Tensor):
    """Knows what was written to it."""

    written: list[str]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.__name__ == "copy_" and isinstance(args[0], cls):
            cls.written.append(function.__name__)
        return super().__torch_function__(function, types, args, kwargs or {})


def test_what_was_not_written_to_is_not_written_to_where_it_holds_no_numbers() -> None:
    """The memory may be read-only, which ends the process."""
    Watched.written = []
    model = with_buffer(lambda: torch.tensor([1.0, float("nan")]).as_subclass(Watched))
    with inspecting(model):
        model(X)
    assert Watched.written == []
    with inspecting(model):
        model.kept.data += 1
    assert Watched.written == ["copy_"], "which would be seen"
    assert_close(model.kept.as_subclass(Tensor), torch.tensor([1.0, float("nan")]), rtol=0, atol=0, equal_nan=True)
