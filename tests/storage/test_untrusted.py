"""A store from anybody: looking at it imports and runs nothing that it names."""

import json
import sys

import pytest

from lightning_xai import load_run
from lightning_xai.cli import main
from tests.support import runs

SETTINGS = ("target", "labels", "forward", "reshape")


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that can be imported, and leaves a mark where it is."""
    mark = tmp_path / "mark"
    (tmp_path / "code").mkdir()
    text = f"open({str(mark)!r}, 'w').close()\ndef f(*a, **k):\n    return a\nclass GradCAM:\n    pass\n"
    (tmp_path / "code" / "evil.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield mark
    assert not mark.exists() and "evil" not in sys.modules


def store(folder, **changes):
    """A run whose manifest says something else of its callback."""
    manifest = runs.write(folder) / "xai" / "manifest.json"
    held = json.loads(manifest.read_text())
    entry = held["callbacks"]["grad_cam"]
    for key, value in changes.items():
        entry[key] = {**entry[key], **value} if isinstance(value, dict) else value
    manifest.write_text(json.dumps(held))
    return folder


def attention(**settings):
    return {"class": "lightning_xai.callbacks.attention_maps.attention_maps:AttentionMaps", "settings": settings}


CHANGES = [
    {"class": "evil:GradCAM"},
    {"class": "evil:f"},
    {"class": "os:system"},
    *({"settings": {name: path}} for name in SETTINGS for path in ("evil:f", "evil.f", "os:system")),
    attention(decode="evil:f"),
    attention(extract={"a": "evil.f"}),
    {"class": "lightning_xai.callbacks.tcav.tcav:TCAV", "settings": {"randoms": "evil:f", "concepts": ["evil:f"]}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_nothing_is_imported(tmp_path, evil, changes):
    folder = store(tmp_path / "run", **changes)
    run = load_run(folder)
    assert [reading.step for reading in run.readings["grad_cam"]] == [10, 20, 30]
    run._repr_html_()
    for reading in run.readings["grad_cam"]:
        reading._repr_html_()
        assert reading.measured.rows["maps/auto"].shape == (4, 6, 6)
    main(["report", str(folder), "--out", str(tmp_path / "page.html")])
    assert main(["compare", str(runs.write(tmp_path / "b")), str(folder), "--out", str(tmp_path / "page.html")]) == 0


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_with_functions_of_its_own_is_shown_without_them(tmp_path, evil, name):
    run = load_run(store(tmp_path / "run", settings={name: "evil:f"}))
    assert run.readings["grad_cam"][-1].report().scalars["xai/grad_cam/auto/peak"] > 0
    assert run._repr_html_().count("<img") == 2


def test_a_callback_from_elsewhere_is_shown_by_what_its_readings_say(tmp_path, evil):
    folder = store(tmp_path / "run", **{"class": "evil:GradCAM"})
    assert load_run(folder).readings["grad_cam"][0].report().pictures
    assert load_run(folder)._repr_html_().count("<img") == 2
    assert main(["compare", str(runs.write(tmp_path / "b")), str(folder), "--out", str(tmp_path / "page.html")]) == 0
