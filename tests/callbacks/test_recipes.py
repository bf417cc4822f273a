"""The recipes in callbacks/ load in both LightningCLIs, and every setting can be written in YAML."""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from lightning_xai import GradCAM, Probe, load_run
from tests.support.classifier import net_of
from tests.support.data import Samples
from tests.support.namespaces import NAMESPACES

RECIPES = sorted((Path(__file__).parents[2] / "callbacks").glob("*.yaml"))
QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.enable_checkpointing=false",
]


def class_score(output):
    return output[:, 1]


def second(batch):
    return batch[1]


@pytest.fixture(params=NAMESPACES)
def cli(request, monkeypatch, tmp_path):
    """(arguments, run=False) -> the LightningCLI that a program with these arguments makes"""
    lightning = import_module(request.param)
    LightningCLI = import_module(f"{request.param}.cli").LightningCLI

    Base: Any = net_of(lightning)
    DataModule: Any = lightning.LightningDataModule

    class Net(Base):
        def logits(self, image):
            return self(image)

    class Data(DataModule):
        def train_dataloader(self):
            return DataLoader(Samples(8), 4)

        def val_dataloader(self):
            return DataLoader(Samples(8, seed=1), 4)

    def make(*arguments, run=False):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of LightningCLI's own calls
        monkeypatch.setattr(sys, "argv", ["main.py", *(["fit"] if run else []), *arguments])
        return LightningCLI(Net, Data, run=run, save_config_callback=None, seed_everything_default=0)

    return make


def grad_cam_of(made):
    (found,) = (callback for callback in made.trainer.callbacks if isinstance(callback, GradCAM))
    return found


def test_there_is_a_recipe():
    assert {path.name for path in RECIPES} >= {"attention_maps.yaml", "grad_cam.yaml", "saliency.yaml", "tcav.yaml"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads(cli, recipe):
    made = cli(f"--config={recipe}", *QUIET)
    assert any(type(callback).__module__.startswith("lightning_xai") for callback in made.trainer.callbacks)


def test_the_recipe_of_grad_cam_has_the_default_settings(cli):
    recipe = next(path for path in RECIPES if path.stem == "grad_cam")
    assert grad_cam_of(cli(f"--config={recipe}", *QUIET)).settings() == GradCAM().settings()


def test_a_recipe_trains(cli, tmp_path):
    recipe = next(path for path in RECIPES if path.stem == "grad_cam")
    made = cli(f"--config={recipe}", "--trainer.callbacks.init_args.probe_size=4", *QUIET, run=True)
    assert len(grad_cam_of(made).explained) == 4
    assert len(load_run(tmp_path).readings["grad_cam"]) == 1


def test_the_command_line_overrides_a_recipe(cli):
    recipe = next(path for path in RECIPES if path.stem == "grad_cam")
    made = cli(
        f"--config={recipe}",
        "--trainer.callbacks.init_args.variant=hires_cam",
        "--trainer.callbacks.init_args.layers=[backbone.0,backbone.1]",
        "--trainer.callbacks.init_args.every_n_epochs=5",
        *QUIET,
    )
    callback = grad_cam_of(made)
    assert (callback.variant, callback.layers) == ("hires_cam", ["backbone.0", "backbone.1"])
    assert callback.every_n_epochs == 5


def test_a_callback_can_be_named_on_the_command_line_alone(cli):
    made = cli("--trainer.callbacks=lightning_xai.GradCAM", "--trainer.callbacks.name=mine", *QUIET)
    assert grad_cam_of(made).tag == "xai/mine"


YAML = """
trainer:
  callbacks:
    - class_path: lightning_xai.GradCAM
      init_args:
        probe: {probe}
        class_names: [ant, bee, cat, dog]
        mean: [0.5, 0.5, 0.5]
        std: [0.25, 0.25, 0.25]
        target: {target}
        labels: {labels}
        forward: {forward}
        layers: backbone.*
        every_n_validations: 3
        on_error: raise
        scale: image
        name: mine
"""


def test_every_setting_is_a_plain_value(cli, tmp_path):
    saved = Probe.from_dataset(Samples(8), [0, 1, 2])
    saved.save(tmp_path / "probe.pt")
    told = {"probe": tmp_path / "probe.pt", "target": 2, "labels": f"{__name__}:second", "forward": "logits"}
    (tmp_path / "config.yaml").write_text(YAML.format(**told))
    made = cli(f"--config={tmp_path / 'config.yaml'}", *QUIET, run=True)
    callback = grad_cam_of(made)
    assert callback.probe == str(tmp_path / "probe.pt")
    assert (callback.target, callback.forward, callback.layers) == (2, "logits", "backbone.*")
    assert callback.labels is second
    assert callback.explained.fingerprint == saved.fingerprint
    assert list(callback.explained.class_names) == ["ant", "bee", "cat", "dog"]
    assert (callback.every_n_validations, callback.on_error, callback.scale) == (3, "raise", "image")
    assert "xai/mine/backbone.0/drift" in made.trainer.callback_metrics


@pytest.mark.parametrize(
    ("target", "expected"),
    [("label", "label"), ("predicted", "predicted"), ("0", 0), (f"{__name__}:class_score", class_score)],
)
def test_targets_in_yaml(cli, tmp_path, target, expected):
    told = {"probe": "null", "labels": "null", "forward": "null"}
    (tmp_path / "config.yaml").write_text(YAML.format(target=target, **told))
    assert grad_cam_of(cli(f"--config={tmp_path / 'config.yaml'}", *QUIET)).target == expected


def test_functions_in_dots_as_jsonargparse_writes_them(cli, tmp_path):
    told = {"probe": "null", "target": f"{__name__}.class_score", "labels": f"{__name__}.second", "forward": "null"}
    (tmp_path / "config.yaml").write_text(YAML.format(**told))
    callback = grad_cam_of(cli(f"--config={tmp_path / 'config.yaml'}", *QUIET))
    assert callback.target is class_score
    assert callback.labels is second


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("variant=gradcam", "unknown variant 'gradcam'|variant='gradcam'"),
        ("probe_size=0", "probe_size=0 is out of range"),
        ("probe_sise=4", "probe_sise"),
    ],
)
def test_a_wrong_setting_is_answered(cli, capsys, setting, said):
    with pytest.raises((SystemExit, ValueError)) as caught:
        cli("--trainer.callbacks=lightning_xai.GradCAM", f"--trainer.callbacks.{setting}", *QUIET)
    assert re.search(said, capsys.readouterr().err + str(caught.value))
