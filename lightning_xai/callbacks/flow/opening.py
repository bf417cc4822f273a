"""What happens once, before training starts: the settings are checked, the store and the loggers opened."""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lightning_xai.callbacks.flow import schedule
from lightning_xai.callbacks.flow.attempt import attempt
from lightning_xai.callbacks.flow.namespaces import LightningModule, Trainer
from lightning_xai.callbacks.flow.run import find_forward
from lightning_xai.loggers import Files, open_run
from lightning_xai.probe import Probe
from lightning_xai.report import Opening
from lightning_xai.store import MANIFEST, RunStore, move_aside

if TYPE_CHECKING:
    from lightning_xai.callbacks.base import Explanation

OTHER_SAMPLES = "{why}: pictures before and after epoch {epoch} show different samples"

_FOLDERS: WeakKeyDictionary[Trainer, Path] = WeakKeyDictionary()


def open_all(everyone: list[Explanation], trainer: Trainer, model: LightningModule) -> None:
    """Check and open the explanations of this Trainer.

    Raises:
        ValueError: for settings that cannot work, before the first step.
    """
    for explanation in everyone:
        find_forward(model, explanation.forward)
        explanation.resolve(model)
    _check_tags(everyone)
    known = trainer in _FOLDERS
    store = _open_store(trainer)
    for explanation in everyone:
        explanation.open(store, anew=not known)
    _check_monitors(trainer, everyone)
    if trainer.is_global_zero:
        _open_loggers(trainer, everyone, store)


def resume(explanation: Explanation, trainer: Trainer, state: dict[str, Any]) -> None:
    """Go on from what a checkpoint holds: the history, and the samples where they are found."""
    now = explanation.state
    now.validations, now.logged, now.expected = (
        state["validations"],
        state["logged"],
        state["fingerprint"],
    )
    resume = partial(now.history.resume, state["history"], trainer.global_step, trainer.is_global_zero)
    _, error = attempt(resume)
    if error is not None:
        explanation.warn(error, "the earlier readings could not be taken over whole")
    if now.probe is None:
        find = partial(_earlier_probe, explanation, state)
        found, error = attempt(find) if trainer.is_global_zero else (None, None)
        if error is not None:
            explanation.warn(error, "the earlier samples could not be read, so others are taken")
        now.probe = trainer.strategy.broadcast(found)
    elif now.probe.fingerprint != now.expected:
        explanation.say(OTHER_SAMPLES.format(epoch=trainer.current_epoch, why="another probe is given than before"))


def _earlier_probe(explanation: Explanation, state: dict[str, Any]) -> Probe | None:
    store = explanation.state.history.store
    if state["probe"] is not None:
        return explanation.displayed(Probe.from_state(state["probe"]))
    found = None if store is None else store.probe(state["fingerprint"])
    return None if found is None else explanation.displayed(found)


def sinks(trainer: Trainer, store: RunStore | None) -> list[Any]:
    """The Trainer's loggers; files in the store where it has none."""
    without: list[Any] = [] if store is None else [Files(store.folder)]
    return list(trainer.loggers) or without


def describe(explanation: Explanation, store: RunStore, fingerprint: str) -> None:
    """Write the manifest's entry of this explanation."""
    kind = type(explanation)
    entry = {
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "settings": explanation.settings(),
        "layers": explanation.layer_names,
        "probe": fingerprint,
    }
    store.describe(explanation.tag.removeprefix("xai/"), entry)


def _check_tags(everyone: list[Explanation]) -> None:
    tags: dict[str, Explanation] = {}
    for explanation in everyone:
        if explanation.tag in tags:
            name = explanation.tag.removeprefix("xai/")
            raise ValueError(
                f"two callbacks log under {explanation.tag!r}, and Lightning would average their scalars: "
                f"give one of them another name, as {type(explanation).__name__}(name={name + '_2'!r})"
            )
        tags[explanation.tag] = explanation


def _check_monitors(trainer: Trainer, everyone: list[Explanation]) -> None:
    tags = {explanation.tag: explanation.scalars(explanation.explained) for explanation in everyone}
    known = [tag for own in tags.values() for tag in own]
    unknown_yet = tuple(f"{tag}/" for tag, own in tags.items() if not own)
    for monitor in schedule.monitors(trainer):
        if (
            monitor.metric.startswith("xai/")
            and not monitor.metric.startswith(unknown_yet)
            and monitor.metric not in known
        ):
            close = difflib.get_close_matches(monitor.metric, known, n=3, cutoff=0.3) or known
            masked = any(f"/{kind}/" in monitor.metric for kind in ("share", "lift", "pointing"))
            hint = ". Scalars of masks need a given Probe with masks=" if masked else ""
            raise ValueError(
                f"{monitor.by} monitors {monitor.metric!r}, which no callback logs. Close: {', '.join(close)}{hint}"
            )


def _open_store(trainer: Trainer) -> RunStore | None:
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    if trainer not in _FOLDERS:
        # only the main process knows the logger's version
        folder = _folder(trainer) if trainer.is_global_zero else ""
        going_on = trainer.state.fn != "fit" or trainer.ckpt_path is not None
        if trainer.is_global_zero and not going_on and (Path(folder) / MANIFEST).exists():
            move_aside(Path(folder))
        # after the move: the other processes read the folder as soon as they know it
        _FOLDERS[trainer] = Path(trainer.strategy.broadcast(folder))
    return RunStore(_FOLDERS[trainer])


def _folder(trainer: Trainer) -> str:
    if trainer.loggers:
        logger = trainer.loggers[0]
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version or 0}"
        parts = [part for part in (str(logger.name or ""), version, "xai") if part]
        return str(Path(logger.save_dir or trainer.default_root_dir, *parts))
    root = Path(trainer.default_root_dir) / "xai"
    taken = [int(path.name.removeprefix("version_")) for path in root.glob("version_*") if path.name[8:].isdigit()]
    return str(root / f"version_{max(taken, default=-1) + 1}")


def _open_loggers(trainer: Trainer, everyone: list[Explanation], store: RunStore | None) -> None:
    opened = Opening(
        folder=None if store is None else store.folder,
        fingerprints={e.tag.removeprefix("xai/"): e.explained.fingerprint for e in everyone if e.explained},
        scalars=[tag for explanation in everyone for tag in explanation.scalars(explanation.explained)],
        charts={title: tags for explanation in everyone for title, tags in explanation.charts().items()},
    )
    for logger in sinks(trainer, store):
        _, error = attempt(partial(open_run, logger, opened))
        if error is not None:
            everyone[0].warn(error, f"{type(logger).__name__} could not be prepared")
