"""What no explanation does to a training."""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_xai.flow.namespaces import NAMESPACES
from lightning_xai.testing.assertions import Make, assert_scalars
from lightning_xai.testing.project import Project
from lightning_xai.testing.runs import Recorder, fit, is_same, scalars_of, trainer_of

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "the defaults": {},
    "accumulated gradients": {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1},
    "validations inside an epoch": {"val_check_interval": 2},
    "no validation": {"limit_val_batches": 0},
    "a validation every other epoch": {"check_val_every_n_epoch": 2},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "64-true": {"precision": "64-true"},
    "no inference mode": {"inference_mode": False},
    "sanity checks": {"num_sanity_val_steps": 2},
}


def trains_the_same(make: Make, project: Project, folder: Path) -> None:
    """Training is bit-identical to training without the callback."""
    _trains_the_same(make, project, folder, "the defaults")
    _trains_the_same(make, project, folder, "accumulated gradients")


def trains_the_same_in_every_setting(make: Make, project: Project, folder: Path) -> None:
    """The same over the Trainer's settings."""
    for name in SETTINGS:
        _trains_the_same(make, project, folder, name)


def _trains_the_same(make: Make, project: Project, folder: Path, name: str) -> None:
    recorders = Recorder(), Recorder()
    for recorder, callbacks in zip(recorders, ((), (make(on_error="raise", shown=2),)), strict=True):
        # every draw of the callback's own set-up comes before the run is seeded
        fit(project, folder / f"{name} {len(callbacks)}", *callbacks, recorder, **SETTINGS[name])
    without, explained = (recorder.seen for recorder in recorders)
    assert list(without) == list(explained), f"the run takes another course with {name}"
    moved = [key for key in without if not is_same(without[key], explained[key])]
    assert not moved, f"with {name} training is another: {', '.join(moved[:3])} and {max(0, len(moved) - 3)} more"


def fails_softly(make: Make, project: Project, folder: Path) -> None:
    """An explanation that fails warns once and lets training go on; ``on_error="raise"`` stops it."""

    def failing(model: Any, inputs: Any) -> Any:
        raise RuntimeError("the explanation's forward fails")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer, _ = fit(project, folder, make(forward=failing))
    told = [str(warning.message) for warning in caught if "the explanation's forward fails" in str(warning.message)]
    assert len(told) == 1, f"a failure is told {len(told)} times, not once: {told[:2]}"
    assert trainer.current_epoch == 2, f"training ended in epoch {trainer.current_epoch} of 2"
    try:
        fit(project, folder, make(forward=failing, on_error="raise"))
    except RuntimeError as error:
        assert "the explanation's forward fails" in f"{error}{error.__cause__}", f"another error is raised: {error!r}"
    else:
        raise AssertionError("on_error='raise' raises nothing")


def refuses_bad_settings(make: Make, project: Project, folder: Path) -> None:
    """Settings that cannot work are refused before the first step, by their name."""
    wrong: dict[str, Any] = {"batch_size": 0, "shown": 0, "every_n_epochs": 0, "on_error": "ignore", "name": "a/b"}
    wrong |= {"forward": "no_such_method", "target": "no such target", "class_names": "ab", "mean": [0.5]}
    for setting, value in wrong.items():
        recorder = Recorder()
        try:
            fit(project, folder, make(**{setting: value}), recorder)
        except (TypeError, ValueError) as error:
            assert setting in str(error), f"{setting}={value!r} is refused without its name: {error}"
        else:
            raise AssertionError(f"{setting}={value!r} is not refused")
        assert not recorder.seen, f"{setting}={value!r} is refused after training has started"


def works_in_both_namespaces(make: Make, project: Project, folder: Path) -> None:
    """It is a Callback of every namespace of Lightning that is installed."""
    callback = make()
    for namespace in NAMESPACES:
        assert isinstance(callback, namespace.Callback), f"it is no Callback of {namespace.__name__}"
        assert callback in trainer_of(folder, callback, namespace=namespace).callbacks  # type: ignore[attr-defined]


def works_in_bf16(make: Make, project: Project, folder: Path) -> None:
    """Under bf16-mixed its scalars are finite wherever they are in 32 bits."""
    plain, mixed = make(on_error="raise", shown=2), make(on_error="raise", shown=2)
    one, _ = fit(project, folder / "32", plain, max_epochs=1)
    other, _ = fit(project, folder / "16", mixed, max_epochs=1, precision="bf16-mixed")
    finite, seen = scalars_of(one, plain), scalars_of(other, mixed)
    assert finite.keys() == seen.keys(), f"bf16-mixed logs other scalars: {sorted(finite.keys() ^ seen.keys())[:3]}"
    odd = [tag for tag, value in seen.items() if math.isfinite(finite[tag]) and not math.isfinite(value)]
    assert not odd, f"under bf16-mixed {odd[0]} is {seen[odd[0]]}"


def keeps_its_size(make: Make, project: Project, folder: Path) -> None:
    """Neither what it holds nor the forwards of a reading grow with the number of readings: 30 more change nothing."""
    forwards: list[int] = []

    def counting(model: Any, inputs: Any) -> Any:
        forwards[-1] += 1
        return model(inputs)

    sizes: list[int] = []

    class Looking(NAMESPACES[-1].Callback):  # type: ignore[misc]
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            forwards.append(0)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch not in (30, 59):
                return
            gc.collect()
            # what every reading keeps is counted apart
            kept = {id(t) for r in callback.state.history.readings for t in r.measured.kept.values()}
            alive = (thing for thing in gc.get_objects() if issubclass(type(thing), Tensor) and id(thing) not in kept)
            sizes.append(sum(tensor.numel() for tensor in alive))

    callback = make(forward=counting, on_error="raise", shown=2, background=False)
    # after the callback in the Trainer's order: its reading of the epoch is over
    fit(project, folder, callback, Looking(), max_epochs=60, limit_train_batches=1)
    assert forwards[30] == forwards[59], f"reading 30 took {forwards[30]} forwards, reading 59 {forwards[59]}"
    assert sizes[1] <= 1.02 * sizes[0], f"after 31 readings {sizes[0]} numbers are held, after 60 {sizes[1]}"


def works_compiled(make: Make, project: Project, folder: Path) -> None:
    """A module that was compiled is explained as one that was not."""
    compiled = Project(lambda: _compiled(project.module()), project.data)
    plain, other = make(on_error="raise", shown=2), make(on_error="raise", shown=2)
    one, _ = fit(project, folder / "plain", plain, max_epochs=1)
    two, _ = fit(compiled, folder / "compiled", other, max_epochs=1)
    assert_scalars(scalars_of(two, other), scalars_of(one, plain), "of a compiled module", tolerance=1e-3)


def _compiled(module: Any) -> Any:
    module.compile(backend="aot_eager")
    return module
