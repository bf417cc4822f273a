"""Where the readings of a Trainer go: to a folder that is claimed for its run, or to the run's own, found again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning_xai.attempt import attempt
from lightning_xai.flow.explainer import Explainer
from lightning_xai.flow.namespaces import Trainer
from lightning_xai.flow.session import session_of
from lightning_xai.flow.state import Saved
from lightning_xai.storage.manifest import MANIFEST, claim, claim_version, identify, read_manifest
from lightning_xai.storage.run_store import RunStore


class StoreFolder(NamedTuple):
    """The folder of a store, the identity of its run, and whether that is the Trainer's own run."""

    path: str
    run: str
    own: bool


def begins_run(trainer: Trainer) -> bool:
    """Whether what is opened now is no part of a run that this Trainer has begun.

    A Trainer that only validates writes beside the run that its logger's folder holds. Where it fits after that, it
    begins a run of its own.
    """
    owned = session_of(trainer).owned
    return owned is None or (not owned and trainer.state.fn == "fit")


def store_for(trainer: Trainer, explainers: Sequence[Explainer]) -> RunStore | None:
    """The store of this Trainer; None where there is none. Collective."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    session = session_of(trainer)
    if not begins_run(trainer):
        return session.store
    # only the main process knows the logger's version; the others get None where it finds no folder
    find = partial(_store_folder, trainer, explainers)
    folder, error = attempt(find) if trainer.is_global_zero else (None, None)
    if error is not None:
        consequence = (
            "the readings cannot be stored: they are kept in memory alone, and no pictures are written as files"
        )
        explainers[0].warn(error, consequence)
    folder = trainer.strategy.broadcast(folder)
    session.store = None if folder is None else RunStore(folder.path, folder.run)
    session.owned = folder is None or folder.own
    return session.store


def _store_folder(trainer: Trainer, explainers: Sequence[Explainer]) -> StoreFolder:
    root = Path(trainer.default_root_dir).absolute() / "xai"
    if trainer.loggers:
        of_logger, error = attempt(partial(_logger_folder, trainer, explainers))
        if of_logger is not None:
            return of_logger
        kind = type(trainer.loggers[0]).__name__
        explainers[0].warn(error or OSError(), f"the folder of the {kind} cannot be used, so the readings go to {root}")
    folder, run = claim_version(root)
    return StoreFolder(str(folder), run, own=True)


def _logger_folder(trainer: Trainer, explainers: Sequence[Explainer]) -> StoreFolder:
    logger = trainer.loggers[0]
    number, name = logger.version, logger.name
    version = number if isinstance(number, str) else f"version_{number or 0}"
    parts = [part for part in (str(name or ""), version, "xai") if part]
    folder = Path(logger.save_dir or trainer.default_root_dir, *parts).absolute()
    manifest, damage = attempt(partial(read_manifest, folder))
    is_fit = trainer.state.fn == "fit"
    if damage is not None and not is_fit:
        raise damage
    if manifest is not None and (folder / MANIFEST).exists():
        # sharded strategies load callbacks later: each then takes its own readings, or sets others aside
        loads_later = trainer.ckpt_path is not None and trainer.strategy.restore_checkpoint_after_setup
        if not is_fit or loads_later:
            return StoreFolder(str(folder), identify(folder), own=is_fit)
        resumed = [explainer for explainer in explainers if _is_of(explainer.checkpoint, folder, manifest.get("run"))]
        if resumed:
            for explainer in explainers:
                if explainer not in resumed:
                    RunStore(folder).set_aside(explainer.tag.removeprefix("xai/"))
            return StoreFolder(str(folder), identify(folder), own=True)
    run, aside = claim(folder)
    if damage is not None:
        explainers[0].warn(damage, f"the readings in {folder} cannot be gone on with: they are kept in {aside}")
    elif aside is not None:
        explainers[0].say(f"{folder} held the readings of another run: they are kept in {aside}")
    return StoreFolder(str(folder), run, own=True)


def _is_of(checkpoint: Any, folder: Path, run: str | None) -> bool:
    """Whether a callback's state in a checkpoint is of the run whose store is in ``folder``."""
    saved, _ = attempt(partial(Saved.of, checkpoint))
    if saved is None:
        return False
    saved_run = saved.history["run"]
    return bool(saved.history["store"] == str(folder) if saved_run is None else saved_run == run)
