"""The command line: what it writes, and how it refuses."""

import json
import logging
import subprocess
import sys

import pytest
import torch

from lightning_xai.cli import main
from lightning_xai.probe import Probe
from tests.support import runs
from tests.support.classifier import Classifier
from tests.support.data import Samples, loader
from tests.support.training import trainer


def refusal(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err


def test_compare_writes_one_page(tmp_path, capsys):
    one, other = runs.write(tmp_path / "a"), runs.write(tmp_path / "b", runs.probe(1), name="late")
    page = tmp_path / "new" / "compare.html"
    assert main(["compare", str(one), str(other), "--out", str(page)]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    said = capsys.readouterr().out
    assert "grad_cam: nothing of b: the run has no callback of this name" in said
    assert f"{page}: 0.1 MiB" in said or f"{page}: 0.0 MiB" in said


def test_compare_says_that_the_samples_differ(tmp_path, capsys):
    one, other = runs.write(tmp_path / "a"), runs.write(tmp_path / "b", runs.probe(1))
    main(["compare", str(one), str(other), "--out", str(tmp_path / "page.html")])
    assert "the runs explained different samples" in capsys.readouterr().out


def test_report_takes_one_run(tmp_path):
    assert main(["report", str(runs.write(tmp_path / "a")), "--out", str(tmp_path / "page.html")]) == 0
    assert "<h1>What a looks at</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_missing_or_empty_folder_is_refused(tmp_path, capsys):
    assert f"there is no folder {tmp_path / 'no'}" in refusal(capsys, "report", tmp_path / "no")
    assert "holds no folder xai with a manifest" in refusal(capsys, "report", tmp_path)
    for name in ("a", "b"):
        runs.write(tmp_path / name)
    assert "2 runs under it; name one" in refusal(capsys, "report", tmp_path)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ('{"name": "a web app"}', "was not written by lightning_xai"),
        ("not json", "is no manifest of lightning_xai"),
        ("[1, 2]", "was not written by lightning_xai"),
        ('{"format": 1}', "was not written by lightning_xai"),
        (json.dumps({"format": 99, "callbacks": {}}), "upgrade lightning_xai"),
        (json.dumps({"format": 1, "callbacks": {}}), "nothing was read in"),
    ],
)
def test_foreign_and_newer_folders_are_refused(tmp_path, capsys, manifest, said):
    (tmp_path / "manifest.json").write_text(manifest)
    assert said in refusal(capsys, "report", tmp_path, "--out", tmp_path / "page.html")


def test_a_damaged_reading_is_left_out_and_said(tmp_path, capsys):
    folder = runs.write(tmp_path / "a")
    (folder / "xai" / "grad_cam" / "10-0.npz").write_bytes(b"no reading")
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert "10-0.npz cannot be read and is left out" in capsys.readouterr().out


