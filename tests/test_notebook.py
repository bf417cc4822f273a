"""What a notebook shows of a run."""

import base64
import io
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image

from lightning_xai import load_run, store
from lightning_xai.callbacks import GradCAM
from lightning_xai.render import draw
from tests.support import runs


def pictures(html):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_the_readings_are_those_of_the_store(tmp_path):
    folder = runs.write(tmp_path / "a")
    shown, plain = load_run(folder), store.load_run(folder)
    assert isinstance(shown, store.Run) and shown.callbacks == plain.callbacks
    for ours, theirs in zip(shown.readings["grad_cam"], plain.readings["grad_cam"], strict=True):
        assert (ours.epoch, ours.step) == (theirs.epoch, theirs.step)
        assert ours.measured.rows["maps/auto"].equal(theirs.measured.rows["maps/auto"])


def test_a_reading_shows_what_its_callback_reported(tmp_path):
    reading = load_run(runs.write(tmp_path / "a")).readings["grad_cam"][1]
    run = store.load_run(tmp_path / "a")
    callback = GradCAM()
    callback.layer_names = {"auto": "features"}
    history = run.readings["grad_cam"][:2]
    expected = callback.report(run.probes["grad_cam"], history)
    html = reading._repr_html_()
    (picture,) = pictures(html)
    grid = draw(expected.pictures["xai/grad_cam/auto"])
    assert torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).equal(grid.flatten())
    for tag, value in expected.scalars.items():
        assert f"<td>{tag}</td><td>{value:.4g}</td>" in html


def test_a_run_shows_its_latest_pictures(tmp_path):
    html = load_run(runs.write(tmp_path / "a"))._repr_html_()
    assert "3 readings, epoch 0 to 2" in html
    assert len(pictures(html)) == 2  # the grid and the filmstrip


def test_a_run_without_readings_shows_itself(tmp_path):
    html = load_run(runs.write(tmp_path / "a", epochs=()))._repr_html_()
    assert "0 readings" in html and not pictures(html)


def test_names_are_escaped(tmp_path):
    folder = runs.write(tmp_path / "a", name="<i>")
    assert "&lt;i&gt;" in load_run(folder)._repr_html_() and "<i>" not in load_run(folder)._repr_html_()


def test_readings_show_themselves_without_their_probe(tmp_path):
    folder = runs.write(tmp_path / "a")
    for kept in (folder / "xai" / "probes").iterdir():
        kept.unlink()
    run = load_run(folder)
    assert run.probes == {"grad_cam": None}
    assert run.readings["grad_cam"][0].report().pictures and "3 readings" in run._repr_html_()


HEAVY = "{'torch', 'lightning', 'pytorch_lightning', 'lightning_xai.callbacks'}"


@pytest.mark.parametrize(
    "code",
    [
        "run = lightning_xai.load_run(folder); run._repr_html_(); run.readings['grad_cam'][-1].report()",
        "from lightning_xai.cli import main; assert not main(['compare', folder, folder, '--out', folder + '/a.html'])",
    ],
    ids=["notebook", "compare"],
)
def test_showing_a_run_imports_neither_torch_nor_callbacks(tmp_path, code):
    folder = runs.write(tmp_path / "a")
    code = f"import sys, lightning_xai; folder = {str(folder)!r}; {code}; assert not {HEAVY} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_was_measured_is_tensors(tmp_path):
    rows = load_run(runs.write(tmp_path / "a")).readings["grad_cam"][0].measured.rows
    assert {key: tuple(tensor.shape) for key, tensor in rows.items()} == {
        "maps/auto": (4, 6, 6), "prediction": (4,), "confidence": (4,),
    }  # fmt: skip


def test_a_damaged_reading_is_warned_of_and_the_others_are_shown(tmp_path):
    folder = runs.write(tmp_path / "a")
    (folder / "xai" / "grad_cam" / "20-0.npz").write_bytes(b"cut short")
    with pytest.warns(RuntimeWarning, match=r"20-0\.npz cannot be read and is left out"):
        run = load_run(folder)
    assert [reading.step for reading in run.readings["grad_cam"]] == [10, 30]
    html = run._repr_html_()
    assert len(pictures(html)) == 2 and "20-0.npz cannot be read" in html


def test_a_reading_that_is_damaged_after_loading_says_so(tmp_path):
    run = load_run(runs.write(tmp_path / "a"))
    (tmp_path / "a" / "xai" / "grad_cam" / "20-0.npz").write_bytes(b"cut short")
    first, damaged, latest = run.readings["grad_cam"]
    assert "20-0.npz cannot be read" in damaged._repr_html_()
    assert pictures(first._repr_html_()) and pictures(latest._repr_html_()) and len(pictures(run._repr_html_())) == 2


def test_a_damaged_probe_is_none(tmp_path):
    folder = runs.write(tmp_path / "a")
    (kept,) = (folder / "xai" / "probes").iterdir()
    kept.write_bytes(b"cut short")
    assert load_run(folder).probes["grad_cam"] is None
