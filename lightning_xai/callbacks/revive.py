"""An explanation as its run's manifest describes it: to say again what was measured, in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from lightning_xai.callbacks.base import Explanation
from lightning_xai.callbacks.flow.settings import import_object


def revive(entry: Mapping[str, Any]) -> Explanation:
    """The explanation of a manifest's entry, able to ``report``; the probe comes from the store.

    Raises:
        ValueError: its class cannot be imported, or does not take the settings.
    """
    kind: Any = import_object(entry["class"])
    if not (isinstance(kind, type) and issubclass(kind, Explanation)):
        raise ValueError(f"{entry['class']} is no Explanation, so it cannot say what its run measured")
    functions = {f.name for f in fields(kind) if "Callable" in str(f.type)}
    settings = {name: _called(value) if name in functions else value for name, value in entry["settings"].items()}
    try:
        explanation: Explanation = kind(**settings)
    except TypeError as error:
        raise ValueError(f"{entry['class']} does not take the settings of its run: {error}") from error
    explanation.layer_names = dict(entry["layers"])
    return explanation


def _called(value: Any) -> Any:
    """A setting that may be a function, or hold some."""
    if isinstance(value, dict):
        return {key: _called(item) for key, item in value.items()}
    return _function(value) if isinstance(value, str) and ":" in value else value


def _function(path: str) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = import_object(path)
    except ValueError as error:
        cause = error

        # a report needs no function, so one that lived in the run's script may be missing until it is called
        def missing(*_: Any, **__: Any) -> Any:
            raise cause

        return missing
    return found
