import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_xai.loggers import Files, log_report, open_run, takes_reports
from lightning_xai.render import draw
from lightning_xai.report import Opening, Overlay, Report
from tests.support import wandb_file
from tests.support.events import read_events
from tests.support.namespaces import NAMESPACES
from tests.support.png import pixels
from tests.support.reports import make_opening, make_report

pytestmark = [
    # TensorBoard's own modules, on the way in.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard"),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
]


@pytest.fixture(params=NAMESPACES)
def namespace(request):
    return pytest.importorskip(request.param)


# TensorBoard


@pytest.fixture(params=["", "mine"])
def prefix(request):
    return request.param


@pytest.fixture
def board(prefix, namespace, tmp_path):
    return namespace.loggers.TensorBoardLogger(tmp_path, prefix=prefix)


def test_tensorboard_pictures_are_those_drawn(board, prefix):
    report = make_report()
    open_run(board, make_opening())
    log_report(board, report, 17)
    board.finalize("success")
    found = read_events(board.log_dir)
    before = f"{prefix}-" if prefix else ""
    assert sorted(found.Tags()["images"]) == sorted(before + tag for tag in report.pictures)
    for tag, picture in report.pictures.items():
        (image,) = found.Images(before + tag)
        assert image.step == 17
        assert torch.equal(pixels(image.encoded_image_string), draw(picture))
    assert not found.Tags()["scalars"]


def test_tensorboard_layout(board, prefix):
    from tensorboard.plugins.custom_scalar import layout_pb2

    open_run(board, make_opening())
    board.finalize("success")
    (layout,) = read_events(board.log_dir).Tensors("custom_scalars__config__")
    (category,) = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0]).category
    before = f"{prefix}-" if prefix else ""
    lines, band = category.chart
    assert (category.title, lines.title, band.title) == ("xai", "drift", "striped")
    (pattern,) = lines.multiline.tag
    # TensorBoard's plugin matches with `re.match`.
    assert re.match(pattern, f"{before}xai/grad_cam/backbone.layer4/drift")
    assert not re.match(pattern, f"{before}xai/grad_cam/backboneXlayer4/drift")
    assert not re.match(pattern, f"{before}xai/grad_cam/backbone.layer4/drift_more")
    (series,) = band.margin.series
    assert series.value == f"{before}xai/t/a.b/effect"
    assert series.lower == f"{before}xai/t/a.b/effect_lower"
    assert series.upper == f"{before}xai/t/a.b/effect_upper"


def test_tensorboard_probe_card(board):
    open_run(board, make_opening())
    board.finalize("success")
    (card,) = read_events(board.log_dir).Tensors("xai/probe/text_summary")
    assert b"| grad_cam | `abc123` |" in card.tensor_proto.string_val[0]


def test_tensorboard_writes_no_empty_cards(board):
    open_run(board, Opening(folder=None))
    board.finalize("success")
    assert not read_events(board.log_dir).Tags()["tensors"]


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_the_users_hyperparameters_survive(namespace, tmp_path):
    from tensorboard.plugins.hparams import metadata

    Module: Any = namespace.LightningModule
    Callback: Any = namespace.Callback

    class Net(Module):
        def __init__(self, width=5):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch, _):
            return self.layer(batch).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    class Opens(Callback):
        def on_fit_start(self, trainer, pl_module):
            open_run(trainer.logger, make_opening())

    logger = namespace.loggers.TensorBoardLogger(tmp_path)
    trainer = namespace.Trainer(
        logger=logger,
        callbacks=[Opens()],
        max_steps=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Net(), torch.utils.data.DataLoader(torch.ones(2, 2)))

    written = yaml.safe_load(Path(logger.log_dir, "hparams.yaml").read_text())
    assert written == {"width": 5, "xai/grad_cam/probe": "abc123"}
    start = read_events(logger.log_dir).SummaryMetadata("_hparams_/session_start_info")
    shown = metadata.parse_session_start_info_plugin_data(start.plugin_data.content).hparams
    assert shown["width"].number_value == 5


# Weights & Biases


@pytest.fixture
def run(namespace, tmp_path, monkeypatch):
    """Logs two reports offline; what the run file holds, and its folder."""
    pytest.importorskip("wandb")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = namespace.loggers.WandbLogger(project="p", save_dir=tmp_path)
    logger.log_hyperparams({"width": 5})
    open_run(logger, make_opening())
    log_report(logger, make_report(0), 4)
    log_report(logger, make_report(1), 9)
    logger.experiment.finish()
    return wandb_file.records(tmp_path), tmp_path


@pytest.fixture
def rows(run):
    return [row for row in wandb_file.history(run[0]) if "xai/grad_cam/backbone.layer4" in row]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")
