"""What happens once, before training starts: the settings are checked, the store and the loggers opened."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from lightning_xai.attempt import attempt
from lightning_xai.flow import schedule
from lightning_xai.flow.explainer import Explainer
from lightning_xai.flow.folders import begins_run, store_for
from lightning_xai.flow.model_run import find_forward
from lightning_xai.flow.namespaces import LightningModule, Trainer
from lightning_xai.flow.session import session_of
from lightning_xai.flow.state import Saved
from lightning_xai.loggers import Files, logger_name, open_run, takes_reports
from lightning_xai.probe import Probe
from lightning_xai.report import Opening
from lightning_xai.storage.run_store import RunStore

OTHER_SAMPLES = "{why}: pictures before and after epoch {epoch} show different samples"


def open_all(explainers: Sequence[Explainer], trainer: Trainer, model: LightningModule) -> None:
    """Check and open the explanations of this Trainer.

    Raises:
        ValueError: for settings that cannot work, before the first step.
    """
    if begins_run(trainer):
        for explainer in explainers:
            explainer.restart()
    for explainer in explainers:
        find_forward(model, explainer.forward)
        explainer.resolve(model)
    _check_tags(explainers)
    store = store_for(trainer, explainers)
    for explainer in explainers:
        if trainer.state.fn != "fit":
            explainer.checkpoint = None  # of the checkpoint that is validated: a later fit does not go on from it
        explainer.open(store)
    _check_monitors(trainer, explainers)
    if trainer.is_global_zero:
        _open_loggers(trainer, explainers, store)


def resume(explainer: Explainer, trainer: Trainer, state: dict[str, Any]) -> None:
    """Go on from what a checkpoint holds: the history, and the samples where they are found."""
    if isinstance(state, Mapping) and not state:
        return
    saved, error = attempt(partial(Saved.of, state))
    if saved is None:
        explainer.warn(error or ValueError(), "what the checkpoint holds of it cannot be read, so it starts anew")
        return
    current = explainer.state
    current.validations, current.logged, current.expected = saved.validations, saved.logged, saved.fingerprint
    _, error = attempt(partial(current.history.resume, saved.history, trainer.global_step, trainer.is_global_zero))
    if error is not None:
        current.history.lost.append(error)
    if current.probe is None:
        find = partial(_earlier_probe, explainer, saved)
        probe, error = attempt(find) if trainer.is_global_zero else (None, None)
        if error is not None:
            explainer.warn(error, "the earlier samples could not be read, so others are taken")
        current.probe = trainer.strategy.broadcast(probe)
    elif current.probe.fingerprint != current.expected:
        explainer.say(OTHER_SAMPLES.format(epoch=trainer.current_epoch, why="another probe is given than before"))
    warn_of_lost(explainer, "the earlier readings could not be taken over whole")


def _earlier_probe(explainer: Explainer, saved: Saved) -> Probe | None:
    history, probe = explainer.state.history, None
    if saved.probe is not None:
        probe, error = attempt(partial(Probe.from_state, saved.probe))
        if error is not None:
            history.lost.append(error)
    if probe is None and history.store is not None and saved.fingerprint is not None:
        probe = history.store.probe(saved.fingerprint)
        history.lost.extend(history.store.pop_unreadable())
    return None if probe is None else explainer.displayed(probe)


def warn_of_lost(
    explainer: Explainer, consequence: str = "earlier readings are lost to pictures and checkpoints"
) -> None:
    """Warn of what could not be read of the run so far: of its first cause, and how many there are."""
    errors = explainer.state.history.lost
    if errors:
        more = f" ({len(errors)} of them)" if len(errors) > 1 else ""
        explainer.warn(errors[0], consequence + more)
        errors.clear()


def sinks(trainer: Trainer, store: RunStore | None) -> list[Any]:
    """The Trainer's loggers; files in the store in the stead of one that takes no reports, or where it has none."""
    folder = None if store is None else store.folder
    if not trainer.loggers:
        return [] if folder is None else [Files(folder)]
    return [logger if takes_reports(logger) else Files(folder, logger) for logger in trainer.loggers]


def write_entry(explainer: Explainer, store: RunStore, fingerprint: str) -> None:
    """Write the manifest's entry of this explanation."""
    kind = type(explainer)
    entry = {
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "settings": explainer.settings(),
        "layers": explainer.state.layer_names,
        "probe": fingerprint,
        "tag": explainer.tag,
        "scalars": [asdict(scalar) for scalar in explainer.declared(explainer.state.probe)],
    }
    store.write_entry(explainer.tag.removeprefix("xai/"), entry)


def _check_tags(explainers: Sequence[Explainer]) -> None:
    tags: dict[str, Explainer] = {}
    for explainer in explainers:
        if explainer.tag in tags:
            name = explainer.tag.removeprefix("xai/")
            raise ValueError(
                f"two callbacks log under {explainer.tag!r}, and Lightning would average their scalars: "
                f"give one of them another name, as {type(explainer).__name__}(name={name + '_2'!r})"
            )
        tags[explainer.tag] = explainer


def _check_monitors(trainer: Trainer, explainers: Sequence[Explainer]) -> None:
    tags = {explainer.tag: explainer.tags(explainer.state.probe) for explainer in explainers}
    known = [tag for names in tags.values() for tag in names]
    undeclared = tuple(f"{tag}/" for tag, names in tags.items() if not names)
    for monitor in schedule.monitors(trainer):
        if (
            monitor.metric.startswith("xai/")
            and not monitor.metric.startswith(undeclared)
            and monitor.metric not in known
        ):
            close = difflib.get_close_matches(monitor.metric, known, n=3, cutoff=0.3) or known
            masked = any(f"/{kind}/" in monitor.metric for kind in ("share", "lift", "pointing"))
            hint = ". Scalars of masks need a given Probe with masks=" if masked else ""
            raise ValueError(
                f"{monitor.by} monitors {monitor.metric!r}, which no callback logs. Close: {', '.join(close)}{hint}"
            )


def _open_loggers(trainer: Trainer, explainers: Sequence[Explainer], store: RunStore | None) -> None:
    facts = Opening(
        folder=None if store is None else store.folder,
        fingerprints={e.tag.removeprefix("xai/"): e.state.probe.fingerprint for e in explainers if e.state.probe},
        scalars=[scalar for explainer in explainers for scalar in explainer.declared(explainer.state.probe)],
    )
    session = session_of(trainer)
    before, session.sinks = session.sinks, sinks(trainer, store)
    for sink in session.sinks:
        if isinstance(sink, Files) and sink in before:  # where its pictures are has been said
            continue
        _, error = attempt(partial(open_run, sink, facts))
        if error is not None:
            explainers[0].warn(error, f"{logger_name(sink)} could not be prepared")
