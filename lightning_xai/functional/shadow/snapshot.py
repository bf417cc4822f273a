"""Snapshot: what a model reaches at one moment, of which shadows are made."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from lightning_xai.functional.shadow.memory import Memory, Plan, version_of
from lightning_xai.functional.shadow.rebuild import UnbuildableError
from lightning_xai.functional.shadow.walk import UnshadowableError, Walk

T = TypeVar("T")
ATTEMPTS = 8
MARK = "_is_shadow"


def is_shadow(model: nn.Module) -> bool:
    """Whether a module was made by `shadow`."""
    return MARK in model.__dict__


def shadow(model: T) -> T:
    """A copy of a module, in eval mode and frozen, that shares the memory of its parameters.

    Everything else that the module reaches is the copy's own: buffers, attributes, generators, hooks, closures. What
    cannot be copied, or need not be, is shared: classes, code, files, locks, datasets, loaders, optimizers, and
    tensors that take too much memory.

    Raises:
        UnshadowableError: for a part of TorchScript, or parameters that are sharded.
    """
    return Snapshot(model).shadow()  # type: ignore[no-any-return]


class Snapshot:
    """What a model reaches at one moment; `shadow` may be called again while the model stays as it is.

    Args:
        root: a module, or a tuple of a module and what belongs to it.
        stand_ins: (object, function that makes what stands for it in one shadow) pairs.
        clone_parameters: whether shadows have their own memory for parameters, too: of a model that writes to them.

    Raises:
        UnshadowableError: see `shadow`.
    """

    def __init__(
        self, root: Any, *, stand_ins: Iterable[tuple[Any, Callable[[], Any]]] = (), clone_parameters: bool = False
    ) -> None:
        self._stand_ins = list(stand_ins)
        self._cloned = clone_parameters
        shared: tuple[type, ...] = ()
        for _ in range(ATTEMPTS):
            self._write(root, shared)
            try:
                self._first = self._read()
                break
            except UnbuildableError as error:
                shared, cause = (*shared, error.kind), error
            except Exception as error:  # classes of the user's, half made, are asked for a hash or the like
                raise UnshadowableError(root, f"{type(error).__name__}: {error}") from error
        else:
            raise UnshadowableError(root, str(cause))
        self._versions = [(t, version_of(t)) for t in (*self._walk.parameters, *self._walk.shared_tensors)]
        self._lengths = [(container, len(container)) for container in self._walk.shared_containers]

    def shadow(self) -> Any:
        """A shadow of the root, as it was; each call makes another."""
        made, self._first = (self._read() if self._first is None else self._first), None
        return made

    def written(self) -> list[Any]:
        """The live tensors and containers that something wrote to since."""
        tensors = [t for t, version in self._versions if version_of(t) != version]
        return tensors + [container for container, length in self._lengths if len(container) != length]

    def wrote_to_parameters(self) -> bool:
        """Whether something wrote to parameters that the latest shadow has for itself."""
        return any(version_of(parameter) != version for parameter, version in self._own)

    def _write(self, root: Any, shared: tuple[type, ...]) -> None:
        model = model_of(root)
        self._plan = Plan.of(model.parameters(), clone=self._cloned)
        stand_ins = {id(thing): make for thing, make in self._stand_ins}
        self._walk = Walk(self._plan, stand_ins, shared, frozenset(map(id, model.modules())))
        with torch.inference_mode(False), torch.no_grad():
            try:
                self._walk.dump(root)
            except RecursionError as error:
                raise UnshadowableError(root, "nested too deeply") from error
            except (pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError) as error:
                if isinstance(error, UnshadowableError):
                    raise
                raise UnshadowableError(root, f"{type(error).__name__}: {error}") from error

    def _read(self) -> Any:
        root = _read(self._walk, self._plan)
        model = model_of(root)
        model.__dict__[MARK] = True
        self._own = [(p, version_of(p)) for p in model.parameters()] if self._cloned else []
        return root


def over(function: T, pairs: Iterable[tuple[Any, Any]]) -> T:
    """A function that holds the second thing of each pair where ``function`` holds the first; itself if it does not.

    A module is held in closures, defaults and partials, as an owner, as a global, or in attributes of these.
    """
    stand_ins = {id(thing): partial(_itself, other) for thing, other in pairs}
    walk = Walk(Plan(), stand_ins, (), frozenset(stand_ins))
    with torch.inference_mode(False), torch.no_grad():
        walk.dump(function)
    return _read(walk, Plan()) if walk.wrote(stand_ins) else function


def _itself(thing: T) -> T:
    return thing


def _read(walk: Walk, plan: Plan) -> Any:
    with torch.inference_mode(False), torch.no_grad():
        return _Reader(walk, Memory(plan)).load()


class _Reader(pickle.Unpickler):
    def __init__(self, walk: Walk, memory: Memory) -> None:
        super().__init__(io.BytesIO(walk.written.getbuffer()))
        self._made = [maker(memory) for maker in walk.makers]

    def persistent_load(self, number: int) -> Any:
        return self._made[number]


def model_of(root: Any) -> nn.Module:
    """The module among what a snapshot was taken of."""
    model: nn.Module = root[0] if isinstance(root, tuple) else root
    return model
