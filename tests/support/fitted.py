"""What a callback reports in a run, and the model at each of its readings."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger

from lightning_xai import load_run
from lightning_xai.loggers import log_report
from tests.support.classifier import classifier
from tests.support.data import loader
from tests.support.training import trainer


class Reports(Logger):
    """Keeps the reports that it is given."""

    def __init__(self):
        self.reports = []

    name, version, save_dir = "reports", "0", None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


@log_report.register
def keep_report(logger: Reports, report, step):
    logger.reports.append(report)


class Weights(pl.Callback):
    """Keeps a copy of the model at the end of each validation."""

    def __init__(self):
        self.models = []

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            copy = type(pl_module)()
            copy.load_state_dict(pl_module.state_dict())
            self.models.append(copy.eval())


def fit_reports(folder, callback, model=None, train=None, validation=None, **settings):
    """The reports of a run, and the model at each of them."""
    logger, weights = Reports(), Weights()
    run = trainer(folder, callback, weights, **{"logger": logger, **settings})
    run.fit(model or classifier(), train or loader(), validation or loader(8, seed=1))
    return logger.reports, weights.models


def maps_in_store(folder, name="grad_cam", layer="auto"):
    """The maps of the latest reading."""
    return load_run(folder).readings[name][-1].measured.rows[f"maps/{layer}"]


def assert_maps(folder, expected, **where):
    assert expected.max() > 0
    torch.testing.assert_close(maps_in_store(folder, **where), expected, atol=1e-3 * float(expected.max()), rtol=0)
