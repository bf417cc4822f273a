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


class Place(NamedTuple):
    """A folder, the identity of the run whose store it is, and whether that is the Trainer's own run."""

    folder: str
    run: str
    own: bool


def begins_run(trainer: Trainer) -> bool:
    """Whether what is opened now is no part of a run that this Trainer has begun.

    A Trainer that only validates writes beside the run that its logger's folder holds. Where it fits after that, it
    begins a run of its own.
    """
    owned = session_of(trainer).owned
    return owned is None or (not owned and trainer.state.fn == "fit")


def store_for(trainer: Trainer, everyone: Sequence[Explainer]) -> RunStore | None:
    """The store of this Trainer; None where there is none. Collective."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    session = session_of(trainer)
    if not begins_run(trainer):
        return session.store
    # only the main process knows the logger's version; the others get None where it finds no folder
    place, error = attempt(partial(_place, trainer, everyone)) if trainer.is_global_zero else (None, None)
    if error is not None:
        what = "the readings cannot be stored: they are kept in memory alone, and no pictures are written as files"
        everyone[0].warn(error, what)
    place = trainer.strategy.broadcast(place)
    session.store = None if place is None else RunStore(place.folder, place.run)
    session.owned = place is None or place.own
    return session.store


def _place(trainer: Trainer, everyone: Sequence[Explainer]) -> Place:
    root = Path(trainer.default_root_dir).absolute() / "xai"
    if trainer.loggers:
        place, error = attempt(partial(_of_logger, trainer, everyone))
        if place is not None:
            return place
        what = f"the folder of the {type(trainer.loggers[0]).__name__} cannot be used, so the readings go to {root}"
        everyone[0].warn(error or OSError(), what)
    folder, run = claim_version(root)
    return Place(str(folder), run, own=True)


def _of_logger(trainer: Trainer, everyone: Sequence[Explainer]) -> Place:
    logger = trainer.loggers[0]
    number, name = logger.version, logger.name
    version = number if isinstance(number, str) else f"version_{number or 0}"
    parts = [part for part in (str(name or ""), version, "xai") if part]
    folder = Path(logger.save_dir or trainer.default_root_dir, *parts).absolute()
    held, damage = attempt(partial(read_manifest, folder))
    fits = trainer.state.fn == "fit"
    if damage is not None and not fits:
        raise damage
    if held is not None and (folder / MANIFEST).exists():
        # sharded strategies load callbacks later: each then takes its own readings, or sets others aside
        unknown_yet = trainer.ckpt_path is not None and trainer.strategy.restore_checkpoint_after_setup
        if not fits or unknown_yet:
            return Place(str(folder), identify(folder), own=fits)
        goes_on = [explainer for explainer in everyone if _wrote(explainer.checkpoint, folder, held.get("run"))]
        if goes_on:
            for explainer in everyone:
                if explainer not in goes_on:
                    RunStore(folder).set_aside(explainer.tag.removeprefix("xai/"))
            return Place(str(folder), identify(folder), own=True)
    run, aside = claim(folder)
    if damage is not None:
        everyone[0].warn(damage, f"the readings in {folder} cannot be gone on with: they are kept in {aside}")
    elif aside is not None:
        everyone[0].say(f"{folder} held the readings of another run: they are kept in {aside}")
    return Place(str(folder), run, own=True)


def _wrote(state: Any, folder: Path, run: str | None) -> bool:
    """Whether this state is of the run whose store is in ``folder``."""
    saved, _ = attempt(partial(Saved.of, state))
    if saved is None:
        return False
    written = saved.history["run"]
    return bool(saved.history["store"] == str(folder) if written is None else written == run)
