"""The promises, one function each: it raises AssertionError, with what was seen, where a callback breaks it."""

from __future__ import annotations

import gc
import math
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_xai.explanation import Explanation
from lightning_xai.flow.namespaces import NAMESPACES
from lightning_xai.stored_run import read_run
from lightning_xai.testing.project import Project
from lightning_xai.testing.runs import Recorder, SeededSteps, fit, is_same, scalars_of, trainer_of

Make: TypeAlias = Callable[..., Explanation]
Promise: TypeAlias = Callable[[Make, Project, Path], None]

TOLERANCE = 1e-5
"""Of the largest value: sums in another order."""
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


def pickles(make: Make, project: Project, folder: Path) -> None:
    """It can be pickled before and after a run, as strategies that spawn processes do."""
    callback = make(shown=2)
    again = pickle.loads(pickle.dumps(callback))
    assert again.state_key == callback.state_key, f"the state key is another: {again.state_key}"
    fit(project, folder, callback, max_epochs=1)
    again = pickle.loads(pickle.dumps(callback))
    assert len(again.state.history.readings) == 1, "its readings are lost"


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
    from importlib import import_module

    callbacks = import_module(f"{NAMESPACES[-1].__name__}.callbacks")
    return callbacks.EarlyStopping(monitor=tag, patience=100, check_finite=False)


def resumes(make: Make, project: Project, folder: Path) -> None:
    """A run that is resumed, also with another schedule, has the readings and the scalars of one that was not."""
    whole = make(on_error="raise", shown=2)
    trainer, _ = fit(project, folder / "whole", whole, SeededSteps(), max_epochs=4)
    first = make(on_error="raise", shown=2)
    before, _ = fit(project, folder / "parts", first, SeededSteps(), max_epochs=2)
    before.save_checkpoint(path := folder / "half.ckpt")
    second = make(on_error="raise", shown=2, every_n_epochs=2)
    after, _ = fit(project, folder / "parts", second, SeededSteps(), checkpoint=path, max_epochs=4)
    epochs = [reading.epoch for reading in second.state.history.readings]
    assert epochs == [0, 1, 3], f"after a resume, every second epoch, the readings are of {epochs}, not [0, 1, 3]"
    assert first.state.probe is not None and second.state.probe is not None
    same = first.state.probe.fingerprint == second.state.probe.fingerprint
    assert same, "a resumed run explains other samples"
    readings = whole.state.history.readings
    expected = whole.report(whole.state.probe, [*readings[:2], readings[3]]).scalars  # type: ignore[arg-type]
    _assert_scalars(scalars_of(after, second), expected, "after a resume")
    assert trainer.current_epoch == after.current_epoch


def starts_clean(make: Make, project: Project, folder: Path) -> None:
    """A second fit with another Trainer knows nothing of the first."""
    callback = make(on_error="raise", shown=2)
    one, _ = fit(project, folder / "one", callback)
    first = scalars_of(one, callback)
    other, _ = fit(project, folder / "other", callback)
    number = len(callback.state.history.readings)
    assert number == 2, f"after a second fit of 2 epochs there are {number} readings"
    _assert_scalars(scalars_of(other, callback), first, "in a second fit of the same weights")


def stores_what_it_measures(make: Make, project: Project, folder: Path) -> None:
    """What is stored is what was measured, with what was said of it, and reads back without the callback."""
    callback = make(on_error="raise")
    trainer, _ = fit(project, folder, callback)
    run = read_run(folder)
    name = callback.tag.removeprefix("xai/")
    assert name in run.readings, f"nothing is stored of {name}"
    stored, held = run.readings[name], callback.state.history.readings
    assert [r.epoch for r in stored] == [r.epoch for r in held], f"readings of {[r.epoch for r in stored]} are stored"
    for one, other in zip(stored, held, strict=True):
        _assert_tensors(one.measured.kept, other.measured.kept, f"of epoch {one.epoch} the store keeps")
    _assert_tensors(stored[-1].measured.rows, held[-1].measured.rows, "the store holds", tolerance=2e-3)
    probe = run.probes[name]
    assert probe is not None and callback.explained is not None and probe.fingerprint == callback.explained.fingerprint
    logged, said = scalars_of(trainer, callback), stored[-1].scalars
    assert said.keys() == logged.keys(), f"stored and logged scalars differ: {sorted(said.keys() ^ logged.keys())[:3]}"
    _assert_scalars(said, logged, "in the store")


