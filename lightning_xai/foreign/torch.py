"""Torch's and torchmetrics' private attributes, by what they mean here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn


def version(tensor: Tensor) -> int:
    """Counts the writes to a tensor and its views. Of an inference tensor it raises RuntimeError."""
    return tensor._version


def address(storage: torch.UntypedStorage) -> int:
    """What tells one storage from another."""
    return int(storage._cdata)


def copy_each(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """``copy_`` of many tensors of one device and dtype in one kernel."""
    torch._foreach_copy_(list(targets), list(sources))


def of_class(kind: type[nn.Parameter], data: Tensor) -> nn.Parameter:
    """A frozen parameter of a class derived from `torch.nn.Parameter`, without its constructor."""
    parameter: nn.Parameter = Tensor._make_subclass(kind, data, False)
    return parameter


def registries(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The dicts that hold a module's children, parameters and buffers."""
    return module._modules, module._parameters, module._buffers


def compiled_from(module: nn.Module) -> Any:
    """The module that one of `torch.compile` wraps; None of any other."""
    return module._orig_mod if type(module).__name__ == "OptimizedModule" else None


def uncompiled(state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a module whose ``compile`` was called, changed to those of one that was not."""
    changed: dict[str, Any] = {"_compiled_call_impl": None} if "_compiled_call_impl" in state else {}
    if isinstance(state.get("_compiler_ctx"), dict):
        changed["_compiler_ctx"] = None
    return changed


def reset_metric(metric: nn.Module) -> dict[str, Any]:
    """The attributes that a metric of torchmetrics has after its reset; of any other module none."""
    metrics = sys.modules.get("torchmetrics")
    if metrics is None or not isinstance(metric, metrics.Metric):
        return {}
    state: dict[str, Any] = {"_update_count": 0, "_computed": None, "_cache": None, "_is_synced": False}
    state |= {"sync_on_compute": False, "dist_sync_on_step": False}
    for name, default in metric._defaults.items():
        state[name] = default.detach().clone().to(metric.device) if isinstance(default, Tensor) else []
    return {name: value for name, value in state.items() if name in metric.__dict__}


def without_function_modes() -> AbstractContextManager[None]:
    """Inside it no ``__torch_function__`` is asked, of no mode and no subclass."""
    return torch._C.DisableTorchFunction()


CHANNELS_FIRST: tuple[type[nn.Module], ...] = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
)
"""The classes of convolutions, batch normalisations and poolings of every dimension."""
