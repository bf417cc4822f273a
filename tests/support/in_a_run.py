"""What the flow does at the end of a validation, done by a test: a shadow of the model inside of a real Trainer."""

import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from lightning_xai.flow.shadows import Shadows


class _Acting(pl.Callback):
    def __init__(self, action: Callable[[Any, Any], Any]) -> None:
        self.action = action
        self.result: Any = None

    def on_validation_end(self, trainer, pl_module):
        self.act(trainer, pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.act(trainer, pl_module)

    def act(self, trainer, pl_module):
        with Shadows().shadow(trainer, pl_module, None, print) as (stand_in, shadow, _):
            self.result = self.action(shadow, stand_in.precision_plugin.forward_context)


def in_a_run(module: pl.LightningModule, loader: Any, action: Callable[[Any, Any], Any], **settings: Any) -> Any:
    """What ``action(shadow, context)`` returns at the end of `trainer.validate`, or of one batch of training."""
    acting = _Acting(action)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found .* in eval mode")
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            limit_train_batches=1,
            enable_checkpointing=False,
            callbacks=[acting],
            default_root_dir=folder,
            **quiet,
            **settings,
        )
        if is_overridden("validation_step", module):
            trainer.validate(module, loader, verbose=False)
        else:
            trainer.fit(module, loader)
    return acting.result
