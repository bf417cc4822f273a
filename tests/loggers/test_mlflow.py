"""MLflow's logger over a local folder, read back through MLflow's client."""

import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lightning_xai import GradCAM
from lightning_xai.loggers import log_report, open_run
from lightning_xai.render import draw
from lightning_xai.report import Overlay, Report
from tests.support.classifier import classifier
from tests.support.data import loader
from tests.support.namespaces import NAMESPACES
from tests.support.png import pixels
from tests.support.reports import make_opening, make_report
from tests.support.training import trainer

pytest.importorskip("mlflow", reason="MLflow is not here: pip install mlflow-skinny")

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own, many and of every kind


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def images(logger):
    """(key, step) -> pixels; MLflow keeps a small copy of each beside it."""
    client, found = logger.experiment, {}
    for file in client.list_artifacts(logger.run_id, "images"):
        if file.path.endswith(".png"):
            key, step = re.match(r"images/(.*?)[+%]step[+%](\d+)[+%]", file.path).groups()
            path = Path(client.download_artifacts(logger.run_id, file.path))
            found[re.sub("[~#]", "/", key), int(step)] = pixels(path.read_bytes())
    return found


@pytest.mark.parametrize("prefix", ["", "mine"])
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_pictures_tables_and_fingerprints(folder, namespace, prefix):
    logger = pytest.importorskip(namespace).loggers.MLFlowLogger("e", save_dir=str(folder), prefix=prefix)
    report, before = make_report(), f"{prefix}-" if prefix else ""
    open_run(logger, make_opening())
    open_run(logger, make_opening())
    log_report(logger, report, 17)
    found = images(logger)
    assert found.keys() == {(f"{before}{tag}", 17) for tag in report.pictures}
    for tag, picture in report.pictures.items():
        assert torch.equal(found[f"{before}{tag}", 17], draw(picture))
    client = logger.experiment
    table = f"tables/{before}xai/grad_cam/backbone.layer4/samples/00000017.csv"
    assert Path(client.download_artifacts(logger.run_id, table)).read_text().splitlines() == [
        "epoch,step,sample_id,label,prediction,confidence",
        "3,17,0,cat,dog,0.5",
        "3,17,1,dog,dog,0.25",
    ]
    assert client.get_run(logger.run_id).data.tags["xai/grad_cam/probe"] == "abc123"


def test_names_that_mlflow_refuses(folder):
    logger = pl.loggers.MLFlowLogger("e", save_dir=str(folder))
    picture = Overlay(torch.zeros(8, 8, 3, dtype=torch.uint8), torch.ones(2, 2), None)
    log_report(logger, Report(0, pictures={"xai/a/blk#1/ключ (2)": picture}), 1)
    assert images(logger).keys() == {("xai/a/blk1/ 2", 1)}


def test_a_run(folder):
    logger = pl.loggers.MLFlowLogger("e", save_dir=str(folder))
    callback = GradCAM(probe_size=4, on_error="raise")
    trainer(folder, callback, logger=logger).fit(classifier(), loader(), loader(seed=1))
    assert [step for _, step in sorted(images(logger))] == [2, 5, 2, 5]
    drifts = logger.experiment.get_metric_history(logger.run_id, "xai/grad_cam/auto/drift")
    assert [metric.step for metric in drifts] == [2, 5]