@pytest.mark.parametrize("manifest", ['{"format": 1, "callb', "", "[]", json.dumps({"format": 99, "callbacks": {}})])
def test_a_damaged_or_newer_run_is_said_and_the_others_are_shown(tmp_path, capsys, manifest):
    whole, broken = runs.write(tmp_path / "a"), runs.write(tmp_path / "b")
    (broken / "xai" / "manifest.json").write_text(manifest)
    page = tmp_path / "page.html"
    assert main(["compare", str(whole), str(broken), "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert f"nothing of {broken}: " in said and "manifest.json" in said
    assert f"nothing of {broken}: " in page.read_text(encoding="utf-8")
    assert "upgrade lightning_xai" in said or "99" not in manifest


@pytest.mark.parametrize("arguments", [[], ["compare"], ["draw"], ["explain", "last.ckpt"]])
def test_wrong_arguments_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: lightning-xai" in capsys.readouterr().err


def test_help_tells_of_every_command_without_importing_torch():
    code = "import sys; from lightning_xai.cli import main\ntry: main(['--help'])\nfinally: print('Lightning' if any("
    code += "name.startswith(('pytorch_lightning', 'lightning.', 'matplotlib')) for name in sys.modules) else 'light')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(word in said for word in ("compare", "report", "explain", "examples:"))
    assert said.endswith("light\n")


@pytest.fixture
def checkpoint(tmp_path):
    """A trained model's checkpoint, its saved probe, and the model."""
    model = Saved()
    fit = trainer(tmp_path / "run", max_epochs=1)
    fit.fit(model, loader(), loader())
    fit.save_checkpoint(tmp_path / "last.ckpt")
    Probe.from_dataset(Samples(), range(4)).save(tmp_path / "probe.pt")
    return tmp_path / "last.ckpt", tmp_path / "probe.pt", model


class Saved(Classifier):
    """A Classifier that normalises in a transfer hook."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, labels = batch
        return images / 2, labels


def test_explain_writes_the_pictures_of_a_finished_model(tmp_path, capsys, checkpoint):
    from lightning_xai.compare.explain import explain
    from lightning_xai.functional import grad_cam

    path, probe, model = checkpoint
    out = tmp_path / "explained"
    given = ["--model", "tests.test_cli:Saved", "--probe", probe, "--out", out, "--layers", "backbone.2"]
    assert main([str(part) for part in ["explain", path, *given]]) == 0
    assert "xai/grad_cam/backbone.2/drift" in capsys.readouterr().out
    assert [picture.name for picture in (out / "pictures/xai/grad_cam/backbone.2").glob("*.png")] == ["00000001.png"]

    held = Probe.load(probe)
    report = explain(path, "tests.test_cli:Saved", held, layers=["backbone.2"])
    expected = grad_cam(model, held.inputs / 2, held.targets, layer="backbone.2")
    assert torch.allclose(report.pictures["xai/grad_cam/backbone.2"].maps, expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--model": "tests.test_cli:Samples"}, "is no LightningModule"),
        ({"--model": "tests.test_cli:Needy"}, "save_hyperparameters"),
        ({"--model": "no_such_module:Net"}, "no_such_module"),
        ({"--probe": "absent.pt"}, "there is no saved Probe at absent.pt"),
        ({"--variant": "grad_cat"}, "grad_cam"),
        ({"--layers": "backbone.9"}, "backbone.2"),
        ({"--model": "tests.test_cli:Larger"}, "are not those of Larger"),
        ({"--model": "tests.test_cli:Fewer"}, "the probe does not fit"),
    ],
)
def test_explain_says_what_does_not_fit(capsys, checkpoint, change, said):
    path, probe, _ = checkpoint
    given = {"--model": "tests.test_cli:Saved", "--probe": probe, **change}
    assert said in refusal(capsys, "explain", path, *(part for pair in given.items() for part in pair))


class Needy(Classifier):
    """A Classifier whose checkpoints do not know its argument."""

    def __init__(self, needed):
        super().__init__()
        self.needed = needed


class Larger(Classifier):
    """A Classifier with a layer that no checkpoint holds."""

    def __init__(self):
        super().__init__()
        self.more = torch.nn.Linear(2, 2)


class Fewer(Saved):
    """A Classifier of one class."""

    def forward(self, image):
        return super().forward(image)[:, :1]


def test_explain_without_a_checkpoint(tmp_path, capsys):
    absent = tmp_path / "no.ckpt"
    assert "there is no checkpoint" in refusal(capsys, "explain", absent, "--model", "a:B", "--probe", "probe.pt")
    absent.write_text("text")
    runs.probe().save(tmp_path / "probe.pt")
    given = ["--model", "tests.test_cli:Saved", "--probe", tmp_path / "probe.pt"]
    assert "no.ckpt is no checkpoint" in refusal(capsys, "explain", absent, *given)


def test_the_process_s_loggers_are_left_as_they_were(tmp_path, capsys):
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    before = [logger.level for logger in loggers]
    Probe(torch.rand(1, 3, 8, 8)).save(tmp_path / "probe.pt")
    (tmp_path / "damaged.ckpt").write_bytes(b"no checkpoint")
    options = ["--model", "tests.support.classifier:Classifier", "--probe", str(tmp_path / "probe.pt")]
    assert main(["explain", str(tmp_path / "damaged.ckpt"), *options]) == 2
    assert [logger.level for logger in loggers] == before
