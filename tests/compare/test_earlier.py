"""A callback made again from its run's manifest."""

import json
from dataclasses import dataclass

import pytest
import torch

from lightning_xai import Concept
from lightning_xai.callbacks import TCAV, AttentionMaps, GradCAM, Saliency
from lightning_xai.compare.earlier import revive
from lightning_xai.flow.opening import write_entry
from lightning_xai.store import RunStore
from tests.support import runs


def best(output):
    return output.amax(1)


@dataclass(eq=False, kw_only=True)
class Mine(GradCAM):
    """A callback from outside the library."""

    strength: float = 1.0


def entry(callback, tmp_path):
    """As it stands in a manifest: through JSON."""
    store = RunStore(tmp_path)
    write_entry(callback, store, "0123456789abcdef")
    (found,) = store.manifest["callbacks"].values()
    return json.loads(json.dumps(found))


@pytest.mark.parametrize(
    "callback",
    [
        GradCAM(),
        GradCAM(variant="layer_cam", layers=["a", "b*"], name="mine", scale="image", every_n_epochs=3),
        GradCAM(target=best, probe=runs.probe(), forward="predict", class_names=["x:y", "z"]),
        GradCAM(labels=best, reshape=best),
        Saliency(target=2, name="mine", scale="image"),
        AttentionMaps(extract={"encoder.0": best}, decode=best, layers="encoder.*"),
        TCAV(
            concepts=[Concept("red", torch.rand(4, 3, 8, 8))], layers="a", classes=[0], randoms=torch.rand(4, 3, 8, 8)
        ),
    ],
)
def test_it_is_what_it_was(tmp_path, callback):
    callback.layer_names = {"auto": "features.3"}
    again = revive(entry(callback, tmp_path))
    assert type(again) is type(callback)
    assert again.settings() == callback.settings()
    assert (again.tag, again.layer_names) == (callback.tag, callback.layer_names)


def test_a_function_of_the_run_s_script_is_not_needed_to_report(tmp_path):
    held = entry(GradCAM(target=best), tmp_path)
    held["settings"]["target"] = "__main__:lost"
    again = revive(held)
    with pytest.raises(ValueError, match="__main__:lost"):
        again.target(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class": "no_such_module:Callback"}, "no_such_module:Callback is no callback of lightning_xai"),
        ({"class": "pathlib:Path"}, "pathlib:Path is no callback"),
        ({"class": f"{__name__}:Mine"}, "Mine is no callback.*load_run"),
        ({"class": "lightning_xai.explanation.base:Explanation"}, "is no callback"),
        ({"class": None}, "is no callback"),
        ({"settings": None}, "does not say with which settings"),
        ({"layers": ["a"]}, "or at which layers"),
        ({"settings": {"probe_size": "many"}}, "does not take the settings"),
        ({"settings": {"colour": "red"}}, "does not take the settings of its run: .*colour"),
    ],
)
def test_what_cannot_be_made_is_said(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        revive({**entry(GradCAM(), tmp_path), **change})
