"""What an explanation measures, stores and says."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from lightning_xai.stored_run import read_run
from lightning_xai.testing.assertions import Make, assert_scalars, assert_tensors
from lightning_xai.testing.project import Project
from lightning_xai.testing.runs import fit, scalars_of


def pickles(make: Make, project: Project, folder: Path) -> None:
    """It can be pickled before and after a run, as strategies that spawn processes do."""
    callback = make(shown=2)
    again = pickle.loads(pickle.dumps(callback))
    assert again.state_key == callback.state_key, f"the state key is another: {again.state_key}"
    fit(project, folder, callback, max_epochs=1)
    again = pickle.loads(pickle.dumps(callback))
    assert len(again.state.history.readings) == 1, "its readings are lost"


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
        assert_tensors(one.measured.kept, other.measured.kept, f"of epoch {one.epoch} the store keeps")
    assert_tensors(stored[-1].measured.rows, held[-1].measured.rows, "the store holds", tolerance=2e-3)
    probe = run.probes[name]
    assert probe is not None and callback.explained is not None and probe.fingerprint == callback.explained.fingerprint
    logged, said = scalars_of(trainer, callback), stored[-1].scalars
    assert said.keys() == logged.keys(), f"stored and logged scalars differ: {sorted(said.keys() ^ logged.keys())[:3]}"
    assert_scalars(said, logged, "in the store")


def sees_no_chunks(make: Make, project: Project, folder: Path) -> None:
    """A probe in chunks of 3 gives what it gives whole, in rows, in what is kept, and in scalars."""
    whole, parts = (make(name=f"of_{size}", batch_size=size, on_error="raise", shown=2) for size in (64, 3))
    trainer, _ = fit(project, folder, whole, parts, max_epochs=1)
    one, other = (callback.state.history.readings[-1].measured for callback in (whole, parts))
    for part in ("rows", "shared", "kept"):
        assert_tensors(getattr(other, part), getattr(one, part), "in chunks of 3", tolerance=2e-3)
    one_said, other_said = (
        {tag.removeprefix(callback.tag): value for tag, value in scalars_of(trainer, callback).items()}
        for callback in (whole, parts)
    )
    assert_scalars(other_said, one_said, "in chunks of 3", tolerance=1e-4)


def reports_purely(make: Make, project: Project, folder: Path) -> None:
    """`report` gives the same from the same readings, needs no model, draws nothing at random and changes nothing."""
    callback = make(on_error="raise")
    fit(project, folder, callback)
    probe, history = callback.explained, callback.state.history.readings
    assert probe is not None
    random = torch.get_rng_state()
    one, other = callback.report(probe, history), callback.report(probe, history)
    assert torch.equal(random, torch.get_rng_state()), "report draws from torch's RNG"
    assert_scalars(other.scalars, one.scalars, "in a second report", tolerance=0)
    assert one.pictures.keys() == other.pictures.keys() and one.tables.keys() == other.tables.keys()
    again = make()
    again.layer_names = callback.layer_names
    assert_scalars(again.report(probe, history).scalars, one.scalars, "of another object of these settings", 0)


def draws_behind_training(make: Make, project: Project, folder: Path) -> None:
    """Pictures drawn in the background are those that are drawn at once."""

    pictures: dict[bool, dict[str, bytes]] = {}
    for background in (True, False):
        place = folder / str(background)
        fit(project, place, make(background=background, on_error="raise"), max_epochs=1)
        files = sorted(place.rglob("*.png"))
        pictures[background] = {str(file.relative_to(place)): file.read_bytes() for file in files}
    assert pictures[True].keys() == pictures[False].keys(), "the background draws other pictures"
    differing = [name for name in pictures[True] if pictures[True][name] != pictures[False][name]]
    assert not differing, f"drawn in the background {differing[0]} is another picture"
