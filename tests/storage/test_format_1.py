"""A store that an earlier version wrote, of all its callbacks, opens everywhere and says what was logged then."""

import json
import shutil
from pathlib import Path

import pytest

from lightning_xai import load_run
from lightning_xai.cli import main
from lightning_xai.compare import gather

OLD = Path(__file__).parent.parent / "data" / "format_1"
LOGGED = json.loads((OLD / "logged.json").read_text())


@pytest.fixture
def folder(tmp_path):
    """A copy: what is read must not be written to."""
    shutil.copytree(OLD, tmp_path / "xai" / "version_0")
    return tmp_path / "xai" / "version_0"


def scalars(name):
    return {tag: value for tag, value in LOGGED.items() if tag.startswith(f"xai/{name}/")}


@pytest.mark.parametrize("name", ["grad_cam", "attention_maps", "tcav"])
def test_the_last_reading_says_what_was_logged(folder, name):
    readings = load_run(folder).readings[name]
    assert [(reading.epoch, reading.step, reading.index) for reading in readings] == [(0, 2, 0), (1, 4, 0), (2, 6, 0)]
    report = readings[-1].report()
    assert report.scalars == pytest.approx(scalars(name), rel=2e-3, abs=1e-4)
    assert report.pictures


def test_a_notebook_shows_it(folder):
    run = load_run(folder)
    html = run._repr_html_() + "".join(readings[-1]._repr_html_() for readings in run.readings.values())
    assert html.count("<img") >= 6 and "cannot" not in html


def test_the_page_shows_it(folder, tmp_path, capsys):
    comparison = gather([load_run(folder)])
    for section in comparison.sections:
        (track,) = section.tracks
        assert [moment.epoch for moment in track.moments] == [0, 1, 2]
        assert track.moments[-1].scalars == pytest.approx(scalars(section.name), rel=2e-3, abs=1e-4)
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert "nothing of" not in capsys.readouterr().out