def sees_no_chunks(make: Make, project: Project, folder: Path) -> None:
    """A probe in chunks of 3 gives what it gives whole, in rows, in what is kept, and in scalars."""
    whole, parts = (make(name=f"of_{size}", batch_size=size, on_error="raise", shown=2) for size in (64, 3))
    trainer, _ = fit(project, folder, whole, parts, max_epochs=1)
    one, other = (callback.state.history.readings[-1].measured for callback in (whole, parts))
    for part in ("rows", "shared", "kept"):
        _assert_tensors(getattr(other, part), getattr(one, part), "in chunks of 3", tolerance=2e-3)
    one_said, other_said = (
        {tag.removeprefix(callback.tag): value for tag, value in scalars_of(trainer, callback).items()}
        for callback in (whole, parts)
    )
    _assert_scalars(other_said, one_said, "in chunks of 3", tolerance=1e-4)


def reports_purely(make: Make, project: Project, folder: Path) -> None:
    """`report` gives the same from the same readings, needs no model, draws nothing at random and changes nothing."""
    callback = make(on_error="raise")
    fit(project, folder, callback)
    probe, history = callback.explained, callback.state.history.readings
    assert probe is not None
    random = torch.get_rng_state()
    one, other = callback.report(probe, history), callback.report(probe, history)
    assert torch.equal(random, torch.get_rng_state()), "report draws from torch's RNG"
    _assert_scalars(other.scalars, one.scalars, "in a second report", tolerance=0)
    assert one.pictures.keys() == other.pictures.keys() and one.tables.keys() == other.tables.keys()
    again = make()
    again.layer_names = callback.layer_names
    _assert_scalars(again.report(probe, history).scalars, one.scalars, "of another object of these settings", 0)


def draws_behind_training(make: Make, project: Project, folder: Path) -> None:
    """Pictures drawn in the background are those that are drawn at once."""
    from lightning_xai.flow.namespaces import NAMESPACES

    pictures: dict[bool, dict[str, bytes]] = {}
    for background in (True, False):
        place = folder / str(background)
        fit(project, place, make(background=background, on_error="raise"), max_epochs=1)
        files = sorted(place.rglob("*.png"))
        pictures[background] = {str(file.relative_to(place)): file.read_bytes() for file in files}
    assert NAMESPACES and pictures[True].keys() == pictures[False].keys(), "the background draws other pictures"
    differing = [name for name in pictures[True] if pictures[True][name] != pictures[False][name]]
    assert not differing, f"drawn in the background {differing[0]} is another picture"


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
    _assert_scalars(scalars_of(two, other), scalars_of(one, plain), "of a compiled module", tolerance=1e-3)


def _compiled(module: Any) -> Any:
    module.compile(backend="aot_eager")
    return module


def _assert_scalars(
    seen: Mapping[str, float], expected: Mapping[str, float], where: str, tolerance: float = TOLERANCE
) -> None:
    for tag, value in expected.items():
        assert tag in seen, f"{where} {tag} is missing"
        close = math.isclose(seen[tag], value, rel_tol=tolerance, abs_tol=tolerance)
        assert close or (math.isnan(value) and math.isnan(seen[tag])), f"{where} {tag} is {seen[tag]}, not {value}"


def _assert_tensors(
    seen: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str, tolerance: float = TOLERANCE
) -> None:
    assert seen.keys() == expected.keys(), f"{where} {sorted(seen)}, not {sorted(expected)}"
    for key, tensor in expected.items():
        one, other = seen[key].double(), tensor.double()
        assert one.shape == other.shape, f"{where} {key} of shape {tuple(one.shape)}, not {tuple(other.shape)}"
        largest = float(other.nan_to_num().abs().max()) if other.numel() else 0.0
        close = torch.isclose(one, other, rtol=tolerance, atol=tolerance * largest + 1e-9, equal_nan=True)
        assert close.all(), f"{where} {key} differs by {float((one - other).abs().max()):.3g} of {largest:.3g}"


PROMISES: Mapping[str, Promise] = {
    promise.__name__: promise
    for promise in (
        trains_the_same,
        fails_softly,
        refuses_bad_settings,
        pickles,
        reads_when_it_is_due,
        can_be_monitored,
        resumes,
        starts_clean,
        stores_what_it_measures,
        sees_no_chunks,
        reports_purely,
        draws_behind_training,
        works_in_both_namespaces,
        works_in_bf16,
    )
}
"""What takes seconds, by name."""

SLOW: Mapping[str, Promise] = {
    promise.__name__: promise for promise in (trains_the_same_in_every_setting, keeps_its_size, works_compiled)
}
"""What takes longer."""
