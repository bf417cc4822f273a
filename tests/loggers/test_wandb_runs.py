"""Runs of a real Trainer in Weights & Biases, offline: what makes two of them comparable."""

import logging

import pytest
import torch
import wandb
from pytorch_lightning.loggers import WandbLogger

from lightning_xai import GradCAM, Probe
from lightning_xai.loggers import log_report
from lightning_xai.report import Overlay, Report
from tests.support import wandb_file
from tests.support.classifier import classifier
from tests.support.data import loader
from tests.support.messages import said
from tests.support.training import trainer


def keys(tree, above=()):
    """The dotted keys of nested mappings that hold no media of their own."""
    if isinstance(tree, dict) and "_type" not in tree:
        return {key for name, part in tree.items() for key in keys(part, (*above, name))}
    return {"/".join(above)}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-own"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def logged(folder, probe, **settings):
    folder.mkdir()
    logger = WandbLogger(project="runs", save_dir=str(folder), offline=True)
    run = trainer(folder, GradCAM(probe=probe, **settings), max_epochs=2, logger=logger)
    run.fit(classifier(), loader(), loader(8, seed=1))
    wandb.finish()
    found = wandb_file.records(folder)
    return {key for row in wandb_file.history(found) for key in keys(row)}, wandb_file.tables(found)


def test_runs_with_other_settings_have_the_same_keys_and_the_same_input_files(tmp_path, offline):
    data = loader(8, seed=1).dataset
    probe = Probe.from_dataset(data, range(4))
    first, tables = logged(tmp_path / "a", probe)
    second, others = logged(tmp_path / "b", probe, every_n_epochs=2, scale="image", background=False)
    assert first == second
    assert {"xai/grad_cam/auto/drift", "xai/grad_cam/auto", "xai/grad_cam/auto/samples"} <= first

    def inputs(table):
        place = table["columns"].index("input")
        return [row[place]["sha256"] for row in table["data"]]

    held = [inputs(table) for table, _ in [*tables, *others]]
    assert len(held) == 4
    assert all(one == held[0] for one in held)


def test_a_step_takes_no_more_pictures_than_advised(tmp_path, offline, caplog):
    logger = WandbLogger(project="many", save_dir=str(tmp_path), offline=True)
    picture = Overlay(torch.zeros(4, 4, 3, dtype=torch.uint8), torch.rand(2, 2), 1.0)
    report = Report(0, pictures={f"xai/grad_cam/layer{i}": picture for i in range(60)})
    with caplog.at_level(logging.INFO):
        for step in (1, 2):
            log_report(logger, report, step)
    wandb.finish()
    row, *_ = wandb_file.history(wandb_file.records(tmp_path))
    assert sum(key.startswith("xai/grad_cam/layer") for key in keys(row)) == 50
    assert said(caplog, "the first 50 of 60 pictures") == 1
