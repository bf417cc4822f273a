"""Every reading of a run on disk, beside its checkpoints: `RunStore` writes, `load_run` reads."""

from typing import Any

from lightning_xai.storage.loading import Unreadable, unreadable
from lightning_xai.storage.run_store import RunStore
from lightning_xai.stored_run import StoredRun as Run
from lightning_xai.stored_run import read_run as load_run

__all__ = ["Run", "RunStore", "Unreadable", "load_run", "unreadable"]


def __getattr__(name: str) -> Any:
    # what wrote format 1; imported when it is asked for, since showing a run needs none
    if name == "torch":
        import torch

        return torch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
