"""A vision transformer that may lean on the mark does, and its relevance says so more clearly than its attention."""

from PIL import Image


def test_the_relevance_lies_on_the_mark(run_example, tmp_path) -> None:
    done = run_example("vision_transformer.py", "--epochs", 4, "--images", 1024, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = (line.split() for line in done.stdout.splitlines() if "/share/" in line)
    shares = {name: float(value) for name, value in rows}
    assert shares["relevance/share/mark"] > 0.3
    assert shares["relevance/share/mark"] > 2 * shares["rollout/share/mark"]
    assert shares["relevance/share/mark"] > 3 * shares["relevance/share/object"]
    with Image.open(next(tmp_path.rglob("relevance.png"))) as picture:
        assert min(picture.size) > 300
