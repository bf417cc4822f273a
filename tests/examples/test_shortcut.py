"""The planted truth: Grad-CAM finds the mark where the network leans on it, and the shape where it does not."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_xai import load_run

TAG = "xai/grad_cam/auto"


@dataclass(frozen=True)
class Trained:
    """What a run printed, where it left its files, and its curves as TensorBoard reads them."""

    output: str
    folder: Path
    events: EventAccumulator

    def curve(self, name: str) -> list[float]:
        return [event.value for event in self.events.Scalars(name)]


def read_events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


@pytest.fixture(scope="module")
def trained(run_example, tmp_path_factory) -> dict[float, Trained]:
    root = tmp_path_factory.mktemp("shortcut")
    runs = {}
    for correlation in (1.0, 0.5):
        done = run_example("shortcut.py", "--correlation", correlation, folder=root)
        assert done.returncode == 0, done.stderr
        folder = root / "runs" / "shortcut" / f"correlation-{correlation}"
        runs[correlation] = Trained(done.stdout, folder, read_events(folder))
    return runs


def test_a_mark_that_always_tells_holds_most_of_the_relevance(trained) -> None:
    run = trained[1.0]
    share = run.curve(f"{TAG}/share/mark")
    assert len(share) == 6
    assert min(share[1:]) > 0.5
    assert run.curve(f"{TAG}/lift/mark")[-1] > 10
    assert run.curve(f"{TAG}/pointing/mark")[-1] == 1.0
    assert run.curve("truth/causal_share_of_mark")[-1] > 0.8
    assert run.curve("truth/accuracy_with_mark")[-1] > 0.95
    assert run.curve("truth/accuracy_without_mark")[-1] < 0.6


def test_a_mark_that_tells_half_of_the_time_is_left_for_the_shape(trained) -> None:
    run = trained[0.5]
    assert run.curve(f"{TAG}/share/mark")[-1] < 0.15
    assert run.curve(f"{TAG}/share/object")[-1] > run.curve(f"{TAG}/share/mark")[-1]
    assert run.curve(f"{TAG}/lift/object")[-1] > 1.5
    assert run.curve("truth/causal_share_of_mark")[-1] < 0.4
    assert run.curve("truth/accuracy_without_mark")[-1] > 0.8


def test_the_share_on_the_mark_follows_the_causal_share(trained) -> None:
    """Over all readings with a trained network: before it knows anything there is nothing to share."""
    shares, causes = (
        torch.tensor([value for run in trained.values() for value in run.curve(name)[1:]])
        for name in (f"{TAG}/share/mark", "truth/causal_share_of_mark")
    )
    assert torch.corrcoef(torch.stack([shares, causes]))[0, 1] > 0.9


def test_both_runs_explain_the_same_images_in_one_logdir(trained) -> None:
    fingerprints = {load_run(run.folder).probes["grad_cam"].fingerprint for run in trained.values()}
    assert len(fingerprints) == 1
    for run in trained.values():
        assert len(run.events.Images(TAG)) == 6
        assert len(list(run.folder.glob("events.out.tfevents.*"))) == 1


def test_the_summary_says_what_was_logged_and_where_to_look(trained) -> None:
    for run in trained.values():
        lines = (line.rsplit(maxsplit=2) for line in run.output.splitlines() if line.startswith("share on"))
        rows = {title: numbers for title, *numbers in lines}
        for place in ("mark", "object"):
            curve = run.curve(f"{TAG}/share/{place}")
            assert rows[f"share on {place}"] == [f"{curve[0]:.2f}", f"{curve[-1]:.2f}"]
        assert "tensorboard --logdir runs/shortcut --samples_per_plugin images=1000" in run.output
        assert "filmstrip.png" in run.output
        with Image.open(run.folder / "filmstrip.png") as picture:
            assert min(picture.size) > 400


def test_running_again_replaces_the_run(run_example, tmp_path) -> None:
    tiny = ("--epochs", 1, "--images", 64)
    folder = tmp_path / "runs" / "shortcut" / "correlation-1.0"
    for again in (False, True):
        done = run_example("shortcut.py", *tiny, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("replacing the earlier run" in done.stdout) == again
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert len(read_events(folder).Scalars(f"{TAG}/share/mark")) == 1


def test_a_folder_of_something_else_is_left_alone(run_example, tmp_path) -> None:
    kept = tmp_path / "runs" / "shortcut" / "correlation-1.0" / "thesis.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("years of work")
    done = run_example("shortcut.py", "--epochs", 1, "--images", 64, folder=tmp_path)
    assert done.returncode != 0
    assert "holds something else than an earlier run: move it, or give --output" in done.stderr
    assert kept.read_text() == "years of work"


def test_wandb_runs_offline(run_example, tmp_path) -> None:
    done = run_example("shortcut.py", "--epochs", 1, "--images", 64, "--logger", "wandb", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/shortcut/*/filmstrip.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--correlation", 2), "--correlation is a probability between 0 and 1, not 2.0"),
        (("--epochs", 0), "--epochs and --images start at 1"),
    ],
)
def test_wrong_settings_are_answered_at_once(run_example, tmp_path, arguments, message) -> None:
    done = run_example("shortcut.py", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
