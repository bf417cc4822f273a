"""What a dataset says about the display of its samples, and whether that fits them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MemberDescriptorType
from typing import Any

from lightning_xai.attempt import attempt
from lightning_xai.flow.loaders import copied
from lightning_xai.normalisation import per_channel
from lightning_xai.probe import Probe

COPIED_BYTES = 64 * 2**20
DEPTH = 32  # of wrappers around a dataset


def with_display_of(probe: Probe, dataset: Any) -> Probe:
    """The probe with the class names and the normalisation that its dataset tells of, where they fit.

    Understood are ``classes``, and a ``transform`` that holds a step named Normalize with ``mean`` and ``std``,
    as image folders of torchvision have them; also behind a Subset.
    """
    classes = None
    for _ in range(DEPTH):
        classes, inner = _attribute(dataset, "classes"), _attribute(dataset, "dataset")
        if classes is not None or inner is None:
            break
        dataset = inner
    names = [str(name) for name in classes] if isinstance(classes, (list, tuple)) else None
    normalisation, _ = attempt(partial(_normalisation, _attribute(dataset, "transform")))
    probe, _ = apply_display(probe, {"class_names": names, **(normalisation or {})})
    return probe


def apply_display(probe: Probe, display: Mapping[str, Any]) -> tuple[Probe, list[str]]:
    """The probe with those of ``class_names``, ``mean`` and ``std`` that fit it, and what is wrong with the others."""
    complaints = []
    for names, consequence in (
        (("class_names",), "classes are shown as index numbers"),
        (("mean", "std"), "images are shown without it"),
    ):
        settings = {name: display[name] for name in names if display.get(name) is not None}
        displayed, error = attempt(partial(replace, probe, **settings))
        probe = displayed or probe
        if error is not None:
            complaints.append(f"{error}; {consequence}")
    return probe, complaints


def _normalisation(transform: Any) -> dict[str, list[float]]:
    steps = getattr(transform, "transforms", None)
    for step in [transform] if steps is None else steps:
        if type(step).__name__ == "Normalize" and hasattr(step, "mean") and hasattr(step, "std"):
            return {name: per_channel(name, getattr(step, name)) for name in ("mean", "std")}
    return {}


def _attribute(dataset: Any, name: str) -> Any:
    """An attribute, None where there is none. What runs code of the dataset's own, such as a property, is asked of a
    copy: it may open the file that the loader's workers are going to open."""
    value = inspect.getattr_static(dataset, name, None)
    if isinstance(value, MemberDescriptorType):  # a slot
        return getattr(dataset, name, None)
    if hasattr(type(value), "__get__") or (value is None and hasattr(type(dataset), "__getattr__")):
        value, _ = attempt(lambda: getattr(copied(dataset, COPIED_BYTES), name, None))
    return value
