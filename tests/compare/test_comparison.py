"""What is gathered of runs is what their callbacks reported."""

import json
from pathlib import Path

import numpy
import pytest

from lightning_xai.callbacks import GradCAM
from lightning_xai.compare import comparison, gather
from lightning_xai.compare.comparison import run_names
from lightning_xai.store import load_run
from tests.support import runs


def load(*folders):
    return [load_run(folder) for folder in folders]


def expected(folder, until):
    """The report as the run logged it: of its history up to there."""
    run = load_run(folder)
    callback = GradCAM()
    callback.layer_names = {"auto": "features"}
    readings = run.readings["grad_cam"][: until + 1]
    return callback.report(run.probes["grad_cam"], readings)


def test_each_moment_is_the_report_that_was_logged(tmp_path):
    folder = runs.write(tmp_path / "a")
    found = gather(load(folder))
    (section,) = found.sections
    (track,) = section.tracks
    assert (found.names, found.unit, found.positions) == (["a"], "epoch", [0, 1, 2])
    assert track.at == [0, 1, 2] and track.fingerprint == runs.probe().fingerprint
    for place, moment in enumerate(track.moments):
        report = expected(folder, place)
        grid, rows = report.pictures["xai/grad_cam/auto"], report.tables["xai/grad_cam/auto/samples"]
        heat = moment.heats["xai/grad_cam/auto"]
        assert moment.scalars == pytest.approx(report.scalars, abs=2e-3)
        numpy.testing.assert_allclose(heat.maps, grid.maps, atol=1e-3 * float(grid.maps.max()))
        assert heat.scale == pytest.approx(grid.scale, rel=1e-3) and heat.title == grid.title
        numpy.testing.assert_array_equal([found.gallery.pictures[i] for i in heat.images], grid.images)
        assert list(heat.labels) == [row.label for row in rows]
        assert list(heat.answers) == [f"{row.prediction} {row.confidence:.0%}" for row in rows]
        assert list(heat.right) == [row.prediction == row.label for row in rows]


def test_equal_images_are_held_once(tmp_path):
    found = gather(load(runs.write(tmp_path / "a"), runs.write(tmp_path / "b", seed=5)))
    assert len(found.gallery.pictures) == 4


def test_a_run_stands_at_its_nearest_earlier_reading(tmp_path):
    often, seldom = runs.write(tmp_path / "a", epochs=(0, 1, 2, 3)), runs.write(tmp_path / "b", epochs=(1, 3, 7))
    found = gather(load(often, seldom))
    assert found.positions == [0, 1, 2, 3, 7]
    first, second = found.sections[0].tracks
    assert first.at == [0, 1, 2, 3, 3]
    assert second.at == [-1, 0, 0, 1, 2]


def test_several_readings_an_epoch_are_told_apart_by_their_steps(tmp_path):
    found = gather(load(runs.write(tmp_path / "a", epochs=(0, 0, 0), steps=(5, 9, 20))))
    assert (found.unit, found.positions) == ("step", [5, 9, 20])


def test_long_runs_are_thinned_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "POSITIONS", 12)
    folder = runs.write(tmp_path / "a", epochs=range(40))
    found = gather(load(folder))
    assert len(found.positions) == 12 and found.positions[0] == 0 and found.positions[-1] == 39
    assert "12 of 40 epochs are shown" in found.notes[0]
    track = found.sections[0].tracks[0]
    assert track.taken == 40
    for position, place in zip(found.positions, track.at, strict=True):
        # drift is since the reading before, not since the one shown before
        assert track.moments[place].scalars == pytest.approx(expected(folder, position).scalars, abs=2e-3)


def test_large_maps_are_shown_at_fewer_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "CELLS", 4 * 6 * 6 * 15)
    assert len(gather(load(runs.write(tmp_path / "a", epochs=range(40)))).positions) == 15


def test_of_a_large_probe_the_first_samples_are_shown(tmp_path):
    found = gather(load(runs.write(tmp_path / "a", runs.probe(samples=40))))
    heat = found.sections[0].tracks[0].moments[0].heats["xai/grad_cam/auto"]
    assert len(heat.maps) == len(heat.images) == len(heat.labels) == len(heat.answers) == len(heat.right) == 8
    assert found.notes == ["The first 8 of 40 samples are shown; the curves are of all."]


