"""The guarded pass: what runs inside leaves no trace in the model, as far as its modules go, nor in the process."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_xai.foreign.torch import copy_each, registries, version
from lightning_xai.functional.shadow import is_shadow
from lightning_xai.functional.shadow.memory import UNINITIALISED


@contextmanager
def inspecting(model: nn.Module) -> Iterator[None]:
    """Run `model` inside without leaving a trace in it or in the process, also when the body raises.

    Inside: every module's `training` is False, all parameters are frozen, grad mode is off (but may be
    turned on), inference mode is off, and compiled code runs eagerly, so that hooks are called.
    Restored: training flags, `requires_grad`, `.grad`, parameters and buffers as objects, the buffers'
    values, every global RNG stream, grad and inference mode, backend and autocast flags. Each restoration is
    tried whatever became of the others; what could not be restored is warned of. The values of parameters are
    not saved, nor what a forward writes to other attributes: a `shadow` protects these as well, and of a shadow
    only the process around it is guarded.
    """
    modules = list(model.modules())
    parameters = _unique(dict(module.named_parameters(recurse=False)) for module in modules)
    buffers = _unique(dict(module.named_buffers(recurse=False)) for module in modules)
    with (
        _rng_restored({tensor.device for tensor in (*parameters, *buffers)}),
        torch.inference_mode(False),
        torch.no_grad(),
        _eager(),
        _flags_set(modules),
        nullcontext() if is_shadow(model) else _state_restored(modules, parameters, buffers),
    ):
        yield


def _unique(stores: Iterable[Mapping[str, Tensor | None]]) -> list[Tensor]:
    found = {id(tensor): tensor for store in stores for tensor in store.values() if tensor is not None}
    return [tensor for tensor in found.values() if not isinstance(tensor, UNINITIALISED)]


class Restoration(NamedTuple):
    """How one thing is put back, and whether it then is as it was."""

    what: str
    restore: Callable[[], object]
    holds: Callable[[], bool]


@contextmanager
def _restoring(whole: str) -> Iterator[list[Restoration]]:
    """Puts back what is on the list by the end, the last first, each whatever becomes of the others; then looks."""
    restorations: list[Restoration] = []
    try:
        yield restorations
    finally:
        errors = [_raised(restoration.restore) for restoration in reversed(restorations)]
        failed = [
            f"{what} ({error or 'it does not take the value that it had'})"
            for (what, _, holds), error in zip(reversed(restorations), errors, strict=True)
            if isinstance(error, Exception) or not _is_true(holds)
        ]
        if (interrupt := next((e for e in errors if e is not None and not isinstance(e, Exception)), None)) is not None:
            raise interrupt
        if failed:
            names = ", ".join(dict.fromkeys(failed))
            warnings.warn(f"{whole} could not be left quite as it was: {names}", RuntimeWarning, stacklevel=4)


def _raised(restore: Callable[[], object]) -> BaseException | None:
    try:
        restore()
    except BaseException as error:  # an interrupt waits until all else is back
        return error
    return None


def _is_true(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except Exception:
        return False


def _attribute(what: str, owner: Any, name: str) -> Restoration:
    value = getattr(owner, name)

    def holds() -> bool:
        return bool(getattr(owner, name) == value)

    def restore() -> None:
        if not holds():
            setattr(owner, name, value)

    return Restoration(what, restore, holds)


@contextmanager
def _state_restored(modules: list[nn.Module], parameters: list[Tensor], buffers: list[Tensor]) -> Iterator[None]:
    with _restoring("the model") as restorations:
        for module in modules:
            if getattr(module, "training", False):  # a frozen one of TorchScript has no mode
                restorations.append(
                    Restoration(
                        "a training flag", partial(_set_training, module, True), partial(getattr, module, "training")
                    )
                )
                _set_training(module, False)  # not model.eval(): users override it
        for parameter in parameters:
            if not parameter.is_inference():
                restorations.append(_parameter_saved(parameter))
                parameter.requires_grad_(False)
        restorations += _buffers_saved([buffer for buffer in buffers if not buffer.is_inference()])
        for module in modules:
            if not isinstance(module, torch.jit.ScriptModule):  # its tensors are not objects of Python's
                restorations += [_tensors_saved(store) for store in registries(module)[1:]]
        yield


def _set_training(module: nn.Module, training: bool) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        module.training = training
    else:  # past a __setattr__ that refuses
        module.__dict__["training"] = training


def _parameter_saved(parameter: Tensor) -> Restoration:
    requires_grad, grad = parameter.requires_grad, parameter.grad
    restore = partial(_restore_parameter, parameter, requires_grad, grad)
    return Restoration(
        "a parameter", restore, lambda: parameter.requires_grad == requires_grad and parameter.grad is grad
    )


def _restore_parameter(parameter: Tensor, requires_grad: bool, grad: Tensor | None) -> None:
    parameter.requires_grad_(requires_grad)
    if parameter.grad is not grad:
        parameter.grad = grad


def _tensors_saved(store: dict[str, Any]) -> Restoration:
    content = dict(store)
    for name, tensor in content.items():
        if tensor is None or isinstance(tensor, UNINITIALISED):
            continue
        if tensor.is_inference():  # autograd refuses to save it
            store[name] = _ordinary(tensor)

    def holds() -> bool:
        return len(store) == len(content) and all(store.get(name) is tensor for name, tensor in content.items())

    def restore() -> None:
        if not holds():
            store.clear()
            store.update(content)

    return Restoration("the names of tensors", restore, holds)


def _buffers_saved(buffers: list[Tensor]) -> list[Restoration]:
    """What brings back the values, and the sizes, of buffers that were written to."""
    buffers = [buffer for buffer in buffers if buffer.device.type != "meta"]
    values = [torch.empty_like(buffer) if _is_plain(buffer) else buffer.detach().clone() for buffer in buffers]
    pairs = [pair for pair in zip(values, buffers, strict=True) if _is_plain(pair[1])]
    _copy([value for value, _ in pairs], [buffer for _, buffer in pairs])
    return [_buffer_saved(buffer, value) for buffer, value in zip(buffers, values, strict=True)]


def _is_plain(buffer: Tensor) -> bool:
    odd = buffer.is_nested or buffer.is_quantized or buffer.device.type == "meta"
    return buffer.layout == torch.strided and not odd


def _buffer_saved(buffer: Tensor, value: Tensor) -> Restoration:
    written = version(buffer)

    def restore() -> None:
        # compared first: memory may be read-only, and writing to it would end the process
        if version(buffer) == written and _equal(buffer, value):
            return
        if not _is_plain(buffer):
            buffer.copy_(value)
            return
        # through .data, since a copy_ would count as a change to any graph that holds the buffer
        if buffer.shape != value.shape:
            buffer.resize_(value.shape)
        expanded = [slice(1) if stride == 0 else slice(None) for stride in buffer.stride()]
        buffer.data[tuple(expanded)].copy_(value[tuple(expanded)])

    return Restoration("a buffer", restore, lambda: not _is_plain(buffer) or buffer.shape == value.shape)


def _equal(buffer: Tensor, value: Tensor) -> bool:
    if not _is_plain(buffer) or torch.equal(buffer, value):
        return True  # of other layouts the version alone tells
    return buffer.shape == value.shape and bool(((buffer == value) | (buffer.isnan() & value.isnan())).all())


def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    groups: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
    for a, b in zip(to, source, strict=True):
        pair = groups.setdefault((b.device, b.dtype), ([], []))
        pair[0].append(a)
        pair[1].append(b)
    for a_group, b_group in groups.values():  # one kernel a group: a ResNet-50 has 159 small buffers
        copy_each(a_group, b_group)


def _ordinary(tensor: Tensor) -> Tensor:
    return nn.Parameter(tensor.clone(), False) if isinstance(tensor, nn.Parameter) else tensor.clone()


@contextmanager
def _rng_restored(devices: set[torch.device]) -> Iterator[None]:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        devices = devices | {torch.device("cuda", torch.cuda.current_device())}
    streams: list[tuple[str, Callable[[Any], object], Any]] = [
        ("torch's random stream", torch.set_rng_state, torch.get_rng_state()),
        ("Python's random stream", random.setstate, random.getstate()),
    ]
    for device in devices:
        if device.type not in ("cpu", "meta"):
            rng = torch.get_device_module(device.type)
            where = {} if device.type == "mps" else {"device": device}
            streams.append(
                (f"the random stream of {device}", partial(rng.set_rng_state, **where), rng.get_rng_state(**where))
            )
    if numpy := sys.modules.get("numpy"):
        streams.append(("numpy's random stream", numpy.random.set_state, numpy.random.get_state()))
    with _restoring("the process") as restorations:
        # a stream takes any state that it gave
        restorations += [Restoration(what, partial(restore, state), lambda: True) for what, restore, state in streams]
        yield


def _eager() -> AbstractContextManager[Any]:
    # a compiled graph skips hooks that are younger than it; without dynamo (a second to import) there is none
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def _flags_set(modules: list[nn.Module]) -> Iterator[None]:
    mha, cudnn = torch.backends.mha, torch.backends.cudnn
    fast_path, cache = mha.get_fastpath_enabled(), torch.is_autocast_cache_enabled()
    with _restoring("the process") as restorations:
        restorations += [
            Restoration(
                "attention's fast path",
                partial(mha.set_fastpath_enabled, fast_path),
                lambda: mha.get_fastpath_enabled() == fast_path,
            ),
            Restoration(
                "the autocast cache",
                partial(torch.set_autocast_cache_enabled, cache),
                lambda: torch.is_autocast_cache_enabled() == cache,
            ),
            _attribute("the use of cuDNN", cudnn, "enabled"),
        ]
        mha.set_fastpath_enabled(False)  # it calls no submodule, so no hook
        torch.set_autocast_cache_enabled(False)  # a cast made without grad would cut a training step around us
        if any(isinstance(module, nn.RNNBase) for module in modules):
            cudnn.enabled = False  # cuDNN has no RNN backward in eval mode
        yield
