"""Functions on arrays, for tests that compute with tensors."""

from functools import wraps
from types import SimpleNamespace

import numpy
import torch


def on_tensors(function):
    """The same function of tensors, whose arrays come back as tensors."""

    @wraps(function)
    def wrapped(*args, **kwargs):
        given = [numpy.asarray(a) if isinstance(a, torch.Tensor) and a.dtype != torch.bfloat16 else a for a in args]
        found = function(*given, **kwargs)
        return torch.from_numpy(numpy.array(found)) if isinstance(found, numpy.ndarray) else found

    return wrapped


def all_on_tensors(module):
    """A module whose functions are."""
    return SimpleNamespace(
        **{n: on_tensors(f) if callable(f) and not isinstance(f, type) else f for n, f in vars(module).items()}
    )
