"""One run of the module's own step on a shadow, up to the place that is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, distributed, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_xai.flow.namespaces import NAMESPACES, LightningModule
from lightning_xai.flow.own_step.losses import Judged, Losses, is_metric, metric_meaning
from lightning_xai.flow.own_step.sources import Sources
from lightning_xai.foreign.lightning import is_attached
from lightning_xai.functional.hooks.outermost import outermost_calls
from lightning_xai.functional.shadow import is_shadow
from lightning_xai.samples import places
from lightning_xai.tensors import first_tensor

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""By place and by name."""
STEPS = ("validation_step", "training_step")
Context: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""The precision plugin's forward context."""


class Ended(BaseException):
    """Ends a step of the user's from within; no ``except Exception`` of theirs stops it."""


class UnwatchableError(ValueError):
    """A module whose steps cannot be run to look at them."""


class _Alone(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what waits for other processes: a step is repeated on each of them by itself."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace in ("c10d", "_c10d_functional"):
            raise UnwatchableError(f"it calls torch.distributed ({func.__name__}) itself")
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """A call of a module by the step itself.

    Args:
        name: of the module; ``""`` for the LightningModule.
        module: that was called.
        args: it was given by place.
        kwargs: it was given by name.
        output: what it returned; None while it runs.
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = None

    @property
    def is_of_model(self) -> bool:
        """Whether it may be what is trained: neither a loss nor a metric nor a transform, and it takes tensors."""
        trained = next(self.module.parameters(), None) is not None and not is_metric(self.module)
        return trained and first_tensor((self.args, self.kwargs)) is not None


@dataclass(eq=False)
class Watched:
    """What a step did until it ended.

    Args:
        step: its name.
        calls: of modules, by the step itself.
        judged: calls of loss functions and metrics.
        sources: where tensors come from, where that was followed.
    """

    step: str
    calls: list[ModuleCall] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    sources: Sources | None = None

    @property
    def of_model(self) -> list[ModuleCall]:
        """The calls of what may be trained."""
        return [call for call in self.calls if call.is_of_model]


Until: TypeAlias = "Callable[[Watched], bool]"
"""Whether a step ends now; asked when a module was called, when it returned, and when a loss function did."""


def _alone() -> AbstractContextManager[Any]:
    running = distributed.is_available() and distributed.is_initialized()
    return _Alone() if running else nullcontext()  # type: ignore[no-untyped-call]


def steps_of(model: LightningModule) -> list[str]:
    """The steps that a module defines and that can be run, in the order in which they are looked at."""
    bases = [namespace.LightningModule for namespace in NAMESPACES]
    own = [name for name in STEPS if all(getattr(type(model), name) is not getattr(base, name) for base in bases)]
    return [name for name in own if "dataloader_iter" not in inspect.signature(getattr(model, name)).parameters]


def watch(
    model: LightningModule,
    batch: Any,
    step: str,
    until: Until,
    *,
    context: Context = nullcontext,
    follow: bool = False,
    fed: Arguments | None = None,
) -> Watched:
    """Run ``step`` on ``batch`` until ``until`` says so, or to its end.

    Args:
        model: a shadow, attached to its stand-in of a Trainer.
        batch: that the step is given.
        step: the method's name.
        until: ends it.
        context: entered around the step.
        follow: whether tensors are followed to where they come from; costs some microseconds a function of torch.
        fed: args and kwargs that take the place of those of the first call of the model.

    Raises:
        UnwatchableError: the model is no shadow: a step of the module itself would log and count. Or the step calls
            `torch.distributed` by itself.
        Exception: what the step itself raises.
    """
    if not is_shadow(model):
        raise UnwatchableError(f"{type(model).__name__} has no shadow, so its own {step} is not run to look at it")
    sources = Sources(places(batch), model) if follow else None
    watched = Watched(step, sources=sources)
    method = getattr(model, step)

    def judge(judged: Judged) -> None:
        watched.judged.append(judged)
        end()

    def end() -> None:
        if until(watched):
            raise Ended

    with (
        _calls_told(model, watched, end, fed),
        _metrics_told(model, judge),
        _optimisation_ends(model),
        context(),
        _alone(),
        sources or nullcontext(),
        Losses(judge),
        suppress(Ended),
    ):
        method(*_arguments(method, batch))
    return watched


@contextmanager
def _calls_told(
    model: nn.Module,
    watched: Watched,
    end: Callable[[], None],
    fed: Arguments | None,
) -> Iterator[None]:
    def before(name: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        call = ModuleCall(name, module, args, kwargs)
        replaced = fed if call.is_of_model and not watched.of_model else None
        if replaced is not None:
            call = ModuleCall(name, module, *replaced)
        watched.calls.append(call)
        end()
        return replaced

    def after(output: Any) -> None:
        call = watched.calls[-1]
        watched.calls[-1] = ModuleCall(call.name, call.module, call.args, call.kwargs, output)
        if watched.sources is not None:
            watched.sources.adopt(output, call.args, call.kwargs, list(call.module.parameters()))
        end()

    with outermost_calls(model, before, after):
        yield


@contextmanager
def _metrics_told(model: nn.Module, judge: Callable[[Judged], None]) -> Iterator[None]:
    """Metrics of torchmetrics are told of when they are updated, and once a loss was seen one of them ends the step."""

    def told(metric: nn.Module, update: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        meaning = metric_meaning(metric)
        given = dict(zip(("preds", "target"), args, strict=False)) | kwargs
        values: Any = given.get("preds")
        target: Any = given.get("target")
        tensors = isinstance(values, Tensor) and isinstance(target, Tensor)
        if (
            tensors and meaning is not None and values.is_floating_point()
        ):  # predicted classes say nothing of the output
            judge(Judged(type(metric).__name__, meaning, values, target, metric=True))
        return update(*args, **kwargs)

    metrics: list[Any] = [module for module in model.modules() if is_metric(module)]
    with ExitStack() as stack:
        for metric in metrics:
            stack.callback(metric.__dict__.__setitem__, "update", metric.update)
            metric.__dict__["update"] = partial(told, metric, metric.update)
        yield


@contextmanager
def _optimisation_ends(model: LightningModule) -> Iterator[None]:
    """A manual step ends where it would first change the model."""
    if model.automatic_optimization or not is_attached(model):
        yield
        return

    def stop(*_: Any, **__: Any) -> None:
        raise Ended

    optimizers: Any = model.optimizers()
    changed = [(optimizer.__dict__, "step") for optimizer in _listed(optimizers)]
    changed.append((model.__dict__, "manual_backward"))
    before = [owner.get(name) for owner, name in changed]
    for owner, name in changed:
        owner[name] = stop
    try:
        yield
    finally:
        for (owner, name), value in zip(changed, before, strict=True):
            owner.pop(name) if value is None else owner.update({name: value})


def _listed(optimizers: Any) -> list[Any]:
    return optimizers if isinstance(optimizers, list) else [optimizers]


def _arguments(method: Callable[..., Any], batch: Any) -> list[Any]:
    """A step takes the batch, its index and its loader's index, or the first of these."""
    parameters = inspect.signature(method).parameters.values()
    takes = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    return [batch, 0, 0][: 3 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else max(1, takes)]
