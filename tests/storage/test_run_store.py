"""RunStore: what is written comes back, whole or not at all."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading, thinned
from lightning_xai.storage.manifest import claim
from lightning_xai.storage.reading_state import reading_from_state, reading_state
from lightning_xai.store import RunStore, load_run, unreadable


def reading(step, epoch=None, scale=1.0):
    generator = torch.Generator().manual_seed(step)
    rows = {
        "maps/auto": torch.rand(3, 7, 7, generator=generator) * scale,
        "prediction": torch.tensor([0, 2, 1]),
        "confidence": torch.rand(3, generator=generator),
    }
    return Reading(step if epoch is None else epoch, step, Measured(rows, {"peak/auto": torch.tensor(scale)}))


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1.0, 1e9])
def test_maps_survive_at_any_magnitude(tmp_path, scale):
    written = reading(5, scale=scale)
    RunStore(tmp_path).add("grad_cam", written)
    (found,) = RunStore(tmp_path).history("grad_cam")
    assert (found.epoch, found.step) == (5, 5)
    rows, expected = found.measured.rows, written.measured.rows
    assert list(rows) == list(expected)
    assert (rows["maps/auto"] - expected["maps/auto"]).abs().max() <= 1e-3 * scale
    assert rows["confidence"].equal(expected["confidence"])
    assert rows["prediction"].equal(expected["prediction"])
    assert found.measured.shared["peak/auto"].item() == torch.tensor(scale).item()


def test_zero_and_nan_maps_stay_what_they_are():
    maps = torch.tensor([[[0.0, 0.0]], [[float("nan"), 1.0]]])
    state = reading_state(Reading(0, 0, Measured({"maps/auto": maps})))
    again = reading_from_state(state).measured.rows["maps/auto"]
    assert torch.allclose(again, maps, equal_nan=True)


def test_states_load_with_weights_only(tmp_path):
    torch.save(reading_state(reading(1)), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 1


def test_history_is_in_order_of_steps_and_other_stages_are_beside_it(tmp_path):
    store = RunStore(tmp_path)
    for step in (100, 20, 3):
        store.add("grad_cam", reading(step))
    store.add("grad_cam", reading(50), stage="validate")
    assert [r.step for r in store.history("grad_cam")] == [3, 20, 100]
    assert (tmp_path / "grad_cam" / "validate-50-0.npz").exists()
    store.keep_only("grad_cam", {(3, 0), (20, 0)})
    assert [r.step for r in store.history("grad_cam")] == [3, 20]


def test_a_resumed_run_takes_over_what_came_before(tmp_path):
    old, new = RunStore(tmp_path / "old"), RunStore(tmp_path / "new")
    probe = Probe(torch.rand(3, 3, 4, 4))
    old.add_probe(probe)
    for step in (1, 2, 3):
        old.add("grad_cam", reading(step))
    new.adopt(old, "grad_cam", until=2)
    assert [r.step for r in new.history("grad_cam")] == [1, 2]
    assert new.probe(probe.fingerprint).fingerprint == probe.fingerprint
    assert [r.step for r in old.history("grad_cam")] == [1, 2, 3]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    store = RunStore(tmp_path)
    store.add("grad_cam", reading(1))
    bad: Any = lambda: None  # noqa: E731
    broken = Reading(2, 2, Measured({"maps/auto": torch.rand(1, 2, 2)}, {"bad": bad}))
    with pytest.raises(Exception, match=r"[Pp]ickle|[Oo]bject"):
        store.add("grad_cam", broken)
    assert [path.name for path in (tmp_path / "grad_cam").iterdir()] == ["1-0.npz"]


@pytest.mark.parametrize("raised", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 128 vs 22")])
def test_a_cause_reads_the_same_for_every_file(tmp_path, monkeypatch, raised):
    """So that it is warned of once."""

    def full(_, path):
        error = OSError(*raised.args, str(path)) if isinstance(raised, OSError) else RuntimeError(f"{raised} of {path}")
        raise error

    monkeypatch.setattr(numpy, "savez", lambda file, **arrays: full(arrays, Path(file.name)))
    said = set()
    for step in (1, 2):
        with pytest.raises(OSError) as caught:
            RunStore(tmp_path).add("grad_cam", reading(step))
        said.add(str(caught.value))
    assert len(said) == 1 and str(tmp_path / "grad_cam") in said.pop()


def test_load_run_gives_what_was_logged(tmp_path):
    folder = tmp_path / "version_0" / "xai"
    store, probe = RunStore(folder), Probe(torch.rand(3, 3, 4, 4))
    store.write_entry("grad_cam", {"class": "m:C", "settings": {}, "layers": {}, "probe": store.add_probe(probe)})
    store.add("grad_cam", reading(7))
    for place in (folder, tmp_path):
        run = load_run(place)
        assert run.folder == folder
        assert run.probes["grad_cam"].fingerprint == probe.fingerprint
        assert [r.step for r in run.readings["grad_cam"]] == [7]


def test_load_run_says_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder xai with a manifest"):
        load_run(tmp_path)
    for version in ("a", "b"):
        RunStore(tmp_path / version / "xai").write_entry("grad_cam", {})
    with pytest.raises(FileNotFoundError, match=r"(?s)2 runs under it; name one:.*a.*b"):
        load_run(tmp_path)


def test_newer_and_foreign_folders_are_named(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="has format 99, this version of lightning_xai reads up to 2"):
        RunStore(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="not written by lightning_xai"):
        RunStore(tmp_path)
    (tmp_path / "manifest.json").write_text("<html>")
    with pytest.raises(ValueError, match="no manifest of lightning_xai"):
        RunStore(tmp_path)


MANIFESTS = {
    "cut short": '{"format": 1, "call',
    "empty": "",
    "nested": "[" * 100_000,
    "a list": "[]",
    "no format": "{}",
    "no callbacks": '{"format": 1}',
    "callbacks in a list": '{"format": 1, "callbacks": []}',
    "a callback that is text": '{"format": 1, "callbacks": {"grad_cam": "text"}}',
    "a format that is text": '{"format": "1", "callbacks": {}}',
    "newer": '{"format": 99, "callbacks": {}}',
}


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_of_another_shape_is_refused_with_its_name(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    for opened in (RunStore, load_run):
        with pytest.raises(ValueError, match=r"manifest\.json"):
            opened(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "cut short": cut,
    "empty": lambda path: path.write_bytes(b""),
    "a folder": folder,
    "a list": lambda path: torch.save([1, 2], path),
    "newer": lambda path: torch.save({"format": 99}, path),
    "no rows": lambda path: torch.save({"format": 1, "epoch": 0, "step": 2, "shared": {}}, path),
    "rows in a list": lambda path: torch.save({"format": 1, "epoch": 0, "step": 2, "rows": [], "shared": {}}, path),
    "text": lambda path: torch.save({"format": 1, "epoch": "a", "step": 2, "rows": {}, "shared": {}}, path),
    "a class": lambda path: torch.save(MANIFESTS.values(), path, pickle_module=Pickled),
}


class Pickled:
    """Stands in for pickle: a file that would run something when it is loaded."""

    class Pickler(pickle.Pickler):
        def dump(self, _):
            super().dump(Opens())


class Opens:
    def __reduce__(self):
        return (pytest.fail, ("a file of the store was run",))


@pytest.mark.parametrize("harm", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_reading_is_left_out_and_harms_no_other(tmp_path, harm):
    store = RunStore(tmp_path)
    store.write_entry("grad_cam", {"probe": None})
    for step in (1, 2, 3):
        store.add("grad_cam", reading(step))
    path = tmp_path / "grad_cam" / "2-0.npz"
    held = store.history("grad_cam")
    harm(path)
    assert [r.step for r in RunStore(tmp_path).history("grad_cam")] == [1, 3]
    assert [unreadable(r) is None for r in held] == [True, False, True]
    run = load_run(tmp_path)
    assert [r.step for r in run.readings["grad_cam"]] == [1, 3]
    (said,) = run.unreadable
    assert str(path) in said and "left out" in said and "\n" not in said


def test_a_damaged_probe_is_left_out_and_written_again(tmp_path):
    probe, other = Probe(torch.rand(3, 3, 4, 4)), Probe(torch.rand(3, 3, 4, 4))
    path = tmp_path / "probes" / f"{probe.fingerprint}.pt"
    for harm in (cut, lambda path: path.write_bytes(b""), other.save):
        RunStore(tmp_path).add_probe(probe)
        harm(path)
        store = RunStore(tmp_path)
        assert store.probe(probe.fingerprint) is None and list(store.unreadable) == [path]
        store.add_probe(probe)
        assert store.probe(probe.fingerprint).fingerprint == probe.fingerprint


def test_a_run_whose_store_was_moved_goes_on_there(tmp_path):
    mine = RunStore(tmp_path / "xai", claim(tmp_path / "xai")[0])
    first = mine.add("grad_cam", reading(1, scale=2.0))
    other = RunStore(tmp_path / "xai", claim(tmp_path / "xai")[0])
    other.add("grad_cam", reading(1, scale=5.0))
    assert first.measured.rows["maps/auto"].amax() <= 2
    mine.add("grad_cam", reading(2))
    mine.write_entry("grad_cam", {"probe": None})
    assert mine.folder == tmp_path / "xai-before-1" and [r.step for r in mine.history("grad_cam")] == [1, 2]
    assert [r.step for r in other.history("grad_cam")] == [1] and other.manifest["callbacks"] == {}


def test_a_manifest_that_is_damaged_while_the_run_goes_on_is_made_again(tmp_path):
    store = RunStore(tmp_path / "xai", claim(tmp_path / "xai")[0])
    (tmp_path / "xai" / "manifest.json").write_text("{")
    store.write_entry("grad_cam", {"probe": None})
    assert RunStore(tmp_path / "xai").run == store.run
    assert list(store.manifest["callbacks"]) == ["grad_cam"]


def test_thinned_keeps_both_ends():
    for count in (1, 2, 15, 16, 17, 1000):
        kept = thinned(count, 16)
        assert kept[0] == 0
        assert kept[-1] == count - 1
        assert len(set(kept)) == len(kept) == min(count, 16)
    assert thinned(9, 1) == [8]
