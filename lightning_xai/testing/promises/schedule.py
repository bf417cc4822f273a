"""When an explanation reads, and how it goes on."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_xai.flow.namespaces import NAMESPACES
from lightning_xai.testing.assertions import Make, assert_scalars
from lightning_xai.testing.project import Project
from lightning_xai.testing.runs import SeededSteps, fit, scalars_of


def reads_when_it_is_due(make: Make, project: Project, folder: Path) -> None:
    """It reads in the first epoch, then when (epoch + 1) is a multiple of ``every_n_epochs``, and in the last."""
    callback = make(every_n_epochs=3, on_error="raise", shown=2)
    fit(project, folder, callback, max_epochs=5)
    epochs = [reading.epoch for reading in callback.state.history.readings]
    assert epochs == [0, 2, 4], f"every third of 5 epochs it reads in {epochs}, not in [0, 2, 4]"
    callback = make(every_n_validations=2, on_error="raise", shown=2)
    fit(project, folder, callback, max_epochs=1, val_check_interval=1)
    number = len(callback.state.history.readings)
    assert number == 3, f"of 4 validations, every second, it reads {number}, not the first, second and fourth"


def can_be_monitored(make: Make, project: Project, folder: Path) -> None:
    """A monitor finds its scalars, each finite, whenever it looks; a misspelt one is refused with close matches."""
    callback = make(on_error="raise", shown=2)
    trainer, _ = fit(project, folder / "first", callback, max_epochs=1)
    scalars = scalars_of(trainer, callback)
    assert scalars, "no scalar is logged"
    assert not (odd := [tag for tag, value in scalars.items() if math.isinf(value)]), f"{odd[0]} is infinite"
    tag = sorted(scalars)[0]
    stopping = _early_stopping(tag)
    sparse = make(every_n_epochs=2, on_error="raise", shown=2)
    trainer, _ = fit(project, folder / "second", sparse, stopping, max_epochs=3)
    number = len(sparse.state.history.readings)
    assert number == 3, f"{tag} is monitored in 3 epochs, and read in {number}"
    if not make(shown=2).declared(None):
        return
    try:
        fit(project, folder / "third", make(shown=2), _early_stopping(f"{tag}s"))
    except ValueError as error:
        assert tag in str(error), f"a misspelt monitor is refused without the close match {tag}: {error}"
    else:
        raise AssertionError(f"a monitor of {tag}s, which nobody logs, is not refused")


def _early_stopping(tag: str) -> Any:
    callbacks = import_module(f"{NAMESPACES[-1].__name__}.callbacks")
    return callbacks.EarlyStopping(monitor=tag, patience=100, check_finite=False)


def resumes(make: Make, project: Project, folder: Path) -> None:
    """A run that is resumed says what one says that was not; with another schedule it keeps its history, too."""
    whole = make(on_error="raise", shown=2)
    trainer, _ = fit(project, folder / "whole", whole, SeededSteps(), max_epochs=3)
    first = make(on_error="raise", shown=2)
    before, _ = fit(project, folder / "parts", first, SeededSteps(), max_epochs=2)
    before.save_checkpoint(path := folder / "half.ckpt")
    second = make(on_error="raise", shown=2)
    after, _ = fit(project, folder / "parts", second, SeededSteps(), checkpoint=path, max_epochs=3)
    assert first.state.probe is not None and second.state.probe is not None
    same = first.state.probe.fingerprint == second.state.probe.fingerprint
    assert same, "a resumed run explains other samples"
    epochs = [reading.epoch for reading in second.state.history.readings]
    assert epochs == [0, 1, 2], f"after a resume the readings are of {epochs}, not [0, 1, 2]"
    assert_scalars(scalars_of(after, second), scalars_of(trainer, whole), "after a resume", tolerance=1e-3)
    sparser = make(on_error="raise", shown=2, every_n_epochs=2)
    fit(project, folder / "parts", sparser, checkpoint=path, max_epochs=4)
    epochs = [reading.epoch for reading in sparser.state.history.readings]
    assert epochs == [0, 1, 3], f"after a resume, every second epoch, the readings are of {epochs}, not [0, 1, 3]"


def starts_clean(make: Make, project: Project, folder: Path) -> None:
    """A second fit with another Trainer knows nothing of the first."""
    callback = make(on_error="raise", shown=2)
    one, _ = fit(project, folder / "one", callback)
    first = scalars_of(one, callback)
    other, _ = fit(project, folder / "other", callback)
    number = len(callback.state.history.readings)
    assert number == 2, f"after a second fit of 2 epochs there are {number} readings"
    assert_scalars(scalars_of(other, callback), first, "in a second fit of the same weights")