def test_different_probes_are_known_as_such(tmp_path):
    one, same, other = (runs.write(tmp_path / name, runs.probe(seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert gather(load(one, same)).sections[0].same_probe
    assert not gather(load(one, other)).sections[0].same_probe


def test_what_a_run_lacks_is_named(tmp_path):
    one = runs.write(tmp_path / "a")
    other = runs.write(tmp_path / "b", name="late")
    empty = runs.write(tmp_path / "c", epochs=())
    foreign = runs.write(tmp_path / "e")
    manifest = foreign / "xai" / "manifest.json"
    held = json.loads(manifest.read_text())
    held["callbacks"]["grad_cam"]["class"] = "no_such_module:Callback"
    manifest.write_text(json.dumps(held))
    for kept in (foreign / "xai" / "probes").iterdir():
        kept.unlink()
    sections = {section.name: section for section in gather(load(one, other, empty, foreign)).sections}
    assert list(sections) == ["grad_cam", "late"]
    assert sections["grad_cam"].missing == {
        "b": "the run has no callback of this name",
        "c": "nothing was read yet",
    }
    assert sections["grad_cam"].tracks[3] is not None, "a reading says what it is, whoever took it, without its probe"
    assert [track is None for track in sections["late"].tracks] == [True, False, True, True]


def damage(folder, name="grad_cam"):
    (folder / "xai" / name / "20-0.npz").write_bytes(b"cut short")
    return folder


def test_a_damaged_reading_is_left_out_with_a_note(tmp_path):
    found = gather(load(damage(runs.write(tmp_path / "a")), runs.write(tmp_path / "b")))
    assert [len(track.moments) for track in found.sections[0].tracks] == [2, 3]
    (note,) = found.notes
    assert str(tmp_path / "a" / "xai" / "grad_cam" / "20-0.npz") in note and "left out" in note


def test_a_reading_that_is_damaged_after_loading_is_left_out(tmp_path):
    held = load(runs.write(tmp_path / "a"))
    damage(tmp_path / "a")
    assert len(gather(held).sections[0].tracks[0].moments) == 2


def test_readings_that_are_all_damaged_since_are_said(tmp_path):
    held = load(runs.write(tmp_path / "a"), runs.write(tmp_path / "b"))
    for file in (tmp_path / "a" / "xai" / "grad_cam").iterdir():
        file.unlink()
    section = gather(held).sections[0]
    assert section.missing == {"a": "its readings cannot be read any more"} and section.tracks[1] is not None


def test_a_run_whose_report_is_damaged_harms_no_other(tmp_path):
    folder = runs.write(tmp_path / "a", epochs=(0,))
    for pixels in (folder / "xai" / "arrays").iterdir():
        pixels.unlink()
    section = gather(load(folder, runs.write(tmp_path / "b"))).sections[0]
    assert "10-0.npz cannot be read" in section.missing["a"]
    assert len(section.tracks[1].moments) == 3


def test_runs_without_readings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing was read in"):
        gather(load(runs.write(tmp_path / "a", epochs=())))


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["x/a/xai", "x/b/xai"], ["a", "b"]),
        (["x/a/version_0/xai", "y/a/version_0/xai"], ["x", "y"]),
        (["a/v0/xai", "b/v0/xai", "b/v1/xai"], ["a/v0", "b/v0", "b/v1"]),
        (["x/xai/version_0", "x/xai/version_1"], ["version_0", "version_1"]),
        (["x/a/xai", "x/a/xai"], ["a (1)", "a (2)"]),
    ],
)
def test_names_are_short_and_distinct(folders, names):
    assert run_names([Path(folder) for folder in folders]) == names


def test_curves_tell_what_chance_explains_and_other_pictures_are_drawn(tmp_path):
    folder = runs.write(tmp_path / "a", name="curious", kind=runs.Curious)
    moments = gather(load(folder)).sections[0].tracks[0].moments
    peaks = [moment.scalars["xai/curious/auto/effect"] for moment in moments]
    assert [moment.chance for moment in moments] == [{"xai/curious/auto/effect": peak <= 2} for peak in peaks]
    assert {peak <= 2 for peak in peaks} == {True, False}
    assert all(list(moment.drawn) == ["xai/curious/auto"] and not moment.heats for moment in moments)
