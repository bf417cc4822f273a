"""Settings as plain values: out to JSON, and in from the import paths that YAML holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from lightning_xai.concept import Concept
from lightning_xai.probe import Probe


def plain(value: Any) -> Any:
    """A setting as JSON holds it: data by their fingerprint or name, functions and other objects by where they are."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Probe):
        return value.fingerprint
    if isinstance(value, Concept):
        return value.name
    definition = value if hasattr(value, "__qualname__") else type(value)
    return f"{definition.__module__}:{definition.__qualname__}"


def imported(setting: str, path: str, expected: str) -> Any:
    """The object at the import path ``path``; raises ValueError where a setting is something else."""
    if not re.search(r"[.:]", path):
        raise ValueError(f"{setting}={path!r} is unknown: give {expected}, or its import path as 'module:name'")
    return import_object(path)


def import_object(path: str) -> Any:
    """The object at ``module:qualname`` (or ``module.name``).

    Raises:
        ValueError: where there is none.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        value: Any = import_module(module)
        for attribute in name.split("."):
            value = getattr(value, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"nothing can be imported from {path!r}: {error}. Write it as 'module:name'") from error
    return value
