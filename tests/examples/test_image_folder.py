"""Training on folders of images: layouts, errors, and real pictures where they lie beside the repository."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_xai import load_run

REAL = Path(__file__).parents[3] / "shared" / "data"
TINY = ("--epochs", 1, "--size", 32, "--batch-size", 8)


def fill(folder: Path, number: int, modes: tuple[str, ...] = ("RGB",)) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(number)
    for index in range(number):
        pixels = random.integers(0, 255, (30 + 5 * index, 40, 3), dtype=np.uint8)
        mode = modes[index % len(modes)]
        Image.fromarray(pixels).convert(mode).save(folder / f"{index}.png")


def probe_of(folder: Path):
    return load_run(folder / "runs").probes["grad_cam"]


def test_class_folders_are_split(run_example, tmp_path) -> None:
    for name in ("ant", "bee", "wasp"):
        fill(tmp_path / "insects" / name, 10, modes=("RGB", "L", "RGBA", "P"))
    (tmp_path / "insects" / "ant" / "notes.txt").write_text("no image")
    done = run_example("image_folder.py", "--data", "insects", *TINY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "24 training and 6 validation images of 3 classes" in done.stdout
    assert "tensorboard --logdir runs/insects --samples_per_plugin images=1000" in done.stdout
    assert tuple(probe_of(tmp_path).class_names) == ("ant", "bee", "wasp")


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_held_out_folder_is_taken_as_it_is(call_example, tmp_path, held_out) -> None:
    for part, number in (("train", 6), (held_out, 4)):
        for name in ("ant", "bee"):
            fill(tmp_path / "insects" / part / name, number)
    done = call_example("image_folder.py", "--data", tmp_path / "insects", *TINY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 training and 8 validation images of 2 classes" in done.stdout
    probe = probe_of(tmp_path)
    assert sorted(probe.targets.tolist()) == [0] * 4 + [1] * 4


def test_the_probe_shows_the_pictures_as_they_are(call_example, tmp_path) -> None:
    """Un-normalised for display: one flat colour a class comes back as it was saved."""
    colours = {"blue": (20, 40, 200), "red": (200, 30, 10)}
    for name, colour in colours.items():
        for part in ("train", "val"):
            folder = tmp_path / "flat" / part / name
            folder.mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (40, 40), colour).save(folder / f"{index}.png")
    done = call_example("image_folder.py", "--data", tmp_path / "flat", *TINY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    probe = probe_of(tmp_path)
    for image, target in zip(probe.images(), probe.targets.tolist(), strict=True):
        expected = colours[probe.class_names[target]]
        assert abs(image.float().mean((0, 1)).numpy() - np.array(expected)).max() <= 1


def empty(folder: Path) -> None:
    folder.mkdir()


def one_class(folder: Path) -> None:
    fill(folder / "ant", 3)


def class_without_images(folder: Path) -> None:
    fill(folder / "ant", 3)
    (folder / "bee").mkdir()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, "holds no folders; two or more folders of images are needed, one a class"),
        (one_class, "holds one class, ant; two or more folders of images are needed, one a class"),
        (class_without_images, "has no images of: bee"),
    ],
)
def test_a_folder_that_cannot_be_learned_from_is_named(call_example, tmp_path, make, message) -> None:
    make(tmp_path / "data")
    done = call_example("image_folder.py", "--data", tmp_path / "data", *TINY, folder=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert str(tmp_path / "data") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_folder_is_named(call_example, tmp_path) -> None:
    done = call_example("image_folder.py", "--data", tmp_path / "nowhere", *TINY, folder=tmp_path)
    assert done.returncode != 0
    assert "nowhere is no folder" in done.stderr


def test_an_unreadable_image_is_named(call_example, tmp_path) -> None:
    for name in ("ant", "bee"):
        fill(tmp_path / "data" / name, 5)
    (tmp_path / "data" / "bee" / "2.png").write_bytes(b"not a picture")
    done = call_example("image_folder.py", "--data", tmp_path / "data", *TINY, folder=tmp_path)
    assert done.returncode != 0
    assert "2.png is no image that Pillow can read" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("ants_bees", 64), ("cifar10", 32)])
def test_real_pictures(run_example, tmp_path, name, size) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"no pictures at ../shared/data/{name}, relative to the repository")
    arguments = ("--data", REAL / name, "--epochs", 1, "--size", size)
    done = run_example("image_folder.py", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    probe = probe_of(tmp_path)
    assert len(set(probe.targets.tolist())) == min(len(probe.class_names), len(probe.targets))