def test_wandb(run, rows):
    found, folder = run
    media = next(folder.rglob("files/media")).parent

    # One call a reading, at Lightning's step.
    assert [row["trainer/global_step"] for row in rows] == [4, 9]
    report = make_report(1)
    for tag, picture in report.pictures.items():
        shown = rows[1][tag]
        assert shown["_type"] == "image-file" and shown["caption"] == "epoch 1"
        assert torch.equal(pixels((media / shown["path"]).read_bytes()), draw(picture))

    # Tables.
    tag = "xai/grad_cam/backbone.layer4/samples"
    assert rows[1][tag]["_type"] == "table-file"
    (earlier, _), (table, files) = wandb_file.tables(found)
    assert table["columns"] == [
        "epoch", "step", "sample_id", "label", "prediction", "confidence", "input", "heatmap"
    ]  # fmt: skip
    assert [row[:6] for row in table["data"]] == [[1, 9, 0, "cat", "dog", 0.5], [1, 9, 1, "dog", "dog", 0.25]]
    *_, input_before, heatmap_before = earlier["data"][0]
    *_, input_now, heatmap_now = table["data"][0]
    assert input_before["sha256"] == input_now["sha256"]
    assert heatmap_before["sha256"] != heatmap_now["sha256"]
    assert table["data"][1][6] is None
    described = report.tables[tag][0]
    assert torch.equal(pixels(files[input_now["path"]]), described.input)
    assert torch.equal(pixels(files[heatmap_now["path"]]), draw(described.heatmap))

    # Definitions.
    metrics = {record.metric.name: record.metric for record in found if record.HasField("metric")}
    for name in (r"xai/grad_cam/backbone\.layer4/drift", "xai/grad_cam/auto/zero_maps"):
        assert metrics[name].step_metric == "trainer/global_step"

    # Fingerprints beside the user's hyperparameters.
    config = {
        (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
        for record in found
        if record.HasField("config")
        for item in record.config.update
    }
    assert config["xai/grad_cam/probe"] == "abc123"
    assert config["width"] == 5


# Files


def test_files_are_written_instead_of_a_logger(namespace, tmp_path, caplog):
    logger = namespace.loggers.CSVLogger(tmp_path / "csv")
    folder = tmp_path / "xai"
    report = make_report()
    files = Files(folder, instead_of=logger)
    with caplog.at_level(logging.INFO):
        open_run(files, make_opening())
    said = [line for line in caplog.messages if str(folder) in line]
    assert said == [f"The pictures of lightning_xai are written to {folder}, as CSVLogger takes none."]
    log_report(files, report, 17)
    log_report(files, report, 17)
    for tag, picture in report.pictures.items():
        png = folder / "pictures" / tag / "00000017.png"
        assert torch.equal(pixels(png.read_bytes()), draw(picture))
    table = folder / "tables" / "xai/grad_cam/backbone.layer4/samples" / "00000017.csv"
    assert table.read_text().splitlines() == [
        "epoch,step,sample_id,label,prediction,confidence",
        "3,17,0,cat,dog,0.5",
        "3,17,1,dog,dog,0.25",
    ]


@pytest.mark.parametrize("known", [True, False])
def test_files_stand_in_for_a_logger(tmp_path, known):
    log_report(Files(tmp_path if known else None), make_report(), 1)
    assert len(list(tmp_path.rglob("*.png"))) == (2 if known else 0)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    files = Files(None, instead_of=object())
    with caplog.at_level(logging.INFO):
        open_run(files, make_opening(None))
    log_report(files, make_report(), 1)
    assert not list(tmp_path.iterdir())
    assert not caplog.messages


def test_a_logger_that_nobody_registered():
    class Theirs:
        pass

    open_run(Theirs(), make_opening())
    assert not takes_reports(Theirs())
    with pytest.raises(TypeError, match=r"no way into a Theirs.*@log_report\.register\(TheirLogger\).*Files\(folder\)"):
        log_report(Theirs(), make_report(), 1)


@pytest.mark.parametrize("tag", ["../../up", "/etc/x", "a/..", "a:b*?", "encoder.*/x", ""])
def test_files_stay_in_their_folder(tmp_path, tag):
    picture = Overlay(torch.zeros(8, 8, 3, dtype=torch.uint8), torch.ones(2, 2), None)
    log_report(Files(tmp_path / "in"), Report(0, pictures={tag: picture}), 1)
    (png,) = tmp_path.rglob("*.png")
    assert (tmp_path / "in" / "pictures") in png.resolve().parents


# Others


def test_others_register_their_logger():
    class Theirs:
        def __init__(self):
            self.seen = []

    @open_run.register
    def open_theirs(logger: Theirs, opening: Opening) -> None:
        logger.seen.append("opened")

    @log_report.register(Theirs)
    def log_theirs(logger, report, step):
        logger.seen.append(step)

    logger = Theirs()
    assert takes_reports(logger)
    open_run(logger, make_opening())
    log_report(logger, make_report(), 5)
    assert logger.seen == ["opened", 5]


def test_a_subclass_of_a_known_logger_is_known(namespace, tmp_path):
    Board: Any = namespace.loggers.TensorBoardLogger

    class Mine(Board):
        pass

    logger = Mine(tmp_path)
    log_report(logger, make_report(), 2)
    logger.finalize("success")
    assert len(read_events(logger.log_dir).Tags()["images"]) == 2


def test_importing_loads_no_logger():
    code = """
import sys, lightning_xai.loggers
print([name for name in ("wandb", "tensorboard", "lightning", "pytorch_lightning") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
