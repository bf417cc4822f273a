"""Concepts of folders and generated ones, on folders of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_xai import load_run

TINY = ("--epochs", 1, "--size", 32, "--batch-size", 8, "--random-sets", 3)


def fill(folder: Path, number: int, colour: tuple[int, int, int] = (120, 120, 120)) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(number)
    for index in range(number):
        noise = random.integers(-40, 40, (30 + 5 * index % 20, 40, 3))
        Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")


@pytest.fixture
def insects(tmp_path) -> Path:
    for part, number in (("train", 15), ("val", 5)):
        for name in ("ant", "bee", "wasp"):
            fill(tmp_path / "insects" / part / name, number)
    return tmp_path / "insects"


def test_concepts_are_read_from_folders(call_example, tmp_path, insects) -> None:
    for name, colour in {"grassy": (20, 160, 30), "sandy": (200, 180, 120)}.items():
        fill(tmp_path / "concepts" / name, 10, colour)
    arguments = ("--data", insects, "--concepts", "concepts", "--classes", 0, 2, "--layers", "blocks", "stem")
    done = call_example("concepts.py", *arguments, *TINY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    run = load_run(tmp_path / "runs")
    (reading,) = run.readings["tcav"]
    assert sorted(set(run.probes["tcav"].targets.tolist())) == [0, 2]
    scalars = reading.report().scalars
    for name in ("grassy", "sandy"):
        assert f"xai/tcav/blocks/wasp/{name}/effect" in scalars
        assert scalars[f"xai/tcav/stem/cav_accuracy/{name}"] > 0.8
    assert sorted(path.name for path in tmp_path.rglob("tcav-*.png")) == [
        "tcav-blocks-effects.png",
        "tcav-stem-effects.png",
    ]
    assert "tensorboard --logdir runs/insects" in done.stdout


def test_without_concepts_some_are_generated(run_example, tmp_path, insects) -> None:
    done = run_example("concepts.py", "--data", insects, *TINY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "each random set has 15 examples, the smallest concept 50" in done.stdout + done.stderr
    scalars = load_run(tmp_path / "runs" / "insects" / "version_0").readings["tcav"][-1].report().scalars
    assert {tag.split("/")[4] for tag in scalars if tag.endswith("/effect")} == {"stripes", "checks", "red"}


def test_a_folder_without_images_is_named(call_example, tmp_path, insects) -> None:
    (tmp_path / "concepts").mkdir()
    done = call_example("concepts.py", "--data", insects, "--concepts", "concepts", *TINY, folder=tmp_path)
    assert done.returncode != 0
    assert "concepts holds no images, nor folders of images" in done.stderr
    assert "Traceback" not in done.stderr
