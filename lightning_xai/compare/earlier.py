"""What a store of format 1 says: its readings do not describe themselves, so the callback is made again to report.

A manifest may come from anybody. Nothing that it names is imported: only this library's own callbacks are made, and
a function among their settings stays a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from lightning_xai.callbacks.attention_maps import AttentionMaps
from lightning_xai.callbacks.grad_cam import GradCAM
from lightning_xai.callbacks.saliency import Saliency
from lightning_xai.callbacks.tcav import TCAV
from lightning_xai.explanation.base import Explanation
from lightning_xai.probe import Probe
from lightning_xai.reading import Reading
from lightning_xai.report import Report
from lightning_xai.reporting.effects import effect_scalars

KINDS: dict[str, type[Explanation]] = {kind.__qualname__: kind for kind in (AttentionMaps, GradCAM, Saliency, TCAV)}


def revive(entry: Mapping[str, Any]) -> Explanation:
    """The explanation of a manifest's entry, able to ``report``; the probe comes from the store.

    Raises:
        ValueError: its class is none of this library's, or does not take the settings.
    """
    name, settings, layers = str(entry.get("class")), entry.get("settings"), entry.get("layers")
    module, _, qualname = name.partition(":")
    # by name: the modules of this library may have moved since
    kind = KINDS.get(qualname) if module.partition(".")[0] == "lightning_xai" else None
    if kind is None:
        raise ValueError(
            f"its pictures cannot be made again: {name} is no callback of lightning_xai, and nothing is imported "
            "because a manifest names it. Its readings are there, as load_run(path).readings"
        )
    if not isinstance(settings, Mapping) or not isinstance(layers, Mapping):
        raise ValueError(f"the manifest does not say with which settings {name} ran, or at which layers")
    functions = kind.importable
    told = {key: _named(value) if key in functions else value for key, value in settings.items()}
    try:
        explanation = kind(**told)
    except Exception as error:  # settings of any type at all
        raise ValueError(f"{name} does not take the settings of its run: {error}") from error
    explanation.layer_names = {str(tag): str(layer) for tag, layer in layers.items()}
    return explanation


def _named(value: Any) -> Any:
    """A setting that may be a function, or hold some: each as a stand-in, where a constructor would import it."""
    if isinstance(value, Mapping):
        return {key: _named(item) for key, item in value.items()}
    # other words are no import paths: "label", or a method's name
    return _stand_in(value) if isinstance(value, str) and (":" in value or "." in value) else value


def _stand_in(path: str) -> Callable[..., Any]:
    """Has the name of the function at ``path``; a report needs no function, so it raises where it is called."""

    def stand_in(*_: Any, **__: Any) -> Any:
        raise ValueError(f"{path} is a function of the run that was logged: it is not imported to look at the run")

    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    stand_in.__module__, stand_in.__qualname__ = module, name
    return stand_in


def report_of(entry: Mapping[str, Any], probe: Probe | None, history: Sequence[Reading]) -> Report:
    """What the callback of a manifest's entry says of the last reading.

    Raises:
        ValueError: the probe was not kept, or the callback is none of this library's.
    """
    if probe is None:
        raise ValueError("the run's store does not hold the probe that was explained")
    explanation = revive(entry)
    if isinstance(explanation, TCAV):
        history = [replace(reading, scalars=_effects(explanation, reading)) for reading in history]
        explanation.scores_of = lambda layer, probe, reading: _scores(layer, reading)  # type: ignore[method-assign]
    return explanation.report(explanation.displayed(probe), history)


def _scores(layer: str, reading: Reading) -> dict[str, Tensor]:
    """Format 1 holds the scores themselves."""
    shared = reading.measured.shared
    return {key.removesuffix(f"/{layer}"): shared[key] for key in shared if key.endswith(f"/{layer}")}


def _effects(explanation: TCAV, reading: Reading) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for layer in explanation.layer_names:
        scores, tags, names = _scores(layer, reading), explanation.class_tags, explanation.concept_names
        values = effect_scalars(layer, scores, reading.measured.shared, tags, names)
        numbers |= {f"{explanation.tag}/{layer}/{name}": value for name, value in values.items()}
    return numbers
