"""The process's defaults, as a user may have changed them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

import pytest
import torch
from torch.overrides import TorchFunctionMode

FACTORIES = (
    *("arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randint"),
    *("randn", "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros"),
)


class Elsewhere(TorchFunctionMode):
    """Stands in for a default device other than the CPU: what this package makes without a device has no values.

    Only what it makes: unlike a real device, `meta` would stop Lightning's own metrics.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in FACTORIES and kwargs.get("device") is None and _called_from_package():
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _called_from_package() -> bool:
    frame = sys._getframe(2)
    # past torch itself, and past a mode that hands on what the model calls
    while frame and (_module(frame).partition(".")[0] == "torch" or frame.f_code.co_name == "__torch_function__"):
        frame = frame.f_back
    return frame is not None and _module(frame).startswith("lightning_xai")


def _module(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "")


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(params=["float64", "bfloat16", "float16", "device"])
def other_defaults(request) -> Callable[[], AbstractContextManager]:
    """`with other_defaults():` is a process whose default dtype, or default device, the user has changed."""
    if request.param == "device":
        return Elsewhere
    return lambda: default_dtype(getattr(torch, request.param))
